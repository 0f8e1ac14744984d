"""What the documents say of accuracy, equivariance, time and memory is what the scripts measured."""

import json

import pytest

from benchmarks.publish import CHECKPOINTS, DOCUMENTS, PUBLISHED, ROOT, filled


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_hold_the_measured_numbers(document):
    text = document.read_text(encoding="utf-8")
    assert filled(text) == text, f"{document.name} differs from the measurements: python -m benchmarks.publish --fill"


def test_a_changed_number_in_the_readme_would_be_noticed():
    text = DOCUMENTS[0].read_text(encoding="utf-8")
    accuracy = json.loads((ROOT / "checkpoints" / CHECKPOINTS["ConvNet"] / "config.json").read_text())["metrics"][
        "accuracy"
    ]
    changed = text.replace(f"{accuracy:.2%}", "99.99%")
    assert changed != text
    assert filled(changed) == text


def test_published_results_name_where_they_come_from():
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    for key in ("git_commit", "hardware", "versions", "seed", "samples", "date"):
        assert published[key] not in (None, "", "unknown")
    assert published["answer"]["results"][0]["label"] == "Sneaker"
