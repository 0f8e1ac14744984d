"""docs/paper.md: made of what is kept, and of nothing else; and what is not published."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ccnet import CcnetError
from ccnet.paper.catalogue import ITEMS
from ccnet.paper.findings import for_people
from ccnet.paper.page import MOST_PICTURE_BYTES, markdown_table, page, publish, require_publishable

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def document(**changes: Any) -> dict[str, Any]:
    """A result of table_1, as `run_items` gives one."""
    rows = [
        {"case": "a | b", "what": "ours", "ours": "0.5", "paper": "0.6", "value": 0.5, "part": ""},
        {"case": "c", "what": "control", "ours": "1.0", "paper": "", "value": 1.0, "part": "A second table"},
    ]
    return {
        "item": "table_1", "title": "Shift-equivariance", "source": "arXiv 2006.11120, Table 1", "quick": False,
        "seed": 3, "threads": 1, "checkpoints": "/somewhere", "data_dir": None, "device": "cpu", "rows": rows,
        "claims": [{"text": "it is better", "verdict": "fails", "evidence": "0.5 (0.4 to 0.6)"}],
        "notes": ["A note."], "series": {}, "seconds": 12.3, "steps_taken_up": 0, "hardware": "a CPU",
        "versions": {"torch": "2"}, "git_commit": COMMIT, "step_commits": [COMMIT], "date": "2026-01-02T03:04:05+00:00",
    } | changes  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "table_1.png").write_bytes(b"a picture")
    return folder


def test_a_published_result_is_on_the_page_with_all_that_is_behind_it(results: Path, tmp_path: Path) -> None:
    publish([document()], results, tmp_path)
    text = (tmp_path / "paper.md").read_text()
    assert text == page(tmp_path / "paper")
    summary = next(line for line in text.splitlines() if line.startswith("| [Table 1]"))
    assert summary == "| [Table 1](#table-1) | it is better | **fails** | 0.5 (0.4 to 0.6) |"
    for part in (
        "![Shift-equivariance of the last map](paper/table_1.png)", "| a \\| b | 0.5 | 0.6 |", "**A second table**",
        "- A note.", "`ccnet paper table_1`", f"`{COMMIT[:10]}`", "seed 3", "a CPU", "2026-01-02", "torch 2", "12 s",
    ):  # fmt: skip
        assert part in text
    assert (tmp_path / "paper" / "table_1.png").read_bytes() == b"a picture"


def test_what_is_published_names_no_place_of_this_machine(results: Path, tmp_path: Path) -> None:
    publish([document()], results, tmp_path)
    assert "somewhere" not in (tmp_path / "paper" / "table_1.json").read_text()


def test_items_without_a_result_are_not_measured_yet(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert text.count("| not measured yet |") == text.count("\nNot measured yet.") == len(ITEMS)


def test_every_link_of_the_summary_leads_to_a_heading(tmp_path: Path) -> None:
    text = page(tmp_path)
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    assert {link[1:] for link in re.findall(r"\]\((#[^)]+)\)", text)} <= headings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quick": True}, "quick run"),
        ({"git_commit": f"{COMMIT}-dirty"}, "commit what differs"),
        ({"git_commit": "unknown"}, "nobody can get back"),
        ({"step_commits": [COMMIT, f"{COMMIT}-dirty"]}, "a kept step of table_1.*--fresh"),
        ({"notes": ["x" * 60_000]}, "at most 50,000"),
    ],
)
def test_what_cannot_be_had_again_or_is_too_large_is_not_published(
    results: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(CcnetError, match=words):
        publish([document(), document(**changes)], results, tmp_path)
    assert list(tmp_path.iterdir()) == [results], "not even the result before it"


def test_a_large_picture_is_not_published(results: Path, tmp_path: Path) -> None:
    (results / "table_1.png").write_bytes(bytes(MOST_PICTURE_BYTES + 1))
    with pytest.raises(CcnetError, match="200,001 bytes"):
        publish([document()], results, tmp_path)


def test_a_quick_run_is_refused_before_it_begins() -> None:
    with pytest.raises(CcnetError, match="--quick"):
        require_publishable(quick=True, commit=COMMIT)
    require_publishable(quick=False, commit=COMMIT)


def test_a_table_keeps_its_columns_whatever_its_cells_hold() -> None:
    lines = markdown_table(["", "x"], [["a|b", "two\nlines"]]).splitlines()
    assert lines == ["|  | x |", "| --- | --- |", "| a\\|b | two lines |"]


def test_people_read_every_part_of_a_result() -> None:
    text = for_people(document())
    assert "A second table\n" in text
    assert "FAILS      it is better: 0.5 (0.4 to 0.6)" in text
    old = document()
    for row in old["rows"]:
        del row["part"]  # as results had it before items had several tables
    assert "A second table" not in for_people(old)


def test_the_documents_page_is_what_the_kept_results_make() -> None:
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    assert page(ROOT / "docs" / "paper") == text, "docs/paper.md differs from docs/paper: ccnet paper --page"


def test_published_results_are_full_runs_of_a_commit_and_small() -> None:
    kept = sorted((ROOT / "docs" / "paper").glob("*.json"))
    assert kept
    for path in kept:
        held = json.loads(path.read_text(encoding="utf-8"))
        assert not held["quick"]
        assert all(re.fullmatch(r"[0-9a-f]{40}", commit) for commit in [held["git_commit"], *held["step_commits"]])
        assert path.stat().st_size <= 50_000
        assert path.with_suffix(".png").stat().st_size <= MOST_PICTURE_BYTES
