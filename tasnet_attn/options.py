"""The options of each command, and its help of one screen. Imports nothing large."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tasnet_attn.errors import UserError
from tasnet_attn.terminal import QUIET, VERBOSE
from tasnet_attn.version import __version__

ABOUT = {
    "demo": "try the shipped models; train one on bundled songs, make a page",
    "train": "train a model from YAML files; resume or fine-tune a run",
    "separate": "separate audio files: DIR/<input's stem>/<source>.<format>",
    "stream": "separate live sound from standard input",
    "evaluate": "score a model on a data set: BSSEval v4 and SI-SNR, with intervals",
    "report": "one HTML page with players, from saved scores",
    "ablate": "train every cell of a sweep file; tables with statistics, figures",
    "check-data": "find problems in a data set before a run starts",
    "export": "write a trained model to one file, and verify the file",
    "models": "list the models that ship, or print the card of one",
}
SHORT = {"-c": "--config", "-o": "--out", "-d": "--trainer.accelerator"}  # for train, which argparse does not parse
TRAIN = {  # title -> the common settings, as typed, and their meaning
    "Configuration": {
        "-c, --config FILE": "YAML; several are layered: base.yml, conf.yml",
        "--KEY VALUE": "of their keys: --model.separator.hidden 300",
        "--import MODULE": "a module with your own classes",
        "--seed_everything N": "of weights, data and dropout (default: 0)",
    },
    "Run folder": {
        "-o, --out DIR": "for all that a run keeps (default: exp/run)",
        "--ckpt_path last": "resume the run in DIR",
        "--change KEY": "resume with another value of this setting",
        "--fork NEW [--with-optimizer]": "a new run that starts from DIR's weights",
    },
    "Training": {
        "--trainer.max_epochs N": "also max_steps N, max_time DD:HH:MM:SS",
        "--early_stopping.patience N": "epochs without improvement (default: 10)",
        "--task.optimizer.init_args.lr X": "the learning rate (default: 1e-4)",
        "--data.batch_size N": "also segment SECONDS, segments_per_epoch N",
        "--trainer.precision P": "32-true, bf16-mixed or 16-mixed",
        "--ema DECAY": "average the weights, like 0.999",
        "--on-nan skip": "skip batches that are not finite",
    },
    "Machine, output": {
        "-d, --trainer.accelerator NAME": "cpu, gpu, mps or auto (default)",
        "--trainer.devices N": "how many; --data.workers N: that read data",
        "-q, --quiet; -v, --verbose": "errors only; also details and timings",
        "-h, --help; --help-all": "this page; every setting",
    },
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors and usage are one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(add_help=False, formatter_class=_Formatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Print the line, exit with 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=27, width=min(100, shutil.get_terminal_size().columns))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """`-o, --out DIR`, not `-o DIR, --out DIR`."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        words = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {words}"


def everyday(parser: argparse.ArgumentParser) -> None:
    """The options of every command."""
    group = parser.add_argument_group("everywhere")
    help = "a module with your own classes that a configuration or file names; repeatable"
    group.add_argument("--import", metavar="MODULE", help=help, default=argparse.SUPPRESS)
    group.add_argument("-q", "--quiet", action="store_true", help="print errors and results only")
    group.add_argument("-v", "--verbose", action="store_true", help="print details, timings, libraries' warnings too")
    group.add_argument("-h", "--help", action="help", help="this page")


def split(arguments: Sequence[str]) -> tuple[list[str], int | None, list[str]]:
    """Take every `--import MODULE`, `--quiet` and `--verbose` out of a command's arguments.

    Returns:
        The modules, the level of `terminal` (None: neither), and the other arguments.
    """
    modules: list[str] = []
    level: int | None = None
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            return modules, level, [*rest, argument, *waiting]
        if argument in ("-q", "--quiet", "-v", "--verbose"):
            level = QUIET if "q" in argument else VERBOSE
        elif argument == "--import":
            if not waiting:
                raise UserError("--import: needs a module's name")
            modules.append(waiting.pop(0))
        elif argument.startswith("--import="):
            modules.append(argument.removeprefix("--import="))
        else:
            rest.append(argument)
    return modules, level, rest


# ---- train ----------------------------------------------------------------------------------------------------------


def train_help() -> str:
    """The help of `train`: the common settings."""
    lines = []
    for title, settings in TRAIN.items():
        lines += [f"{title}:", *(f"  {name:33}{meaning}" for name, meaning in settings.items())]
    return "\n".join(lines)


def train_arguments(arguments: Sequence[str]) -> list[str]:
    """With long names for the short ones.

    Raises:
        UserError: there are no arguments.
    """
    if not arguments:
        folder = Path(os.path.relpath(recipe("demo")))
        files = f"--config {folder / 'base.yml'} --config {folder / 'ltl' / 'conf.yml'}"
        raise UserError(f"train: needs --config FILE, one or more; try: tasnet-attn train {files} --out exp/mine")
    return [SHORT.get(argument, argument) for argument in arguments]


def recipe(name: str) -> Path:
    """The folder of a demo recipe: in the clone, or in the installed package."""
    package = Path(__file__).parent
    return next(path for path in (package.parent / "recipes" / name, package / "recipes" / name) if path.is_dir())


# ---- the other commands ---------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `command` in its result is the command's name."""
    whole = Parser(prog="tasnet-attn")
    commands = whole.add_subparsers(metavar="COMMAND", required=True, dest="command", prog="tasnet-attn")
    whole.add_argument("--version", action="version", version=f"tasnet-attn {__version__}")
    whole.add_argument("-h", "--help", action="help")
    adding = {"demo": _demo, "separate": _separate, "stream": _stream}
    adding |= {"evaluate": _evaluate, "report": _report}
    adding |= {"ablate": _ablate, "check-data": _check_data, "export": _export, "models": _models}
    for name, add in adding.items():
        command = commands.add_parser(name, description=f"{ABOUT[name][0].upper()}{ABOUT[name][1:]}.")
        command._positionals.title, command._optionals.title = "what", "options"
        add(command)
        everyday(command)
    whole.format_help = _front  # type: ignore[method-assign]
    return whole


def _front() -> str:
    commands = "\n".join(f"  {name:11} {about}" for name, about in ABOUT.items())
    return (
        "tasnet-attn COMMAND ...: train, run and score audio source separation models\n\n"
        f"{commands}\n\n"
        "  tasnet-attn COMMAND --help, tasnet-attn --version\n"
    )


def _demo(demo: argparse.ArgumentParser) -> None:
    demo.add_argument("-o", "--out", type=Path, default=Path("demo"), metavar="DIR", help="folder (default: demo)")
    help = "training steps, if not the recipe's (for a quick test)"
    demo.add_argument("--steps", type=int, metavar="N", help=help)
    help = "stop after the models that ship"
    demo.add_argument("--no-train", action="store_false", dest="training", help=help)


def _listed(text: str) -> list[str]:
    return text.split(",")


def _separate(separate: argparse.ArgumentParser) -> None:
    separate.usage = "tasnet-attn separate INPUT [INPUT ...] -m MODEL [-o DIR] [options]"
    add = separate.add_argument
    help = "audio files and videos, folders of them, or - for standard input"
    add("inputs", nargs="+", type=Path, metavar="INPUT", help=help)
    help = "a run folder, a checkpoint, a model file, or one that ships (tasnet-attn models)"
    add("-m", "--model", required=True, help=help)
    help = "folder (default: separated); - writes one stem to standard output"
    add("-o", "--out", type=Path, default=Path("separated"), metavar="DIR", help=help)
    add("-d", "--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    add("-j", "--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    endings = ("wav", "flac", "ogg", "opus", "mp3", "m4a")
    help = f"{', '.join(endings)} (default: wav, 32-bit float)"
    add("--format", choices=endings, default="wav", metavar="FORMAT", help=help)
    add("--bits", choices=("16", "24", "32f"), metavar="BITS", help="16, 24 or 32f of wav (default: 32f) and flac (24)")
    add("--sources", type=_listed, help="sources to write, like vocals,drums (default: all)")
    add("--remainder", metavar="NAME", help="one more stem: the mixture minus the stems that are written")
    help = "distribute the rest of the mixture, so that the stems sum to it"
    add("--mixture-consistent", action="store_true", help=help)
    help = "too loud for the format: rescale (default, a song by one factor), clamp or error"
    add("--clip", choices=("rescale", "clamp", "error"), metavar="HOW", help=help)
    default = "{track}/{source}.{ext}"
    add("--name", default=default, help=f"names below the folder (default: {default})")
    add("--track", type=int, default=1, metavar="N", help="which audio track of a video, from 1 (default: 1)")
    help = "accept files that are cut"
    add("--partial", action="store_true", help=help)
    add("--skip-existing", action="store_true", help="skip files whose stems all exist")
    add("--shard", metavar="K/N", help="the K-th of N equal parts of the inputs, for job arrays")
    add("--ray", metavar="ADDRESS", help="separate on this Ray cluster instead (HOST:PORT or auto)")
    add("--segment", type=float, metavar="SECONDS", help="to process at once (default: the model's, else 20)")
    add("--overlap", type=float, metavar="PART", help="of a segment, cross-faded (default: 0.25)")
    help = "also compare stretches with one whole pass, and print the SNR"
    add("--verify-seams", action="store_true", help=help)


def _stream(stream: argparse.ArgumentParser) -> None:
    stream.usage = "tasnet-attn stream -m MODEL (--source NAME | -o DIR) [options] < SOUND"
    add = stream.add_argument
    add("-m", "--model", help="a causal model with bounded memory, or its step (.onnx)")
    help = "a file or FIFO for each source in it (default: one source to standard output)"
    add("-o", "--out", type=Path, default=Path("-"), metavar="DIR", help=help)
    add("--source", metavar="NAME", help="the source to write")
    add("--rate", type=int, metavar="HZ", help="of raw samples (default: the model's); a wav has its own")
    add("--channels", type=int, default=2, metavar="N", help="of raw samples, interleaved (default: 2)")
    help = "raw samples, little-endian: f32 (default), s16 or s32"
    add("--coding", choices=("f32", "s16", "s32"), default="f32", metavar="CODING", help=help)
    add("--block", type=float, default=10.0, metavar="MS", help="milliseconds to process at once (default: 10)")
    help = "onnx: ONNX Runtime, prepared for some seconds; eager: the model itself (default: onnx if installed)"
    add("--engine", choices=("auto", "onnx", "eager"), default="auto", metavar="ENGINE", help=help)
    for name, does in (("--microphone", "is heard"), ("--speakers", "plays the source")):
        help = f"the sound device that {does}, by name or number (default: the system's); the live extra"
        add(name, nargs="?", const="default", metavar="DEVICE", help=help)
    add("--list-devices", action="store_true", help="print the sound devices and exit")


def _evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.usage = "tasnet-attn evaluate -m MODEL --data CONF.yml [options]"
    add, suppress = evaluate.add_argument, argparse.SUPPRESS  # defaults: the configuration's or function's
    add("-m", "--model", required=True, help="a run folder, a checkpoint or a model file")
    help = "YAML with a data section, or a run folder; --data.key value overrides it"
    add("--data", required=True, metavar="CONF.yml", help=help)
    add("-o", "--out", metavar="DIR", help="folder (default: evaluation in the run folder)")
    add("--split", choices=("train", "valid", "test"), default="test", metavar="SPLIT", help="default: test")

    def option(*names: str, help: str, **settings: Any) -> None:
        add(*names, default=suppress, help=help, **settings)

    hertz, seconds, text = _or_none(int), _or_none(float), _or_none(str)
    flag = argparse.BooleanOptionalAction
    option("-d", "--device", help="auto, cpu, cuda, ... (default: auto)")
    option("-j", "--jobs", type=int, metavar="N", help="processes that score (default: 1)")
    option("--checkpoint", choices=("best", "last"), metavar="WHICH", help="best (default) or last, of a run")
    masks = ("binary", "ratio", "wiener", "none")
    option("--mask", nargs="+", choices=masks, metavar="KIND", help="made from magnitudes: binary, ratio, wiener, none")
    option("--oracle", type=text, metavar="KIND", help="instead of the model: masks, autoencoder, remix; none")
    option("--sources", type=_or_none(_listed), help="the tracks': a,b; none: the model's (default)")
    option("--rate", type=hertz, metavar="HZ", help="of scoring; none: the tracks' (default)")
    option("--beside", type=int, nargs="*", metavar="HZ", help="also score whole tracks at these rates")
    help = "also excerpts of these lengths, with time and memory"
    option("--by-length", type=float, nargs="*", metavar="SECONDS", help=help)
    option("--audio", type=text, metavar="FORMAT", help="keep it as wav, flac or ogg, for the report; none")
    baselines = ("mixture", "oracle-binary", "oracle-ratio", "oracle-wiener")
    help = f"also score these: {', '.join(baselines)}"
    option("--baselines", nargs="*", choices=baselines, metavar="NAME", help=help)
    option("--v3", action=flag, help="also BSSEval v3: NSDR, SIR, SAR")
    option("--metrics", nargs="*", metavar="CLASS", help="your own Metric classes (with --import)")
    option("--backend", choices=("fast", "museval"), metavar="NAME", help="of BSSEval: fast (default) or museval")
    option("--window", type=seconds, metavar="SECONDS", help="of BSSEval v4 (default: 1); none: whole tracks")
    option("--hop", type=seconds, metavar="SECONDS", help="between windows; none: the window (default)")
    option("--segment", type=seconds, metavar="SECONDS", help="processed at once; none (default): the model's or 20")
    option("--overlap", type=float, metavar="PART", help="of a segment, cross-faded (default: 0.25)")
    option("--order-by-references", action=flag, help="as in AudioSlots' paper")
    option("--show", nargs="*", metavar="METRIC", help="in the printed table (default: all)")
    help = "of that table, like 'mean of means'"
    option("--convention", metavar="NAME", help=help)


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """The type of an option that "none" turns off, overriding a configuration."""

    def parsed(text: str) -> Any:
        return None if text == "none" else kind(text)

    parsed.__name__ = kind.__name__  # argparse names it
    return parsed


def _report(report: argparse.ArgumentParser) -> None:
    add, suppress = report.add_argument, argparse.SUPPRESS
    add("folders", nargs="+", type=Path, metavar="DIR", help="folders of evaluate, or run folders")
    add("-o", "--out", type=Path, metavar="FILE", help="the page (default: report.html in the first folder)")
    help = "of the page: mp3 (default; every browser plays it) or flac (16 bits, exact, 8 times as large)"
    add("--audio", choices=("mp3", "flac"), default=suppress, metavar="FORMAT", help=help)
    add("--seconds", type=float, default=suppress, help="of audio for each track (default: 10)")
    add("--players", type=int, default=suppress, metavar="N", help="tracks with players, at most (default: 8)")


def _models(models: argparse.ArgumentParser) -> None:
    models.add_argument("model", metavar="MODEL", nargs="?", help="print this model's card: a name, or hf://USER/NAME")
    help = "print its model section instead, for train --fork"
    models.add_argument("--config", action="store_true", help=help)


def _ablate(ablate: argparse.ArgumentParser) -> None:
    add, suppress = ablate.add_argument, argparse.SUPPRESS
    add("sweep", type=Path, metavar="SWEEP.yml", help="like recipes/ablations/small/ffn_width.yml")
    add("-o", "--out", type=Path, metavar="DIR", help="folder (default: exp/<sweep's folder>_<sweep's name>)")
    add("-j", "--jobs", type=int, default=suppress, metavar="N", help="cells at a time (default: 1)")
    add("--ray", metavar="ADDRESS", help="run the cells on this Ray cluster instead")
    add("--gpus", type=float, default=suppress, metavar="N", help="per cell on Ray; 0.25: four share one")
    add(
        "--dry-run", action="store_true", help="print cells, an estimate of their cost, and train commands; run nothing"
    )
    help = "train only these cells: names or patterns, like '2_trans_*'; the report has all finished cells"
    add("--only", nargs="+", metavar="CELL", default=suppress, help=help)


def _check_data(check: argparse.ArgumentParser) -> None:
    check.usage = "tasnet-attn check-data CONF.yml [CONF.yml ...] [--key value ...]"
    add = check.add_argument
    help = "YAML files layered like train's, or a run folder; then train's --key value for data and model"
    add("configs", type=Path, nargs="+", metavar="CONF.yml", help=help)
    add("--quick", action="store_true", help="all headers, but the samples of at most 20 tracks per split")
    add("--all", action="store_true", dest="every", help="print every finding, not only ten of each kind")
    help = "a run folder: compare the data with what the run began with, or store their fingerprint"
    add("--run", type=Path, dest="folder", metavar="DIR", help=help)


def _export(export: argparse.ArgumentParser) -> None:
    export.usage = "tasnet-attn export MODEL [--to FORMAT] [-o FILE] [options]"
    add = export.add_argument
    add(
        "model",
        metavar="MODEL",
        nargs="?",
        default=argparse.SUPPRESS,
        help="a run folder, a checkpoint or a model file",
    )
    add("-m", "--model", metavar="MODEL", help="the same, as in the other commands")
    help = "safetensors (default), asteroid, torchscript, torch-export, onnx, onnx-step, huggingface, or your own"
    add("--to", metavar="FORMAT", default="safetensors", help=help)
    add("-o", "--out", type=Path, metavar="FILE", help="the file (default: model.<ending> in the run folder)")
    add("--half", action="store_true", help="store the weights as float16 (safetensors, huggingface)")
    add("--int8", action="store_true", help="multiply 8-bit integers (onnx-step); prints the error")
    add("--licence", help="of the weights; goes into the file, and into the model card")
    help = "write nothing: run this file in a new process and compare it with MODEL (only files you trust)"
    add("--check", type=Path, metavar="FILE", help=help)
