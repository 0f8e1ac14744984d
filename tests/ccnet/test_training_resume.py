"""A resumed run ends at the very weights of an uninterrupted one, and a state of another run is refused."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ccnet import CcnetError
from ccnet.stopping import StopRequest, torch_threads
from ccnet.training import train
from ccnet.training_run import TrainingRun
from tests.ccnet.toy_training import DATA, all_tensors, assert_identical, toy_config, toy_data, uninterrupted


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are rounded differently by another number of threads."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def eight_steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The tensors after eight steps of the toy run in one go."""
    with torch_threads(1):
        return uninterrupted(toy_config(), 8, tmp_path_factory.mktemp("whole"))


def without_seconds(history: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """What does not depend on the clock."""
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


@pytest.mark.parametrize("stop_after", [1, 5, 7])
def test_a_run_resumed_at_any_step_ends_at_the_same_weights(
    tmp_path: Path, eight_steps: dict[str, Tensor], stop_after: int
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


def test_a_resumed_ccnet_sees_the_same_sequences_and_ends_at_the_same_weights(tmp_path: Path) -> None:
    config = toy_config(arch="ccnet")
    first = TrainingRun(config, tmp_path, *DATA)
    first.take_step()
    first.save()
    second = TrainingRun(config, tmp_path, *DATA)
    second.restore()
    second.take_step()
    assert_identical(all_tensors(second), uninterrupted(config, 2, tmp_path / "whole"))


def test_the_comparison_notices_one_changed_bit(tmp_path: Path) -> None:
    tensors = uninterrupted(toy_config(), 1, tmp_path)
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    weight = changed["model.head.5.bias"]
    weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    with pytest.raises(AssertionError, match=r"model\.head\.5\.bias"):
        assert_identical(tensors, changed)


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    first = uninterrupted(toy_config(), 1, tmp_path)
    other = uninterrupted(toy_config(seed=4), 1, tmp_path)
    assert not torch.equal(first["model.layers.0.weight"], other["model.layers.0.weight"])


def test_metrics_of_a_stopped_and_resumed_run_are_those_of_a_whole_one(tmp_path: Path) -> None:
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


def test_a_real_signal_stops_after_the_step_with_the_state_saved(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ccnet.training import train\n"
        "from tests.ccnet.toy_training import DATA, toy_config\n"
        "result = train(toy_config(epochs=100_000), sys.argv[2], data=DATA)\n"
        "print('stopped', result.finished, result.steps)\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(root), str(tmp_path / "run")]
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
def test_a_state_of_another_run_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    TrainingRun(toy_config(), tmp_path, *DATA).save()
    with pytest.raises(CcnetError, match=message):
        train(toy_config(**changes), tmp_path, progress=False, data=DATA)


def test_another_data_set_is_refused(tmp_path: Path) -> None:
    TrainingRun(toy_config(), tmp_path, *DATA).save()
    with pytest.raises(CcnetError, match="train_images 20 there and 24 here"):
        train(toy_config(), tmp_path, progress=False, data=(toy_data(24), DATA[1]))


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_damaged_state_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.safetensors"
    TrainingRun(toy_config(), tmp_path, *DATA).save()
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    with pytest.raises(CcnetError, match="damaged or no training state"):
        train(toy_config(), tmp_path, progress=False, data=DATA)


def test_without_resuming_the_old_state_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"damaged")
    assert train(toy_config(epochs=1), tmp_path, progress=False, resume=False, data=DATA).finished
