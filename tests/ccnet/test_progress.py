"""Progress as a log file gets it."""

import pytest

from ccnet.progress import ProgressReport


def test_a_log_file_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressReport("work", 10, every_s=0.0) as report:
        report.advance(5, "loss 1.0")
        report.line("an epoch")
    with ProgressReport("silent", 10, every_s=0.0, enabled=False) as report:
        report.advance(5)
        report.line("nothing")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("work: 5 of 10 (50.0%)  loss 1.0")
    assert lines[1:] == ["an epoch"]
