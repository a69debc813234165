"""A task is a LightningModule like any other: what a user of Lightning tries works, in Python and by `train`."""

import csv
import functools
import sys
import types
from unittest.mock import MagicMock

import pytest
import torch
from conftest import tasnet_model
from lookalikes import write_stem_folders
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from pytorch_lightning.loggers import Logger
from torch.optim import SGD
from torch.utils.data import DataLoader
from training.test_resuming import CONFIG, contents

from tasnet_attn.cli import main
from tasnet_attn.data import StemFolders
from tasnet_attn.data.segments import Segments
from tasnet_attn.errors import UserError
from tasnet_attn.losses import SISNR
from tasnet_attn.metrics import si_snr
from tasnet_attn.training import SeparationTask, train
from tasnet_attn.training.command import parse

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 2}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three splits of segments of 400 samples; epochs of 4 batches."""
    folder = tmp_path_factory.mktemp("lightning")
    stems = write_stem_folders(folder / "stems", (2000,))
    for split in ("valid", "test"):
        write_stem_folders(stems, (2000,), split)
    (folder / "conf.yml").write_text(CONFIG.replace("ROOT", str(stems)))
    return stems


@pytest.fixture
def data(root):
    return StemFolders(["guitar", "backing"], 8000, root=root, segment=0.05, batch_size=2, segments_per_epoch=8)


@pytest.fixture
def task():
    return SeparationTask(tasnet_model(), SISNR(cap=30), lambda parameters: SGD(parameters, lr=1e-3))


@pytest.fixture
def trainer(tmp_path):
    return functools.partial(Trainer, **QUIET, default_root_dir=tmp_path, logger=False, enable_checkpointing=False)


@pytest.fixture
def arguments(root, tmp_path):
    return ["--config", str(root.parent / "conf.yml"), "--out", str(tmp_path / "run")]


def weights(task):
    return {name: value.clone() for name, value in task.state_dict().items()}


def same(ours, theirs):
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


# ---- in Python ------------------------------------------------------------------------------------------------------


def test_a_task_is_called_like_its_model(task):
    mixture = torch.randn(2, 1, 400)
    assert torch.equal(task(mixture), task.model(mixture))


def test_validate_test_and_predict_change_nothing_and_say_what_is(task, data, trainer):
    before = weights(task)
    (valid,), (tested,) = (getattr(trainer(), verb)(task, data, verbose=False) for verb in ("validate", "test"))
    estimates = torch.cat(trainer().predict(task, data))
    assert same(weights(task), before)
    mixture, references = (torch.stack(x) for x in zip(*(data.segments("test")[0, i] for i in range(5)), strict=True))
    torch.testing.assert_close(estimates, task(mixture), atol=1e-6, rtol=1e-5)
    each = si_snr(references, estimates).mean((0, 2)).tolist()
    assert [tested[f"test_si_snr_{name}"] for name in data.sources] == pytest.approx(each, abs=1e-2)
    assert tested["test_si_snr"] == pytest.approx(sum(each) / 2, abs=1e-2)
    assert {key.replace("valid", "test") for key in valid} == set(tested)


def test_mixtures_alone_are_predicted(task, trainer):
    mixture = torch.randn(4, 1, 400)
    assert torch.equal(torch.cat(trainer().predict(task, DataLoader(mixture, batch_size=4))), task(mixture))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"limit_val_batches": 0}, {"inference_mode": False}, {"fast_dev_run": True},
                 {"check_val_every_n_epoch": 2}, {"accumulate_grad_batches": 3}, {"limit_train_batches": 0.5}], ids=str
)  # fmt: skip
def test_a_trainer_s_settings(task, data, trainer, settings):
    before = weights(task)
    trainer(**settings).fit(task, data)
    assert not same(weights(task), before) and all(value.isfinite().all() for value in task.state_dict().values())


@pytest.mark.slow
def test_a_training_loader_is_enough(task, data, trainer):
    """The rate of a plateau's schedule stays where it was."""
    fit = trainer()
    fit.fit(task, data.train_dataloader())
    assert fit.global_step == 8 and fit.optimizers[0].param_groups[0]["lr"] == 1e-3


def test_overfitted_batches_are_always_the_same(task, data, trainer, monkeypatch):
    drawn, draw = [], Segments.draw
    monkeypatch.setattr(Segments, "draw", lambda self, *key: (self.random and drawn.append(key), draw(self, *key))[1])
    trainer(overfit_batches=1, max_steps=3, limit_val_batches=0).fit(task, data)
    assert drawn == [(0, 0), (0, 1)] * 2  # two epochs


def test_a_checkpoint_comes_back_as_the_task_that_wrote_it(task, data, trainer, tmp_path):
    fit = trainer(max_steps=2)
    fit.fit(task, data)
    fit.save_checkpoint(tmp_path / "a.ckpt")
    again = SeparationTask.load_from_checkpoint(tmp_path / "a.ckpt", map_location="cpu", weights_only=False)
    assert same(weights(task), weights(again)) and again.loss.cap == 30 and again.training
    other = SeparationTask.load_from_checkpoint(tmp_path / "a.ckpt", loss=SISNR(cap=1), lr_interval="step")
    assert other.loss.cap == 1 and other.lr_interval == "step"


def test_a_checkpoint_that_runs_code_does_not(tmp_path):
    class Payload:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"model_config": Payload(), "state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="not a checkpoint"):
        SeparationTask.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    assert not (tmp_path / "ran").exists()


# ---- by the command line --------------------------------------------------------------------------------------------


class Board(Logger):
    """Stands in for a logger of somebody else's."""

    name, version = "board", "1"
    rows: list = []
    settings: dict = {}

    def __init__(self, project: str = "none"):
        super().__init__()
        Board.project = project
        Board.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append({"step": step, **metrics})

    def log_hyperparams(self, params):
        self.settings.update(params)


def table(run):
    return list(csv.DictReader((run / "metrics.csv").open()))


def test_a_logger_is_added_to_the_run_s_own(arguments):
    """It gets every row, and the run's settings."""
    run = train([*arguments, f"--trainer.logger={__name__}.Board", "--trainer.logger.project=mine"])
    assert Board.project == "mine" and Board.settings["task"]["optimizer"]["init_args"]["lr"] == 2e-3
    assert (run / "tensorboard").is_dir()
    for ours, theirs in zip(table(run), Board.rows, strict=True):
        assert {key: float(value) for key, value in ours.items() if value} == pytest.approx(theirs)


@pytest.mark.slow
def test_weights_and_biases_by_its_name(arguments, tmp_path, monkeypatch):
    """Lightning's own logger, with the service's package replaced."""
    wandb, rows = MagicMock(run=None), []
    run = type("Run", (), {"define_metric": MagicMock(), "config": MagicMock(), "_label": MagicMock(), "name": "x"})
    run.log = lambda self, metrics, **rest: rows.append(metrics)
    wandb.init.return_value = run()
    for name, content in (("wandb_run", {"Run": run}), ("sdk", {}), ("sdk.lib", {"RunDisabled": type("None", (), {})})):
        module = types.ModuleType(f"wandb.{name}")
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr("pytorch_lightning.loggers.wandb._WANDB_AVAILABLE", True)
    folder = train([*arguments, "--trainer.logger=WandbLogger", "--trainer.logger.project=separation"])
    assert wandb.init.call_args.kwargs["project"] == "separation"
    assert len(rows) == len(table(folder)) and any("valid_si_snr" in row for row in rows)


@pytest.mark.slow
def test_mlflow_by_its_path(arguments, monkeypatch):
    """The same for MLflow's, as a configuration file would name it."""
    modules = {f"mlflow{name}": types.ModuleType(f"mlflow{name}") for name in ("", ".tracking", ".entities")}
    client = MagicMock()
    client.get_experiment_by_name.return_value = None
    modules["mlflow"].set_tracking_uri = MagicMock()
    modules["mlflow.tracking"].MlflowClient = lambda uri: client
    for name in ("Metric", "Param"):
        setattr(modules["mlflow.entities"], name, lambda **settings: types.SimpleNamespace(**settings))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("pytorch_lightning.loggers.mlflow._MLFLOW_AVAILABLE", True)
    monkeypatch.setattr("pytorch_lightning.loggers.mlflow._get_resolve_tags", lambda: lambda tags: tags)
    logger = "pytorch_lightning.loggers.MLFlowLogger"
    run = train([*arguments, f"--trainer.logger={logger}", "--trainer.logger.experiment_name=separation"])
    assert client.create_experiment.call_args.kwargs["name"] == "separation"
    logged = [call.kwargs for call in client.log_batch.call_args_list]
    settings = {param.key: param.value for call in logged for param in call.get("params", ())}
    assert settings["task/optimizer/init_args/lr"] == "0.002"
    ours = {(key, int(row["step"])) for row in table(run) for key, value in row.items() if value and key != "step"}
    assert {(metric.key, metric.step) for call in logged for metric in call.get("metrics", ())} == ours
    client.set_terminated.assert_called_once()


@pytest.mark.slow
def test_a_run_without_a_board_keeps_its_table(arguments):
    run = train([*arguments, "--trainer.logger=false", "--trainer.callbacks+=LearningRateMonitor"])
    assert not (run / "tensorboard").exists() and any(row.get("lr-Adam") for row in table(run))


def test_a_callback_s_enumeration_is_stored_as_its_value(arguments):
    stored = parse([*arguments, "--trainer.callbacks+=Timer", "--trainer.callbacks.duration=00:01:00:00"])
    (timer,) = stored["trainer"]["callbacks"]
    assert timer["init_args"] == {"duration": "00:01:00:00", "interval": "step", "verbose": True}


def test_a_run_without_its_files_is_told_where_they_are(tmp_path, capsys):
    given = ["train", f"--out={tmp_path}", "--ckpt_path=last"]
    assert main(given) == 2 and "--config with the files of a recipe\n" in capsys.readouterr().err
    (tmp_path / "config.yml").write_text("model: {}")
    assert main(given) == 2 and f"to go on with this run: --config {tmp_path}" in capsys.readouterr().err


def test_fast_dev_run_leaves_nothing(arguments, tmp_path):
    assert main(["train", *arguments, "--trainer.fast_dev_run=true"]) == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [
        ["limit_train_batches=1", "limit_val_batches=1"], ["overfit_batches=2", "limit_val_batches=0"],
        ["check_val_every_n_epoch=2", "inference_mode=false", "accumulate_grad_batches=2"], ["val_check_interval=0.5"],
    ], ids=str,
)  # fmt: skip
def test_a_run_s_settings(arguments, settings):
    """Ended after an epoch and then within one, and given more: the unbroken run, in its weights and its table."""
    settings = [*arguments, *(f"--trainer.{setting}" for setting in settings), "--trainer.logger=false"]
    run = train([*settings, "--trainer.max_epochs=1", "--trainer.max_steps=-1"])
    for steps in (5, 7):
        train([*settings, "--ckpt_path=last", f"--trainer.max_steps={steps}"])
    whole = train([*settings, f"--out={run.parent / 'whole'}", "--trainer.max_steps=7"])
    last, other = (torch.load(r / "checkpoints/last.ckpt", weights_only=True) for r in (run, whole))
    assert last["global_step"] == 7 and same(last["state_dict"], other["state_dict"])
    ours, theirs = (
        [{k: v for k, v in row.items() if k not in ("epoch_seconds", "loader_share")} for row in table(r)]
        for r in (run, whole)
    )
    assert ours == theirs
    task = SeparationTask.load_from_checkpoint(run / "checkpoints/last.ckpt")
    assert task.configure_optimizers()["optimizer"].param_groups[0]["lr"] == 2e-3


class Kept(BasePredictionWriter):
    shapes: list = []

    def __init__(self):
        super().__init__("batch")

    def write_on_batch_end(self, trainer, module, prediction, *rest):
        self.shapes.append(list(prediction.shape))


@pytest.mark.slow
def test_lightning_s_words(arguments, capsys):
    run = train(["fit", *arguments])
    before = contents(run)
    assert main(["train", *arguments, "--trainer.fast_dev_run=2"]) == 0
    for word in ("validate", "test"):
        assert main(["train", word, *arguments]) == 0
        assert f"{word.removesuffix('ate')}_si_snr_guitar" in capsys.readouterr().out
    assert main(["train", "predict", *arguments, f"--trainer.callbacks+={__name__}.Kept"]) == 0
    assert Kept.shapes == [[2, 2, 2, 400], [2, 2, 2, 400], [1, 2, 2, 400]]
    assert main(["train", "predict", *arguments]) == 0 and "tasnet-attn separate" in capsys.readouterr().err
    assert main(["train", "test", *arguments, "--ckpt_path=nowhere.ckpt"]) == 2
    assert contents(run) == before
