"""The command line as a user meets it: what each verb prints, JSON that parses, one line for what cannot be right."""

import contextlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from ccnet import CCNet, ConvNet, ScaleEnsemble, __version__, load_checkpoint, sample_scale_sequences, save_checkpoint
from ccnet.checkpoint import Checkpoint, read_config
from ccnet.cli import app
from ccnet.cli_runs import measure_shifts, run_members
from ccnet.cli_support import print_table
from ccnet.data import FASHION_MNIST_CLASSES, load_dataset
from ccnet.equivariance import noise_images, table1
from ccnet.preprocessing import Preprocessing

DATA = Path(__file__).parents[1] / "data"
SAMPLE = ("--data-dir", str(DATA))
VERBS = ("serve", "classify", "sequences", "probe", "train", "evaluate", "bench", "models")
DISTRIBUTION = {"std": 0.03, "method": "corrected", "pool_size": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints as `ccnet train` writes them, of untrained networks."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(20061120)
    for name, network in (("tiny-ccnet", CCNet(1, 10)), ("tiny-convnet", ConvNet(1, 10))):
        save_checkpoint(
            network,
            folder / name,
            labels=FASHION_MNIST_CLASSES,
            preprocessing=Preprocessing(1, (28, 28), (32, 32), (0.219,), (0.332,)),
            scale_distribution=DISTRIBUTION if isinstance(network, CCNet) else None,
            data={"dataset": "fashion-mnist-sample"},
        )
    return folder


@pytest.fixture(autouse=True)
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoints of the tests and no other setting of whoever runs them."""
    for name in list(os.environ):
        if name.startswith("CCNET_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CCNET_CHECKPOINTS", str(folder))


@pytest.fixture(scope="module")
def ccnet(folder: Path) -> Checkpoint:
    return load_checkpoint(folder / "tiny-ccnet")


@pytest.fixture(scope="module")
def convnet(folder: Path) -> Checkpoint:
    return load_checkpoint(folder / "tiny-convnet")


@pytest.fixture
def shoes(tmp_path: Path) -> list[Path]:
    """Two test images as files."""
    images = load_dataset("fashion-mnist-sample", "test", DATA).images[:2]
    paths = [tmp_path / f"shoe-{index}.png" for index in range(2)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    return paths


def run(*arguments: object) -> Result:
    """`ccnet ARGUMENTS`, in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="ccnet")


def said(*arguments: object) -> str:
    """What a call that succeeds prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def parsed(*arguments: object) -> Any:
    """The JSON that a call prints, and nothing beside it."""
    return json.loads(said(*arguments, "--json"))


def assert_refused(result: Result, *words: str) -> None:
    """Exit status 2, and one line on stderr with these words; nothing on stdout."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    line = result.stderr
    assert line.startswith("ccnet: ")
    assert line.count("\n") == 1
    assert line.endswith("\n")
    for word in words:
        assert word in line


class TestHelp:
    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_explains_itself_and_its_options(self, verb: str) -> None:
        text = said(verb, "--help")
        assert f"ccnet {verb}" in text
        assert said(verb, "-h") == text

    def test_the_verbs_are_those(self) -> None:
        text = said("--help")
        for verb in VERBS:
            assert f" {verb} " in text

    def test_the_version(self) -> None:
        assert said("--version") == f"{__version__}\n"

    def test_without_a_verb_help_is_shown_with_status_2(self) -> None:
        result = run()
        assert result.exit_code == 2
        assert "classify" in result.output


class TestClassify:
    def test_it_answers_what_the_library_does_with_the_checkpoint_s_own_sequences(
        self, shoes: list[Path], ccnet: Checkpoint
    ) -> None:
        answer = parsed("classify", *shoes, "-k", 3, "--seed", 5, "--top", 2)
        x = ccnet.preprocess(load_dataset("fashion-mnist-sample", "test", DATA).images[:2])
        expected = ScaleEnsemble(ccnet.model, std=DISTRIBUTION["std"])(x, size=3, seed=5)  # type: ignore[arg-type]
        assert (answer["model"], answer["ensemble_size"], answer["seed"]) == ("tiny-ccnet", 3, 5)
        for index, (path, result) in enumerate(zip(shoes, answer["results"], strict=True)):
            values, classes = expected.logits[index].softmax(0).topk(2)
            assert result["picture"] == str(path)
            assert [best["label"] for best in result["top"]] == [ccnet.labels[c] for c in classes.tolist()]
            assert [best["probability"] for best in result["top"]] == pytest.approx(values.tolist(), abs=1e-5)
            assert (result["label"], result["probability"]) == tuple(result["top"][0].values())
            assert result["agreement"] == pytest.approx(float(expected.agreement[index]))

    def test_it_prints_a_table(self, shoes: list[Path]) -> None:
        text = said("classify", *shoes, "-k", 2, "--seed", 5)
        assert "tiny-ccnet, 2 members, seed 5" in text

    def test_a_seed_that_is_not_given_is_drawn_and_shown(self, shoes: list[Path]) -> None:
        first, second = (parsed("classify", shoes[0], "-k", 1) for _ in range(2))
        assert first["seed"] != second["seed"]
        assert parsed("classify", shoes[0], "-k", 1, "--seed", first["seed"])["results"] == first["results"]

    def test_a_convnet_has_one_member(self, shoes: list[Path], convnet: Checkpoint) -> None:
        answer = parsed("classify", shoes[0], "-c", "tiny-convnet")
        assert answer["ensemble_size"] == 1
        x = convnet.preprocess(load_dataset("fashion-mnist-sample", "test", DATA).images[:1])
        assert answer["results"][0]["probability"] == pytest.approx(float(convnet.model(x).softmax(1).max()), abs=1e-5)
        assert parsed("classify", shoes[0], "-c", "tiny-convnet", "-k", 1)["results"] == answer["results"]

    def test_a_convnet_does_not_ignore_k(self, shoes: list[Path]) -> None:
        assert_refused(run("classify", shoes[0], "-c", "tiny-convnet", "-k", 4), "-k 4", "ConvNet", "leave -k out")

    def test_a_checkpoint_is_found_by_its_folder_by_its_name_and_by_the_environment(
        self, shoes: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for given in (folder / "tiny-convnet", "tiny-convnet"):
            assert parsed("classify", shoes[0], "-c", given)["model"] == "tiny-convnet"
        monkeypatch.setenv("CCNET_MODEL", "tiny-convnet")
        assert parsed("classify", shoes[0])["model"] == "tiny-convnet"

    def test_names_with_brackets_are_shown_as_they_are(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_table("[/bold] title", ("name",), [("shoe[red][/blue].png",)])
        shown = capsys.readouterr().out
        assert "[/bold] title" in shown
        assert "shoe[red][/blue].png" in shown

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["-k", 0], ["'0' was given", "1 to 64"]),
            (["-k", -1], ["'-1' was given"]),
            (["-k", "two"], ["'two' was given"]),
            (["-k", 10_000], ["'10000' was given", "1 to 64"]),
            (["--seed", "text"], ["--seed", "'text' was given", "0 or more"]),
            (["--seed", -1], ["'-1' was given"]),
            (["--top", 0], ["--top", "1 or more"]),
            (["--device", "tpu"], ["'tpu'", "'auto', 'cpu', 'cuda' and 'cuda:NUMBER'"]),
            (["--device", "meta"], ["'meta'", "'auto', 'cpu', 'cuda' and 'cuda:NUMBER'"]),
            (["-c", "nosuch"], ["no checkpoint 'nosuch'", "tiny-ccnet, tiny-convnet", "CCNET_CHECKPOINTS"]),
            (["--colour"], ["No such option", "ccnet classify --help"]),
        ],
        ids=str,
    )
    def test_bad_options_are_refused_in_one_line(
        self, shoes: list[Path], options: list[object], words: list[str]
    ) -> None:
        assert_refused(run("classify", shoes[0], *options), *words)

    def test_what_is_no_picture_is_named(self, tmp_path: Path, shoes: list[Path]) -> None:
        text = tmp_path / "text.png"
        text.write_text("This is a text file.")
        assert_refused(run("classify", shoes[0], text), "text.png", "PNG, JPEG or WebP")
        cut = tmp_path / "cut.png"
        cut.write_bytes(shoes[0].read_bytes()[:200])
        assert_refused(run("classify", cut), "cut.png", "damaged or truncated")
        assert_refused(run("classify", tmp_path / "none.png"), "none.png", "No such file")
        assert_refused(run("classify", tmp_path), "Is a directory")
        assert_refused(run("classify"), "Missing argument", "ccnet classify --help")

    def test_pickles_and_damaged_checkpoints_are_never_loaded(self, tmp_path: Path, shoes: list[Path]) -> None:
        pickle = tmp_path / "model.pt"
        pickle.write_bytes(b"\x80\x04.")
        assert_refused(run("classify", shoes[0], "-c", pickle), "model.pt is a pickle")
        (tmp_path / "empty").mkdir()
        assert_refused(run("classify", shoes[0], "-c", tmp_path / "empty"), "no config.json")

    def test_without_any_checkpoint_it_says_how_to_get_one(
        self, tmp_path: Path, shoes: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CCNET_CHECKPOINTS", str(tmp_path))
        assert_refused(run("classify", shoes[0]), "no checkpoint of a CCNet", "there are: none", "ccnet train")


class TestSequences:
    def test_they_are_the_sampler_s_with_their_sizes(self) -> None:
        answer = parsed("sequences", "-k", 2, "--seed", 3, "--std", 0.1, "--in-size", 16)
        drawn = sample_scale_sequences(2, seed=3, std=0.1, in_size=(16, 16))
        assert answer["seed"] == 3
        for told, sequence in zip(answer["sequences"], drawn, strict=True):
            assert told["vertical"] == [str(scale) for scale in sequence.vertical]
            assert told["horizontal"] == [str(scale) for scale in sequence.horizontal]
            assert [tuple(size) for size in told["shapes"]] == list(sequence.shapes((16, 16)))

    def test_they_may_be_conditioned_on_the_product_with_small_numerators(self) -> None:
        answer = parsed("sequences", "-k", 3, "--seed", 3, "--method", "conditioned", "--max-numerator", 7)
        drawn = sample_scale_sequences(3, seed=3, method="conditioned", max_numerator=7)
        assert [told["vertical"] for told in answer["sequences"]] == [[str(s) for s in q.vertical] for q in drawn]

    def test_the_table_has_every_layer(self) -> None:
        text = said("sequences", "-k", 1, "--seed", 3)
        assert "sequence 1 of 1, seed 3" in text
        assert "32, 32" in text
        assert "8, 8" in text

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["-k", 0], ["'0' was given"]),
            (["--in-size", 30], ["30 px", "multiple of 4"]),
            (["--in-size", 0], ["4 to 4,096"]),
            (["--std", "nan"], ["std is a finite number"]),
            (["--std", -1], ["at least 0"]),
            (["--method", "best"], ['"corrected"', '"conditioned"', "got 'best'"]),
            (["--max-numerator", 0], ["'0' was given", "1 or more"]),
            (["--max-numerator", 7], ["max_numerator=7", "leave max_numerator out"]),
            (["--method", "conditioned", "--std", 0], ["no product of 7 scales out of 1 is exactly 1/4"]),
        ],
        ids=str,
    )
    def test_bad_options_are_refused_in_one_line(self, options: list[object], words: list[str]) -> None:
        assert_refused(run("sequences", *options), *words)


class TestProbe:
    def test_noise_is_measured_as_the_library_does_and_0_enters(self, ccnet: Checkpoint) -> None:
        (answer,) = parsed("probe", "--max-shift", "1,3", "--samples", 2, "--seed", 2)
        members = sample_scale_sequences(8, seed=2, std=DISTRIBUTION["std"])  # type: ignore[arg-type]
        rows = table1(ccnet.model, noise_images(2, (1, 32, 32), 2), (1, 3), sequences=members, seed=2)
        assert (answer["model"], answer["input"]) == ("tiny-ccnet", "noise")
        assert answer["rows"] == json.loads(json.dumps([row.row() for row in rows]))
        assert answer["protocol"]["fill"] == 0
        assert "noise" in answer["protocol"]["fill_means"]

    def test_pictures_are_shifted_on_black(self, convnet: Checkpoint) -> None:
        options = ("-c", "tiny-convnet", "--input", "fashion-mnist-sample", *SAMPLE, "--max-shift", 2, "--samples", 5)
        (answer,) = parsed("probe", *options)
        images = convnet.preprocess(load_dataset("fashion-mnist-sample", "test", DATA).images[:5])
        black = convnet.preprocessing.black
        rows = table1(convnet.model, images, (2,), seed=0, fill=black)
        assert answer["rows"] == json.loads(json.dumps([row.row() for row in rows]))
        assert answer["protocol"]["fill"] == list(black)
        assert "black" in answer["protocol"]["fill_means"]

    def test_checkpoints_are_compared_under_what_they_were_called(self, folder: Path) -> None:
        """Two runs may hold checkpoints of one name; neither row may be lost."""
        text = said("probe", "-c", "tiny-convnet", "-c", folder / "tiny-convnet", "--max-shift", 1, "--samples", 2)
        assert text.count("±1") == 2
        answers = parsed("probe", "-c", "tiny-convnet", "-c", folder / "tiny-convnet", "--max-shift", 1, "--samples", 2)
        assert [answer["model"] for answer in answers] == ["tiny-convnet", str(folder / "tiny-convnet")]

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--max-shift", "a,b"], ["max shifts", "'a,b'", '"2,4,6"']),
            (["--max-shift", "2.5"], ["'2.5'"]),
            (["--max-shift", "40"], ["40", "0 to 31"]),
            (["--samples", 0], ["--samples", "1 or more"]),
            (["--input", "cats"], ["unknown data set 'cats'", "fashion-mnist"]),
            (["--input", "fashion-mnist-sample"], ["--data-dir"]),
            (["--input", "fashion-mnist-sample", *SAMPLE, "--samples", 501], ["501", "has 500 images"]),
        ],
        ids=str,
    )
    def test_bad_options_are_refused_in_one_line(self, options: list[object], words: list[str]) -> None:
        assert_refused(run("probe", "-c", "tiny-convnet", *options), *words)


class TestEvaluate:
    def test_it_measures_as_asked_and_writes_the_card_when_told(self, folder: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in ("config.json", "model.safetensors"):
            (copy / name).write_bytes((folder / "tiny-ccnet" / name).read_bytes())
        options = (copy, *SAMPLE, "--limit", 6, "--sizes", "1,2", "--draws", 2, "--pool", 3)
        metrics = parsed("evaluate", *options)
        assert (metrics["n"], metrics["dataset"], len(metrics["sequences"])) == (6, "fashion-mnist-sample", 3)
        assert [row["size"] for row in metrics["ensembles"]] == [1, 2]
        assert "the nearer k is to 3, the more the std understates" in metrics["method"]
        assert read_config(copy)["metrics"] is None
        text = said("evaluate", *options, "--write")
        assert "tiny-ccnet on 6 images" in " ".join(text.split())
        written = read_config(copy)["metrics"]
        assert written["ensembles"] == metrics["ensembles"]
        assert metrics["method"] in (copy / "README.md").read_text()

    def test_a_convnet_is_measured_with_one_pass_and_has_no_sizes(self) -> None:
        assert "ensembles" not in parsed("evaluate", "tiny-convnet", *SAMPLE, "--limit", 6)
        assert "%" in said("evaluate", "tiny-convnet", *SAMPLE, "--limit", 6)
        for options in (["--sizes", "1,2"], ["--pool", 20]):
            assert_refused(run("evaluate", "tiny-convnet", *SAMPLE, *options), "takes no scale sequences")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--sizes", "a"], ["ensemble sizes", "'a'"]),
            (["--sizes", "0,2"], ["each 1 or more"]),
            (["--pool", 2], ["a pool of 2 sequences", "need 10"]),
            (["--draws", 0], ["--draws", "1 or more"]),
            (["--limit", "all"], ["'all' was given"]),
            (["--dataset", "imagenet"], ["unknown data set 'imagenet'"]),
        ],
        ids=str,
    )
    def test_bad_options_are_refused_in_one_line(self, options: list[object], words: list[str]) -> None:
        assert_refused(run("evaluate", "tiny-ccnet", *SAMPLE, *options), *words)

    def test_a_card_that_names_no_data_set_asks_for_one(self, tmp_path: Path) -> None:
        preprocessing = Preprocessing(1, (28, 28), (32, 32), (0.2,), (0.3,))
        save_checkpoint(ConvNet(1, 10), tmp_path / "bare", labels=FASHION_MNIST_CLASSES, preprocessing=preprocessing)
        assert_refused(run("evaluate", tmp_path / "bare"), "names no data set", "--dataset")


class TestModels:
    def test_the_checkpoints_at_hand_are_listed(self) -> None:
        assert [model["name"] for model in parsed("models")] == ["tiny-ccnet", "tiny-convnet"]
        text = said("models")
        assert "tiny-ccnet" in text
        assert "ConvNet" in text

    def test_a_damaged_one_does_not_hide_the_others(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "good").symlink_to(folder / "tiny-convnet")
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "config.json").write_text("{")
        monkeypatch.setenv("CCNET_CHECKPOINTS", str(tmp_path))
        bad, good = parsed("models")
        assert bad["name"] == "bad"
        assert "model.safetensors" in bad["error"]
        assert good["name"] == "tiny-convnet"
        assert "damaged" in said("models")

    def test_without_any_it_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CCNET_CHECKPOINTS", str(tmp_path))
        assert_refused(run("models"), "no checkpoint in", "ccnet train")
        assert parsed("models") == []


class TestTrain:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        """Fashion-MNIST's four files with a handful of images."""
        rng = np.random.default_rng(0)
        for prefix, count in (("train", 8), ("t10k", 4)):
            images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            labels = np.arange(count, dtype=np.uint8)
            for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
                header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
                (tmp_path / name).write_bytes(header + array.tobytes())
        return tmp_path

    def test_a_run_ends_in_a_measured_checkpoint(self, data: Path) -> None:
        options = ("--arch", "convnet", "--data-dir", data, "--epochs", 1, "--batch-size", 4, "--threads", 1)
        text = said("train", *options, "--device", "cpu", "--out", data / "run", "--checkpoint", data / "final")
        assert text.splitlines()[-1] == f"checkpoint: {data / 'final'}"
        config = read_config(data / "final")
        assert config["training"]["steps"] == 2
        assert config["metrics"]["n"] == 4

    def test_a_ccnet_is_trained_and_measured_with_the_sampler_that_was_asked_for(self, data: Path) -> None:
        options = ("--data-dir", data, "--epochs", 1, "--batch-size", 8, "--threads", 1, "--device", "cpu")
        sampler = ("--sequence-method", "conditioned", "--sequence-max-numerator", 7)
        said("train", *options, *sampler, "--out", data / "run")
        checkpoint = load_checkpoint(data / "run" / "checkpoint")
        assert checkpoint.sampler == {"std": 0.05, "method": "conditioned", "max_numerator": 7}
        measured = checkpoint.config["metrics"]["sequences"]
        assert measured == [str(q) for q in sample_scale_sequences(len(measured), seed=0, **checkpoint.sampler)]

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--recipe", "slow"], ["recipe 'slow'", "fast, paper"]),
            (["--arch", "resnet"], ["arch 'resnet'", "ccnet, convnet"]),
            (["--epochs", 0], ["'0' was given"]),
            (["--threads", 0], ["'0' was given"]),
            (["--learning-rate", -1], ["learning_rate -1.0"]),
            (["--learning-rate", "fast"], ["--learning-rate"]),
            (["--sequence-method", "best"], ["sequence_method 'best'", "corrected, conditioned"]),
            (["--sequence-max-numerator", 7], ["sequence_max_numerator 7", "with 'conditioned'"]),
            (["--dataset", "imagenet"], ["unknown data set 'imagenet'"]),
            (["--data-dir", "nowhere"], ["nowhere", "apt-get install dataset-fashion-mnist"]),
        ],
        ids=str,
    )
    def test_bad_options_are_refused_in_one_line(self, tmp_path: Path, options: list[object], words: list[str]) -> None:
        assert_refused(run("train", "--out", tmp_path / "run", *options), *words)

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert_refused(run("train", "--out", tmp_path / "file"), "file: File exists")


def test_a_setting_of_the_service_that_is_not_allowed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCNET_PORT", "")  # so that what `serve` sets is taken back
    result = run("serve", "--port", "70000")
    assert result.exit_code == 2
    assert result.stderr.startswith("CCNET_PORT: '70000' was given")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class TestProgress:
    @pytest.fixture(autouse=True)
    def xterm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm")

    def test_a_probe_shows_how_far_it_is(self, convnet: Checkpoint) -> None:
        with contextlib.redirect_stderr(Terminal()) as terminal:
            measure_shifts(convnet, "net", "noise", (1, 2), samples=3, seed=0, data_dir=None)
        assert "probing net" in terminal.getvalue()
        assert "100.0%" in terminal.getvalue()

    def test_many_passes_show_how_far_they_are_and_few_show_nothing(self, ccnet: Checkpoint) -> None:
        sequences = sample_scale_sequences(2, seed=0)
        with contextlib.redirect_stderr(Terminal()) as terminal:
            run_members(ccnet, torch.zeros(1, 1, 32, 32), sequences)
            assert terminal.getvalue() == ""
            run_members(ccnet, torch.zeros(8, 1, 32, 32), sequences)
        assert "100.0%" in terminal.getvalue()


class TestProcess:
    """The installed program itself."""

    COMMAND = (sys.executable, "-c", "from ccnet.cli import main; main()")

    def test_bad_input_is_one_line_and_status_2(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [*self.COMMAND, "classify", str(tmp_path / "none.png")], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert "none.png: No such file" in done.stderr

    def test_serve_takes_its_options_answers_and_stops_with_status_0(self, folder: Path) -> None:
        command = [*self.COMMAND, "serve", "--port", "0", "--device", "cpu", "--checkpoints", str(folder)]
        with subprocess.Popen([*command, "--model", "tiny-convnet"], stderr=subprocess.PIPE, text=True) as process:
            killer = threading.Timer(90, process.kill)
            killer.start()
            try:
                assert process.stderr is not None
                lines = iter(process.stderr.readline, "")
                started = next(json.loads(line) for line in lines if '"starting"' in line)
                assert next(line for line in lines if '"ready"' in line)
                process.send_signal(signal.SIGTERM)
                process.stderr.read()
                assert process.wait() == 0
            finally:
                killer.cancel()
                process.kill()
        assert started["settings"]["port"] == 0
        assert started["settings"]["model"] == "tiny-convnet"
