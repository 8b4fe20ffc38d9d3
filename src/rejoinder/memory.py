"""Memory of the process: keep what was freed, and tell how much there was at most.

Tensors of many megabytes are freed and made anew in every training step. The C library gives such
memory back at once and the system must clear it page by page when it is asked for again, which took
a quarter of the time of a step (docs/experiments.md).
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names and values of glibc's malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Change glibc's settings for this process; False where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST))


def peak_memory() -> int:
    """Bytes that the process had in memory at most; 0 where the system does not tell."""
    if sys.platform == "win32":  # has no such count
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # getrusage(2): kilobytes on Linux
