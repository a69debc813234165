"""Where benchmarks leave their figures: a JSON file that `compare.py` reads, if $BENCH_JSON names one."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path


def keep(name, value):
    """Add a figure, less of which is better (seconds, MiB), to those of its name."""
    if file := os.environ.get("BENCH_JSON"):
        path = Path(file)
        found = json.loads(path.read_text()) if path.exists() else {"machine": machine(), "figures": {}}
        found["figures"].setdefault(name, []).append(value)
        path.write_text(json.dumps(found, indent=1))


def machine():
    """What figures depend on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}"
