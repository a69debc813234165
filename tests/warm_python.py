"""A Python that has torch and Lightning imported already: `run.sh --python` gets it, and every command starts at once.

A recipe starts four Pythons, and each would import for seconds before it works for as long; over all recipes that
is most of the time. Here one server imports everything once. For every `python -P -m MODULE ARGUMENT ...` it forks a
child that takes over the caller's arguments, folder, environment, input and output, runs the module as its main program
and hands back its exit status. The real scripts run with their real command lines; only the importing is shared.

Forking is safe because the server computes nothing: torch's threads begin with the first computation, in the child.
"""

import gc
import importlib
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import traceback
from contextlib import contextmanager

IMPORTED = (
    *(
        f"tasnet_attn.{name}" for name in ("training", "evaluation", "reporting", "checking", "exporting")
    ),  # not cli: runpy runs that one
    *("torch.utils.tensorboard", "matplotlib.figure", "matplotlib.image"),  # what these import when they come to it
)


@contextmanager
def warm_python(folder):
    """A server with its socket in `folder`; yields the path of an executable that acts as Python."""
    address, executable = str(folder / "socket"), folder / "python"
    executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" ask "{address}" "$@"\n')
    executable.chmod(0o755)
    pipe = subprocess.PIPE
    server = subprocess.Popen([sys.executable, __file__, "serve", address], stdin=pipe, stdout=pipe)
    try:
        assert server.stdout.readline() == b"ready\n"
        yield executable
    finally:
        server.kill()
        server.wait()


def serve(address):
    """Answer until standard input ends, as it does with the process that started this one."""
    for name in IMPORTED:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    gc.collect()
    gc.freeze()  # else every child's garbage collection would copy all this memory
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while server in select.select([server, sys.stdin], [], [])[0]:
            with server.accept()[0] as connection:
                _, files, _, _ = socket.recv_fds(connection, 1, 3)
                request = json.loads(connection.makefile().readline())
                child = os.fork()
                if child == 0:
                    for theirs, ours in zip(files, range(3), strict=True):
                        os.dup2(theirs, ours)
                    os.chdir(request["folder"])
                    os.environ.clear()
                    os.environ.update(request["environment"])
                    run(request["arguments"])
                for file in files:
                    os.close(file)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                connection.sendall(b"%d\n" % status)


def run(arguments):
    """Run a module as the main program, and end without taking everything imported down again: that takes longer."""
    sys.argv, status = arguments, 0
    # after a fork torch creates its thread pool again on the first call of this: several threads at once would break it
    importlib.import_module("torch").set_num_threads(1)
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def ask(address, *arguments):
    """Have `-P -m MODULE ARGUMENT ...` run; returns its exit status, as a shell gives it."""
    assert arguments[:2] == ("-P", "-m"), f"{arguments[:2]}: not for this Python"
    request = {"folder": os.getcwd(), "environment": dict(os.environ), "arguments": arguments[2:]}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"!"], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        status = int(connection.makefile().readline())
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit({"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:]))
