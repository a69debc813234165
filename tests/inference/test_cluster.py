"""`separate --ray`: the files of a folder over a Ray cluster, and addresses where none answers."""

import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
from conftest import tasnet_model

from tasnet_attn import save
from tasnet_attn.cli import main
from tasnet_attn.inference import cluster


@pytest.fixture
def folder(tmp_path):
    """A model and a folder of sounds."""
    save(tasnet_model(), tmp_path / "model.safetensors")
    (tmp_path / "f").mkdir()
    for seed, name in enumerate("abc"):
        noise = np.random.default_rng(seed).uniform(-0.3, 0.3, 4000)
        soundfile.write(tmp_path / f"f/{name}.wav", noise, 8000)
    return tmp_path


def words(folder, out, *more):
    return ["separate", str(folder / "f"), "--model", str(folder / "model.safetensors"), "--out", str(out), *more]


@contextmanager
def answering(data):
    """The address of a server that says this to everybody; None: it never takes the call."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.sendall(data)

        if data is not None:
            threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def refused(folder, capsys, address, reason):
    began = time.monotonic()
    assert main(words(folder, folder / "out", "--ray", address)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"--ray {address}: " in error and reason in error
    assert time.monotonic() - began < 10 and not (folder / "out").exists()


@pytest.mark.parametrize("address", ["nowhere", "host:", ":6379", "ray://host:x", "127.0.0.1:70000"])
def test_what_is_no_address(folder, capsys, address):
    refused(folder, capsys, address, "expected HOST:PORT")


def test_a_dead_address_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    refused(folder, capsys, f"127.0.0.1:{free}", "no cluster answers (Connection refused)")
    with answering(None) as address:
        refused(folder, capsys, address, "no cluster answers (timed out)")
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        refused(folder, capsys, f"ray://{address}", "the server there is not Ray")


CLUSTER = """
import ray
ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


@pytest.mark.slow
def test_a_cluster_gives_the_same_files(folder):
    pytest.importorskip("ray")
    (folder / "f/damaged.wav").write_bytes((folder / "f/a.wav").read_bytes()[:3000])
    token = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }  # else Ray leaves one in the home folder
    settings = {"text": True, "env": os.environ | token, "cwd": folder}
    quiet = settings | {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-W", "ignore", "-m", "tasnet_attn.cli"]
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", CLUSTER], **quiet) as head:
        try:
            ray = ["--ray", head.stdout.readline().strip()]
            relative = ["separate", "f", "--model", "model.safetensors", "--out", "there"]
            ran = subprocess.run([*command, *relative, *ray], capture_output=True, **settings)
            (folder / "there/b/guitar.wav").unlink()
            again = subprocess.run([*command, *relative, *ray, "--skip-existing"], capture_output=True, **settings)
        finally:
            head.communicate("\n")
    assert main(words(folder, folder / "here")) == 1
    for found in (ran, again):
        progress = re.compile(r"separate: \d of \d files, .* left")  # where the machine is slow
        errors = [line for line in found.stderr.splitlines() if not progress.fullmatch(line)]
        assert found.returncode == 1 and len(errors) == 1, found.stderr
        assert "f/damaged.wav: shorter than its header states" in errors[0]
    assert "2 of 4 files are already separated" in again.stdout and "f/b.wav -> there/b: guitar.wav" in again.stdout
    contents = [
        {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*.wav")}
        for out in (folder / "here", folder / "there")
    ]
    assert len(contents[0]) == 6 and contents[0] == contents[1]
    assert sorted(path.name for path in (folder / "there").iterdir()) == [".separated", "a", "b", "c"]
