"""`ccnet bench`: turns, statistics, verdicts, comparisons; a wrong result fails; one benchmark from end to end."""

import dataclasses
import io
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ccnet import CCConv2d, CCNet, sample_scale_sequences
from ccnet.benchmarks import compare, passes, table_5
from ccnet.benchmarks.catalogue import BENCHMARKS, Benchmark, find
from ccnet.benchmarks.checks import Checks, Probe, WrongResult, exact_copy, exact_logits, no_misses
from ccnet.benchmarks.counting import pass_cost
from ccnet.benchmarks.measure import LEAST_ROUNDS, Rounds, Times, median_and_spread, take_turns
from ccnet.benchmarks.memory import Case, measure_apart, too_much
from ccnet.benchmarks.references import ConvolutionChain, MemoryReader, reference_input, reference_layer
from ccnet.benchmarks.report import Result, Row, Settings, Target, document, for_people, hardware_slug
from ccnet.benchmarks.run import Options, run_one
from ccnet.cli import app
from ccnet.errors import CcnetError
from ccnet.plan_cache import PlanCache
from ccnet.plans import LayerPlan

QUICK = Options(Settings(quick=True, seed=3, threads=1))


class Clock:
    """Seconds that pass only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: float):
        def call() -> None:
            self.calls.append(name)
            self.now += seconds

        return call


def test_alternatives_take_turns_after_their_warm_up():
    clock = Clock()
    take_turns({"a": clock.work("a", 1.0), "b": clock.work("b", 2.0)}, Rounds(6, 100.0, warm_up=4), clock=clock)
    assert clock.calls == [*"aaaabbbb", *("ab" * 6)]


def test_a_short_call_is_repeated_within_its_turn_and_its_time_divided():
    clock = Clock()
    calls = {"short": clock.work("short", 0.001), "long": clock.work("long", 1.0)}
    times = take_turns(calls, Rounds(5, 100.0, warm_up=1), clock=clock)
    runs = [(name, len(list(group))) for name, group in itertools.groupby(clock.calls[2:])]
    assert runs == [("short", 5), ("long", 1)] * 5
    assert times["short"].median == pytest.approx(0.001)
    assert times["long"].median == pytest.approx(1.0)


def test_rounds_end_when_the_budget_is_spent_but_never_too_soon():
    clock = Clock()
    times = take_turns({"a": clock.work("a", 10.0)}, Rounds(100, 1.0, warm_up=1), clock=clock)
    assert len(times["a"].seconds) == LEAST_ROUNDS
    times = take_turns({"a": clock.work("a", 10.0)}, Rounds(100, 75.0, warm_up=1), clock=clock)
    assert len(times["a"].seconds) == 8


def test_spread_is_half_the_interquartile_range():
    values = [float(n) for n in (9, 1, 4, 16, 25, 36, 49, 64, 81)]
    low, _, high = statistics.quantiles(values, n=4)
    assert median_and_spread(values) == (25.0, (high - low) / 2)
    assert median_and_spread([3.0]) == (3.0, 0.0)


def test_a_ratio_is_taken_round_by_round():
    slowing = Times((1.0, 2.0, 3.0, 4.0, 5.0))  # a machine that slows down while both are measured
    assert slowing.ratio(slowing.scaled(2)) == (0.5, 0.0)


def test_the_two_sides_of_a_target_are_judged():
    at_most, at_least = Target("t", 1.5, paper="4"), Target("t", 0.8, "at least")
    assert at_most.judge(Row("c", "w", 1.5, "x", 0.1)) == {
        "name": "t", "limit": 1.5, "sense": "at most", "paper": "4", "case": "c", "measured": 1.5, "spread": 0.1,
        "met": True,
    }  # fmt: skip
    assert not at_most.judge(Row("c", "w", 1.51, "x"))["met"]
    assert at_least.judge(Row("c", "w", 0.8, "x"))["met"]
    assert not at_least.judge(Row("c", "w", 0.79, "x"))["met"]
    assert not at_most.judge(Row("c", "w", float("nan"), "x"))["met"]


@pytest.mark.parametrize("sign", [1, -1])
def test_an_output_that_is_off_is_refused_and_a_close_one_is_not(sign):
    checks, expected = Checks(), torch.tensor([3.0, -10.0])
    checks.require("close", expected + sign * 0.9e-3, expected)
    assert checks.largest == pytest.approx(0.9e-4, rel=1e-2)
    with pytest.raises(WrongResult, match="wrong one"):
        checks.require("wrong one", expected + sign * torch.tensor([1.2e-3, 0.0]), expected)


@pytest.mark.parametrize("wrong", [torch.tensor([3.0, torch.nan]), torch.ones(3), torch.zeros(2)])
def test_not_a_number_another_shape_and_zeros_are_refused(wrong):
    with pytest.raises(WrongResult):
        Checks().require("wrong", wrong, torch.tensor([3.0, -10.0]))


def test_an_expected_zero_asks_for_a_zero():
    Checks().require("zero", torch.zeros(2), torch.zeros(2))
    with pytest.raises(WrongResult):
        Checks().require("zero", torch.full((2,), 1e-3), torch.zeros(2))


def test_a_plan_made_while_measuring_is_noticed():
    layer, cache = CCConv2d(2, 2, 3), PlanCache()
    for _ in range(2):
        layer.plan((6, 6), cache=cache)
    with no_misses(cache, "warm"):
        layer.plan((6, 6), cache=cache)
    with pytest.raises(WrongResult, match="cold"), no_misses(cache, "cold"):
        layer.plan((7, 7), cache=cache)


def test_the_exact_copy_is_the_standard_backend_in_float64_and_leaves_the_model_alone():
    model = CCNet(1, in_size=(8, 8))
    exact = exact_copy(model)
    assert exact.backend == "standard"
    assert {parameter.dtype for parameter in exact.parameters()} == {torch.float64}
    assert model.backend != "standard"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_chain_has_exactly_the_multiply_adds_of_the_pass():
    for sequence in sample_scale_sequences(3, seed=5):
        cost = pass_cost(sequence)
        assert ConvolutionChain(cost, 2).multiply_adds == cost.multiply_adds
        assert ConvolutionChain(cost, 2)().shape == (2, 10)
        for layer in cost.layers:
            out = reference_layer(*layer.channels, layer.kernel)(reference_input(layer, 1))
            assert tuple(out.shape[2:]) == layer.out_size


def test_a_pass_is_counted_as_its_layers_are_run():
    model = CCNet(3)
    (sequence,) = sample_scale_sequences(1, seed=2)
    seen: list[int] = []
    for layer in model.layers:
        layer.register_forward_hook(
            lambda module, _, out: seen.append(
                out[0].numel() * module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            )
        )
    model(torch.zeros(1, 3, 32, 32), sequence)
    cost = pass_cost(sequence)
    assert [layer.multiply_adds for layer in cost.layers] == seen
    assert cost.multiply_adds == sum(seen) + 4096 * 512 + 512 * 512 + 512 * 10
    warm = passes.WarmPass(model, sequence)
    for _ in range(3):
        warm(torch.zeros(1, 3, 32, 32))
    first = 4 * 3 * 32 * 9
    assert warm.weight_bytes == cost.prepared_bytes + first + 4 * (4096 * 512 + 512 * 512 + 512 * 10)


def test_memory_is_read_whole():
    reader = MemoryReader(1_000_000, Rounds(5, 0.1))
    assert 0.99e6 < reader.nbytes <= 1_000_000
    reader()


def test_a_figure_counts_as_changed_beyond_both_spreads_only():
    def result(values):
        rows = [dataclasses.asdict(Row("c", what, value, "s", spread)) for what, (value, spread) in values.items()]
        return {"rows": rows, "git_commit": "0123456789ab", "date": "2026-11-22", "hardware": "h"}

    before = result(
        {"same": (1.0, 0.1), "slower": (1.0, 0.1), "little": (1.0, 0.0), "gone": (1.0, 0.0), "zero": (0, 0)}
    )
    now = result({"same": (1.15, 0.1), "slower": (1.3, 0.1), "little": (1.04, 0.0), "new": (1.0, 0.0), "zero": (1, 0)})
    changes = {change.what: change for change in compare.compare(before, now)}
    assert list(changes) == ["same", "slower", "little"]
    assert [change.beyond_spread for change in changes.values()] == [False, True, False]
    assert changes["slower"].ratio == pytest.approx(1.3)
    text = compare.for_people(before, list(changes.values()))
    assert [line.split()[1] for line in text.splitlines() if line.endswith("CHANGED")] == ["slower"]


def test_results_are_kept_by_hardware_and_quick_ones_are_not(tmp_path):
    values = {**document("passes", Result(), Settings()), "hardware": "AMD EPYC, 2 thread(s)"}
    assert compare.save(tmp_path, values) == tmp_path / "amd-epyc-2-threads" / "passes.json"
    assert compare.load(tmp_path, "AMD EPYC, 2 thread(s)", "passes") == values
    assert compare.load(tmp_path, "AMD EPYC, 1 thread(s)", "passes") is None
    with pytest.raises(CcnetError, match="quick"):
        compare.save(tmp_path, {**values, "quick": True})
    assert hardware_slug("NVIDIA H200 (141 GB)") == "nvidia-h200-141-gb"


def test_the_table_for_people_has_a_line_a_case_and_says_what_is_not_met():
    result = Result()
    result.add_times("small", {"a": Times((0.002,) * 5), "b": Times((0.004,) * 5)})
    result.add_ratio("small", "a / b", Times((0.002,) * 5), Times((0.004,) * 5), Target("half", 0.4))
    lines = for_people(result).splitlines()
    assert lines[1].split() == ["small", "2.00", "ms", "4.00", "ms", "0.500"]
    assert lines[4].endswith("NOT MET")


def test_names_are_taken_with_either_dash_and_unknown_ones_are_refused():
    assert [benchmark.name for benchmark in find(["first-use", "table_5"])] == ["first_use", "table_5"]
    assert find([]) == list(BENCHMARKS)
    with pytest.raises(CcnetError, match=r"no benchmark speed; there are table_5, "):
        find(["speed"])


def test_every_benchmark_can_be_loaded():
    assert all(callable(benchmark.measure()) for benchmark in BENCHMARKS)


def test_list_names_every_benchmark_and_measures_nothing():
    listed = CliRunner().invoke(app, ["bench", "--list", "--json"])
    assert listed.exit_code == 0
    assert [entry["name"] for entry in json.loads(listed.stdout)] == [benchmark.name for benchmark in BENCHMARKS]
    assert "table_5" in CliRunner().invoke(app, ["bench", "--list"]).stdout


@pytest.mark.parametrize("arguments", [["nothing"], ["sequences", "--quick", "--save"], ["--threads", "0"]])
def test_what_cannot_be_right_ends_with_status_2(arguments):
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_a_quick_run_measures_compares_and_ends_with_a_json_line(tmp_path):
    code = "from ccnet.cli import app; app()"
    options = ["bench", "table-5", "--quick", "--threads", "1", "--seed", "4", "--results", str(tmp_path)]
    command = [sys.executable, "-c", code, *options, "--compare"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("== table_5: ")
    measured = json.loads(finished.stdout.splitlines()[-1])
    assert measured["benchmark"] == "table_5"
    assert "nothing to compare with" in finished.stderr
    assert (measured["seed"], measured["threads"], measured["quick"]) == (4, 1, True)
    assert measured["checks"]["compared"] > 10
    assert measured["checks"]["largest_relative_error"] < measured["checks"]["tolerance"] == 1e-4
    ratios = [row["value"] for row in measured["rows"] if row["what"] == "CC / conv2d"]
    assert [target["measured"] for target in measured["targets"]] == ratios
    assert {target["name"] for target in measured["targets"]} == {table_5.INFERENCE.name, table_5.TRAINING.name}


def test_json_alone_is_all_that_programs_get(capfd):
    assert run_one(find(["sequences"])[0], dataclasses.replace(QUICK, json_only=True), sys.stdout, sys.stderr) == 0
    out, _ = capfd.readouterr()
    assert json.loads(out)["benchmark"] == "sequences"


@pytest.mark.parametrize("where", ["inference", "gradient"])
def test_a_wrong_result_fails_the_benchmark_and_shows_no_figures(where, monkeypatch):
    if where == "inference":
        right = LayerPlan.__call__
        monkeypatch.setattr(LayerPlan, "__call__", lambda plan, x, **options: right(plan, x, **options) * 1.001)
    else:
        monkeypatch.setattr(table_5, "measure_inference", lambda *_: None)
        right_forward = CCConv2d.forward

        def forward(layer, x, *arguments, **options):
            out = right_forward(layer, x, *arguments, **options)
            if x.dtype == torch.float32 and out.requires_grad:
                out.register_hook(lambda gradient: gradient * 1.001)
            return out

        monkeypatch.setattr(CCConv2d, "forward", forward)
    out, log = io.StringIO(), io.StringIO()
    assert run_one(Benchmark("table_5", ""), QUICK, out, log) == 1
    assert out.getvalue() == ""
    assert "wrong result" in log.getvalue()
    assert where in log.getvalue()


def test_exact_logits_are_those_of_the_model():
    model = CCNet(1, in_size=(8, 8)).eval()
    sequences = sample_scale_sequences(2, seed=0, in_size=(8, 8))
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        expected = torch.stack([model(x, sequence) for sequence in sequences])
    Checks().require("logits", expected, exact_logits(model, x, sequences))


def test_peak_memory_of_the_literal_product_is_seen():
    small = Case("conv2d", 24, 1, "2/3", False, 8, torch.get_num_threads(), 0)
    product_mib = 8 * 16 * 16 * 32 * 32 * 9 * 4 / 2**20
    assert measure_apart(dataclasses.replace(small, what="standard"))["peak_mib"] > 0.9 * product_mib


def test_standard_is_left_out_where_its_product_does_not_fit():
    case = Case("standard", 10_000, 1, "2/3", True, 50, 1, 0)
    assert "GiB" in str(too_much(case))
    assert too_much(dataclasses.replace(case, what="discrete")) is None
    assert too_much(dataclasses.replace(case, size=8)) is None


def test_the_probe_is_the_first_and_the_last_image_and_knows_their_logits():
    model = CCNet(1, in_size=(8, 8)).eval()
    (sequence,) = sample_scale_sequences(1, seed=0, in_size=(8, 8))
    probe = Probe(model)
    one, four = probe.batch(1), probe.batch(4)
    assert torch.equal(one[0], four[0])
    with torch.no_grad():
        Checks().require("four", model(four, sequence)[[0, 3]], probe.expected(sequence, 4))
        Checks().require("one", model(one, sequence), probe.expected(sequence, 1))
    assert not torch.equal(probe.batch(4)[1], four[1])


def test_a_benchmark_that_is_told_to_end_takes_its_process_along():
    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        pytest.skip("the system does not tell a process's children")
    command = [sys.executable, "-c", "from ccnet.cli import app; app()", "bench", "table_5", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        while not (found := children.read_text().split()):
            assert parent.poll() is None
            time.sleep(0.05)
        parent.terminate()
    assert parent.returncode == 128 + signal.SIGTERM
    assert not Path(f"/proc/{found[0]}").exists()
