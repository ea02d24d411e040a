"""What float32 takes of the gain: the same trained models solved in both precisions, as measured (no torch)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reproduce import checkout
from reproduce.report import effects, study, tables
from reproduce.report.against_global import GLOBAL
from reproduce.report.effects import Effect
from reproduce.runs.store import VANILLA

KEPT = "data/reference/measured/precision.json"
DTYPES = ("float32", "float64")
LINES = (study.LOCAL[0], GLOBAL)
Rows = Sequence[Mapping[str, Any]]
"""Of benchmarks/bench_precision.py: each is one model, solved in one precision at one tolerance."""


def rows() -> Rows:
    """Return the kept measurements; none where there is no file of them."""
    path = checkout.ROOT / KEPT
    found: Rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return found


def names(measured: Rows) -> list[str]:
    """Return the experiments that were measured, in their order."""
    return list(dict.fromkeys(row["experiment"] for row in measured))


def tolerances(measured: Rows, experiment: str) -> tuple[float, float]:
    """Return the tolerance that an experiment's models were trained at, and the tightest that they were solved at."""
    here = [row for row in measured if row["experiment"] == experiment]
    return here[0]["trained_at"], min(row["tolerance"] for row in here)


def by_seed(
    measured: Rows, experiment: str, line: str, dtype: str, tolerance: float, what: str = "nfe"
) -> dict[int, float]:
    """Return evaluations by seed, or those of a straight line (`what='straight'`); none where there is no number."""
    at = {"experiment": experiment, "line": line, "dtype": dtype, "tolerance": tolerance}
    here = [row for row in measured if all(row[name] == value for name, value in at.items())]
    return {row["seed"]: float(row[what]) for row in here if row[what] is not None}


def ratio(measured: Rows, experiment: str, dtype: str, tolerance: float, line: str = LINES[0]) -> Effect | None:
    """Return the logarithm of a line's evaluations over vanilla's, in pairs of one seed."""
    ours, theirs = (by_seed(measured, experiment, name, dtype, tolerance) for name in (line, VANILLA))
    return effects.log_ratio(ours, theirs)


def table(measured: Rows) -> pd.DataFrame:
    """Return one line for each experiment, tolerance and penalty; pairs are of float32 and of float64."""
    lines = []
    for name in names(measured):
        trained_at, tightest = tolerances(measured, name)
        for tolerance in dict.fromkeys((trained_at, tightest)):
            for line in LINES:
                lines.append(
                    {
                        "experiment": tables.title(name),
                        "tolerance": f"{tolerance:g}" + (" (as trained)" if tolerance == trained_at else ""),
                        "penalty": tables.label(line),
                        "evaluations": _both(measured, name, line, tolerance),
                        "vanilla's": _both(measured, name, VANILLA, tolerance),
                        **{f"ratio in {on}": _ratio(measured, name, on, tolerance, line) for on in DTYPES},
                        "a straight line's": _both(measured, name, VANILLA, tolerance, "straight"),
                    }
                )
    return pd.DataFrame(lines)


def _both(measured: Rows, experiment: str, line: str, tolerance: float, what: str = "nfe") -> str:
    """Return '71.0 / 62.0', the means in float32 and in float64; '' where there is no number."""
    found = [effects.average(by_seed(measured, experiment, line, dtype, tolerance, what)) for dtype in DTYPES]
    return "" if any(map(math.isnan, found)) else " / ".join(f"{value:.1f}" for value in found)


def in_words(measured: Rows) -> str:
    """Say what the penalty saves in each precision, at the tolerance of training and at the tightest; '' without."""
    if not measured:
        return ""
    told = []
    for name in names(measured):
        ends = dict.fromkeys(tolerances(measured, name))
        found = [
            f"at {at:g} {' and '.join(f'{_ratio(measured, name, on, at)} in {on}' for on in DTYPES)}" for at in ends
        ]
        told.append(f"* {tables.title(name)}: {'; '.join(found)}")
    seeds = " and ".join(str(seed) for seed in sorted({row["seed"] for row in measured}))
    return (
        f"Evaluations of the model with the {tables.draw(LINES[0])} local penalty over vanilla's, at the tolerance of "
        f"training and at the tightest, the same weights in both precisions (seeds {seeds}, which "
        "enter no verdict; first test batch):\n\n" + "\n".join(told)
    )


def missed(measured: Rows, experiments: Sequence[str]) -> str:
    """Say of each experiment whose goal at equal tolerance was missed what the same weights save in float64; or ''."""
    told = []
    for name in experiments:
        if name in names(measured):
            at, _ = tolerances(measured, name)
            single, double = (_ratio(measured, name, dtype, at) for dtype in DTYPES)
            told.append(f"{double} on {tables.title(name)} ({single} in float32)")
    if not told:
        return ""
    seeds = len({row["seed"] for row in measured})
    return (
        "Part of what is missing may be rounding: the same weights of the "
        f"{tables.draw(LINES[0])} penalty, solved in float64, take {', '.join(told)} ({seeds} seeds that enter no "
        "verdict; lesson 13, *What float32 takes*)."
    )


def _ratio(measured: Rows, experiment: str, dtype: str, tolerance: float, line: str = LINES[0]) -> str:
    found = ratio(measured, experiment, dtype, tolerance, line)
    return "(too few seeds)" if found is None else f"{math.exp(found.mean):.2f}x"
