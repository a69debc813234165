"""Freed memory stays with the process while it trains."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # M_... of glibc's malloc.h
USUAL = 64 << 20, 65536  # what a process that frees large blocks arrives at, and glibc's default
ALL, NONE = -1, 0  # keep all of it; map no block


@contextmanager
def kept() -> Iterator[None]:
    """Each step reuses the last one's memory; nothing changes with another C library than glibc.

    glibc maps large blocks one by one and unmaps them when they are freed, so every tensor of every step costs its page
    faults again: 40 % of a step's CPU time in some models (tests/benchmarks/bench_kept_memory.py). The numbers stay the
    same.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(MMAP_MAX, NONE), libc.mallopt(TRIM_THRESHOLD, ALL)
    try:
        yield
    finally:
        libc.mallopt(TRIM_THRESHOLD, USUAL[0]), libc.mallopt(MMAP_MAX, USUAL[1])
        libc.malloc_trim(0)
