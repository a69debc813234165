"""A page of docs/ as a user follows it: its files in an empty folder, its commands one after the other."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from lookalikes import sound

from tasnet_attn.cli import main

ROOT = Path(__file__).parents[1]
BRIEF = {  # what makes a page's training short
    "segments_per_epoch: 400": "segments_per_epoch: 8",
    "segment: 0.5": "segment: 0.1",
    "max_epochs: 3": "max_epochs: 1, limit_val_batches: 2, enable_progress_bar: false",
}


class Page:
    """A page's blocks; `short` gives replacements of settings for a short training."""

    def __init__(self, name, short):
        text = (ROOT / "docs" / name).read_text()
        self.blocks = re.findall(r"^```(python|yaml|sh)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        self.commands = [line for kind, block in self.blocks if kind == "sh" for line in block.splitlines()]
        self.short = short

    def lay_out(self, folder):
        """The page's files, a song and stems."""
        long = set(self.short)
        for kind, block in self.blocks:
            name = re.match(r"# (\S+\.(?:py|yml))\n", block)
            assert (kind == "sh") == (name is None), block
            if name:
                for setting, brief in self.short.items():
                    long -= {setting} if setting in block else set()
                    block = block.replace(setting, brief)
                file = folder / name[1]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block)
        assert not long, f"the page no longer has {long}"
        soundfile.write(folder / "song.wav", 0.1 * np.random.default_rng(0).normal(size=(30_000, 2)), 44_100)
        return folder


def write_stems(folder, name):
    """A second of guitar and backing for each split; `name` as `{split}/one.{source}.wav`."""
    for split in ("train", "valid", "test"):
        for source in ("guitar", "backing"):
            file = folder / name.format(split=split, source=source)
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, sound(source, split, 44_100, 44_100), 44_100)


def run(line):
    """A command of a page; returns its exit status."""
    program, *arguments = shlex.split(line)
    if program == "tasnet-attn":
        return main(arguments)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    if program == "python":
        return subprocess.run([sys.executable, *arguments], env=environment).returncode
    return subprocess.run([program, *arguments, "--python", sys.executable], env=environment).returncode
