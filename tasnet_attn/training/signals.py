"""SIGTERM and Ctrl-C: a training saves where it can go on from bit for bit, says so, and ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException

from tasnet_attn.errors import UserError

SIGNALS = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Interrupted(UserError):
    """A signal ended the training; the exit status is 128 and the signal's number."""


class Stop:
    """What a signal asks for; `LastCheckpoint` looks at it after every batch.

    Attributes:
        signal: the one that came; None: none.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def error(self, out: Path, step: int | None) -> Interrupted:
        """The end."""
        assert self.signal is not None
        saved = "the last checkpoint stays" if step is None else f"saved at step {step}"
        text = f"{out}: ended by {SIGNALS[self.signal]}, {saved}; go on with --ckpt_path last"
        return Interrupted(text, 128 + self.signal)


@contextmanager
def stopping(trainer: Trainer, stop: Stop, out: Path) -> Iterator[None]:
    """Inside the block a first signal asks the training to stop after the batch; a second one ends it at once.

    Several processes end at once, by Lightning's own way: they would have to agree on a batch first.

    Raises:
        Interrupted: in the place of what Lightning raises.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number: int, frame: Any) -> None:
        again, stop.signal = stop.signal is not None, signal.Signals(number)
        if again or trainer.world_size > 1 or not trainer.training:
            if number == signal.SIGINT or again:
                raise KeyboardInterrupt
            return
        trainer._signal_connector.received_sigterm = False  # Lightning would raise before gradients are accumulated

    before = {number: signal.signal(number, asked) for number in SIGNALS}
    try:
        yield
    except (SIGTERMException, KeyboardInterrupt, SystemExit):
        if stop.signal is None:
            raise
        raise stop.error(out, None) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
