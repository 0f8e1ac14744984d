"""`ccnet classify`: the answer of the library, and one line for what cannot be right."""

from pathlib import Path

import pytest

from ccnet import ScaleEnsemble
from ccnet.checkpoint import Checkpoint
from ccnet.data import load_dataset
from tests.ccnet.cli.calls import DATA, DISTRIBUTION, assert_refused, parsed, run, said


def test_it_answers_what_the_library_does_with_the_checkpoint_s_own_sequences(
    shoes: list[Path], ccnet: Checkpoint
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


def test_it_prints_a_table(shoes: list[Path]) -> None:
    text = said("classify", *shoes, "-k", 2, "--seed", 5)
    assert "tiny-ccnet, 2 members, seed 5" in text


def test_a_seed_that_is_not_given_is_drawn_and_shown(shoes: list[Path]) -> None:
    first, second = (parsed("classify", shoes[0], "-k", 1) for _ in range(2))
    assert first["seed"] != second["seed"]
    assert parsed("classify", shoes[0], "-k", 1, "--seed", first["seed"])["results"] == first["results"]


def test_a_convnet_has_one_member(shoes: list[Path], convnet: Checkpoint) -> None:
    answer = parsed("classify", shoes[0], "-c", "tiny-convnet")
    assert answer["ensemble_size"] == 1
    x = convnet.preprocess(load_dataset("fashion-mnist-sample", "test", DATA).images[:1])
    assert answer["results"][0]["probability"] == pytest.approx(float(convnet.model(x).softmax(1).max()), abs=1e-5)
    assert parsed("classify", shoes[0], "-c", "tiny-convnet", "-k", 1)["results"] == answer["results"]


def test_a_convnet_does_not_ignore_k(shoes: list[Path]) -> None:
    assert_refused(run("classify", shoes[0], "-c", "tiny-convnet", "-k", 4), "-k 4", "ConvNet", "leave -k out")


def test_a_checkpoint_is_found_by_its_folder_by_its_name_and_by_the_environment(
    shoes: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given in (folder / "tiny-convnet", "tiny-convnet"):
        assert parsed("classify", shoes[0], "-c", given)["model"] == "tiny-convnet"
    monkeypatch.setenv("CCNET_MODEL", "tiny-convnet")
    assert parsed("classify", shoes[0])["model"] == "tiny-convnet"


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
def test_bad_options_are_refused_in_one_line(shoes: list[Path], options: list[object], words: list[str]) -> None:
    assert_refused(run("classify", shoes[0], *options), *words)


def test_what_is_no_picture_is_named(tmp_path: Path, shoes: list[Path]) -> None:
    text = tmp_path / "text.png"
    text.write_text("This is a text file.")
    assert_refused(run("classify", shoes[0], text), "text.png", "PNG, JPEG or WebP")
    cut = tmp_path / "cut.png"
    cut.write_bytes(shoes[0].read_bytes()[:200])
    assert_refused(run("classify", cut), "cut.png", "damaged or truncated")
    assert_refused(run("classify", tmp_path / "none.png"), "none.png", "No such file")
    assert_refused(run("classify", tmp_path), "Is a directory")
    assert_refused(run("classify"), "Missing argument", "ccnet classify --help")


def test_pickles_and_damaged_checkpoints_are_never_loaded(tmp_path: Path, shoes: list[Path]) -> None:
    pickle = tmp_path / "model.pt"
    pickle.write_bytes(b"\x80\x04.")
    assert_refused(run("classify", shoes[0], "-c", pickle), "model.pt is a pickle")
    (tmp_path / "empty").mkdir()
    assert_refused(run("classify", shoes[0], "-c", tmp_path / "empty"), "no config.json")


def test_without_any_checkpoint_it_says_how_to_get_one(
    tmp_path: Path, shoes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCNET_CHECKPOINTS", str(tmp_path))
    assert_refused(run("classify", shoes[0]), "no checkpoint of a CCNet", "there are: none", "ccnet train")
