"""Learning-rate schedules that torch does not have."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """From 0 linearly to the optimiser's rate, then along a cosine to 0; counts steps (`lr_interval: step`).

    Args:
        optimizer: its rate is the highest.
        total_steps: where 0 is reached; the rate stays there.
        warmup_steps: where the highest rate is reached.

    Source: Reddy et al. 2023, section 3, whose numbers are the defaults.

    Examples:
        >>> import torch
        >>> optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=2e-4)
        >>> schedule = WarmupCosine(optimizer)
        >>> [round(2e-4 * schedule.factor(step), 10) for step in (0, 1250, 2500, 151_250, 300_000)]
        [0.0, 0.0001, 0.0002, 0.0001, 0.0]
    """

    def __init__(self, optimizer: Optimizer, total_steps: int = 300_000, warmup_steps: int = 2500) -> None:
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(f"warmup_steps {warmup_steps} must lie between 0 and total_steps {total_steps}")
        self.total_steps, self.warmup_steps = total_steps, warmup_steps
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """The part of the highest rate at a step, 0 to 1."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
