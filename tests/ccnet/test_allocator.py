"""Freed memory is kept: the second allocation of a large block faults no pages."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from ccnet.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print(-1); sys.exit()
for _ in range(3):
    torch.ones(8 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(8 * 2**20)  # 32 MiB: 8,192 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    finished = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True)
    return int(finished.stdout)


def test_kept_memory_is_not_faulted_in_again():
    kept = page_faults("keep")
    if kept < 0:
        pytest.skip("needs glibc")
    assert kept * 4 < page_faults("leave")
