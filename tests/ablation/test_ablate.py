"""Sweeps as a user runs them: results, resuming after a kill, failures, mistakes, Ray."""

import csv
import io
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lookalikes import write_stem_folders

from tasnet_attn.ablation import display
from tasnet_attn.ablation.pools import LocalPool, WorkerDied
from tasnet_attn.ablation.runner import Status
from tasnet_attn.ablation.sweep import identity, read
from tasnet_attn.ablation.worker import perform
from tasnet_attn.cli import main
from tasnet_attn.errors import UserError
from tasnet_attn.training.command import parse, train

RECIPES = Path(__file__).parents[2] / "recipes" / "ablations"
BASE = """
model:
  sources: [guitar, backing]
  sample_rate: 8000
  encoder: {class_path: GatedEncoder, init_args: {n_filters: 12, kernel_size: 16}}
  separator: {class_path: LTL, init_args: {hidden: 8, heads: 2, ffn: 8, transformer_layers: 1, dropout: 0.1}}
  decoder: {class_path: LearnedDecoder, init_args: {n_filters: 12, kernel_size: 16}}
task: {optimizer: {class_path: Adam, init_args: {lr: 1e-3}}}
data: {class_path: StemFolders, init_args: {root: ROOT, segment: 0.1, batch_size: 2, segments_per_epoch: 12}}
trainer: {max_epochs: 3, accelerator: cpu, log_every_n_steps: 1}
checkpoint: {every_n_train_steps: 2}
"""
SWEEP = {
    "base": ["base.yml"],
    "axes": {"model.separator.lstm_before": [0, 1], "model.separator.lstm_after": [0]},
    "cells": {"TasNet": {"model.separator": {"class_path": "TasNet", "init_args": {"hidden": 8, "n_layers": 2}}}},
    "seeds": [0, 1],
    "evaluate": ["test"],
    "baseline": "TasNet",
    "claims": [
        {"says": "small", "better": "lstm_before=0, lstm_after=0", "than": ["TasNet"], "quantity": "parameters"},
        {"says": "alike", "equal": "TasNet", "to": ["lstm_before=0, lstm_after=0"], "within": 100},
    ],
}


def write_sweep(folder, name="sweep.yml", **changes):
    """A sweep file beside its base and its data."""
    if not (folder / "stems").exists():
        for split in ("train", "valid", "test"):
            write_stem_folders(folder / "stems", (4000, 5000), split)
        (folder / "base.yml").write_text(BASE.replace("ROOT", str(folder / "stems")))
    content = {key: value for key, value in (SWEEP | changes).items() if value is not None}
    (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / name


@contextmanager
def one_thread():
    """As a worker trains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cells(out):
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
    rows = cells(out)
    assert len(rows) == 6 and {row["state"] for row in rows} == {"finished"}
    for row in rows:
        run = out / row["folder"]
        with (run / "metrics.csv").open() as file:
            losses = [float(r["valid_loss"]) for r in csv.DictReader(file) if r["valid_loss"]]
        assert len(losses) == 3 and float(row["valid_loss"]) == min(losses) == -float(row["valid_si_snr"])
        assert int(row["epochs_to_best"]) == 1 + int(np.argmin(losses))
        assert float(row["epoch_seconds"]) > 0 and float(row["real_time_factor"]) > 0
        with (run / "test" / "scores.csv").open() as file:
            scores = [float(r["score"]) for r in csv.DictReader(file) if r["metric"] == "SI-SNRi"]
        assert len(scores) == 4 and float(row["test:SI-SNRi"]) == pytest.approx(np.mean(scores))
        assert json.loads(row["overrides"]) in [cell.overrides for cell in read(sweep).cells]
    table = (out / "table.md").read_text()
    mean = np.mean([float(row["valid_si_snr"]) for row in rows if row["cell"] == "TasNet"])
    assert f"| TasNet | 2,096 | 1.06 M | {mean:.2f} [" in table
    assert "| lstm_before=0, lstm_after=0 minus TasNet: -324 | **agrees** |" in table
    assert table.count("**agrees**") == 2
    assert {path.name for path in out.glob("*.png")} == {"curves.png", "grid.png", "parameters.png", "time.png"}
    assert "real-time factor" in (out / "times.md").read_text()


def test_a_cell_is_the_run_that_train_makes(unbroken, tmp_path):
    sweep, out = unbroken
    row = next(row for row in cells(out) if row["cell"] == "lstm_before=1, lstm_after=0" and row["seed"] == "1")
    settings = ["--model.separator.lstm_before=1", "--model.separator.lstm_after=0", "--seed_everything=1"]
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
    assert "0 were run now" in capsys.readouterr().out


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


def test_killed_in_the_middle_and_continued_equals_an_unbroken_sweep(unbroken, tmp_path):
    """kill -9 of the runner; its worker dies with it; finished cells are not touched, the broken one goes on."""
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
    assert before and len(finished) < 6
    assert main(["ablate", str(sweep), "--out", str(out)]) == 0
    after = stamps(out)
    assert {path: after[path] for path in before} == before
    assert (out / "table.md").read_text() == (whole / "table.md").read_text()
    for row in cells(out):
        ours, theirs = ((folder / row["folder"] / "result.json").read_text() for folder in (out, whole))
        assert without_seconds(ours) == without_seconds(theirs)


def without_seconds(result):
    result = json.loads(result)
    for epoch in result["epochs"]:
        del epoch["seconds"]
    return result


def test_a_failed_cell_does_not_stop_the_others_and_is_tried_again(tmp_path, capsys):
    late = tmp_path / "late"
    changes = {"axes": None, "baseline": None, "claims": None, "seeds": [0], "evaluate": None}
    bad = {"data.root": str(late)}
    sweep = write_sweep(tmp_path, cells={"good": {}, "bad": bad, "diverged": {"task.optimizer.lr": 1e30}}, **changes)
    arguments = ["ablate", str(sweep), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert "bad, seed 0: failed: UserError:" in printed and "no such folder" in printed
    assert "no epoch has a finite validation loss" in printed
    rows = {row["cell"]: row for row in cells(tmp_path / "out")}
    assert [rows[name]["state"] for name in ("good", "bad", "diverged")] == ["finished", "failed", "failed"]
    assert "no such folder" in rows["bad"]["error"] and rows["bad"]["valid_loss"] == ""
    assert "Traceback" in (tmp_path / "out" / rows["bad"]["folder"] / "log.txt").read_text()
    for split in ("train", "valid"):
        write_stem_folders(late, (4000,), split)
    before = (tmp_path / "out" / rows["good"]["folder"] / "result.json").stat().st_mtime_ns
    assert main(arguments) == 1  # the other one diverges again
    rows = {row["cell"]: row for row in cells(tmp_path / "out")}
    assert rows["bad"]["state"] == "finished" and rows["bad"]["error"] == ""
    assert (tmp_path / "out" / rows["good"]["folder"] / "result.json").stat().st_mtime_ns == before


def test_a_worker_that_dies_is_a_failed_run_and_is_replaced(tmp_path):
    task = {"cwd": str(tmp_path), "folder": str(tmp_path / "run"), "arguments": ["--config", "nowhere.yml"], "key": ""}
    pool = LocalPool(1, 1)
    try:
        future = pool.submit(task | {"threads": 1, "evaluate": []})
        while not pool.busy:
            time.sleep(0.01)
        (worker,) = pool.busy
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            future.result(60)
        assert "nowhere.yml" in pool.submit(task | {"threads": 1, "evaluate": []}).result(60)["error"]
    finally:
        pool.close()


def test_a_dry_run_prints_commands_that_make_the_same_runs(unbroken, tmp_path, capsys):
    sweep, whole = unbroken
    small = write_sweep(sweep.parent, "one.yml", axes=None, seeds=[0], claims=None)
    out = tmp_path / "out"
    assert main(["ablate", str(small), "--out", str(out), "--dry-run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "TasNet" in printed[1] and "2,096 parameters" in printed[1] and not out.exists()
    (command,) = printed[2:]
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
    assert "undecided" not in capsys.readouterr().out.split("# one")[1].split("Undecided")[0]


def test_a_folder_with_another_run_is_not_taken_for_the_cell(unbroken, tmp_path):
    sweep, _ = unbroken
    small = write_sweep(sweep.parent, "one.yml", axes=None, seeds=[0], claims=None, evaluate=None)
    (run,) = read(small).runs(tmp_path)
    train([*run.arguments, "--trainer.max_steps=2"])
    task = {"cwd": os.getcwd(), "folder": str(run.folder), "arguments": run.arguments, "key": run.cell.key}
    answer = perform(task | {"threads": torch.get_num_threads(), "evaluate": []})
    assert "holds a run of another configuration; remove it" in answer["error"]


def test_identity_is_the_configuration_without_seed_and_folder(unbroken):
    sweep, out = unbroken
    base = ["--config", str(sweep.parent / "base.yml")]
    key = identity(parse(base))
    assert key == identity(
        parse([*base, "--out=elsewhere", "--seed_everything=5", "--checkpoint.every_n_train_steps=9"])
    )
    for other in ("--trainer.max_epochs=4", "--model.separator.hidden=16", "--data.gain=3", "--task.optimizer.lr=1e-4"):
        assert identity(parse([*base, other])) != key
    for row in cells(out):
        config = yaml.safe_load((out / row["folder"] / "config.yml").read_text())
        assert row["folder"] == f"runs/{identity(config)}-s{row['seed']}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sede": [1]}, "unknown key sede; known are base, axes, cells"),
        ({"claims": [{"sais": "x"}]}, "unknown key claims[0].sais"),
        ({"axes": {"model.separator.hiden": [1]}}, "cell 'hiden=1': model.separator: LTL has no setting 'hiden'"),
        ({"axes": {"model.separator.hidden": ["many"]}}, "cell 'hidden=many': "),
        ({"axes": {"model.separator.heads": [3]}}, "heads 3 must divide"),
        ({"axes": {"model.separator.hidden": []}}, "axis 'model.separator.hidden' is empty"),
        ({"axes": {"width": {"small": 8}}}, "axes: width: 'small' must be a mapping"),
        ({"axes": None, "cells": None}, "no cells; give axes, cells or both"),
        ({"cells": {"same": {"model.separator.lstm_before": 0}}}, "0, lstm_after=0' and 'same' are the same config"),
        ({"cells": {"a": {"out": "elsewhere"}}}, "cell 'a': out is not a cell's to set"),
        ({"baseline": "none"}, "baseline: no cell is named 'none'; there are lstm_before=0, lstm_after=0; "),
        ({"seeds": [1, 1]}, "seeds [1, 1] must be different numbers"),
        ({"seeds": "few"}, "seeds"),
        ({"threads": 0}, "threads 0 must be at least 1"),
        ({"metric": "accuracy"}, "metric 'accuracy' is neither"),
        ({"metric": "valid:SDR"}, "metric 'valid:SDR' needs `evaluate: [valid]`"),
        ({"base": ["nowhere.yml"]}, "nowhere.yml"),
        ({"claims": [{"says": "x", "better": "TasNet"}]}, "claims[0]: give better and than, or equal and to"),
        ({"claims": [{"says": "x", "better": "TasNet", "to": ["TasNet"]}]}, "claims[0]: than belongs to better"),
        ({"claims": [{"says": "x", "better": "TasNet", "than": ["TosNet"]}]}, "no cell is named 'TosNet'"),
        (
            {"claims": [{"says": "x", "equal": "TasNet", "to": ["TasNet"], "quantity": "beauty"}]},
            "'beauty' is none of valid_si_snr",
        ),
        (
            {"cells": {"a": {"task.loss": {"class_path": "Spectral"}}}, "baseline": "a"},
            "cell 'a': its loss is not SI-SNR",
        ),
    ],
)
def test_a_bad_sweep_file_is_one_clear_line(unbroken, tmp_path, changes, said, capsys):
    sweep, _ = unbroken
    axes = {"axes": {"model.separator.lstm_before": [0], "model.separator.lstm_after": [0]}}
    claims = {"claims": None}
    file = write_sweep(sweep.parent, "bad.yml", **axes | claims | changes)
    assert main(["ablate", str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "bad.yml" in error
    assert not (tmp_path / "out").exists()


def test_other_mistakes_are_one_clear_line(unbroken, tmp_path, capsys):
    sweep, out = unbroken
    (tmp_path / "file").touch()
    (tmp_path / "list.yml").write_text("- 1")
    (tmp_path / "broken.yml").write_text("a: [")
    (tmp_path / "twice.yml").write_text("base: [b.yml]\ncells:\n  a: {}\n  a: {}")
    one = str(write_sweep(sweep.parent, "one.yml", axes=None, seeds=[0], claims=None))
    for arguments, said in [
        (["nowhere.yml"], "nowhere.yml: no such file"),
        ([str(tmp_path / "list.yml")], "a sweep file has the keys base, axes"),
        ([str(tmp_path / "broken.yml")], "not YAML"),
        ([str(tmp_path / "twice.yml")], "'a' is there twice"),
        ([one, "--jobs", "0"], "--jobs 0 must be at least 1"),
        ([one, "--out", str(tmp_path / "file" / "out")], "cannot be written: Not a directory; give another --out"),
    ]:
        assert main(["ablate", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    holder = "import fcntl, sys; lock = open(sys.argv[1]); fcntl.flock(lock, fcntl.LOCK_EX); "
    holder += "print('held', flush=True); input()"
    command = [sys.executable, "-c", holder, str(out / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert main(["ablate", str(sweep), "--out", str(out)]) == 2
        other.communicate("\n")
    assert "another `ablate` is at work in this folder" in capsys.readouterr().err


def test_named_axis_values_set_several_keys(unbroken):
    sweep, _ = unbroken
    sizes = {"small": {"model.separator.hidden": 8, "model.separator.ffn": 4}, "large": {"model.separator.hidden": 16}}
    file = write_sweep(
        sweep.parent, "named.yml", axes={"size": sizes, "model.separator.lstm_after": [0]}, baseline=None, claims=None
    )
    found = read(file)
    assert [cell.name for cell in found.cells] == ["size=small, lstm_after=0", "size=large, lstm_after=0", "TasNet"]
    assert found.cells[0].coordinates == {"size": "small", "lstm_after": "0"}
    assert found.cells[0].config["model"]["separator"]["init_args"]["ffn"] == 4
    assert found.baseline.name == "size=small, lstm_after=0"


def test_the_live_table_shows_state_epoch_metric_and_time_left(unbroken, tmp_path):
    sweep, _ = unbroken
    runs = {run.name: run for run in read(sweep).runs(tmp_path)}
    names = list(runs)
    statuses = {name: Status() for name in names}
    epochs = [{"epoch": 1, "step": 6, "valid_loss": -1.5}, {"epoch": 2, "step": 12, "valid_loss": -1.25}]
    statuses[names[0]] = Status("finished", epochs, seconds=30, new=True)
    statuses[names[1]] = Status("running", epochs, began=time.time() - 20, new=True)
    statuses[names[2]] = Status("failed", error="RuntimeError: out of memory", new=True)
    lines = display.table(runs, statuses, os.terminal_size((100, 9)))
    assert lines[0] == "1 of 6 finished, 1 running, 1 failed, about 100 s left"  # 3 1/3 runs of 30 s
    assert lines[2].split() == ["lstm_before=1,", "lstm_after=0,", "seed", "0", "running", "2", "1.50", "dB", "20", "s"]
    assert "failed" in lines[3] and lines[-1] == "... and 1 more" and len(lines) == 8
    assert all(len(line) < 100 for line in lines)

    screen = io.StringIO()
    show = display.Display(screen, live=True)
    show(runs, statuses)
    show(runs, statuses)
    assert "\x1b[" in screen.getvalue() and screen.getvalue().count("failed: RuntimeError: out of memory") == 1
    plain = io.StringIO()
    show = display.Display(plain, live=False)
    show(runs, statuses)
    show(runs, statuses)
    assert plain.getvalue().splitlines() == [
        f"[2/6] {names[0]}: finished, 1.50 dB, in 30 s",
        f"[2/6] {names[1]}: running",
        f"[2/6] {names[2]}: failed: RuntimeError: out of memory",
    ]


CLUSTER = """
import ray
ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


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
            arguments = ["--out", str(tmp_path), "--ray", address]
            greedy = subprocess.run([*command, *arguments, "--gpus", "0.5"], capture_output=True, **settings)
            ran = subprocess.run([*command, *arguments], capture_output=True, **settings)
        finally:
            cluster.communicate("\n")
    assert greedy.returncode == 2 and "a cell needs 1 CPUs and 0.5 GPUs, the cluster has 2 CPUs" in greedy.stderr
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (tmp_path / "table.md").read_text() == (whole / "table.md").read_text()


def test_no_cluster_is_one_clear_line(unbroken, tmp_path, monkeypatch, capsys):
    sweep, _ = unbroken
    monkeypatch.setitem(sys.modules, "ray", None)
    one = write_sweep(sweep.parent, "one.yml", axes=None, seeds=[0], claims=None)
    assert main(["ablate", str(one), "--out", str(tmp_path), "--ray", "auto"]) == 2
    assert "ablate needs ray, which is not installed" in capsys.readouterr().err


SWEEPS = sorted(path for path in RECIPES.rglob("*.yml") if path.name != "base.yml")


def test_every_sweep_has_a_small_twin():
    names = [path.name for path in SWEEPS if path.parent == RECIPES]
    assert len(names) == 7 and names == [path.name for path in SWEEPS if path.parent.name == "small"]
    assert len(SWEEPS) == 14


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_sweep_of_the_recipes_is_sound(path):
    sweep = read(path)
    assert len(sweep.cells) >= 4 and sweep.settings.claims
    assert all(cell.parameters > 50_000 and cell.macs > 1e7 for cell in sweep.cells)
    assert len(sweep.settings.seeds) >= 2


def test_the_published_counts_are_in_the_sweeps():
    counts = {cell.name: cell.parameters for cell in read(RECIPES / "ltl_configuration.yml").cells}
    assert counts["TasNet"] == 8_848_000 and counts["lstm_before=1, lstm_after=0"] == 7_878_024
    counts = {cell.name: cell.parameters for cell in read(RECIPES / "bidirectional.yml").cells}
    assert counts["system=3_trans_0, fraction=1.0"] == 33_569_096
    assert counts["system=TasNet, fraction=0.1"] == 23_364_000


def test_an_unknown_error_names_the_file(tmp_path):
    with pytest.raises(UserError, match="no such file; give a sweep file"):
        read(tmp_path / "x.yml")


def test_the_example_of_the_documentation(tmp_path):
    """At most ten lines; seven cells."""
    root = RECIPES.parents[2]
    block = (root / "docs" / "ablations.md").read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "width.yml").write_text(block.replace("recipes/", f"{root}/recipes/"))
    assert block.count("\n") <= 10 and len(read(tmp_path / "width.yml").cells) == 7
