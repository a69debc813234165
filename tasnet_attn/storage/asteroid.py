"""Asteroid's model files, both ways: our models in its format, and its own networks as a MODEL here.

After `import tasnet_attn.exporting.asteroid`, `asteroid.models.BaseModel.from_pretrained(path)` loads our models.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tasnet_attn import compat
from tasnet_attn.errors import UserError
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage.filling import fill
from tasnet_attn.storage.tensors import Described, header

OURS = "TasnetAttn"  # our class's name in Asteroid's registry
THEIRS = ("ConvTasNet", "DPRNNTasNet", "LSTMTasNet")


def write(model: SourceSeparator, file: Path, facts: dict[str, Any]) -> None:
    """Write a file that Asteroid's `BaseModel.from_pretrained` loads; it contains only plain data and tensors."""
    facts = header(model, facts)
    packed = {
        "model_name": OURS,
        "state_dict": {f"model.{name}": tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        "model_args": {"config": model.config, "sample_rate": model.sample_rate},
        "infos": {**facts, "software_versions": facts["versions"]},
    }
    written = io.BytesIO()  # a full disk is then an OSError, not torch's own
    torch.save(packed, written)
    file.write_bytes(written.getvalue())


def read(file: Path, packed: dict[str, Any]) -> Described | AsteroidSeparator:
    """The model in a file of Asteroid's format: one of ours, or one of Asteroid's networks, ready for use.

    Raises:
        UserError: another network, or settings or weights that do not fit.
    """
    name, arguments, weights = (packed.get(key) for key in ("model_name", "model_args", "state_dict"))
    if not isinstance(arguments, dict) or not isinstance(weights, dict):
        raise UserError(f"{file}: damaged: it names {name!r} but lacks model_args or state_dict")
    if name == OURS:
        ours = {str(key).removeprefix("model."): tensor for key, tensor in weights.items()}
        if not isinstance(arguments.get("config"), dict):
            raise UserError(f"{file}: damaged: its model_args lack a config")
        infos = packed.get("infos")
        return Described(arguments["config"], ours, infos if isinstance(infos, dict) else {})
    if name not in THEIRS:
        raise UserError(f"{file}: Asteroid's {name!r} cannot be used here; only {', '.join(THEIRS)} can")
    models = compat.asteroid.models
    network = getattr(models, name)
    known = set(inspect.signature(network.__init__).parameters) - {"self", "fb_kwargs"}
    if unknown := sorted(map(str, arguments.keys() - known)):
        raise UserError(f"{file}: {name} has no setting {unknown[0]!r}")
    if arguments.get("fb_name", "free") not in ("free", "FreeFB"):
        raise UserError(
            f"{file}: its filters are {arguments['fb_name']!r}; only learned ones ('free') can be used here"
        )
    if not arguments.get("sample_rate"):
        raise UserError(f"{file}: does not state its sample rate; add it to the file's model_args")

    def build() -> AsteroidSeparator:
        try:
            return AsteroidSeparator(network(**arguments), name, arguments)
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f"{file}: {name} rejects its settings: {error}") from error

    return fill(file, arguments, {f"network.{key}": tensor for key, tensor in weights.items()}, build)


class AsteroidSeparator(nn.Module):
    """One of Asteroid's networks with the interface of `model.Separates`.

    The outputs keep the network's level, which training by SI-SNR does not determine.

    Args:
        network: takes [N, 1, T], returns [N, S, T].
        name: its class in Asteroid.
        arguments: of its constructor.
    """

    interchangeable, segment, stitch = True, None, "fade"

    def __init__(self, network: nn.Module, name: str, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.name, self.arguments = network, name, arguments
        self.sources = [f"s{i + 1}" for i in range(int(arguments["n_src"]))]  # LibriMix's names
        self.sample_rate = int(arguments["sample_rate"])

    @property
    def config(self) -> dict[str, Any]:
        """Its name and arguments in Asteroid."""
        return {"asteroid": self.name, "model_args": self.arguments}

    def clip_scale(self, blocks: Iterable[Tensor], length: int) -> None:
        """None: it does not divide by anything of the whole clip."""

    def forward(self, mixture: Tensor, scale: Tensor | None = None) -> Tensor:
        """[B, C, T] -> [B, S, C, T]."""
        batch, channels, _ = mixture.shape
        return self.network(mixture.flatten(0, 1).unsqueeze(1)).unflatten(0, (batch, channels)).transpose(1, 2)


def register() -> type:
    """Register our models with Asteroid; returns the class that its `from_pretrained` builds."""
    models = compat.asteroid.models
    if hasattr(models, OURS):
        return getattr(models, OURS)

    class TasnetAttn(models.BaseModel):  # type: ignore[name-defined]
        """One of our models with Asteroid's interface: one input channel."""

        def __init__(self, config: dict[str, Any], sample_rate: float) -> None:
            super().__init__(sample_rate=sample_rate, in_channels=1)
            self.model = SourceSeparator.from_config(config)

        def forward(self, wav: Tensor) -> Tensor:
            """[T], [B, T] or [B, 1, T] -> [S, T] or [B, S, T]."""
            mixture = wav.reshape(-1, 1, wav.shape[-1])
            estimates = self.model(mixture).squeeze(2)
            return estimates[0] if wav.dim() == 1 else estimates

        def get_model_args(self) -> dict[str, Any]:
            return {"config": self.model.config, "sample_rate": self.sample_rate}

    models.register_model(TasnetAttn)
    return TasnetAttn
