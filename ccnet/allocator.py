"""Keeping freed memory: a training step frees and asks for the same large blocks again and again.

glibc hands blocks of megabytes back to the kernel when they are freed, and every page of the next one faults anew. A
training step of CCNet allocates hundreds of megabytes of maps, windows and weights, so this is worth a few per cent.
"""

import ctypes
import sys

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask the C library to keep what this process frees, for its own next allocations.

    Returns:
        Whether it was granted: True with glibc, False elsewhere, where nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))
