"""Sweeps as a user runs them: results, resuming after a kill, failures, mistakes, Ray."""

import csv
import io
import json
import math
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_SEPARATORS
from filelock import FileLock
from lookalikes import write_stem_folders
from tiny import DPRNN, ONE, SWEEP, UNCOUNTABLE, write_sweep

import tasnet_attn
from tasnet_attn.ablation.display import Display
from tasnet_attn.ablation.pools import LocalPool, WorkerDied
from tasnet_attn.ablation.runner import Status
from tasnet_attn.ablation.sweep import read
from tasnet_attn.ablation.worker import perform
from tasnet_attn.cli import main
from tasnet_attn.training.command import train


@contextmanager
def one_thread():
    """As a worker trains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cells_of(out):
    with (out / "cells.csv").open() as file:
        return list(csv.DictReader(file))


def stamps(out):
    """When every file of a sweep's runs was written last; reading one does not count."""
    return {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """(sweep file, its folder after `ablate --jobs 2`)."""
    folder = tmp_path_factory.mktemp("unbroken")
    sweep = write_sweep(folder)
    assert main(["ablate", str(sweep), "--out", str(folder / "out"), "--jobs", "2"]) == 0
    return sweep, folder / "out"


def test_a_sweep_leaves_tables_and_figures(unbroken):
    sweep, out = unbroken
    rows = cells_of(out)
    assert len(rows) == 4 and {row["state"] for row in rows} == {"finished"}
    for row in rows:
        run = out / row["folder"]
        with (run / "metrics.csv").open() as file:
            losses = [float(r["valid_loss"]) for r in csv.DictReader(file) if r["valid_loss"]]
        assert len(losses) == 2 and float(row["valid_loss"]) == min(losses)
        assert float(row["valid_si_snr"]) == pytest.approx(-min(losses), abs=0.01)
        of_sources = [float(row[f"valid_si_snr:{source}"]) for source in ("guitar", "backing")]
        assert np.mean(of_sources) == pytest.approx(float(row["valid_si_snr"]), abs=1e-5)
        assert int(row["epochs_to_best"]) == 1 + int(np.argmin(losses))
        assert float(row["epoch_seconds"]) > 0 and float(row["real_time_factor"]) > 0
        with (run / "test" / "scores.csv").open() as file:
            rows_of = list(csv.DictReader(file))
        for quantity, sources in (("", ("guitar", "backing")), (":guitar", ("guitar",))):
            scores = [float(r["score"]) for r in rows_of if r["metric"] == "SI-SNRi" and r["source"] in sources]
            assert len(scores) == 2 * len(sources)
            assert float(row[f"test:SI-SNRi{quantity}"]) == pytest.approx(np.mean(scores))
        assert json.loads(row["overrides"]) in [cell.overrides for cell in read(sweep).cells]
    table = (out / "table.md").read_text()
    mean = np.mean([float(row["valid_si_snr"]) for row in rows if row["cell"] == "TasNet"])
    assert f"| TasNet | 2,096 | 1.06 M | {mean:.2f} [" in table
    assert "| 1_trans_0, ffn=8 minus TasNet: -136 | **holds** |" in table
    assert table.count("**holds**") == 2 and "SDR of guitar on test (dB)" in table
    assert {path.name for path in out.glob("*.png")} == {
        "curves.png", "grid.png", "parameters.png", "time.png", "by layers.png",
    }  # fmt: skip
    assert "real-time factor" in (out / "times.md").read_text()


@pytest.mark.slow
def test_a_cell_is_the_run_that_train_makes(unbroken, tmp_path):
    sweep, out = unbroken
    row = next(row for row in cells_of(out) if row["cell"] == "1_trans_0, ffn=8" and row["seed"] == "1")
    settings = ["--model.separator=1_trans_0", "--model.separator.ffn=8", "--seed_everything=1"]
    with one_thread():
        run = train(["--config", str(sweep.parent / "base.yml"), *settings, "--out", str(tmp_path / "run")])
    weights = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in (run, out / row["folder"])
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_is_done_is_not_done_again(unbroken, capsys):
    sweep, out = unbroken
    before, table = stamps(out), (out / "table.md").read_text()
    assert main(["ablate", str(sweep), "--out", str(out)]) == 0
    assert stamps(out) == before and (out / "table.md").read_text() == table
    assert "0 ran now" in capsys.readouterr().out


def test_a_run_without_a_score_is_not_counted_as_one(unbroken):
    sweep = write_sweep(unbroken[0].parent, "by_score.yml", metric="test:SI-SNRi")
    out = unbroken[1].with_name("unscored")
    shutil.copytree(unbroken[1], out)
    row = next(row for row in cells_of(out) if (row["cell"], row["seed"]) == ("TasNet", "1"))
    scores = out / row["folder"] / "test" / "scores.csv"
    scores.write_text(re.sub(r"(SI-SNRi),[^,]*,[^,]*,", r"\1,,,", scores.read_text()))
    assert main(["ablate", str(sweep), "--out", str(out)]) == 0
    lines = [line.split(" | ") for line in (out / "table.md").read_text().partition("##")[0].splitlines()]
    counted = {words[0]: words[-1] for words in lines}
    assert counted["| TasNet"] == "2 of 2, 1 scored |" and counted["| 1_trans_0, ffn=8"] == "2 of 2 |"


@pytest.mark.slow
def test_a_cell_that_another_sweep_trained_is_not_trained_again(unbroken, capsys):
    """Beside it, written another way. --only says which cells are trained, the report has all that are done."""
    sweep, out = unbroken
    tasnet = {"class_path": "tasnet_attn.separators.tasnet.TasNet", "init_args": {"hidden": 8, "n_layers": 2}}
    cells = {
        "the same": {"model.separator": tasnet, "model.encoder.stride": 16, "early_stopping.mode": "min"},
        "never": {"model.separator": "TasNet", "model.separator.hidden": 9},
    }
    changes = {"axes": None, "cells": cells, "baseline": "the same", "claims": None, "metric": "test:NSDR:guitar"}
    second = write_sweep(sweep.parent, "second.yml", **changes)
    before = stamps(out)
    again = out.parent / "again"
    assert main(["ablate", str(second), "--out", str(again), "--only", "the *"]) == 0
    assert stamps(out) == before and "2 of 4 runs finished, 0 failed; 2 ran now" in capsys.readouterr().out
    rows = {(row["cell"], row["seed"]): row for row in cells_of(again)}
    assert rows["never", "0"]["state"] == "waiting"
    for seed in "01":
        (theirs,) = [row for row in cells_of(out) if (row["cell"], row["seed"]) == ("TasNet", seed)]
        ours = rows["the same", seed]
        assert ours["folder"] == f"../{out.name}/{theirs['folder']}" and ours["valid_loss"] == theirs["valid_loss"]
        assert ours["test:SDR"] == theirs["test:SDR"]
        assert math.isfinite(float(ours["test:NSDR:guitar"]))  # BSSEval v3, because it is asked for
    assert not list(again.rglob("last.ckpt")) and main(["ablate", str(second), "--only", "nobody"]) == 2
    assert "--only nobody: no such cell; choose from the same; never" in capsys.readouterr().err


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
def test_killed_in_the_middle_and_continued_equals_an_unbroken_sweep(unbroken, tmp_path):
    """kill -9 of the runner; its worker dies with it; finished cells are not changed, the interrupted one resumes."""
    sweep, whole = unbroken
    out = tmp_path / "out"
    command = [sys.executable, "-W", "ignore", "-m", "tasnet_attn.cli", "ablate", str(sweep), "--out", str(out)]
    runner = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline, broken = time.time() + 600, []
    while not broken and time.time() < deadline:
        assert runner.poll() is None, runner.stderr.read()
        time.sleep(0.02)
        done = {path.parent for path in out.glob("runs/*/result.json")}
        broken = [path.parents[2] for path in out.glob("runs/*/checkpoints/last.ckpt") if path.parents[1] not in done]
        broken = broken if done else []
    workers = children(runner.pid)
    assert broken and workers
    runner.kill()
    runner.wait()
    while any(map(alive, workers)) and time.time() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, workers))

    finished = [path.parent for path in out.glob("runs/*/result.json")]
    before = {path: stamp for path, stamp in stamps(out).items() if any(f in path.parents for f in finished)}
    assert before and len(finished) < 4
    assert main(["ablate", str(sweep), "--out", str(out)]) == 0
    after = stamps(out)
    assert {path: after[path] for path in before} == before
    assert (out / "table.md").read_text() == (whole / "table.md").read_text()
    for row in cells_of(out):
        ours, theirs = ((folder / row["folder"] / "result.json").read_text() for folder in (out, whole))
        assert without_seconds(ours) == without_seconds(theirs)


def without_seconds(result):
    result = json.loads(result)
    for epoch in result["epochs"]:
        del epoch["seconds"]
    return result


@pytest.mark.slow
def test_a_failed_cell_does_not_stop_the_others_and_is_tried_again(tmp_path, capsys):
    late = tmp_path / "late"
    changes = {"axes": None, "baseline": None, "claims": None, "seeds": [0], "evaluate": None}
    bad = {"data.root": str(late)}
    sweep = write_sweep(tmp_path, cells={"good": {}, "bad": bad, "diverged": {"task.optimizer.lr": 1e30}}, **changes)
    arguments = ["ablate", str(sweep), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    printed = capsys.readouterr().err
    assert "bad, seed 0: failed: UserError:" in printed and "no such folder" in printed
    assert "diverged, seed 0: failed: Diverged: " in printed  # training itself says it, in one line
    rows = {row["cell"]: row for row in cells_of(tmp_path / "out")}
    assert [rows[name]["state"] for name in ("good", "bad", "diverged")] == ["finished", "failed", "failed"]
    assert "no such folder" in rows["bad"]["error"] and rows["bad"]["valid_loss"] == ""
    assert "Traceback" in (tmp_path / "out" / rows["bad"]["folder"] / "log.txt").read_text()
    for split in ("train", "valid"):
        write_stem_folders(late, (4000,), split)
    before = (tmp_path / "out" / rows["good"]["folder"] / "result.json").stat().st_mtime_ns
    assert main(arguments) == 1  # the other one diverges again
    rows = {row["cell"]: row for row in cells_of(tmp_path / "out")}
    assert rows["bad"]["state"] == "finished" and rows["bad"]["error"] == ""
    assert (tmp_path / "out" / rows["good"]["folder"] / "result.json").stat().st_mtime_ns == before


SPECTROGRAM = {"n_fft": 64, "hop": 32, "drop": "nyquist"}
AUDIOSLOTS = {
    "model.encoder": {"class_path": "STFTEncoder", "init_args": {**SPECTROGRAM, "power": 0.3}},
    "model.decoder": {"class_path": "STFTDecoder", "init_args": SPECTROGRAM},
    "model.separator": {"class_path": "AudioSlots", "init_args": SMALL_SEPARATORS["AudioSlots"]},
    "model.head": {"class_path": "Magnitude", "init_args": {"power": 0.3}},
    "model.segment": 0.128,
    "data.segment": 0.128,
    "task.loss": "Spectral",
}


@pytest.mark.slow
def test_systems_with_different_losses_share_a_metric(tmp_path, capsys):
    """AudioSlots compares spectrograms, TasNet waveforms; both are validated in dB, source by source."""
    changes = {"axes": None, "claims": None, "seeds": [0], "evaluate": None, "metric": "valid_si_snr:guitar"}
    cells = {"TasNet": {"model.separator": "TasNet"}, "AudioSlots": AUDIOSLOTS}
    assert main(["ablate", str(write_sweep(tmp_path, cells=cells, **changes)), "--out", str(tmp_path / "out")]) == 0
    slots, tasnet = sorted(cells_of(tmp_path / "out"), key=lambda row: row["cell"])
    table = (tmp_path / "out" / "table.md").read_text()
    assert all(f" {float(row['valid_si_snr:guitar']):.2f} |" in table for row in (slots, tasnet))
    assert float(slots["valid_loss"]) > 0 and float(slots["macs_per_second"]) > 1e5
    for row in (slots, tasnet):
        of_sources = [float(row[f"valid_si_snr:{source}"]) for source in ("guitar", "backing")]
        assert float(row["valid_si_snr"]) == pytest.approx(np.mean(of_sources), abs=1e-5)


@pytest.mark.slow
def test_a_worker_that_dies_is_a_failed_run_and_is_replaced(tmp_path):
    task = {"cwd": str(tmp_path), "folder": str(tmp_path / "run"), "arguments": ["--config", "nowhere.yml"], "key": ""}
    task |= {"trained": task["folder"], "imports": [], "evaluate": {}}
    pool = LocalPool(1, 1)
    try:
        future = pool.submit(task | {"threads": 1})
        while not pool.workers:
            time.sleep(0.01)
        (worker,) = pool.workers.values()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            future.result(60)
        assert "nowhere.yml" in pool.submit(task | {"threads": 1}).result(60)["error"]
    finally:
        pool.close()


def test_a_dry_run_prints_cells_and_commands_and_writes_nothing(unbroken, tmp_path, capsys):
    small = write_sweep(unbroken[0].parent, "one.yml", **ONE)
    assert main(["ablate", str(small), "--out", str(tmp_path / "out"), "--dry-run", "--import", "tiny"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "TasNet" in printed[1] and "2,096 parameters" in printed[1] and not (tmp_path / "out").exists()
    cost, total, *commands = printed[2:]
    assert "1.06 M MACs/s" in cost and "timed: " in cost and "1 of 1 runs left" in cost and "estimate: about" in total
    assert [line.split(" --config")[0] for line in commands] == ["OMP_NUM_THREADS=1 tasnet-attn train --import tiny"]


@pytest.mark.slow
def test_a_dry_run_prints_commands_that_make_the_same_runs(unbroken, tmp_path, capsys):
    sweep, whole = unbroken
    small = write_sweep(sweep.parent, "one.yml", **ONE)
    out = tmp_path / "out"
    assert main(["ablate", str(small), "--out", str(out), "--dry-run"]) == 0
    (command,) = (line for line in capsys.readouterr().out.splitlines() if "tasnet-attn train" in line)
    threads, program, *arguments = shlex.split(command)
    assert (threads, program) == ("OMP_NUM_THREADS=1", "tasnet-attn")
    with one_thread():
        assert main(arguments) == 0
    (run,) = (out / "runs").iterdir()
    before = (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert main(["ablate", str(small), "--out", str(out)]) == 0  # scores it, does not train it
    assert (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before
    assert without_seconds((run / "result.json").read_text()) == without_seconds(
        (whole / "runs" / run.name / "result.json").read_text()
    )
    assert "undecided" not in (out / "table.md").read_text().split("Undecided")[0]


@pytest.mark.slow
def test_a_folder_with_another_run_is_not_taken_for_the_cell(unbroken, tmp_path):
    sweep, _ = unbroken
    small = write_sweep(sweep.parent, "one.yml", **ONE | {"evaluate": None})
    (run,) = read(small).runs(tmp_path)
    train([*run.arguments, "--trainer.max_steps=2"])
    task = {"cwd": os.getcwd(), "folder": str(run.folder), "arguments": run.arguments, "key": run.cell.key}
    task |= {"trained": task["folder"], "imports": [], "evaluate": {}}
    answer = perform(task | {"threads": torch.get_num_threads()})
    assert "contains a run with another configuration; remove it" in answer["error"]


def test_other_mistakes_are_one_clear_line(unbroken, tmp_path, capsys):
    sweep, out = unbroken
    (tmp_path / "file").touch()
    (tmp_path / "list.yml").write_text("- 1")
    (tmp_path / "broken.yml").write_text("a: [")
    (tmp_path / "twice.yml").write_text("base: [b.yml]\ncells:\n  a: {}\n  a: {}")
    one = str(write_sweep(sweep.parent, "one.yml", **ONE))
    for arguments, said in [
        (["nowhere.yml"], "nowhere.yml: no such file"),
        ([str(tmp_path / "list.yml")], "a mapping"),
        ([str(tmp_path / "broken.yml")], "not a configuration: line 1"),
        ([str(tmp_path / "twice.yml")], "'a' is given twice"),
        ([one, "--jobs", "0"], "--jobs 0 must be at least 1"),
        ([one, "--out", str(tmp_path / "file" / "out")], "out: Not a directory"),
    ]:
        assert main(["ablate", *arguments]) == (1 if "Not a directory" in said else 2)  # 1: the system refuses
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    with FileLock(out / ".lock"):
        assert main(["ablate", str(sweep), "--out", str(out)]) == 2
    assert "another `ablate` is using this folder" in capsys.readouterr().err


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A folder with a module of the user's, which is the working folder."""
    (tmp_path / "dprnn_of_mine.py").write_text(DPRNN + UNCOUNTABLE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("dprnn_of_mine", None)


@pytest.mark.slow
def test_a_user_s_separator_goes_through_a_sweep(own_module, capsys):
    """55 lines in a user's file; a worker imports it too. A module whose products cannot be counted has no MACs."""
    assert len(DPRNN.strip().splitlines()) < 60
    settings = {"width": 4, "hidden": 4, "chunk": 8, "n_blocks": 1}
    cells = {
        name: {"model.separator": {"class_path": f"dprnn_of_mine.{name}", "init_args": dict(settings)}}
        for name in ("DPRNN", "Sorted")
    }
    sweep = write_sweep(own_module, **ONE | {"cells": cells, "baseline": "DPRNN"})
    assert main(["ablate", str(sweep), "--out", "out", "--import", "dprnn_of_mine"]) == 0
    printed = capsys.readouterr().err
    assert printed.count("note: ") == 1 and "multiply-accumulates of Sorted cannot be counted (RuntimeError" in printed
    counted, uncounted = cells_of(own_module / "out")
    assert counted["state"] == uncounted["state"] == "finished" and float(counted["test:SI-SNRi"])
    assert counted["folder"].startswith("runs/DPRNN-") and counted["parameters"] == uncounted["parameters"]
    assert float(counted["macs_per_second"]) > 1e5 and uncounted["macs_per_second"] == ""
    model = tasnet_attn.load(own_module / "out" / counted["folder"])
    assert type(model.separator).__module__ == "dprnn_of_mine"


def on_screen(written):
    """What a terminal shows of it."""
    lines = [""]
    for part in re.split(r"(\x1b\[\d+F\x1b\[J|\n)", written):
        if part.startswith("\x1b"):
            lines = [*lines[: len(lines) - 1 - int(part[2:].partition("F")[0])], ""]
        elif part == "\n":
            lines.append("")
        else:
            lines[-1] += part
    return lines[:-1]


def test_the_display_is_a_live_table_or_a_line_for_each_end(unbroken, tmp_path, monkeypatch):
    runs = {run.name: run for run in read(unbroken[0]).runs(tmp_path)}
    names = list(runs)
    statuses = {name: Status() for name in names}
    screen, plain = io.StringIO(), io.StringIO()
    shows = Display(screen, live=True), Display(plain, live=False)
    for show in shows:
        show(runs, statuses)
    epochs = [{"epoch": 1, "step": 6, "valid_loss": -1.5, "valid_si_snr": 1.5}]
    epochs.append({"epoch": 2, "step": 12, "valid_loss": -1.25, "valid_si_snr": 1.25})
    statuses[names[0]] = Status("finished", epochs, seconds=30, new=True)
    statuses[names[1]] = Status("running", [{"epoch": 1, "step": 6, "valid_loss": math.nan}], new=True)
    statuses[names[2]] = Status("failed", error="RuntimeError: out of memory", new=True)
    for show in (*shows, *shows):
        show(runs, statuses)
    failure = f"[2/4] {names[2]}: failed: RuntimeError: out of memory"
    lines = on_screen(screen.getvalue())
    assert lines[0] == failure and lines[1].split() == ["run", "state", "epochs", "best", "time"]
    assert [line.removeprefix(name).split() for name, line in zip(names, lines[2:6], strict=True)] == [
        ["finished", "2", "1.50", "dB", "30", "s"], ["running", "1"], ["failed"], ["waiting"],
    ]  # fmt: skip
    assert lines[6].startswith(f"2 of 4 runs done, 1 running, 1 failed, best 1.50 dB ({names[0]})") and len(lines) == 7
    assert plain.getvalue().splitlines() == [f"[2/4] {names[0]}: finished, 1.50 dB, in 30 s", failure]

    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "6")
    shows[0](runs, statuses)
    low = on_screen(screen.getvalue())
    assert len(low) == 5 and max(map(len, low[1:])) < 40 and "running" in low[2] and "failed" in low[3]


CLUSTER = """
import ray
ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


@pytest.mark.slow
def test_ray_gives_the_same_table(unbroken, tmp_path):
    pytest.importorskip("ray")
    sweep, whole = unbroken
    token = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }  # else Ray leaves one in the home folder
    settings = {"text": True, "env": os.environ | token}
    quiet = settings | {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-W", "ignore", "-m", "tasnet_attn.cli", "ablate", str(sweep)]
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", CLUSTER], **quiet) as cluster:
        try:
            address = cluster.stdout.readline().strip()
            arguments = ["--out", str(tmp_path / "out"), "--ray", address]
            greedy = subprocess.run([*command, *arguments, "--gpus", "0.5"], capture_output=True, **settings)
            ran = subprocess.run([*command, *arguments], capture_output=True, **settings)
        finally:
            cluster.communicate("\n")
    assert greedy.returncode == 2 and "a cell needs 1 CPUs and 0.5 GPUs, the cluster has 2 CPUs" in greedy.stderr
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (tmp_path / "out" / "table.md").read_text() == (whole / "table.md").read_text()


@pytest.mark.slow
def test_processes_that_read_data_begin_although_the_worker_listens(tmp_path):
    """They close their copy of standard input, which must not wait for the thread that reads the worker's tasks."""
    cells = {"TasNet": SWEEP["cells"]["TasNet"] | {"data.workers": 1}}
    sweep = write_sweep(tmp_path, **ONE, cells=cells, figures=None, evaluate=None)
    command = [sys.executable, "-P", "-m", "tasnet_attn.cli", "ablate", str(sweep), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
