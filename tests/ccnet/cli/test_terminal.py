"""Tables and progress as a terminal shows them."""

import contextlib
import io

import pytest
import torch

from ccnet import sample_scale_sequences
from ccnet.checkpoint import Checkpoint
from ccnet.cli_runs import measure_shifts, run_members
from ccnet.cli_support import print_table


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def test_names_with_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("[/bold] title", ("name",), [("shoe[red][/blue].png",)])
    shown = capsys.readouterr().out
    assert "[/bold] title" in shown
    assert "shoe[red][/blue].png" in shown


def test_a_probe_shows_how_far_it_is(convnet: Checkpoint) -> None:
    with contextlib.redirect_stderr(Terminal()) as terminal:
        measure_shifts(convnet, "net", "noise", (1, 2), samples=3, seed=0, data_dir=None)
    assert "probing net" in terminal.getvalue()
    assert "100.0%" in terminal.getvalue()


def test_many_passes_show_how_far_they_are_and_few_show_nothing(ccnet: Checkpoint) -> None:
    sequences = sample_scale_sequences(2, seed=0)
    with contextlib.redirect_stderr(Terminal()) as terminal:
        run_members(ccnet, torch.zeros(1, 1, 32, 32), sequences)
        assert terminal.getvalue() == ""
        run_members(ccnet, torch.zeros(8, 1, 32, 32), sequences)
    assert "100.0%" in terminal.getvalue()
