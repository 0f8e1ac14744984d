"""Tables 2 and 3: literal counts, and networks that are not the paper's."""

import pytest
import torch
from torch import nn

from ccnet import ConvNet
from ccnet.internal_net import InternalNet
from ccnet.paper import table_2, table_3
from ccnet.paper.findings import Findings
from ccnet.types import KernelInput

from .conftest import MakeContext


def verdict(findings: Findings, words: str) -> str:
    return next(claim.verdict for claim in findings.claims if words in claim.text)


def test_the_counts_that_the_paper_implies_are_those_of_a_literal_sum() -> None:
    # 2 -> 16 -> 16 -> C_in C_out K_h K_w, weights and biases, Table 2 and A.1
    assert table_2.implied(64, 64, 3, "offset") == (36_864, 2 * 16 + 16 + 16 * 16 + 16 + 16 * 36_864 + 36_864)
    assert table_2.implied(64, 64, 3, "distance") == (4_096, 2 * 16 + 16 + 16 * 16 + 16 + 16 * 4_096 + 4_096)
    expected: dict[KernelInput, float] = {"distance": 0.40, "offset": 4.23}
    for kernel_input, millions in expected.items():
        total = sum(table_2.implied(*layer, kernel_input)[1] for layer in table_2.channels())
        assert total / 1e6 == pytest.approx(millions, abs=0.005)


def test_the_internal_nets_are_table_2s_and_begin_with_the_variance_that_a2_wants(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_2, "QUICK_SEEDS", 1)
    monkeypatch.setattr(table_2, "IMAGES", 2)
    findings = table_2.find(make_context())
    assert verdict(findings, "16, 16 and C_final") == "holds"
    assert verdict(findings, 'do (A.2; "offset")') == "holds"
    totals = {row.what: row.value for row in findings.rows if row.case == "the whole CCNet"}
    assert totals == {"distance: parameters": 2_770_474, "offset: parameters": 6_595_882}
    assert table_2.plot({"series": findings.series}).axes


def test_weights_that_begin_twice_as_large_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = InternalNet.reset_parameters

    def doubled(self: InternalNet) -> None:
        real(self)
        with torch.no_grad():
            self.last.bias.mul_(2)

    monkeypatch.setattr(InternalNet, "reset_parameters", doubled)
    findings = Findings()
    table_2.judge_variance(findings, {"offset": [table_2.variances("offset", 0)]})
    assert verdict(findings, '"offset"') == "fails"


def test_the_networks_are_those_of_table_3(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_3, "QUICK_SEQUENCES", 3)
    findings = table_3.find(make_context())
    assert verdict(findings, "those of Table 3") == "holds"
    assert verdict(findings, "whatever the sequence") == "holds"
    assert verdict(findings, "strides") == "holds"
    assert verdict(findings, "Sec. 6 and A.2 name the same mean") == "fails"
    assert verdict(findings, "trains as A.2 says") == "fails"  # the spread of the scales, which is Table 4's
    assert table_3.plot({"series": findings.series}).axes


def test_another_stride_is_noticed(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shifted(ConvNet):
        """Strides in other layers; the last map is as large."""

        def __init__(self, *given: int, in_size: tuple[int, int]) -> None:
            super().__init__(*given, in_size=in_size)
            self.layers[1] = nn.Conv2d(32, 32, 3, padding=1)
            self.layers[2] = nn.Conv2d(32, 64, 4, stride=2, padding=1)

    monkeypatch.setattr(table_3, "ConvNet", Shifted)
    monkeypatch.setattr(table_3, "QUICK_SEQUENCES", 1)
    findings = table_3.find(make_context())
    assert verdict(findings, "those of Table 3") == "fails"
    assert verdict(findings, "strides") == "fails"
