"""What the benchmarks compute from what they have measured."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.check import MEASURED, RECORDED, fallen
from benchmarks.report import Table, quantile, save
from benchmarks.scaling import fairness


def test_quantiles_are_values_that_were_measured():
    """A quantile is the smallest value that so many do not exceed, and never beyond the last."""
    values = [float(n) for n in range(100, 0, -1)]
    assert quantile(values, 0.5) == 51
    assert quantile(values, 0.99) == 100
    assert quantile([7.0], 0.99) == 7


def test_fairness():
    """An equal share is 1, and a beat that sent nothing makes it 0."""
    assert fairness([50, 50], 2) == 1
    assert fairness([30, 10], 2) == 0.5
    assert fairness([100], 2) == 0


def test_what_has_fallen():
    """A ratio may fall by a quarter of the recorded one, and not by more."""
    assert not fallen(0.75, 1.0)
    assert fallen(0.74, 1.0)
    assert not fallen(5.0, 1.0)


def test_what_is_checked_is_recorded():
    """The recorded file has each ratio that the check measures, and no other."""
    assert set(json.loads(RECORDED.read_text())["ratios"]) == set(MEASURED)


def test_ratios_are_saved(tmp_path: Path):
    """The file of the benchmarks has the tables with their ratios."""
    table = Table("Speed", ["of", "ratio"], ratios={"to a bare loop": 1.5})
    save(tmp_path / "new" / "bench.json", "a machine", [table])
    saved = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert saved["machine"] == "a machine"
    assert saved["tables"][0]["ratios"] == {"to a bare loop": 1.5}
