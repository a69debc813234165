"""Two runs of `make bench` compared."""

import runpy
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent / "benchmarks"


def test_a_change_that_costs_ten_percent_is_seen(tmp_path, monkeypatch, capsys):
    keep = runpy.run_path(str(BENCHMARKS / "results.py"))["keep"]
    keep("nobody asked", 1.0)  # without a file nothing is written
    for name, figures in (("old", {"a": [1.0, 1.2, 1.1], "b": [2.0]}), ("new", {"a": [1.3], "b": [2.1], "c": [1.0]})):
        monkeypatch.setenv("BENCH_JSON", str(tmp_path / f"{name}.json"))
        for figure, values in figures.items():
            for value in values:
                keep(figure, value)
    statuses = []
    for limit in ("1.1", "1.2"):
        monkeypatch.setattr(
            sys, "argv", ["compare", *(str(tmp_path / f"{n}.json") for n in ("old", "new")), "--limit", limit]
        )
        try:
            runpy.run_path(str(BENCHMARKS / "compare.py"), run_name="__main__")
        except SystemExit as stop:
            statuses.append(int(stop.code))
    assert statuses == [1, 0]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["!", "a", "1.1", "1.3", "1.18"] and lines[0 + 1].split() == ["b", "2", "2.1", "1.05"]
    assert lines[2].split() == ["c", "new"]
