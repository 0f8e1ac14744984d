"""Figures 3 and 7: lessons that survive a stop, verdicts of planted results, and the whole of both on tiny pictures."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from ccnet.paper import fig_3, fig_7, imitation, lessons
from ccnet.paper.catalogue import choose
from ccnet.paper.context import Context, Options
from ccnet.paper.findings import Findings
from ccnet.paper.imitation import Recipe, parameters_of, widest_gap
from ccnet.paper.lessons import TEACHERS, Lesson, errors_at, trail
from ccnet.paper.run import run_items
from tests.ccnet.literal import literal_cc_conv2d

from .conftest import MakeContext

TINY = Recipe(adam_steps=6, lbfgs_steps=6)


def lesson(**changes: object) -> Lesson:
    settings: dict = {"scale": None, "recipe": TINY} | changes
    return Lesson("bicubic", "distance", 12, 1, **settings)


def taught(context: Context, what: Lesson) -> list[dict]:
    with context.progress("teaching", what.recipe.steps, "steps") as progress:
        return trail(context, "one", what, progress)


def test_a_lesson_is_kept_and_another_one_is_not_taken_for_it(make_context: MakeContext) -> None:
    first = taught(make_context(), lesson())
    again = make_context()
    assert taught(again, lesson()) == first
    assert again.taken_up == 1
    other = make_context()
    assert taught(other, lesson(scale=(0.5, 0.5))) != first
    assert other.taken_up == 0


def test_a_run_that_is_stopped_between_lessons_goes_on_and_ends_as_if_it_was_not(
    make_context: MakeContext, options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_tiny(monkeypatch)
    whole = fig_7.find(Context(options, tmp_path / "whole", shown=False, commit="abc"))
    real, started = imitation.teach, 0

    def stops(*arguments: object) -> object:
        nonlocal started
        started += 1
        if started == 2:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(lessons, "teach", stops)
    with pytest.raises(KeyboardInterrupt):
        fig_7.find(make_context())
    again = make_context()
    assert fig_7.find(again).as_json() == whole.as_json()
    assert again.taken_up == 2  # the first lesson, and what was measured of it


@pytest.mark.parametrize("teacher", list(TEACHERS))
def test_every_teacher_is_its_kernel_in_the_literal_double_sum(teacher: str) -> None:
    what = TEACHERS[teacher]
    scale = (0.7, 0.9)
    image = Lesson(teacher, "distance", 10, 0, scale, TINY).image()
    target = what.resize(image, scale)
    exact = (Fraction(scale[0]), Fraction(scale[1]))
    size = (what.size, what.size)
    literal = literal_cc_conv2d(image, what.kernel(scale), size, exact, (target.shape[2], target.shape[3]), "distance")
    torch.testing.assert_close(target, literal, rtol=0, atol=1e-12)


def test_errors_at_other_scales_are_mean_squares_of_differences(make_context: MakeContext) -> None:
    what = lesson()
    moments = taught(make_context(), what)
    scales = [(0.6, 0.7), (1.1, 0.9)]
    found = errors_at(what, [moments[0], moments[-1]], scales)
    image = what.image()
    for moment, errors in zip((moments[0], moments[-1]), found, strict=True):
        for scale, error in zip(scales, errors, strict=True):
            with torch.no_grad():
                out = what.layer(moment)(image.float(), scale)
            truth = TEACHERS["bicubic"].resize(image, scale)
            expected = sum((float(a) - float(b)) ** 2 for a, b in zip(out.flatten(), truth.flatten(), strict=True))
            assert error == pytest.approx(expected / truth.numel(), rel=1e-5)
    at_its_own = errors_at(what, moments[-1:], [what.taught_scale])
    assert at_its_own[0][0] == pytest.approx(moments[-1]["mse"], rel=1e-4)


def planted(trained: float, tested: float, gap: float = 0.05) -> dict:
    return {"trained": trained, "tested": tested, "gap": gap}


def verdicts_of_fig_7(floats: list[dict], halves: list[dict], near: list[dict]) -> list[str]:
    findings = Findings()
    fig_7.judge(findings, dict(zip(fig_7.CASES, (floats, halves, near), strict=True)))
    return [claim.verdict for claim in findings.claims]


def test_a_layer_that_does_not_generalise_fails_and_a_1_2_that_does_too() -> None:
    good, bad, near = [planted(1e-3, 1.2e-3)] * 3, [planted(1e-6, 0.1, 1)] * 3, [planted(1e-3, 1e-2, 0.7)]
    assert verdicts_of_fig_7(good, bad, near) == ["holds"] * 4
    assert verdicts_of_fig_7([planted(1e-3, 5e-3)] * 3, bad, near)[0] == "fails"
    assert verdicts_of_fig_7(good, [planted(1e-3, 2e-3, 1)] * 3, near)[1:3] == ["fails", "fails"]
    assert verdicts_of_fig_7(good, bad, [planted(1e-3, 1e-3)])[3] == "fails"


def test_one_float_scale_that_leaves_a_gap_does_not_sway_the_median_but_is_reported() -> None:
    findings = Findings()
    floats = [planted(1e-3, 1.2e-3), planted(1e-3, 1.1e-3), planted(1e-3, 9e-3, 0.5)]
    cases = dict(zip(fig_7.CASES, (floats, [planted(1e-6, 0.1, 1)], [planted(1e-3, 1e-2)]), strict=True))
    fig_7.judge(findings, cases)
    assert findings.claims[0].verdict == "holds"
    assert "1.2 (1.1 to 9) times over 3 seeds; over the 2 whose grids" in findings.claims[0].evidence


def test_a_wrong_kernel_is_not_called_recovered() -> None:
    what = lesson()
    untaught = fig_3.looked_over(what, [{"step": 0, "mse": 1.0, "parameters": parameters_of(what.untaught())}])
    assert untaught["relative_error"][-1] > 0.5
    assert fig_3.judge_recovery(what, untaught).verdict == "fails"
    assert fig_3.judge_recovery(what, untaught | {"relative_error": [0.9, 0.1]}).verdict == "holds"


def test_a_layer_that_learned_antialiasing_for_all_scales_would_fail_the_claim_that_it_cannot() -> None:
    findings = Findings()
    fig_3.judge_antialiased(findings, {"mse": [1e-3], "scale": (0.5, 0.7)}, [2e-3] * len(fig_3.ANTIALIASED_OTHERS))
    fig_3.judge_antialiased(findings, {"mse": [1e-3], "scale": (0.5, 0.7)}, [2e-2] * len(fig_3.ANTIALIASED_OTHERS))
    assert [claim.verdict for claim in findings.claims] == ["fails", "holds"]


def test_a_truth_that_is_not_pillows_bicubic_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fig_3.pillow_difference(Lesson("bicubic", "distance", 24, 1, None, TINY)) < fig_3.PILLOW
    wrong = TEACHERS["gaussian"].kernel((1, 1))
    monkeypatch.setattr(fig_3, "bicubic", wrong)
    assert fig_3.pillow_difference(Lesson("bicubic", "distance", 24, 1, None, TINY)) > 0.01


@pytest.mark.parametrize("seed", range(8))
def test_the_scale_of_figure_3_shows_all_of_the_kernel(seed: int) -> None:
    scale = fig_3.telling_scale(seed, 48)
    assert scale == fig_3.telling_scale(seed, 48)
    assert widest_gap(48, scale, 4) <= fig_3.DENSE


def make_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both figures in seconds; what they find then means nothing."""
    for item in (fig_3, fig_7):
        monkeypatch.setattr(item, "QUICK_IMAGE_PX", 24)
        monkeypatch.setattr(item, "QUICK_RECIPE", TINY)
    monkeypatch.setattr(fig_7, "QUICK_SEEDS", 2)
    monkeypatch.setattr(fig_7, "QUICK_TEST_SCALES", 3)
    monkeypatch.setattr(fig_7, "CURVE_SCALES", 1)


@pytest.mark.timeout(600)  # drawing fifty panels takes long where the machine is shared
def test_both_run_from_the_catalogue_and_leave_a_result_and_a_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: Options
) -> None:
    make_tiny(monkeypatch)
    documents = run_items(choose(["fig-3", "fig-7"]), options, tmp_path, text=False)
    assert [len(document["claims"]) for document in documents] == [6, 4]
    for name in ("fig_3", "fig_7"):
        assert (tmp_path / "quick" / f"{name}.png").stat().st_size > 10_000
        assert (tmp_path / "quick" / f"{name}.json").stat().st_size < 50_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_quick_runs_find_what_the_paper_says(tmp_path: Path, options: Options) -> None:
    documents = run_items(choose(["fig-3", "fig-7"]), options, tmp_path, text=False)
    assert [claim["verdict"] for document in documents for claim in document["claims"]] == ["holds"] * 10
