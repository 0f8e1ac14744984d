"""What the documents say of accuracy, equivariance, time and memory is what the scripts measured."""

import hashlib
import json

import pytest

from benchmarks.publish import CHECKPOINTS, DOCUMENTS, PUBLISHED, ROOT, filled
from benchmarks.upscaling import CHECKPOINT, PICTURES
from benchmarks.upscaling_blocks import UPSCALING, upscaling_blocks


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


def test_a_changed_gain_of_the_upscaler_would_be_noticed():
    everywhere = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    for name, block in upscaling_blocks().items():
        assert f"<!-- {name} -->\n{block}\n<!-- /{name} -->" in everywhere
    text = (ROOT / "docs" / "upscaling.md").read_text(encoding="utf-8")
    row = json.loads(UPSCALING.read_text(encoding="utf-8"))["comparison"]["rows"][0]
    changed = text.replace(f"| {row['difference_db']:+.2f} ", "| +9.99 ")
    assert changed != text
    assert filled(changed) == text


def test_every_block_of_the_upscaler_is_of_the_shipped_weights_and_a_clean_commit():
    weights = hashlib.sha256((ROOT / CHECKPOINT / "model.safetensors").read_bytes()).hexdigest()
    for name, block in json.loads(UPSCALING.read_text(encoding="utf-8")).items():
        assert block["weights"] == weights, f"{name}: python -m benchmarks.upscaling --save --blocks {name}"
        assert "dirty" not in block["git_commit"]
        assert block["pictures"] == len(PICTURES)
        for row in block["rows"]:
            assert len(row["by_picture"]) == len(PICTURES)


def test_the_upscalers_card_and_page_say_what_it_was_trained_on():
    config = json.loads((ROOT / CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    assert config["metrics"] == json.loads(UPSCALING.read_text(encoding="utf-8"))["comparison"]
    count, held = config["data"]["training_pictures"], config["data"]["validation_pictures"]
    text = (ROOT / "docs" / "upscaling.md").read_text(encoding="utf-8")
    assert f"{count + held} photographs, {count} for training and {held} held back" in text
    assert f"gain was {config['training']['history'][-1]['gain_db']:.2f} dB" in text
