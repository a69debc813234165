"""A sweep of models that train in a second, and a user's own separator."""

import yaml
from lookalikes import write_stem_folders

BASE = """
model:
  sources: [guitar, backing]
  sample_rate: 8000
  encoder: {class_path: GatedEncoder, init_args: {n_filters: 12, kernel_size: 16}}
  separator: {class_path: LTL, init_args: {hidden: 8, heads: 2, ffn: 8, transformer_layers: 1, dropout: 0.1}}
  decoder: {class_path: LearnedDecoder, init_args: {n_filters: 12, kernel_size: 16}}
task: {optimizer: {class_path: Adam, init_args: {lr: 1e-3}}}
data: {class_path: StemFolders, init_args: {root: ROOT, segment: 0.1, batch_size: 2, segments_per_epoch: 8}}
trainer: {max_epochs: 2, accelerator: cpu, log_every_n_steps: 1}
checkpoint: {every_n_train_steps: 3} # of 4 in an epoch: a kill in the validation after a checkpoint is another matter
"""
SWEEP = {
    "base": ["base.yml"],
    "axes": {"model.separator": ["1_trans_0"], "model.separator.ffn": [8]},
    "cells": {"TasNet": {"model.separator": {"class_path": "TasNet", "init_args": {"hidden": 8, "n_layers": 2}}}},
    "seeds": [0, 1],
    "evaluate": ["test"],
    "baseline": "TasNet",
    "figures": {"by layers": {"panels": ["separator"]}},
    "claims": [
        {"says": "small", "better": "1_trans_0, ffn=8", "than": ["TasNet"], "quantity": "parameters"},
        {"says": "alike", "equal": "TasNet", "to": ["1_trans_0, ffn=8"], "within": 100},
    ],
}
ONE = {"axes": None, "seeds": [0], "claims": None}  # changes that leave TasNet alone

DPRNN = '''
"""A dual-path RNN (Luo et al. 2020): frames in overlapping chunks; an LSTM within the chunks, one across them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasnet_attn.separators import Separator


class Path(nn.Module):
    """An LSTM both ways, a linear map back, a norm, a residual: [N, L, D] -> [N, L, D]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.back = nn.Linear(2 * hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.back(self.lstm(x)[0]))


class DPRNN(Separator):
    """Separator with bottleneck `width`, chunks of `chunk` frames that overlap by half, `n_blocks` pairs of LSTMs."""

    def __init__(
        self, n_features: int, n_sources: int, width: int = 64, hidden: int = 128, chunk: int = 100, n_blocks: int = 6
    ) -> None:
        super().__init__()
        self.n_sources, self.chunk = n_sources, chunk
        self.bottleneck = nn.Conv1d(n_features, width, 1)
        self.within = nn.ModuleList(Path(width, hidden) for _ in range(n_blocks))
        self.across = nn.ModuleList(Path(width, hidden) for _ in range(n_blocks))
        self.to_masks = nn.Conv1d(width, n_sources * n_features, 1)

    def forward(self, features: Tensor) -> list[Tensor]:
        batch, _, length = features.shape
        hop = self.chunk // 2
        n_hops = -(-length // hop) + 1
        padded = functional.pad(self.bottleneck(features), (hop, n_hops * hop - length))
        chunks = padded.unfold(-1, self.chunk, hop).permute(0, 2, 3, 1)  # [N, chunks, frames, D]
        for within, across in zip(self.within, self.across):
            chunks = within(chunks.flatten(0, 1)).unflatten(0, (batch, -1))
            chunks = across(chunks.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, -1)).transpose(1, 2)
        columns = chunks.permute(0, 3, 2, 1).flatten(1, 2)  # [N, D * frames, chunks]
        size = (1, (n_hops + 1) * hop)
        joined = functional.fold(columns, size, (1, self.chunk), stride=(1, hop))[:, :, 0, hop : hop + length]
        return [self.to_masks(joined).unflatten(1, (self.n_sources, -1))]
'''
UNCOUNTABLE = '''

class Sorted(DPRNN):
    """Looks at the values of its features."""

    def forward(self, features: Tensor) -> list[Tensor]:
        return super().forward(features * float(features.max()))
'''


def write_sweep(folder, name="sweep.yml", **changes):
    """A sweep file with its base and its data; a change to None removes a key."""
    if not (folder / "stems").exists():
        for split in ("train", "valid", "test"):
            write_stem_folders(folder / "stems", (4000, 5000), split)
        (folder / "base.yml").write_text(BASE.replace("ROOT", str(folder / "stems")))
    if "axes" in changes:  # which the figure's panels are made of
        changes = {"figures": None, **changes}
    content = {key: value for key, value in (SWEEP | changes).items() if value is not None}
    (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / name
