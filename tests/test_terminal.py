"""Lines, bars and the log, with and without a terminal."""

import io
import logging
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tasnet_attn import terminal


class Screen(io.StringIO):
    def isatty(self):
        return True


def talk():
    terminal.say("said")
    terminal.detail("detail")
    terminal.warn("careful")
    terminal.result("result")


@pytest.mark.parametrize(
    ("level", "out", "err"),
    [
        (terminal.QUIET, [], ["tasnet-attn: warning: careful"]),
        (terminal.NORMAL, ["result"], ["said", "tasnet-attn: warning: careful"]),
        (terminal.VERBOSE, ["result"], ["said", "detail", "tasnet-attn: warning: careful"]),
    ],
)
def test_how_much_is_printed(level, out, err, capsys):
    with terminal.showing(level):
        talk()
    said = capsys.readouterr()
    assert said.out.splitlines() == out and said.err.splitlines() == err


def test_a_bar_is_drawn_on_a_terminal_and_a_line_now_and_then_elsewhere(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "EVERY", 0.0)
    with terminal.bar(4, "files", "reading") as bar:
        for number in range(5):
            bar.set_postfix_str(f"file {number}")
            bar.update(number > 0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"reading: {n} of 4 files" for n in (1, 2, 3)]
    with terminal.showing(terminal.QUIET), terminal.bar(2, "files", "reading") as bar:
        bar.update()
    assert capsys.readouterr().err == ""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal.bar(2, "files", "reading") as bar:
        bar.update()
        terminal.say("a line")
    drawn = screen.getvalue().split("\r")
    assert any("reading  50%" in line and "1/2 files" in line for line in drawn)
    assert any(line.endswith("a line\n") for line in drawn)


def test_what_libraries_say_goes_to_the_log(tmp_path, capsys):
    """Also what was said before there was a file; and everything is as before afterwards."""
    logger = logging.getLogger("a_library")
    handler = logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    logger.propagate = False
    shown = warnings.showwarning
    with terminal.libraries_apart():
        logger.warning("early")
        with terminal.log(tmp_path / "none" / "log.txt"):
            pass  # no folder: it waits
        with terminal.log(tmp_path / "log.txt"), terminal.log(tmp_path / "inner.txt"):
            warnings.warn("old function", DeprecationWarning, stacklevel=1)
            warnings.warn("think of it", stacklevel=1)
            logging.getLogger("another").error("late")
    assert capsys.readouterr().err == "" and logger.handlers == [handler] and warnings.showwarning is shown
    text = (tmp_path / "log.txt").read_text()
    assert all(word in text for word in ("early", "think of it", "late")) and not (tmp_path / "inner.txt").exists()
    logger.removeHandler(handler)


def warn_elsewhere():
    warnings.warn("from another process", stacklevel=1)


def test_processes_that_work_for_a_command_write_its_log(tmp_path, capfd):
    with terminal.libraries_apart(), terminal.log(tmp_path / "log.txt"):
        given = (terminal.log_file(),)
        with ProcessPoolExecutor(1, get_context("spawn"), initializer=terminal.serve, initargs=given) as pool:
            pool.submit(warn_elsewhere).result()
    assert "from another process" in (tmp_path / "log.txt").read_text() and capfd.readouterr().err == ""


def test_a_table_fits_the_terminal():
    heads, rows = ["", *"abcdef"], [["metric", *["1.00 [0.50, 1.50]"] * 6], ["x", *["2.00"] * 6]]
    wide, narrow = terminal.table(heads, rows, 200), terminal.table(heads, rows, 50)
    assert len(wide.splitlines()) == 3 and max(map(len, narrow.splitlines())) <= 50
    assert narrow.split().count("1.00") == 6 and narrow.count("metric") == 3
