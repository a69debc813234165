"""The commands. Arguments are parsed before any large import, so that `--help` is fast."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tasnet_attn import options as given
from tasnet_attn import terminal
from tasnet_attn.errors import UserError, printable
from tasnet_attn.extras import advice


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0; 1 if some of several inputs failed, or after a system error; 2 for a user's mistake; 130
        after Ctrl-C. SIGTERM ends the process with 143.
    """
    with _buffered():
        return _main(sys.argv[1:] if arguments is None else list(arguments))


def _main(arguments: list[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may not be able to print a name
    try:
        modules, level, arguments = given.split(arguments)
        with terminal.showing(terminal.NORMAL if level is None else level):
            began = time.perf_counter()
            status = _train(arguments[1:], modules) if arguments[:1] == ["train"] else _run(arguments, modules)
            terminal.detail(f"{arguments[0]} took {time.perf_counter() - began:.1f} s")
        if unheard := terminal.lost():
            raise unheard
        return status
    except KeyboardInterrupt:
        print("tasnet-attn: interrupted", file=sys.stderr)
        return 130
    except UserError as error:
        return _told(error)
    except OSError as error:
        refused = _refusal(error) if isinstance(error.filename, str | bytes) else terminal.lost()
        if refused is None:
            raise
        return _told(refused)
    except ModuleNotFoundError as error:
        lacks = advice(error)
        if lacks is None:
            raise
        print(f"tasnet-attn: {arguments[0]} {lacks}", file=sys.stderr)
        return 2
    finally:
        terminal.lost()


@contextmanager
def _buffered() -> Iterator[None]:
    """Standard output has a buffer, also with PYTHONUNBUFFERED: `terminal.lost` needs what could not be written."""
    before = sys.stdout
    raw = getattr(before, "buffer", None)
    if not isinstance(raw, io.RawIOBase):
        yield
        return
    sys.stdout = ours = io.TextIOWrapper(io.BufferedWriter(raw), before.encoding, line_buffering=True)
    try:
        yield
    finally:
        sys.stdout = before
        with suppress(OSError):  # it has been told
            ours.detach().detach()  # otherwise its end would close `before`


def _told(error: UserError) -> int:
    print(f"tasnet-attn: {printable(error)}", file=sys.stderr)
    return error.status


def _refusal(error: OSError) -> UserError:
    from tasnet_attn.files import refusal

    return refusal(error, Path())


def _train(arguments: Sequence[str], modules: list[str]) -> int:
    """LightningCLI has its own parser."""
    if {"-h", "--help"} & set(arguments):
        print(given.train_help())
        return 0
    arguments = given.train_arguments(arguments)
    _import(modules)
    from tasnet_attn.training.command import every_setting, train

    if "--help-all" in arguments:
        print(every_setting())
        return 0
    with _ended_by_sigterm():
        train(arguments)
    return 0


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of any command but `train`; `overrides`: its --key value. A mistake exits with 2."""
    parser = given.parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in given.ABOUT:
        parser.error(f"no command {arguments[0]!r}; the commands are {', '.join(given.ABOUT)}")
    options, rest = parser.parse_known_args(arguments)
    takes = {"check-data": "--", "evaluate": "--data."}.get(options.command)  # --key value that argparse does not know
    if rest and (takes is None or any(word.startswith("--") and not word.startswith(takes) for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if takes:
        options.overrides = rest
    return options


def _run(arguments: Sequence[str], modules: list[str]) -> int:
    options = parsed(arguments)
    command = options.command
    for everyday in ("command", "quiet", "verbose", "import"):
        vars(options).pop(everyday, None)
    _import(modules)
    with _ended_by_sigterm():
        return COMMANDS[command](options) or 0


def _import(modules: list[str]) -> None:
    if modules:
        from tasnet_attn.config import import_modules

        import_modules(modules)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM inside the block removes incomplete files before the process ends; training has its own handler."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if mine:
        from tasnet_attn.files import terminated

        signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _demo(options: argparse.Namespace) -> None:
    from tasnet_attn.demo import demo

    demo(**vars(options))


def _separate(options: argparse.Namespace) -> int:
    from tasnet_attn.inference.command import separate_files
    from tasnet_attn.inference.options import PIPE, Options

    settings = {name: value for name, value in vars(options).items() if name in Options.__dataclass_fields__}
    settings["clip"] = options.clip or ("error" if options.out == PIPE else "rescale")
    how = Options(**settings)
    where = {name: getattr(options, name) for name in ("skip_existing", "jobs", "shard", "ray")}
    return separate_files(options.inputs, options.model, options.out, how, **where)


def _stream(options: argparse.Namespace) -> None:
    from tasnet_attn.exporting.formats import write_step
    from tasnet_attn.streaming.command import stream
    from tasnet_attn.streaming.devices import devices

    settings = vars(options)
    if settings.pop("list_devices"):
        print(devices())
    elif options.model is None:
        raise UserError("stream needs a model: -m MODEL")
    else:
        stream(**settings, write_step=write_step)


def _evaluate(options: argparse.Namespace) -> None:
    from tasnet_attn.evaluation.command import run

    run(**vars(options))


def _report(options: argparse.Namespace) -> None:
    from tasnet_attn.reporting.command import report

    print(report(**vars(options)))


def _ablate(options: argparse.Namespace) -> int:
    from tasnet_attn.ablation import ablate

    return ablate(**vars(options))


def _check_data(options: argparse.Namespace) -> int:
    from tasnet_attn.checking import check_data

    return check_data(options.configs, options.overrides, options.quick, options.every, options.folder)


def _export(options: argparse.Namespace) -> None:
    from tasnet_attn.exporting.command import check, export, shown

    if options.model is None:
        raise UserError("export: needs MODEL: a run folder, a checkpoint or a model file")
    if options.check is not None:
        print(shown(check(options.model, options.to, options.check, options.half, options.int8)))
        return
    print(shown(export(options.model, options.to, options.out, options.half, options.licence, options.int8)))


def _models(options: argparse.Namespace) -> None:
    from tasnet_attn.storage.listing import card, configuration, models

    if options.model is None:
        print(models())
    else:
        print((configuration if options.config else card)(options.model).rstrip())


COMMANDS = {
    "demo": _demo,
    "separate": _separate,
    "stream": _stream,
    "evaluate": _evaluate,
    "report": _report,
    "ablate": _ablate,
    "check-data": _check_data,
    "export": _export,
    "models": _models,
}

if __name__ == "__main__":
    sys.exit(main())
