"""Figures of a sweep: what is drawn where."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tasnet_attn.ablation import figures
from tasnet_attn.ablation.settings import Panels
from tasnet_attn.ablation.statistics import estimate

LENGTHS = {("a", 0): 3, ("a", 1): 5, ("TasNet", 0): 2}  # epochs of the runs
CELLS = [
    SimpleNamespace(name="a", coordinates={"separator": "1_trans_0", "ffn": "8"}),
    SimpleNamespace(name="b", coordinates={"separator": "2_trans_0", "ffn": "8"}),
    SimpleNamespace(name="TasNet", coordinates={}),
]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The axes of a figure of `curves`, by its panels."""
    rows = [
        {"cell": cell, "seed": seed, "epoch": epoch, "valid_si_snr": 10.0 * seed + epoch}
        for (cell, seed), length in LENGTHS.items()
        for epoch in range(1, length + 1)
    ]
    sweep = SimpleNamespace(cells=CELLS, settings=SimpleNamespace(seeds=[0, 1]))
    found = SimpleNamespace(sweep=sweep, epochs=pd.DataFrame(rows))
    kept = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))

    def draw(panels):
        figures.curves(found, tmp_path / "curves.png", "a title", panels)
        return {axis.get_title(): axis for axis in kept[-1].axes}

    return draw


def test_runs_are_drawn_to_their_own_end_and_the_mean_while_all_train(drawn):
    (axis,) = drawn(Panels()).values()
    lines = [(line.get_linewidth(), line.get_xydata()[np.isfinite(line.get_ydata())]) for line in axis.get_lines()]
    thin, bold = ([data for width, data in lines if (width > 1) == wide] for wide in (False, True))
    assert [len(data) for data in thin] == [3, 5, 2] and [len(data) for data in bold] == [3, 2]
    np.testing.assert_allclose(bold[0], [[1, -6], [2, -7], [3, -8]])  # of 1, 2, 3 and 11, 12, 13, as a loss


def test_panels_by_axes_with_the_baseline_in_each(drawn):
    panels = drawn(Panels(panels=["separator"]))
    assert list(panels) == ["1_trans_0", "2_trans_0"]
    assert [len(axis.get_lines()) for axis in panels.values()] == [5, 2]  # two seeds and their mean, TasNet's and its
    assert [len(axis.get_lines()) for axis in drawn(Panels(["separator"], ["TasNet", "b*"])).values()] == [2]


def test_a_dollar_is_no_formula(tmp_path):
    """Neither in a cell's name, in a value of an axis, nor in a figure's."""
    name = "a$\\frac$"
    cells = [SimpleNamespace(name=f"{name}{i}", coordinates={"x": f"{name}{i}", "y": "1"}) for i in range(2)]
    settings = SimpleNamespace(seeds=[0], metric="valid_si_snr", figures={name: Panels()})
    sweep = SimpleNamespace(cells=cells, settings=settings, path=tmp_path / f"{name}.yml")
    epochs = pd.DataFrame([{"cell": f"{name}0", "seed": 0, "epoch": 1, "valid_si_snr": 1.0}])
    found = SimpleNamespace(sweep=sweep, epochs=epochs, estimate=lambda cell, quantity: estimate([1.0, 2.0]))
    assert len(figures.draw(found, tmp_path)) == 5
