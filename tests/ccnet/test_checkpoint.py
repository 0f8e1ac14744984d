"""Checkpoints come back as they were saved, are never half there, and are refused with one clear line when damaged."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ccnet import CCNet, CcnetError, CheckpointError, ConvNet, ScaleSequence, files, sample_scale_sequences
from ccnet.checkpoint import load_checkpoint, read_config, save_checkpoint, write_metrics
from ccnet.preprocessing import Preprocessing

LABELS = tuple("abcdefghij")
PREPROCESSING = Preprocessing(1, (28, 28), (32, 32), (0.25,), (0.5,))
SEQUENCE = ScaleSequence.parse("1 1/2 1 1 1 1 1 1/2")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)
METRICS = {
    "dataset": "fashion-mnist", "split": "test", "n": 1234, "seed": 5, "accuracy": 0.9123, "nll": 0.2345,
    "method": "One pass.", "hardware": "a machine", "versions": {"torch": "9.9"}, "git_commit": "abc", "date": "today",
    "seconds": 7.0,
}  # fmt: skip


def save_convnet(folder: Path, **options: Any) -> ConvNet:
    """A ConvNet with seeded weights in `folder`."""
    torch.manual_seed(0)
    model = ConvNet(1, 10)
    save_checkpoint(model, folder, labels=LABELS, preprocessing=PREPROCESSING, **options)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved ConvNet."""
    save_convnet(tmp_path / "net")
    return tmp_path / "net"


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change config.json in place."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change model.safetensors in place."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


class TestRoundTrip:
    def test_float32_weights_give_the_very_same_logits(self, tmp_path: Path) -> None:
        model = save_convnet(tmp_path / "net", dtype="float32")
        loaded = load_checkpoint(tmp_path / "net")
        x = loaded.preprocess(IMAGES)
        torch.testing.assert_close(loaded.model(x), model(x).detach(), rtol=0, atol=0)

    @pytest.mark.parametrize("kernel_input", ["distance", "offset"])
    def test_a_ccnet_comes_back_with_its_kernel_input(self, tmp_path: Path, kernel_input: Any) -> None:
        torch.manual_seed(0)
        model = CCNet(1, 10, kernel_input=kernel_input)
        save_checkpoint(model, tmp_path / "net", labels=LABELS, preprocessing=PREPROCESSING, dtype="float32")
        loaded = load_checkpoint(tmp_path / "net")
        x = loaded.preprocess(IMAGES)
        torch.testing.assert_close(loaded.model(x, SEQUENCE), model(x, SEQUENCE).detach(), rtol=1e-5, atol=1e-5)

    def test_float16_is_the_default_and_comes_back_as_float32(self, folder: Path) -> None:
        stored = load_file(folder / "model.safetensors")
        loaded = load_checkpoint(folder).model.state_dict()
        assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
        for name, tensor in stored.items():
            torch.testing.assert_close(loaded[name], tensor.float(), rtol=0, atol=0)

    def test_the_model_is_ready_to_classify(self, folder: Path) -> None:
        checkpoint = load_checkpoint(str(folder))
        assert not checkpoint.model.training
        assert not any(parameter.requires_grad for parameter in checkpoint.model.parameters())
        assert (checkpoint.name, checkpoint.labels) == ("net", LABELS)
        assert checkpoint.preprocessing == PREPROCESSING
        assert checkpoint.preprocess([IMAGES[0], IMAGES[1]]).shape == (2, 1, 32, 32)

    def test_loading_leaves_the_random_numbers_of_the_caller_alone(self, folder: Path) -> None:
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        load_checkpoint(folder)
        torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)

    def test_the_config_says_what_the_checkpoint_is(self, tmp_path: Path) -> None:
        save_convnet(tmp_path / "net", name="shoes", data={"dataset": "d", "train_images": 60_000})
        config = read_config(tmp_path / "net")
        assert config["architecture"] == {
            "name": "ConvNet",
            "kwargs": {"in_channels": 1, "classes": 10, "in_size": [32, 32]},
        }
        assert config["name"] == "shoes"
        assert config["weights"] == {"file": "model.safetensors", "dtype": "float16"}
        assert config["parameters"] == sum(p.numel() for p in ConvNet(1, 10).parameters())
        assert config["versions"]["torch"] == torch.__version__
        assert {"git_commit", "created", "scale_distribution", "training", "metrics"} <= config.keys()


class TestCard:
    def test_its_numbers_are_those_of_the_config(self, folder: Path) -> None:
        write_metrics(folder, METRICS)
        card = (folder / "README.md").read_text()
        for text in ("1,234 images", "91.23%", "0.2345", "2,613,994 parameters", "Seed 5", "28 x 28 px", "a, b, c"):
            assert text in card
        assert read_config(folder)["metrics"] == METRICS

    def test_it_has_a_row_for_every_ensemble_size(self, folder: Path) -> None:
        row = {"accuracy_mean": 0.925, "accuracy_std": 0.0012, "nll_mean": 0.2, "nll_std": 0.01}
        write_metrics(folder, METRICS | {"ensembles": [{"size": 1, **row}, {"size": 4, **row, "accuracy_mean": 0.931}]})
        card = (folder / "README.md").read_text()
        assert "| 1 sequence | 92.50% ± 0.12% | 0.2000 ± 0.0100 |" in card
        assert "| 4 sequences | 93.10% ± 0.12% | 0.2000 ± 0.0100 |" in card

    def test_without_metrics_it_says_so(self, folder: Path) -> None:
        assert "None yet" in (folder / "README.md").read_text()

    def test_writing_metrics_leaves_the_weights_alone(self, folder: Path) -> None:
        before = (folder / "model.safetensors").read_bytes()
        write_metrics(folder, METRICS)
        assert (folder / "model.safetensors").read_bytes() == before


class TestAtomic:
    def test_a_failed_save_leaves_the_old_folder_and_nothing_else(self, folder: Path) -> None:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(CheckpointError, match="cannot be written as JSON"):
            write_metrics(folder, METRICS | {"accuracy": float("nan")})
        with pytest.raises(CheckpointError, match="cannot be written as JSON"):
            save_convnet(folder, training={"config": object()})
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert [path.name for path in folder.parent.iterdir()] == ["net"]

    def test_saving_over_a_checkpoint_replaces_all_of_it(self, folder: Path) -> None:
        (folder / "left over").write_text("from before")
        save_convnet(folder)
        assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
        assert [path.name for path in folder.parent.iterdir()] == ["net"]

    def test_it_is_replaced_where_the_system_cannot_exchange_folders(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
        save_convnet(folder, name="second")
        assert load_checkpoint(folder).name == "second"
        assert [path.name for path in folder.parent.iterdir()] == ["net"]

    def test_a_process_killed_while_saving_leaves_a_complete_checkpoint_and_state(self, tmp_path: Path) -> None:
        script = Path(__file__).with_name("kill_while_saving.py")
        finished = subprocess.run(
            [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=90, check=False
        )
        assert finished.returncode == 0, finished.stderr
        outcome = json.loads(finished.stdout.splitlines()[-1])
        assert outcome["kills"] == 12
        assert outcome["killed_in_the_middle"] > 0, "no kill hit a save: the test shows nothing"


class TestDamage:
    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"no checkpoint folder .*nothing-here"):
            load_checkpoint(tmp_path / "nothing-here")

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_missing_file_is_named(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=f"has no {name}"):
            load_checkpoint(folder)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not valid JSON"),
            (b"{", "not valid JSON"),
            (b"\xff\xfe", "not valid JSON"),
            (b"[" * 100_000, "not valid JSON"),
            (b"[]", "holds a list"),
            (b"{}", "has no 'format'"),
        ],
        ids=["empty", "cut short", "not UTF-8", "too deep", "a list", "an empty object"],
    )
    def test_a_config_that_is_none_is_refused(self, folder: Path, content: bytes, message: str) -> None:
        (folder / "config.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(folder)

    @pytest.mark.parametrize("key", ["format", "format_version", "name", "architecture", "labels", "preprocessing"])
    def test_a_config_without_a_needed_key_is_refused(self, folder: Path, key: str) -> None:
        edit_config(folder, lambda config: config.pop(key))
        with pytest.raises(CheckpointError, match=f"has no '{key}'"):
            load_checkpoint(folder)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"labels": "abc"}, "'labels' is 'abc', which is no list"),
            ({"labels": []}, "list of names"),
            ({"labels": [1, 2]}, "list of names"),
            ({"labels": ["a", "b"]}, "2 labels.*10 classes"),
            ({"name": 5}, "'name' is 5, which is no str"),
            ({"architecture": []}, "'architecture' is .*, which is no dict"),
            ({"architecture": {"name": "ResNet", "kwargs": {}}}, "architecture 'ResNet'; known are CCNet, ConvNet"),
            ({"architecture": {"name": ["CCNet"], "kwargs": {}}}, "unknown architecture"),
            ({"architecture": {"name": "ConvNet"}}, "'kwargs' of the architecture is None"),
            ({"architecture": {"name": "ConvNet", "kwargs": {"depth": 3}}}, "no ConvNet can be built"),
            ({"architecture": {"name": "ConvNet", "kwargs": {"in_size": [30, 30]}}}, "no ConvNet can be built"),
            ({"architecture": {"name": "ConvNet", "kwargs": {"classes": "ten"}}}, "no ConvNet can be built"),
            ({"architecture": {"name": "ConvNet", "kwargs": {"classes": 10**12}}}, "above 4,096"),
            ({"architecture": {"name": "CCNet", "kwargs": {"in_channels": 1, "hidden": [16, 10**9]}}}, "above 4,096"),
            ({"preprocessing": {"channels": 1}}, "preprocessing must be an object with exactly"),
            ({"format": "other"}, "reads ccnet-checkpoint version 1"),
            ({"format_version": 2}, "version 2; this program reads"),
        ],
        ids=str,
    )  # fmt: skip
    def test_a_config_with_a_wrong_value_is_refused(self, folder: Path, change: dict[str, Any], message: str) -> None:
        edit_config(folder, lambda config: config.update(change))
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(folder)

    def test_a_wrong_shape_is_named_with_both_shapes(self, folder: Path) -> None:
        edit_weights(folder, lambda weights: weights.update({"head.5.bias": torch.zeros(11)}))
        message = r"tensor head.5.bias has shape \[11\]; the network of its config needs \[10\]"
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(folder)

    def test_a_missing_and_an_unexpected_tensor_are_named(self, folder: Path) -> None:
        edit_weights(folder, lambda weights: weights.update({"extra.weight": torch.zeros(1)}))
        with pytest.raises(CheckpointError, match=r"has a tensor extra\.weight"):
            load_checkpoint(folder)
        edit_weights(folder, lambda weights: (weights.pop("extra.weight"), weights.pop("layers.3.bias")))
        with pytest.raises(CheckpointError, match=r"has no tensor layers\.3\.bias"):
            load_checkpoint(folder)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite_are_refused(self, folder: Path, value: float) -> None:
        edit_weights(folder, lambda weights: weights["layers.0.weight"].view(-1)[5].fill_(value))
        with pytest.raises(CheckpointError, match=r"layers\.0\.weight that are not finite"):
            load_checkpoint(folder)

    def test_integer_weights_are_refused(self, folder: Path) -> None:
        edit_weights(folder, lambda weights: weights.update({"head.5.bias": torch.zeros(10, dtype=torch.int32)}))
        with pytest.raises(CheckpointError, match="floating point is needed"):
            load_checkpoint(folder)

    @pytest.mark.parametrize("damage", ["empty", "half", "one byte", "text", "pickle"])
    def test_a_damaged_weights_file_is_refused(self, folder: Path, damage: str) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        damaged = {
            "empty": b"",
            "half": content[: len(content) // 2],
            "one byte": content[:-1],
            "text": b"weights" * 99,
        }
        if damage == "pickle":
            torch.save({"a": torch.zeros(1)}, path)
        else:
            path.write_bytes(damaged[damage])
        with pytest.raises(CheckpointError, match="damaged or no safetensors file"):
            load_checkpoint(folder)

    @pytest.mark.parametrize("name", ["model.pt", "model.pth", "pytorch_model.bin", "net.pkl"])
    def test_pickles_are_never_loaded(self, folder: Path, name: str) -> None:
        (folder / "model.safetensors").unlink()
        torch.save({"a": torch.zeros(1)}, folder / name)
        for given in (folder, folder / name):
            with pytest.raises(CheckpointError, match=r"pickles are never loaded. Convert .* ccnet.save_checkpoint"):
                load_checkpoint(given)


class TestSaving:
    def test_another_class_of_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="cannot save a Linear; known architectures are CCNet, ConvNet"):
            save_checkpoint(nn.Linear(1, 1), tmp_path / "net", labels=LABELS, preprocessing=PREPROCESSING)

    def test_a_weight_too_large_for_float16_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        model = ConvNet(1, 10)
        nn.init.constant_(model.get_parameter("layers.0.weight"), 1e5)
        with pytest.raises(CheckpointError, match=r"as float16, has values in tensor layers\.0\.weight"):
            save_checkpoint(model, tmp_path / "net", labels=LABELS, preprocessing=PREPROCESSING)
        assert list(tmp_path.iterdir()) == []

    def test_an_unknown_dtype_and_a_wrong_number_of_labels_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="allowed are float16, float32"):
            save_convnet(tmp_path / "net", dtype="int8")
        with pytest.raises(CheckpointError, match="3 labels for a network of 10 classes"):
            save_checkpoint(ConvNet(1, 10), tmp_path / "net", labels=LABELS[:3], preprocessing=PREPROCESSING)


def test_every_refusal_is_an_error_of_the_library(tmp_path: Path) -> None:
    with pytest.raises(CcnetError):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("distribution", "sampler"),
    [
        (None, {}),
        ({}, {}),
        ({"std": 0.03, "method": "corrected", "pool_size": 0}, {"std": 0.03, "method": "corrected"}),
        ({"std": 0.05, "method": "corrected", "max_numerator": None}, {"std": 0.05, "method": "corrected"}),
        ({"method": "conditioned", "max_numerator": 7, "news": 1}, {"method": "conditioned", "max_numerator": 7}),
    ],
    ids=str,
)
def test_a_checkpoint_tells_how_its_sequences_are_drawn(
    tmp_path: Path, distribution: dict[str, Any] | None, sampler: dict[str, Any]
) -> None:
    save_convnet(tmp_path / "net", scale_distribution=distribution)
    found = load_checkpoint(tmp_path / "net").sampler
    assert found == sampler
    assert len(sample_scale_sequences(1, seed=0, **found)) == 1


def test_a_scale_distribution_that_is_no_object_is_refused(tmp_path: Path) -> None:
    save_convnet(tmp_path / "net")
    path = tmp_path / "net" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scale_distribution": "conditioned"}))
    with pytest.raises(CheckpointError, match="'scale_distribution' of net is 'conditioned', which is no object"):
        _ = load_checkpoint(tmp_path / "net").sampler
