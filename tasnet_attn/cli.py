"""The commands. Arguments are parsed before anything heavy is imported, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tasnet_attn.errors import UserError, printable
from tasnet_attn.extras import advice
from tasnet_attn.version import __version__

# asteroid's torchmetrics and Lightning warn about libraries of their own choice: nothing that a user can fix
OTHERS_DEPRECATIONS = ("pkg_resources is deprecated", r"`isinstance\(treespec, LeafSpec\)` is deprecated")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line, exit with 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0; 1 if some of several inputs failed, or the machine refused; 2 for a user's mistake; 130
        after Ctrl-C. SIGTERM ends the process with 143.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack a name's letters
    for message in OTHERS_DEPRECATIONS:
        warnings.filterwarnings("ignore", message)
    try:
        modules, arguments = _imports(arguments)
        if modules:
            from tasnet_attn.config import import_modules

            import_modules(modules)
        if arguments[:1] == ["train"]:  # LightningCLI has a parser of its own
            from tasnet_attn.training.command import train

            train(arguments[1:])
            return 0
        return _run(arguments)
    except KeyboardInterrupt:
        print("tasnet-attn: interrupted", file=sys.stderr)
        return 130
    except UserError as error:
        print(f"tasnet-attn: {printable(error)}", file=sys.stderr)
        return error.status
    except ModuleNotFoundError as error:
        lacks = advice(error)
        if lacks is None:
            raise
        print(f"tasnet-attn: {arguments[0]} {lacks}", file=sys.stderr)
        return 2


def _run(arguments: Sequence[str]) -> int:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    takes = {_check_data: "--", _evaluate: "--data."}.get(options.run)  # --key value that argparse does not know
    if rest and (takes is None or any(word.startswith("--") and not word.startswith(takes) for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if takes:
        options.overrides = rest
    with _ended_by_sigterm():
        return options.run(options) or 0


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM inside the block removes what is not whole before the process ends; `train` has Lightning's handler."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if mine:
        from tasnet_attn.files import terminated

        signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _imports(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Every command's `--import MODULE`, taken out of its arguments."""
    modules, rest, waiting = [], [], list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--import":
            if not waiting:
                raise UserError("--import: needs a module's name")
            modules.append(waiting.pop(0))
        elif argument.startswith("--import="):
            modules.append(argument.removeprefix("--import="))
        else:
            rest.append(argument)
    return modules, rest


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="tasnet-attn", description="Train, run and score audio source separation models.")
    parser.add_argument("--version", action="version", version=f"tasnet-attn {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int | None], about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about)
        help = "a module with classes of your own that a configuration or a file names; may be given several times"
        command.add_argument("--import", metavar="MODULE", help=help, default=argparse.SUPPRESS)
        command.set_defaults(run=run)
        return command

    demo = add("demo", _demo, "train a small model on the bundled songs, separate, score, make a page: minutes")
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder to write (default: demo)")
    demo.add_argument("--steps", type=int, help="training steps, if not the recipe's (a look at the machinery)")

    about = "train a model: --config A.yml [--config B.yml] [--key value ...] [--out DIR] [--ckpt_path last]"
    commands.add_parser("train", help=about)  # for the list: `main` hands its arguments on

    separate = add("separate", _separate, "separate audio files: DIR/<input's stem>/<source>.<format>")
    help = "audio files and videos, folders of them, or - for standard input"
    separate.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help=help)
    separate.add_argument("--model", "-m", required=True, help="a run folder, a checkpoint or a model file")
    help = "folder to write (default: separated); - writes one stem to standard output"
    separate.add_argument("--out", "-o", type=Path, default=Path("separated"), help=help)
    separate.add_argument("--sources", type=_listed, help="which, like vocals,drums (default: all)")
    help = "one more stem: the mixture minus the stems that are written"
    separate.add_argument("--remainder", metavar="NAME", help=help)
    help = "deal out to the stems what they lack of the mixture"
    separate.add_argument("--mixture-consistent", action="store_true", help=help)
    endings = ("wav", "flac", "ogg", "opus", "mp3", "m4a")
    separate.add_argument("--format", choices=endings, default="wav", help="default: wav, 32-bit float")
    separate.add_argument("--bits", choices=("16", "24", "32f"), help="of wav (default: 32f) and flac (default: 24)")
    help = "where a format cannot hold the level (default: rescale all stems of a song by one factor; a pipe: error)"
    separate.add_argument("--clip", choices=("rescale", "clamp", "error"), help=help)
    help = "names below the folder (default: {track}/{source}.{ext})"
    separate.add_argument("--name", default="{track}/{source}.{ext}", help=help)
    help = "which audio track of a video, from 1 (default: 1)"
    separate.add_argument("--track", type=int, default=1, metavar="N", help=help)
    help = "take what is there of a file that ends before its header says"
    separate.add_argument("--partial", action="store_true", help=help)
    separate.add_argument("--skip-existing", action="store_true", help="pass over files whose stems are all there")
    separate.add_argument("--jobs", "-j", type=int, default=1, help="processes (default: 1)")
    help = "the K-th of N equal parts of the inputs, for arrays of jobs"
    separate.add_argument("--shard", metavar="K/N", help=help)
    separate.add_argument("--segment", type=float, help="seconds at once (default: the model's, else 20)")
    separate.add_argument("--overlap", type=float, default=0.25, help="cross-faded part of a segment (default: 0.25)")
    separate.add_argument("--device", "-d", default="auto", help="auto, cpu, cuda, ... (default: auto)")

    evaluate = add("evaluate", _evaluate, "score a model on a data set: BSSEval v4 and SI-SNR, museval's JSON, tables")
    evaluate.add_argument("--model", required=True, help="a run folder, a checkpoint or a model file")
    help = "a YAML file with a data section, or a run folder; --data.key value overrides what it says"
    evaluate.add_argument("--data", required=True, help=help)
    evaluate.add_argument("--out", help="folder to write (default: evaluation in the run folder)")
    evaluate.add_argument("--split", choices=("train", "valid", "test"), default="test")
    suppress = argparse.SUPPRESS  # the default is the run's configuration's, else the function's
    help = "who computes BSSEval (default: fast)"
    evaluate.add_argument("--backend", choices=("fast", "museval"), default=suppress, help=help)
    evaluate.add_argument("--device", default=suppress, help="auto, cpu, cuda, ... (default: auto)")
    help = "classes of your own, a Metric each (with --import), scored besides"
    evaluate.add_argument("--metrics", nargs="+", default=suppress, metavar="CLASS", help=help)
    evaluate.add_argument("--overlap", type=float, default=suppress, help="part of a segment shared with the next one")
    help = "order interchangeable sources by the references in every segment, as AudioSlots' paper scores"
    evaluate.add_argument("--order-by-references", action="store_true", default=suppress, help=help)
    help = "also NSDR, SIR and SAR of BSSEval v3 (summary.json has GNSDR, GSIR, GSAR: their length-weighted means)"
    evaluate.add_argument("--v3", action="store_true", default=suppress, help=help)
    help = "keep the audio, for the report"
    evaluate.add_argument("--audio", choices=("wav", "flac", "ogg"), default=suppress, help=help)

    baselines = ("mixture", "oracle-binary", "oracle-ratio", "oracle-wiener")
    help = "also score these on the same tracks, into DIR/baselines/"
    evaluate.add_argument("--baselines", nargs="+", choices=baselines, default=suppress, help=help)
    evaluate.add_argument("--window", type=float, default=suppress, help="seconds of BSSEval v4's windows (default: 1)")
    evaluate.add_argument("--hop", type=float, default=suppress, help="seconds between windows (default: the window)")
    evaluate.add_argument("--jobs", type=int, default=suppress, help="processes that score (default: 1)")

    report = add("report", _report, "one HTML page from saved scores")
    report.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of evaluate, or run folders")
    report.add_argument("--out", type=Path, help="the page (default: report.html in the first folder)")
    report.add_argument("--seconds", type=float, default=suppress, help="of audio for each track (default: 10)")
    report.add_argument("--players", type=int, default=suppress, help="tracks to listen to, at most (default: 8)")

    ablate = add("ablate", _ablate, "train every cell of a sweep file, resume, report with statistics and figures")
    ablate.add_argument("sweep", type=Path, metavar="SWEEP.yml", help="like recipes/ablations/small/ffn_width.yml")
    ablate.add_argument("--out", type=Path, help="folder to write (default: exp/<sweep's folder>_<sweep's name>)")
    ablate.add_argument("--jobs", type=int, default=suppress, help="cells at a time (default: 1)")
    ablate.add_argument("--ray", metavar="ADDRESS", help="run the cells on this Ray cluster instead")
    ablate.add_argument("--gpus", type=float, default=suppress, help="of a cell on Ray; 0.25: four share one")
    ablate.add_argument("--dry-run", action="store_true", help="print cells and the equal train commands, run nothing")

    check = add("check-data", _check_data, "find what spoils a run before it starts; all findings, a table, a verdict")
    help = "YAML files layered like train's, or a run folder; then train's --key value for data and model"
    check.add_argument("configs", type=Path, nargs="+", metavar="CONF.yml", help=help)
    check.add_argument(
        "--quick", action="store_true", help="all headers, but the sound of 20 tracks of a split at most"
    )
    check.add_argument("--all", action="store_true", dest="every", help="print every finding, not ten of a kind")
    help = "a run folder: compare the data with what the run began with, or store what identifies them"
    check.add_argument("--run", type=Path, dest="folder", metavar="DIR", help=help)

    export = add("export", _export, "write a trained model to one file, and prove that the file is the model")
    export.add_argument("model", metavar="MODEL", help="a run folder, a checkpoint or a model file")
    formats = "safetensors (default), asteroid, torchscript, torch-export, onnx, huggingface, or one of your own"
    export.add_argument("--to", metavar="FORMAT", default="safetensors", help=formats)
    export.add_argument("--out", type=Path, help="the file (default: model.<ending> in the run folder)")
    export.add_argument("--half", action="store_true", help="store the weights as float16 (safetensors, huggingface)")
    export.add_argument("--licence", help="of the weights; goes into the file, and into the model card")
    help = "write nothing: run this file in a fresh process and compare it with MODEL (only files you trust)"
    export.add_argument("--check", type=Path, metavar="FILE", help=help)
    return parser


def _given(options: argparse.Namespace) -> dict[str, Any]:
    return {key: value for key, value in vars(options).items() if key != "run"}


def _demo(options: argparse.Namespace) -> None:
    from tasnet_attn.demo import demo

    demo(**_given(options))


def _listed(text: str) -> list[str]:
    return text.split(",")


def _separate(options: argparse.Namespace) -> int:
    from tasnet_attn.inference.command import PIPE, separate_files
    from tasnet_attn.inference.files import Options

    settings = {name: value for name, value in vars(options).items() if name in Options.__dataclass_fields__}
    settings["clip"] = options.clip or ("error" if options.out == PIPE else "rescale")
    how = Options(**settings)
    return separate_files(
        options.inputs, options.model, options.out, how, options.skip_existing, options.jobs, options.shard
    )


def _evaluate(options: argparse.Namespace) -> None:
    from tasnet_attn.evaluation.command import run

    run(**_given(options))


def _report(options: argparse.Namespace) -> None:
    from tasnet_attn.reporting.command import report

    print(report(**_given(options)))


def _ablate(options: argparse.Namespace) -> int:
    from tasnet_attn.ablation import ablate

    return ablate(**_given(options))


def _check_data(options: argparse.Namespace) -> int:
    from tasnet_attn.checking import check_data

    return check_data(options.configs, options.overrides, options.quick, options.every, options.folder)


def _export(options: argparse.Namespace) -> None:
    from tasnet_attn.exporting.command import check, export, shown

    if options.check is not None:
        print(shown(check(options.model, options.to, options.check)))
        return
    print(shown(export(options.model, options.to, options.out, options.half, options.licence)))


if __name__ == "__main__":
    sys.exit(main())
