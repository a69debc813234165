"""SIGTERM and Ctrl-C: a training saves where it can go on from bit for bit, says so, and ends."""

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
    """A signal ended the training; the exit status is 128 and the signal's number."""


class Stop(Callback):
    """What a signal asks of a training: to end at the next point where it can.

    That is before its first step; after a step, which it saves; or after an epoch's validation, which it saves. A
    second signal, or one before all that, ends it at once. Several processes agree at each of these points, by a group
    of their hosts, so that no device is waited for.

    Attributes:
        signal: the one that came; None: none.
        saved: the step of the checkpoint that was written for it.
        finished: the training came to its end all the same.
    """

    def __init__(self, out: Path = Path()) -> None:
        self.out = out
        self.signal: signal.Signals | None = None
        self.saved: int | None = None
        self.begun = self.finished = self.told = False
        self.group: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on all processes are there."""
        if trainer.world_size > 1:
            self.group = torch.distributed.new_group(backend="gloo")
        self.begun = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A signal came before."""
        if self.agreed():
            raise self.error()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Say what the signal is waiting for."""
        if self.signal is not None and not self.told and not trainer.sanity_checking:
            self.told = True
            say(f"{SIGNALS[self.signal]}: saves after this validation, and ends; once more, and it ends at once")

    def agreed(self) -> bool:
        """Whether a signal came, to whichever process; all of them ask at the same point."""
        number = torch.tensor(0 if self.signal is None else int(self.signal))
        if self.group is not None:
            torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX, self.group)
        if number:
            self.signal = signal.Signals(int(number))
        return bool(number)

    def error(self, saved: int | None = None) -> Interrupted:
        """The end.

        Args:
            saved: the step of the checkpoint that was written for it.
        """
        assert self.signal is not None
        saved = self.saved if saved is None else saved
        if self.finished:
            state = "after the training's end: nothing is left to do"
        elif saved is not None:
            state = f"saved at step {saved}; go on with --ckpt_path last"
        elif (self.out / "checkpoints" / "last.ckpt").is_file():
            state = "the last checkpoint stays; go on with --ckpt_path last"
        else:
            state = "before there was anything to save"
        return Interrupted(f"{self.out}: ended by {SIGNALS[self.signal]}, {state}", 128 + self.signal)


@contextmanager
def stopping(trainer: Trainer, stop: Stop) -> Iterator[None]:
    """Inside the block signals go to `stop`.

    Raises:
        Interrupted: in the place of what Lightning raises.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number: int, frame: Any) -> None:
        again, stop.signal = stop.signal is not None, signal.Signals(number)
        if again or not stop.begun:
            raise KeyboardInterrupt  # of which Lightning also ends the processes that it launched

    # Lightning's own handler talks to the other processes in the midst of whatever they do, and ends within a step
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
