"""Tables 5 and 6: only this machine's results are shown as ours, and verdicts follow the numbers."""

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ccnet import CcnetError
from ccnet.benchmarks import compare
from ccnet.benchmarks.report import Settings
from ccnet.paper import benchmarked, table_5, table_6
from ccnet.paper.benchmarked import Benchmark
from ccnet.paper.context import Context
from ccnet.paper.findings import Findings

from .conftest import MakeContext

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "amd-epyc-2-threads"


@pytest.fixture
def full(make_context: MakeContext) -> Context:
    context = make_context()
    context.options = replace(context.options, quick=False)
    return context


def stored(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return document


def keep(monkeypatch: pytest.MonkeyPatch, documents: dict[str, dict[str, Any]]) -> None:
    monkeypatch.setattr(compare, "load", lambda _folder, _hardware, name: documents.get(name))


def verdict(findings: Findings, words: str) -> str:
    return next(claim.verdict for claim in findings.claims if words in claim.text)


def scaled(document: dict[str, Any], what: str, factor: float) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    for row in changed["rows"]:
        if row["what"] == what:
            row["value"] *= factor
    return changed


def test_kept_results_become_rows_with_the_papers_beside(full: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = {name: stored(name) for name in ("table_5", "table_6", "memory", "training_step")}
    keep(monkeypatch, documents)
    fifth, sixth = table_5.find(full), table_6.find(full)
    ratio = next(
        row for row in documents["table_5"]["rows"] if row["case"] == "64x64, forward + backward" and row["unit"] == "x"
    )
    row = next(row for row in fifth.rows if row.case == "64x64" and row.part == table_5.TIMES)
    assert row.value == ratio["value"]
    assert row.paper == "2.77x"  # 3.6 ms / 1.3 ms
    assert next(row.paper for row in sixth.rows if row.what == "forward + backward") == "2.69x"
    assert any(documents["memory"]["git_commit"][:10] in note for note in fifth.notes)
    assert table_5.plot({"series": fifth.series}).axes
    assert table_6.plot({"series": sixth.series}).axes


@pytest.mark.parametrize(("factor", "expected"), [(0.5, "fails"), (10, "holds")])
def test_a_layer_takes_longer_than_conv_or_does_not(
    full: Context, monkeypatch: pytest.MonkeyPatch, factor: float, expected: str
) -> None:
    keep(monkeypatch, {"table_5": scaled(stored("table_5"), "CC / conv2d", factor), "memory": stored("memory")})
    assert verdict(table_5.find(full), "takes longer than Conv") == expected


def without(document: dict[str, Any], *words: str) -> dict[str, Any]:
    """The document with no row of these cases or quantities."""
    rows = [row for row in document["rows"] if not any(word in (row["case"], row["what"]) for word in words)]
    return {**document, "rows": rows}


def test_what_was_not_measured_decides_nothing(full: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {name: {**stored(name), "rows": []} for name in ("table_5", "table_6", "memory", "training_step")}
    keep(monkeypatch, empty)
    for item in (table_5, table_6):
        claims = item.find(full).claims
        assert len(claims) >= 3
        assert {claim.verdict for claim in claims} == {"undecided"}
        assert all("not measured" in claim.evidence or "not run" in claim.evidence for claim in claims)
        full._seen.clear()


def test_a_case_that_lacks_its_ratio_is_left_out_and_is_not_taken_for_0(
    full: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {name: stored(name) for name in ("table_5", "table_6", "memory", "training_step")}
    keep(monkeypatch, kept | {name: without(kept[name], "CC / conv2d") for name in ("table_5", "table_6")})
    fifth, sixth = table_5.find(full), table_6.find(full)
    assert verdict(fifth, "takes longer than Conv") == verdict(sixth, "more than twice") == "undecided"
    assert set(fifth.series["ours"]) == set(sixth.series["ours"]) == {None}
    assert table_5.plot({"series": fifth.series}).axes
    assert table_6.plot({"series": sixth.series}).axes


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ({1: (2.5, 0.1), 2: (2.2, 0.1)}, True),
        ({1: (1.2, 0.1), 2: (1.1, 0.1)}, False),
        ({1: (2.5, 0.1), 2: (1.1, 0.1)}, None),
        ({1: (2.5, 0.6)}, None),
        ({}, None),
    ],
)
def test_ratios_are_beyond_a_limit_by_more_than_their_spreads_or_it_cannot_be_told(
    ratios: dict[int, tuple[float, float]], expected: bool | None
) -> None:
    assert benchmarked.beyond(ratios, 2) is expected


@pytest.mark.parametrize(("factor", "expected"), [(1, "fails"), (9.2, "undecided"), (20, "holds")])
def test_an_epoch_takes_15_times_as_long_or_not_or_it_cannot_be_told(
    full: Context, monkeypatch: pytest.MonkeyPatch, factor: float, expected: str
) -> None:
    training = scaled(stored("training_step"), "corrected / ConvNet", factor)
    for row in training["rows"]:
        row["spread"] = 0.5
    keep(monkeypatch, {name: stored(name) for name in ("table_6", "memory")} | {"training_step": training})
    assert verdict(table_6.find(full), "an epoch of CCNet") == expected


def test_deeper_networks_are_undecided_unless_the_standard_layer_was_run(
    full: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {name: stored(name) for name in ("table_6", "memory", "training_step")}
    assert not any("layers of s = 1" in row["case"] and row["what"] == "standard" for row in kept["memory"]["rows"])
    keep(monkeypatch, kept)
    assert verdict(table_6.find(full), "allows deeper") == "undecided"
    cleared = next(
        row
        for row in kept["memory"]["rows"]
        if "layers of s = 1, forward +" in row["case"] and row["what"] == "chunked"
    )
    for factor, expected in ((50, "holds"), (0.5, "fails")):
        standard = {**cleared, "what": "standard", "value": factor * cleared["value"]}
        keep(monkeypatch, kept | {"memory": {**kept["memory"], "rows": [*kept["memory"]["rows"], standard]}})
        assert verdict(table_6.find(full), "allows deeper") == expected


def test_memory_saved_by_less_than_half_is_not_saved_significantly(
    full: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = stored("memory")
    standard = {row["case"]: row["value"] for row in memory["rows"] if row["what"] == "standard"}
    for share, expected in ((0.6, "fails"), (0.4, "holds")):
        changed = copy.deepcopy(memory)
        for row in changed["rows"]:
            if row["what"] == "chunked" and row["case"] in standard:
                row["value"] = share * standard[row["case"]]
        keep(monkeypatch, {"table_5": stored("table_5"), "memory": changed})
        assert verdict(table_5.find(full), "clearing memory significantly reduces") == expected


def test_memory_that_is_not_saved_is_noticed(full: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, {"table_5": stored("table_5"), "memory": scaled(stored("memory"), "discrete", 1000)})
    findings = table_5.find(full)
    assert verdict(findings, "by discrete convolutions significantly reduces") == "fails"
    assert verdict(findings, "clearing memory significantly reduces") == "holds"
    assert verdict(findings, "about Conv's memory") == "fails"


def test_without_a_result_of_this_hardware_it_is_measured_here(full: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, {})
    asked: list[str] = []

    def measure(name: str, settings: Settings) -> dict[str, Any]:
        asked.append(name)
        assert not settings.quick
        return stored(name)

    monkeypatch.setattr(benchmarked, "measure", measure)
    assert isinstance(benchmarked.load(full, "table_5"), Benchmark)
    assert asked == ["table_5"]
    full._seen.clear()
    benchmarked.load(full, "table_5")
    assert asked == ["table_5"], "the kept step is taken up"


@pytest.mark.parametrize(
    ("commit", "noted", "shown"),
    [
        ("0123456789abcdef", "0123456789abcdef", "commit 0123456789."),
        ("0123456789abcdef-dirty", "0123456789abcdef-dirty", "commit 0123456789-dirty."),
        (None, "unknown", "commit unknown."),
    ],
)
def test_the_commit_of_a_kept_benchmark_is_known_to_whoever_publishes(
    full: Context, monkeypatch: pytest.MonkeyPatch, commit: str | None, noted: str, shown: str
) -> None:
    keep(monkeypatch, {"table_5": {**stored("table_5"), "git_commit": commit}})
    loaded = benchmarked.load(full, "table_5")
    assert full.commits == [noted]
    assert benchmarked.sources(loaded).endswith(shown)


def test_a_quick_run_decides_nothing(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarked, "measure", lambda name, _settings: stored(name))
    for item in (table_5, table_6):
        assert {claim.verdict for claim in item.find(make_context()).claims} == {"undecided"}


def test_a_benchmark_that_computes_wrongly_ends_the_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")  # a process that ends with status 1
    with pytest.raises(CcnetError, match="table_5 failed"):
        benchmarked.measure("table_5", Settings(quick=True))
