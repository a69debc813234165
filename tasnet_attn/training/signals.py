"""SIGTERM and Ctrl-C: a training saves a checkpoint from which it resumes bit for bit, says so, and ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException

from tasnet_attn.errors import UserError
from tasnet_attn.training.showing import say

SIGNALS = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Interrupted(UserError):
    """A signal ended the training; the exit status is 128 plus the signal's number."""


class Stop(Callback):
    """A signal's request to end a training at the next possible point.

    That is before its first step; after a step, with a checkpoint; or after an epoch's validation, with a checkpoint. A
    second signal, or one before training begins, ends it at once. Several processes agree at each of these points
    through a group of their hosts, without waiting for a device.

    Attributes:
        signal: the signal; None: none.
        saved: the step of the checkpoint written for it.
        finished: the training completed nevertheless.
    """

    def __init__(self, out: Path = Path()) -> None:
        self.out = out
        self.signal: signal.Signals | None = None
        self.saved: int | None = None
        self.begun = self.finished = self.told = False
        self.group: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All processes have started."""
        if trainer.world_size > 1:
            self.group = torch.distributed.new_group(backend="gloo")
        self.begun = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle a signal that came before."""
        if self.agreed():
            raise self.error()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Print what the signal is waiting for."""
        if self.signal is not None and not self.told and not trainer.sanity_checking:
            self.told = True
            say(f"{SIGNALS[self.signal]}: saves after this validation and ends; a second signal ends it at once")

    def agreed(self) -> bool:
        """Whether any process got a signal; all of them call this at the same point."""
        number = torch.tensor(0 if self.signal is None else int(self.signal))
        if self.group is not None:
            torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX, self.group)
        if number:
            self.signal = signal.Signals(int(number))
        return bool(number)

    def error(self, saved: int | None = None) -> Interrupted:
        """End the training.

        Args:
            saved: the step of the checkpoint written for it.
        """
        assert self.signal is not None
        saved = self.saved if saved is None else saved
        if self.finished:
            state = "after training had finished: nothing is left to do"
        elif saved is not None:
            state = f"saved at step {saved}; resume with --ckpt_path last"
        elif (self.out / "checkpoints" / "last.ckpt").is_file():
            state = "the last checkpoint remains; resume with --ckpt_path last"
        else:
            state = "before there was anything to save"
        return Interrupted(f"{self.out}: ended by {SIGNALS[self.signal]}, {state}", 128 + self.signal)


@contextmanager
def stopping(trainer: Trainer, stop: Stop) -> Iterator[None]:
    """Inside the block, signals go to `stop`.

    Raises:
        Interrupted: instead of Lightning's exception.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number: int, frame: Any) -> None:
        again, stop.signal = stop.signal is not None, signal.Signals(number)
        if again or not stop.begun:
            raise KeyboardInterrupt  # with which Lightning also ends the processes that it launched

    # Lightning's own handler contacts the other processes at any time, and ends within a step
    trainer._signal_connector._sigterm_notifier_fn = lambda *_: None  # type: ignore[method-assign]
    before = {number: signal.signal(number, asked) for number in SIGNALS}
    try:
        yield
    except (SIGTERMException, KeyboardInterrupt, SystemExit):
        if stop.signal is None:
            raise
        raise stop.error() from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
