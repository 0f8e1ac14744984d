"""A training run: it learns, averages, measures and saves; what cannot be trained is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ccnet import CcnetError, DataError
from ccnet.checkpoint import load_checkpoint, read_config
from ccnet.stopping import torch_threads
from ccnet.training import train
from ccnet.training_run import TrainingRun
from tests.ccnet.toy_training import CLASSES, DATA, toy_config


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are rounded differently by another number of threads."""
    with torch_threads(1):
        yield


def test_it_writes_a_measured_checkpoint_and_a_line_an_epoch(tmp_path: Path) -> None:
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


def test_a_ccnet_is_measured_with_ensembles_of_the_distribution_it_was_trained_on(tmp_path: Path) -> None:
    config = toy_config(arch="ccnet", epochs=1, batch_size=20, sequence_std=0.06, pool_size=2)
    result = train(config, tmp_path, progress=False, data=DATA)
    saved = read_config(tmp_path / "checkpoint")
    expected = {"std": 0.06, "method": "corrected", "max_numerator": None, "pool_size": 2}
    assert saved["scale_distribution"] == expected
    assert result.metrics is not None
    assert [row["size"] for row in result.metrics["ensembles"]] == [1, 2, 3, 4, 8]


@pytest.mark.parametrize(("arch", "name"), [("convnet", "ConvNet"), ("blurconvnet", "BlurConvNet")])
def test_every_baseline_trains_and_loads_as_what_it_is(arch: str, name: str, tmp_path: Path) -> None:
    train(toy_config(arch=arch, epochs=1), tmp_path, progress=False, data=DATA)
    assert type(load_checkpoint(tmp_path / "checkpoint").model).__name__ == name


@pytest.mark.parametrize("arch", ["ccnet", "convnet"])
def test_a_run_begins_with_maps_of_variance_one_where_the_recipe_says_so(arch: str, tmp_path: Path) -> None:
    deviations = {}
    for init in ("unit-variance", "default"):
        run = TrainingRun(toy_config(arch=arch, init=init, batch_size=20), tmp_path / init, *DATA)
        layers: Any = run.model.get_submodule("layers")
        layers[4].register_forward_hook(
            lambda _layer, _inputs, out, init=init: deviations.update({init: float(out.detach().std())})
        )
        run.take_step()
    assert deviations["unit-variance"] == pytest.approx(1, abs=0.01)
    assert deviations["default"] < 0.2


def test_the_averaged_weights_are_saved(tmp_path: Path) -> None:
    run = TrainingRun(toy_config(), tmp_path, *DATA)
    run.take_step()
    assert run.average is not None
    run.average.get_parameter("head.5.bias").fill_(0.5)
    run.write_checkpoint(tmp_path / "net")
    loaded = load_checkpoint(tmp_path / "net").model.get_parameter("head.5.bias")
    torch.testing.assert_close(loaded.data, torch.full((10,), 0.5))


def test_the_average_follows_the_weights_by_its_decay(tmp_path: Path) -> None:
    run = TrainingRun(toy_config(ema_decay=0.05), tmp_path, *DATA)
    assert run.average is not None
    before = run.average.get_parameter("head.1.weight").clone()
    run.take_step()
    now = run.model.get_parameter("head.1.weight").detach()
    expected = 0.05 * before + 0.95 * now
    torch.testing.assert_close(run.average.get_parameter("head.1.weight").data, expected)


def test_it_learns_what_can_be_learned(tmp_path: Path) -> None:
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


def test_a_loss_that_is_not_finite_names_the_step(tmp_path: Path) -> None:
    run = TrainingRun(toy_config(), tmp_path, *DATA)
    run.take_step()
    torch.nn.init.constant_(run.model.get_parameter("head.5.bias"), float("nan"))
    with pytest.raises(CcnetError, match=r"loss of step 1 is nan: training has diverged"):
        run.take_step()


def test_too_few_images_for_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="20 training images fill no batch of 21"):
        train(toy_config(batch_size=21), tmp_path, progress=False, data=DATA)


@pytest.mark.parametrize("changes", [{"device": "quantum"}, {"device": "cuda:x"}, {"threads": 0}], ids=str)
def test_a_device_or_threads_that_are_not_there_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(CcnetError, match=r"device|threads"):
        train(toy_config(**changes), tmp_path, progress=False, data=DATA)
