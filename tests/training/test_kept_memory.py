"""Freed memory stays with the process while it trains, and no longer."""

import platform
import subprocess
import sys

import pytest

from tasnet_attn.training import memory

MEASURED = """
import re, resource
from pathlib import Path
import torch
from tasnet_attn.training import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(40 << 18)  # 40 MiB: glibc maps it
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**10

faults()
usual = faults()
with memory.kept():
    faults()
    again, inside = faults(), resident()
print(usual, again, inside - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_step_pays_no_page_fault_twice_and_the_end_returns_the_memory():
    done = subprocess.run([sys.executable, "-c", MEASURED], check=True, capture_output=True, text=True)
    usual, again, returned = map(float, done.stdout.split())
    assert again < usual / 10 and returned > 30


def test_nothing_happens_with_another_c_library(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with memory.kept():
        pass
