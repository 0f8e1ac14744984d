"""A resumed run ends at the very weights of an uninterrupted one, recipes are the paper's, batches are right."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ccnet import CcnetError, DataError
from ccnet.augmentation import TrainingBatches, TrainingSequences, derived_seed
from ccnet.checkpoint import load_checkpoint, read_config
from ccnet.data import ImageDataset
from ccnet.preprocessing import Preprocessing
from ccnet.progress import ProgressReport
from ccnet.recipes import TrainingConfig, learning_rate_at, recipe
from ccnet.stopping import StopRequest, torch_threads
from ccnet.training import train
from ccnet.training_run import TrainingRun
from ccnet.training_state import named_tensors

CLASSES = tuple("abcdefghij")


def toy_data(count: int = 20, seed: int = 0) -> ImageDataset:
    """Images whose brightest row tells the class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, 28, 28, 1), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % 10
    images[np.arange(count), 2 * labels + 4] += 180
    return ImageDataset("toy", "train", images, labels, CLASSES, "memory")


DATA = (toy_data(), toy_data(6, seed=1))


def toy_config(**changes: Any) -> TrainingConfig:
    """Five steps an epoch, two epochs."""
    standard: dict[str, Any] = {
        "arch": "convnet", "dataset": "toy", "epochs": 2, "batch_size": 4, "threads": 1, "device": "cpu", "seed": 3,
    }  # fmt: skip
    return recipe(**standard | changes)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are rounded differently by another number of threads."""
    with torch_threads(1):
        yield


def all_tensors(run: TrainingRun) -> dict[str, Tensor]:
    """Copies of weights, averages and optimiser."""
    return {name: tensor.clone() for name, tensor in named_tensors(run.model, run.average, run.optimizer).items()}


def assert_identical(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Every tensor of the same name, equal to the last bit."""
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), f"{name} differs"


def uninterrupted(config: TrainingConfig, steps: int, folder: Path) -> dict[str, Tensor]:
    """The tensors after `steps` steps in one go."""
    folder.mkdir(exist_ok=True)
    run = TrainingRun(config, folder, *DATA)
    for _ in range(steps):
        run.take_step()
    return all_tensors(run)


@pytest.fixture(scope="module")
def eight_steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The tensors after eight steps of the toy run in one go."""
    with torch_threads(1):
        return uninterrupted(toy_config(), 8, tmp_path_factory.mktemp("whole"))


class TestResume:
    @pytest.mark.parametrize("stop_after", [1, 5, 7])
    def test_a_run_resumed_at_any_step_ends_at_the_same_weights(
        self, tmp_path: Path, eight_steps: dict[str, Tensor], stop_after: int
    ) -> None:
        config = toy_config()
        first = TrainingRun(config, tmp_path, *DATA)
        for _ in range(stop_after):
            first.take_step()
        first.save()
        second = TrainingRun(config, tmp_path, *DATA)
        second.restore()
        assert second.step == stop_after
        assert_identical(all_tensors(first), all_tensors(second))
        while second.step < 8:
            second.take_step()
        assert_identical(all_tensors(second), eight_steps)

    def test_a_resumed_ccnet_sees_the_same_sequences_and_ends_at_the_same_weights(self, tmp_path: Path) -> None:
        config = toy_config(arch="ccnet")
        first = TrainingRun(config, tmp_path, *DATA)
        first.take_step()
        first.save()
        second = TrainingRun(config, tmp_path, *DATA)
        second.restore()
        second.take_step()
        assert_identical(all_tensors(second), uninterrupted(config, 2, tmp_path / "whole"))

    def test_the_comparison_notices_one_changed_bit(self, tmp_path: Path) -> None:
        tensors = uninterrupted(toy_config(), 1, tmp_path)
        changed = {name: tensor.clone() for name, tensor in tensors.items()}
        weight = changed["model.head.5.bias"]
        weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
        with pytest.raises(AssertionError, match=r"model\.head\.5\.bias"):
            assert_identical(tensors, changed)

    def test_another_seed_gives_other_weights(self, tmp_path: Path) -> None:
        first = uninterrupted(toy_config(), 1, tmp_path)
        other = uninterrupted(toy_config(seed=4), 1, tmp_path)
        assert not torch.equal(first["model.layers.0.weight"], other["model.layers.0.weight"])

    def test_metrics_of_a_stopped_and_resumed_run_are_those_of_a_whole_one(self, tmp_path: Path) -> None:
        config = toy_config()
        stop = StopRequest()
        run = TrainingRun(config, tmp_path / "a", *DATA)
        (tmp_path / "a").mkdir()
        for _ in range(3):
            run.take_step()
        stop.requested = True
        run.go_on(stop, progress=False)
        assert (run.step, run.finished) == (3, False)
        resumed = train(config, tmp_path / "a", progress=False, data=DATA)
        whole = train(config, tmp_path / "b", progress=False, data=DATA)
        assert without_seconds(resumed.history) == without_seconds(whole.history)
        assert [entry["epoch"] for entry in whole.history] == [1, 2]

    def test_a_real_signal_stops_after_the_step_with_the_state_saved(self, tmp_path: Path) -> None:
        script = (
            "import sys; sys.path[:0] = sys.argv[1:3]\n"
            "import test_training as t\n"
            "result = t.train(t.toy_config(epochs=100_000), sys.argv[3], data=t.DATA)\n"
            "print('stopped', result.finished, result.steps)\n"
        )
        here = Path(__file__).parent
        command = [sys.executable, "-c", script, str(here.parents[1]), str(here), str(tmp_path / "run")]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("epoch 1 of 100000: loss")
            process.send_signal(signal.SIGTERM)
            last_line = process.stdout.read().splitlines()[-1]
        assert process.returncode == 0
        stopped, finished, steps = last_line.split()
        assert (stopped, finished) == ("stopped", "False")
        config = toy_config(epochs=100_000)
        run = TrainingRun(config, tmp_path / "run", *DATA)
        run.restore()
        assert run.step == int(steps) >= 5
        assert_identical(all_tensors(run), uninterrupted(config, run.step, tmp_path / "whole"))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [({"seed": 9}, "seed 3 there and 9 here"), ({"learning_rate": 0.5}, "learning_rate 0.001 there and 0.5 here")],
    )
    def test_a_state_of_another_run_is_refused(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        TrainingRun(toy_config(), tmp_path, *DATA).save()
        with pytest.raises(CcnetError, match=message):
            train(toy_config(**changes), tmp_path, progress=False, data=DATA)

    def test_another_data_set_is_refused(self, tmp_path: Path) -> None:
        TrainingRun(toy_config(), tmp_path, *DATA).save()
        with pytest.raises(CcnetError, match="train_images 20 there and 24 here"):
            train(toy_config(), tmp_path, progress=False, data=(toy_data(24), DATA[1]))

    @pytest.mark.parametrize("content", [b"", b"text", None])
    def test_a_damaged_state_is_refused(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "state.safetensors"
        TrainingRun(toy_config(), tmp_path, *DATA).save()
        path.write_bytes(path.read_bytes()[:-1] if content is None else content)
        with pytest.raises(CcnetError, match="damaged or no training state"):
            train(toy_config(), tmp_path, progress=False, data=DATA)

    def test_without_resuming_the_old_state_is_ignored(self, tmp_path: Path) -> None:
        (tmp_path / "state.safetensors").write_bytes(b"damaged")
        assert train(toy_config(epochs=1), tmp_path, progress=False, resume=False, data=DATA).finished


def without_seconds(history: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """What does not depend on the clock."""
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


class TestTrain:
    def test_it_writes_a_measured_checkpoint_and_a_line_an_epoch(self, tmp_path: Path) -> None:
        result = train(toy_config(), tmp_path / "run", checkpoint_dir=tmp_path / "net", progress=False, data=DATA)
        assert result.finished
        assert (result.steps, result.checkpoint) == (10, tmp_path / "net")
        lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        assert lines == list(result.history)
        config = read_config(tmp_path / "net")
        assert config["metrics"] == result.metrics
        assert config["metrics"]["n"] == 6
        assert config["training"]["config"]["recipe"] == "fast"
        assert config["data"] == {"dataset": "toy", "train_images": 20, "test_images": 6}
        assert config["scale_distribution"] is None
        assert load_checkpoint(tmp_path / "net").labels == CLASSES

    def test_a_ccnet_is_measured_with_ensembles_of_the_distribution_it_was_trained_on(self, tmp_path: Path) -> None:
        config = toy_config(arch="ccnet", epochs=1, batch_size=20, sequence_std=0.06, pool_size=2)
        result = train(config, tmp_path, progress=False, data=DATA)
        saved = read_config(tmp_path / "checkpoint")
        expected = {"std": 0.06, "method": "corrected", "max_numerator": None, "pool_size": 2}
        assert saved["scale_distribution"] == expected
        assert result.metrics is not None
        assert [row["size"] for row in result.metrics["ensembles"]] == [1, 2, 3, 4, 8]

    def test_the_averaged_weights_are_saved(self, tmp_path: Path) -> None:
        run = TrainingRun(toy_config(), tmp_path, *DATA)
        run.take_step()
        assert run.average is not None
        run.average.get_parameter("head.5.bias").fill_(0.5)
        run.write_checkpoint(tmp_path / "net")
        loaded = load_checkpoint(tmp_path / "net").model.get_parameter("head.5.bias")
        torch.testing.assert_close(loaded.data, torch.full((10,), 0.5))

    def test_the_average_follows_the_weights_by_its_decay(self, tmp_path: Path) -> None:
        run = TrainingRun(toy_config(ema_decay=0.05), tmp_path, *DATA)
        assert run.average is not None
        before = run.average.get_parameter("head.1.weight").clone()
        run.take_step()
        now = run.model.get_parameter("head.1.weight").detach()
        expected = 0.05 * before + 0.95 * now
        torch.testing.assert_close(run.average.get_parameter("head.1.weight").data, expected)

    def test_it_learns_what_can_be_learned(self, tmp_path: Path) -> None:
        config = toy_config(epochs=14, batch_size=10, learning_rate=2e-3, flip="none", crop_padding=0)
        run = TrainingRun(config, tmp_path, *DATA)
        while not run.finished:
            run.take_step()
        before, last = run.epoch_totals.loss, run.step
        run.epoch_totals = type(run.epoch_totals)()
        run.step = 0
        run.take_step()
        assert last == 28
        assert run.epoch_totals.loss < before
        assert run.epoch_totals.accuracy == 1.0

    def test_a_loss_that_is_not_finite_names_the_step(self, tmp_path: Path) -> None:
        run = TrainingRun(toy_config(), tmp_path, *DATA)
        run.take_step()
        torch.nn.init.constant_(run.model.get_parameter("head.5.bias"), float("nan"))
        with pytest.raises(CcnetError, match=r"loss of step 1 is nan: training has diverged"):
            run.take_step()

    def test_too_few_images_for_a_batch_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="20 training images fill no batch of 21"):
            train(toy_config(batch_size=21), tmp_path, progress=False, data=DATA)

    @pytest.mark.parametrize("changes", [{"device": "quantum"}, {"device": "cuda:x"}, {"threads": 0}], ids=str)
    def test_a_device_or_threads_that_are_not_there_are_refused(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        with pytest.raises(CcnetError, match=r"device|threads"):
            train(toy_config(**changes), tmp_path, progress=False, data=DATA)


class TestBatches:
    def batches(self, **changes: Any) -> TrainingBatches:
        plain = Preprocessing(1, (28, 28), (32, 32), (0.0,), (1 / 255,))
        return TrainingBatches(DATA[0], plain, toy_config(**changes), torch.device("cpu"))

    def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(self) -> None:
        batches = self.batches(flip="none", crop_padding=0)
        expected = np.pad(DATA[0].images[..., 0], ((0, 0), (2, 2), (2, 2))).astype(np.float32)
        orders = []
        for epoch in range(2):
            shown = torch.cat([batches.batch(step)[0][:, 0] for step in range(epoch * 5, epoch * 5 + 5)])
            orders.append([int(np.flatnonzero((expected == image.numpy()).all((1, 2)))[0]) for image in shown])
        assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
        assert orders[0] != orders[1]

    def test_labels_stay_with_their_images(self) -> None:
        images, labels = self.batches(flip="none", crop_padding=0).batch(2)
        assert [(int(image[0].sum(1).argmax()) - 6) // 2 for image in images] == labels.tolist()

    def test_crops_are_shifts_by_at_most_the_padding_with_black_around(self) -> None:
        batches = self.batches(flip="none", crop_padding=2)
        expected = np.pad(DATA[0].images[..., 0], ((0, 0), (4, 4), (4, 4)))
        windows = {
            expected[image, top : top + 32, left : left + 32].astype(np.float32).tobytes(): (top, left)
            for image in range(20) for top in range(5) for left in range(5)
        }  # fmt: skip
        shifts = [windows[image.numpy().tobytes()] for step in range(30) for image in batches.batch(step)[0]]
        assert {top for top, _ in shifts} == {left for _, left in shifts} == {0, 1, 2, 3, 4}
        assert any(top != left for top, left in shifts)

    def test_alternating_flips_show_every_image_both_ways_in_two_epochs(self) -> None:
        flipped = self.batches(flip="alternating", crop_padding=0)
        plain = self.batches(flip="none", crop_padding=0)
        mirrored: list[set[bytes]] = [set(), set()]
        for step in range(10):
            for image, original in zip(flipped.batch(step)[0], plain.batch(step)[0], strict=True):
                if not torch.equal(image, original):
                    torch.testing.assert_close(image, original.flip(-1), rtol=0, atol=0)
                    mirrored[step // 5].add(original.numpy().tobytes())
        assert not mirrored[0] & mirrored[1]
        assert len(mirrored[0]) + len(mirrored[1]) == 20
        assert 0 < len(mirrored[0]) < 20

    def test_random_flips_mirror_about_half(self) -> None:
        flipped, plain = self.batches(flip="random", crop_padding=0), self.batches(flip="none", crop_padding=0)
        count = sum(
            not torch.equal(a, b)
            for step in range(50)
            for a, b in zip(flipped.batch(step)[0], plain.batch(step)[0], strict=True)
        )
        assert 70 <= count <= 130  # of 200, +-4 standard deviations

    def test_images_larger_than_the_input_are_refused(self) -> None:
        small = Preprocessing(1, (16, 16), (16, 16), (0.0,), (1.0,))
        with pytest.raises(DataError, match="larger than the input"):
            TrainingBatches(DATA[0], small, toy_config(), torch.device("cpu"))


class TestSequences:
    def test_every_step_has_a_valid_sequence_of_its_own(self) -> None:
        sequences = TrainingSequences(toy_config(), (32, 32))
        drawn = [sequences.at(step) for step in range(20)]
        for sequence in drawn:
            sequence.require_valid()
        assert len(set(drawn)) == 20
        assert drawn == [TrainingSequences(toy_config(), (32, 32)).at(step) for step in range(20)]

    def test_they_are_drawn_as_the_config_says(self) -> None:
        config = toy_config(sequence_method="conditioned", sequence_max_numerator=7)
        sequences = TrainingSequences(config, (32, 32))
        drawn = [scale for step in range(20) for pair in sequences.at(step).scales for scale in pair]
        assert max(scale.denominator for scale in drawn) <= 10
        assert max(scale.numerator for scale in drawn) == 7

    def test_a_pool_limits_them(self) -> None:
        sequences = TrainingSequences(toy_config(pool_size=3), (32, 32))
        assert len({sequences.at(step) for step in range(50)}) == 3


class TestRecipes:
    def test_the_paper_recipe_is_that_of_appendix_a_2(self) -> None:
        for arch, rate, milestones in (("ccnet", 5e-4, (200, 300)), ("convnet", 1e-3, (150, 250))):
            config = recipe("paper", arch)
            assert (config.optimizer, config.weight_decay, config.batch_size) == ("adam", 5e-4, 64)
            assert (config.epochs, config.learning_rate, config.milestones) == (400, rate, milestones)
            assert (config.crop_padding, config.flip, config.label_smoothing) == (4, "random", 0)
            assert (config.ema_decay, config.gradient_clip, config.pool_size) == (0, 0, 0)

    def test_its_learning_rate_falls_by_ten_at_each_milestone(self) -> None:
        config = recipe("paper", "ccnet")
        rates = [learning_rate_at(config, epoch * 10, 10) for epoch in (0, 199, 200, 299, 300, 399)]
        assert rates == pytest.approx([5e-4, 5e-4, 5e-5, 5e-5, 5e-6, 5e-6])
        assert learning_rate_at(config, 1999, 10) == 5e-4

    def test_one_cycle_rises_linearly_then_falls_to_almost_zero(self) -> None:
        config = recipe("fast", epochs=10)
        rates = [learning_rate_at(config, step, 100) for step in range(1000)]
        assert max(rates) == rates[149] == config.learning_rate
        assert np.diff(rates[:150]) == pytest.approx(np.full(149, config.learning_rate / 150))
        assert (np.diff(rates[149:]) < 0).all()
        assert 0 < rates[-1] < 1e-4 * config.learning_rate

    def test_none_keeps_the_value_of_the_preset(self) -> None:
        assert recipe("paper", epochs=None, seed=None).epochs == 400

    def test_a_config_survives_json(self) -> None:
        config = recipe("paper", "convnet", data_dir="x", sequence_method="conditioned", sequence_max_numerator=9)
        assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"arch": "vgg"}, "arch 'vgg'; allowed are ccnet, convnet"),
            ({"recipe": "slow"}, "recipe 'slow'; allowed are fast, paper"),
            ({"epochs": 0}, "at least 1"),
            ({"batch_size": -3}, "at least 1"),
            ({"seed": -1}, "at least 0"),
            ({"label_smoothing": 1.0}, "from 0 to below 1"),
            ({"ema_decay": float("nan")}, "from 0 to below 1"),
            ({"learning_rate": 0.0}, "must be above 0"),
            ({"learning_rate": float("nan")}, "must be above 0"),
            ({"warmup_share": 1.5}, "from 0 to below 1"),
            ({"sequence_method": "best"}, "sequence_method 'best'; allowed are corrected, conditioned"),
            ({"sequence_max_numerator": 7}, "7 with sequence_method 'corrected'; .* with 'conditioned'"),
            ({"sequence_max_numerator": 0, "sequence_method": "conditioned"}, "numbers from 1"),
        ],
        ids=str,
    )
    def test_values_out_of_range_are_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(CcnetError, match=message):
            replace(recipe(), **changes)

    def test_an_unknown_option_lists_the_known_ones(self) -> None:
        with pytest.raises(CcnetError, match=r"unknown training option.*\['momentum'\]; known are"):
            recipe(momentum=0.9)


def test_derived_seeds_are_fixed_for_ever_and_differ() -> None:
    assert derived_seed(0, "order", 0) == 1829853113658518448
    seeds = {derived_seed(seed, purpose, index) for seed in range(3) for purpose in ("a", "b") for index in range(50)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_log_file_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressReport("work", 10, every_s=0.0) as report:
        report.advance(5, "loss 1.0")
        report.line("an epoch")
    with ProgressReport("silent", 10, every_s=0.0, enabled=False) as report:
        report.advance(5)
        report.line("nothing")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("work: 5 of 10 (50.0%)  loss 1.0")
    assert lines[1:] == ["an epoch"]
