"""The document of an assessment: its numbers by hand, its cost, its protocol, and what it refuses."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ccnet import CcnetError, ScaleSequence, sample_scale_sequences
from ccnet.assessment import AssessmentOptions, assess, markdown, metrics, passes_needed
from ccnet.assessment.intervals import wilson
from ccnet.checkpoint import Checkpoint
from ccnet.data import ImageDataset, LabelledPictures
from ccnet.evaluation import evaluate
from tests.ccnet.assessment import oracles
from tests.ccnet.assessment.synthetic import CLASSES, Scripted, checkpoint, pictures, quick


@pytest.fixture(scope="module")
def ccnet(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(tmp_path_factory.mktemp("ccnet"), sequences=True)


@pytest.fixture(scope="module")
def convnet(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(tmp_path_factory.mktemp("convnet"), sequences=False)


def row(document: dict[str, Any], kind: str, size: int) -> dict[str, Any]:
    return next(one for one in document["rows"] if (one["kind"], one["size"]) == (kind, size))


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in ("cost", "provenance", "verdict")}


def test_every_row_is_what_one_computes_by_hand(ccnet: Checkpoint) -> None:
    images, passes = pictures(120), Scripted()
    document = assess(ccnet, images, quick(pool=5, seed=3), passes=passes)
    sequences = sample_scale_sequences(5, seed=3)
    assert document["sequences"] == [str(sequence) for sequence in sequences]
    logits = passes.member_logits(ccnet.preprocess(images.images), sequences).double()
    labels = images.labels.tolist()
    singles = [logits[member].argmax(1).tolist() for member in range(3)]
    for size in (1, 2, 4):
        found = row(document, "sequences", size)
        assert found["draws"] == len(found["members"]) == 3
        for averaged, by_hand in (("logits", oracles.mean_of_logits), ("probabilities", oracles.mean_of_probabilities)):
            if size == 1 and averaged == "probabilities":
                assert "mean_of_probabilities" not in found
                continue
            scores = found[f"mean_of_{averaged}"]
            draws = [by_hand(logits[members].tolist()) for members in found["members"]]
            assert scores["accuracy"]["values"] == pytest.approx([oracles.accuracy(p, labels) for p in draws], rel=1e-5)
            assert scores["nll"]["values"] == pytest.approx([oracles.nll(p, labels) for p in draws], rel=1e-5)
            assert scores["brier"]["values"] == pytest.approx([oracles.brier(p, labels) for p in draws], rel=1e-5)
            confidences = [[max(one) for one in p] for p in draws]
            correct = [[float(a == b) for a, b in zip(oracles.predicted(p), labels, strict=True)] for p in draws]
            errors = [oracles.calibration_error(c, r, 15) for c, r in zip(confidences, correct, strict=True)]
            assert scores["ece"]["values"] == pytest.approx(errors, rel=1e-4)
            low, high = scores["accuracy"]["interval"]
            assert low <= scores["accuracy"]["mean"] <= high
            assert scores["scaled"]["temperature"] > 0
        guesses = [logits[members].mean(0).argmax(1).tolist() for members in found["members"]]
        assert found["churn"] == pytest.approx(oracles.churn(guesses), rel=1e-5)
        right = [[[float(a == b) for a, b in zip(p, labels, strict=True)] for p in some] for some in (guesses, singles)]
        assert (found["gained"], found["lost"]) == pytest.approx(oracles.gained_and_lost(*right), rel=1e-5)
    assert row(document, "sequences", 1)["churn"] > 0.02, "the members must differ, or this shows nothing"


def test_a_network_without_sequences_has_one_row_and_rows_of_views(convnet: Checkpoint) -> None:
    document = assess(convnet, pictures(40), quick(), passes=Scripted(certainty=4))
    assert [(one["kind"], one["size"]) for one in document["rows"]] == [
        ("pass", 1), ("views", 1), ("views", 2), ("views", 4),
    ]  # fmt: skip
    alone = row(document, "pass", 1)
    accuracy = alone["mean_of_logits"]["accuracy"]
    assert (alone["churn"], accuracy["std"], accuracy["interval_method"]) == (None, None, "Wilson")
    assert accuracy["interval"] == pytest.approx(wilson(accuracy["mean"], 40), rel=1e-4)
    assert {(c["of"]["kind"], c["minus"]["kind"]) for c in document["comparisons"]} == {("views", "views")}
    plain = assess(convnet, pictures(40), quick(views=False), passes=Scripted())
    assert [one["kind"] for one in plain["rows"]] == ["pass"]
    assert plain["comparisons"] == []


def test_the_real_networks_give_the_numbers_of_evaluate_which_the_card_takes(
    ccnet: Checkpoint, convnet: Checkpoint
) -> None:
    images = pictures(9)
    for model in (ccnet, convnet):
        options = quick(sizes=(1, 2), draws=2, pool=3 if model is ccnet else None)
        found = metrics(assess(model, images, options))
        expected = evaluate(
            model, images, sizes=options.sizes, draws=options.draws, pool=options.pool, views=True, batch_size=7
        )
        assert found.keys() == expected.keys()
        for key in ("n", "dataset", "split", "seed", "method"):
            assert found[key] == expected[key]
        assert found["accuracy"] == pytest.approx(expected["accuracy"], rel=1e-5)
        for mine, other in zip(
            found.get("ensembles", []) + found["views"], expected.get("ensembles", []) + expected["views"], strict=True
        ):
            assert mine.keys() == other.keys()
            assert mine.pop("members", None) == other.pop("members", None)
            for key in mine:
                assert mine[key] == pytest.approx(other[key], rel=1e-4), key


def test_progress_counts_exactly_the_passes_that_were_announced(ccnet: Checkpoint, convnet: Checkpoint) -> None:
    for model in (ccnet, convnet):
        for options in (
            quick(batch_size=7),
            quick(views=False),
            quick(limit=9, max_shifts=(1, 3), shift_samples=11),
            quick(limit=30, max_shifts=(2,), shift_samples=5),
        ):
            seen: list[tuple[int, int]] = []
            assess(model, pictures(20), options, passes=Scripted(), on_progress=lambda *at: seen.append(at))  # noqa: B023
            needed = passes_needed(model, 20, options)
            assert {total for _, total in seen} == {needed}
            assert [done for done, _ in seen] == sorted(done for done, _ in seen)
            assert seen[-1][0] == needed


def test_an_assessment_ends_when_progress_raises(ccnet: Checkpoint) -> None:
    passes = Scripted()

    def stop(done: int, _: int) -> None:
        if done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        assess(ccnet, pictures(50), quick(batch_size=10), passes=passes, on_progress=stop)
    assert passes.calls == 11


def test_the_same_seed_gives_the_same_document_whatever_the_batch(ccnet: Checkpoint, monkeypatch) -> None:
    images = pictures(60)
    options = quick(max_shifts=(2,), shift_samples=20)
    first = assess(ccnet, images, options, passes=Scripted())
    monkeypatch.setattr("ccnet.assessment.gathering.BLOCK_IMAGES", 13)
    again = assess(ccnet, images, replace(options, batch_size=7), passes=Scripted())
    first["options"].pop("batch_size"), again["options"].pop("batch_size")
    first["method"].pop("cost"), again["method"].pop("cost")
    assert without_times(first) == without_times(again)
    other = assess(ccnet, images, replace(options, seed=1), passes=Scripted())
    assert other["sequences"] != first["sequences"]
    assert other["equivariance"] != first["equivariance"]


def test_the_document_is_json(ccnet: Checkpoint) -> None:
    document = assess(ccnet, pictures(25), quick(max_shifts=(2,), shift_samples=9), passes=Scripted())
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_shuffled_labels_show_chance_accuracy(ccnet: Checkpoint) -> None:
    """The planted fault: an assessment that looked anywhere but at these labels would show another accuracy."""
    images, sure = pictures(600), Scripted(certainty=20)
    honest = row(assess(ccnet, images, quick(), passes=sure), "sequences", 4)
    assert honest["mean_of_logits"]["accuracy"]["mean"] == 1
    shuffled = np.random.default_rng(5).permutation(images.labels)
    document = assess(ccnet, replace(images, labels=shuffled), quick(), passes=sure)
    for one in document["rows"]:
        if one["kind"] == "sequences":
            assert one["mean_of_logits"]["accuracy"]["mean"] == pytest.approx(0.1, abs=0.04)
            assert one["mean_of_logits"]["ece"]["mean"] == pytest.approx(0.9, abs=0.05)
            assert one["mean_of_logits"]["scaled"]["nll"]["mean"] == pytest.approx(math.log(10), abs=0.05)


def test_views_that_hide_the_class_lose_to_sequences_and_the_verdict_says_so(ccnet: Checkpoint) -> None:
    document = assess(ccnet, pictures(200), quick(), passes=Scripted(certainty=6, noise=2))
    comparison = next(
        one for one in document["comparisons"]
        if (one["of"], one["minus"]) == ({"kind": "sequences", "size": 4}, {"kind": "views", "size": 4})
    )  # fmt: skip
    assert comparison["accuracy"]["interval"][0] > 0
    assert any("The ensemble is ahead of the views" in sentence for sentence in document["verdict"])
    assert any(sentence.startswith("4 mirrored and moved views lose") for sentence in document["verdict"])


def test_identical_draws_have_no_churn_and_no_std(ccnet: Checkpoint) -> None:
    document = assess(ccnet, pictures(50), quick(pool=6), passes=Scripted(noise=0))
    for size in (1, 2, 4):
        found = row(document, "sequences", size)
        assert (found["churn"], found["gained"], found["lost"]) == (0, 0, 0)
        assert found["mean_of_logits"]["accuracy"]["std"] == 0


def test_one_image_ties_and_a_single_class_are_assessed(ccnet: Checkpoint) -> None:
    document = assess(ccnet, pictures(1), quick(), passes=Scripted(certainty=0, noise=0))
    assert document["shown"]["ties"] == 1
    assert row(document, "sequences", 1)["mean_of_logits"]["scaled"] is None
    assert any("several classes have the largest logit" in note for note in document["notes"])
    alike = replace(pictures(30), labels=np.full(30, 3, dtype=np.int64))
    document = assess(ccnet, alike, quick(), passes=Scripted())
    assert any(note.startswith("No image of 9 of 10 classes") for note in document["notes"])
    assert [one["accuracy"] is None for one in document["shown"]["per_class"]].count(True) == 9


def test_the_shown_draw_is_looked_at_as_by_hand(ccnet: Checkpoint) -> None:
    images, passes = pictures(150), Scripted(certainty=1)
    document = assess(ccnet, images, quick(pool=5), passes=passes)
    shown = document["shown"]
    members = [sample_scale_sequences(5, seed=0)[member] for member in shown["members"]]
    probabilities = oracles.mean_of_logits(
        passes.member_logits(ccnet.preprocess(images.images), members).double().tolist()
    )
    guesses, labels = oracles.predicted(probabilities), images.labels.tolist()
    assert shown["confusion"] == oracles.confusion(labels, guesses, 10)
    for index, one in enumerate(shown["per_class"]):
        assert one["images"] == labels.count(index)
        right = shown["confusion"][index][index]
        assert one["accuracy"] == pytest.approx(right / labels.count(index), rel=1e-5)
        assert one["precision"] == pytest.approx(right / guesses.count(index), rel=1e-5)
    wrong = sorted((i for i in range(150) if guesses[i] != labels[i]), key=lambda i: -max(probabilities[i]))
    assert [one["index"] for one in shown["errors"]] == wrong[:20]
    assert shown["errors"][0]["probability"] == pytest.approx(max(probabilities[wrong[0]]), rel=1e-5)
    assert sum(one["images"] for one in shown["reliability"]) == 150


def test_errors_name_the_files_of_their_pictures(ccnet: Checkpoint) -> None:
    images = pictures(60)
    named = replace(images, files=tuple(f"class/<{number}>.png" for number in range(60)))
    document = assess(ccnet, named, quick(limit=40), passes=Scripted(certainty=0))
    errors = document["shown"]["errors"]
    assert [one["file"] for one in errors] == [f"class/<{one['index']}>.png" for one in errors]
    assert f"| {errors[0]['index']}: class/\\<{errors[0]['index']}\\>.png |" in markdown(document)
    plain = assess(ccnet, images, quick(limit=40), passes=Scripted(certainty=0))
    assert {one["file"] for one in plain["shown"]["errors"]} == {None}


def test_the_shift_table_is_that_of_the_probe(ccnet: Checkpoint, convnet: Checkpoint) -> None:
    from ccnet.equivariance import noise_images, table1

    for model in (ccnet, convnet):
        document = assess(
            model, pictures(4), quick(sizes=(1,), draws=1, views=False, max_shifts=(2, 4), shift_samples=3)
        )
        sequences = sample_scale_sequences(8, seed=0) if model is ccnet else None
        x = model.preprocess(pictures(4).images[:3])
        expected = {
            "dataset": table1(model.model, x, (2, 4), sequences=sequences, fill=model.preprocessing.black),
            "noise": table1(model.model, noise_images(3, (1, 32, 32)), (2, 4), sequences=sequences),
        }
        for name, rows in expected.items():
            found = document["equivariance"][name]["rows"]
            assert [one["max_shift"] for one in found] == [2, 4]
            for mine, other in zip(found, rows, strict=True):
                assert mine["cosine_mean"] == pytest.approx(other.cosine_mean, rel=1e-4)
                assert mine["consistency"] == pytest.approx(other.consistency)


def test_labels_in_another_order_are_matched_by_name(ccnet: Checkpoint) -> None:
    straight, order = pictures(80), np.array([7, 2, 9, 0, 1, 3, 8, 6, 5, 4])
    turned = replace(
        straight,
        classes=tuple(CLASSES[index].upper().replace(" ", "_") for index in order),
        labels=np.argsort(order)[straight.labels],
    )
    first = assess(ccnet, straight, quick(), passes=Scripted())
    second = assess(ccnet, turned, quick(), passes=Scripted())
    assert first["rows"] == second["rows"]
    assert second["dataset"]["classes"] == first["dataset"]["classes"]


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("class 0", "cat"), "class 'cat' of pictures is none of the network's: 'class 0', 'class 1'"),
        (("class 0", "12"), "class '12' of pictures"),
        (("class 0", "Class-0"), "'class 0', 'Class-0' of pictures are one class to the network"),
        (("class 0", "!"), "class '!' of pictures"),
    ],
)
def test_classes_that_the_network_does_not_know_are_refused(ccnet: Checkpoint, classes, words) -> None:
    images = replace(pictures(4), classes=classes, labels=np.array([0, 1, 0, 1]))
    with pytest.raises(CcnetError, match=words.replace("(", r"\(")):
        assess(ccnet, images, quick(), passes=Scripted())


def test_an_unknown_class_without_images_is_no_matter_and_numbers_are_taken_for_classes(ccnet: Checkpoint) -> None:
    images = replace(pictures(4), classes=("3", "cat"), labels=np.zeros(4, dtype=np.int64))
    document = assess(ccnet, images, quick(), passes=Scripted())
    assert document["dataset"]["classes"]["class 3"] == 4
    assert document["dataset"]["classes_matched_by"] == "number"
    assert any("are numbers" in note for note in document["notes"])


class Broken(Scripted):
    def __init__(self, value: float, shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.value, self.shape = value, shape

    def member_logits(self, images: Tensor, sequences: Sequence[ScaleSequence]) -> Tensor:
        if self.shape is not None:
            return torch.zeros(self.shape)
        logits = super().member_logits(images, sequences)
        logits[-1, -1, -1] = self.value
        return logits


@pytest.mark.parametrize(
    ("passes", "words"),
    [
        (Broken(math.nan), "NaN or infinity"),
        (Broken(math.inf), "NaN or infinity"),
        (Broken(0, (1, 3, 10)), r"logits of shape \[1, 3, 10\]"),
        (Broken(0, (1, 5, 11)), "10 labels and 11 logits"),
    ],
)
def test_logits_that_cannot_be_are_refused(ccnet: Checkpoint, passes, words) -> None:
    with pytest.raises(CcnetError, match=words):
        assess(ccnet, pictures(5), quick(), passes=passes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sizes": ()}, "sizes is empty"),
        ({"sizes": (0,)}, "each of sizes is a whole number, 1 or more; got 0"),
        ({"sizes": "12"}, "sizes is a sequence of whole numbers"),
        ({"sizes": (2.0,)}, "got 2.0"),
        ({"sizes": (19,)}, "there are 18 views of a picture"),
        ({"draws": 0}, "draws is a whole number, 1 or more"),
        ({"pool": 7}, "10 draws and sizes up to 8 need 10"),
        ({"pool": True}, "pool is a whole number"),
        ({"seed": -1}, "seed is a whole number, 0 or more"),
        ({"limit": 0}, "limit is a whole number"),
        ({"max_shifts": (-1,)}, "each of max_shifts"),
        ({"shift_samples": 0}, "shift_samples"),
        ({"bins": 0}, "bins"),
        ({"resamples": 10}, "resamples is a whole number, 100 or more"),
        ({"batch_size": 0}, "batch_size"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options, words) -> None:
    with pytest.raises(CcnetError, match=words):
        AssessmentOptions(**options)


def test_a_shift_as_large_as_the_picture_is_refused_before_any_pass(ccnet: Checkpoint) -> None:
    passes = Scripted()
    with pytest.raises(CcnetError, match=r"max_shifts up to 32 px; the input of tiny is 32 px"):
        assess(ccnet, pictures(5), quick(max_shifts=(2, 32)), passes=passes)
    assert passes.calls == 0


def test_pictures_of_different_sizes_are_assessed_as_the_network_prepares_them(ccnet: Checkpoint) -> None:
    same = pictures(30)
    padded = [np.pad(image, ((2, 2), (2, 2), (0, 0))) if n % 2 else image for n, image in enumerate(same.images)]
    mixed = LabelledPictures("mixed", "test", tuple(padded), same.labels, same.classes, "memory")
    assert isinstance(same, ImageDataset)
    first, second = (assess(ccnet, data, quick(), passes=Scripted()) for data in (same, mixed))
    assert first["rows"] == second["rows"]  # 28 x 28 lies on black in 32 x 32 either way
    assert first["dataset"]["sha256"] != second["dataset"]["sha256"]
