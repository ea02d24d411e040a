"""What a stored row reaches and costs in each way to solve (no torch): values, so that higher is always better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reproduce.runs.store import CONTROL, Row

Name = tuple[str, float | None, int | None]
"""A way to solve: method, tolerance (None: fixed steps), number of steps (None: by tolerance)."""


def words(way: Name) -> str:
    """Return a way for readers: 'tsit5 at 0.001', 'midpoint, 2 steps'."""
    method, tolerance, steps = way
    if steps is None:
        return f"{method} at {tolerance:g}" if tolerance is not None else method
    return f"{method}, {steps} step{'s' if steps > 1 else ''}"


def own_way(row: Row) -> Name:
    """Return the way that the row was trained and tested with."""
    if row.regularizer == CONTROL:
        return "none", None, None
    steps = row.budget.get("fixed_steps")
    return str(row.budget["method"]), None if steps else float(row.budget["rtol"]), steps


def value(row: Row) -> float:
    """Return the metric of the row's own way, signed so that higher is better; the solver's error counts as lost."""
    sign = 1.0 if row.higher_is_better else -1.0
    return sign * row.metrics[row.metric] - row.metrics.get("solver_error", 0.0)


def curve(row: Row) -> dict[Name, tuple[float, float]]:
    """Return the value and the evaluations of each way that was measured and gave a finite metric.

    The curve is measured on fewer examples than the row's metric. So a way's value is that of the row's own way on all
    of them, plus the difference of the two ways on those of the curve: the same examples, so that it has little noise.
    """
    entries = _entries(row)
    own = entries.get(own_way(row))
    if own is None or own["metric"] is None:
        return {}
    sign = 1.0 if row.higher_is_better else -1.0

    def of(entry: dict[str, Any]) -> float:
        return -float(entry["error"]) if "error" in entry else sign * float(entry["metric"])

    found = {}
    for way, entry in entries.items():
        if entry["metric"] is not None and math.isfinite(entry["metric"]):
            found[way] = value(row) + of(entry) - of(own), float(entry["nfe"])
    return found


def on_its_examples(row: Row) -> Row:
    """Return a row whose metric, and whose solver's error, are those on the fewer examples of its curve."""
    own = _entries(row).get(own_way(row))
    if own is None or own["metric"] is None:
        return row
    error = {"solver_error": float(own["error"])} if "error" in own else {}
    return replace(row, metrics={**row.metrics, row.metric: float(own["metric"]), **error})


def _entries(row: Row) -> dict[Name, dict[str, Any]]:
    return {name(entry): entry for entry in row.ways if entry["method"] != "reference"}


def name(entry: dict[str, Any]) -> Name:
    """Return the way that an entry of a row's curve is about."""
    return entry["method"], entry["tolerance"], entry["steps"]


def gain_kept(values: Sequence[float], vanilla: Sequence[float], control: Sequence[float]) -> float:
    """Return the share of vanilla's gain over the control that is kept, in the mean; NaN without a gain."""
    mean = [math.fsum(x) / len(x) for x in (values, vanilla, control)]
    gain = mean[1] - mean[2]
    return (mean[0] - mean[2]) / gain if gain > 0 else math.nan


def common(rows: Sequence[Row]) -> list[Name]:
    """Return the ways that every row has measured, in the order of the first."""
    curves = [curve(row) for row in rows]
    return [way for way in curves[0] if all(way in other for other in curves[1:])] if curves else []
