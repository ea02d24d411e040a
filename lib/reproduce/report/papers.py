"""The papers' tables beside ours: the published line of each regularizer, then ours, part by part (no torch)."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from reproduce.report import effects, study_tables, tables
from reproduce.report.effects import Seeds
from reproduce.report.evidence import Evidence
from reproduce.report.study import lines_of
from reproduce.report.tables import CONTROL, TITLES, VANILLA, in_order, label
from reproduce.report.verdicts import Line, Lines

TIMES = ("train_hours", "train_seconds", "train_seconds_per_batch")
COLUMNS = ("from", "seeds", "test", "gain kept", "evaluations", "over vanilla's", "predict", "faster", "train",
           "trains faster")  # fmt: skip
PUBLISHED_NAMES = {"vanilla": VANILLA, "global_both": "global_error+global_stiffness"}
"""Names of paper_results.yaml that are others in the menu."""


def experiments(parts: Iterable[Evidence]) -> list[str]:
    """Return every experiment that is published or registered, in the order of the report."""
    names = {*tables.published(), *(name for part in parts for name in part.wanted)}
    names -= {"abstract_claims", "memory_by_gradient_method"}
    return sorted(names, key=lambda name: (list(TITLES).index(name) if name in TITLES else len(TITLES), name))


def published_rows(experiment: str) -> dict[str, dict[str, Any]]:
    """Return the published lines of an experiment by regularizer; none where nothing is published."""
    rows = tables.published().get(experiment, {}).get("rows", {})
    return {PUBLISHED_NAMES.get(name, name): row for name, row in rows.items()}


def published_ratio(rows: Mapping[str, Mapping[str, Any]], name: str, *keys: str) -> float:
    """Return a published entry / vanilla's of the first key that has one; NaN where there is none.

    There is none, either, where the two were measured by different papers.
    """
    row, vanilla = rows.get(name, {}), rows.get(VANILLA, {})
    if name == VANILLA or row.get("from") != vanilla.get("from"):
        return math.nan
    return next((float(row[key][0] / vanilla[key][0]) for key in keys if key in row and key in vanilla), math.nan)


def experiment_table(experiment: str, parts: Sequence[Evidence]) -> pd.DataFrame:
    """Return the paper's table beside ours: for each regularizer the published line, then ours, part by part.

    Numbers are those of the trainings that did not break off, which are counted beside the seeds.
    """
    published = published_rows(experiment)
    ours = {part.name: lines_of([row for row in part.of(experiment) if not row.broke_off]) for part in parts}
    broken = Counter((part.name, row.regularizer) for part in parts for row in part.of(experiment) if row.broke_off)
    metrics = {row.metric for part in parts for row in part.of(experiment)}
    names = in_order([*published, *(row.regularizer for part in parts for row in part.of(experiment))])
    found: list[dict[str, str]] = []
    for name in names:
        if name in published:
            found.append({"regularizer": label(name), **_published_line(published, name, experiment)})
        for part, lines in ours.items():
            if (experiment, name) in lines:
                cells = _own_line(lines, experiment, name, next(iter(metrics)), broken[part, name])
                found.append({"regularizer": label(name), "from": part, **cells})
            elif n := broken[part, name]:
                cells = dict.fromkeys(COLUMNS, "") | {"from": part, "seeds": tables.seeds(n, n)}
                found.append({"regularizer": label(name), **cells})
    return pd.DataFrame(found)


def not_run(experiment: str, parts: Sequence[Evidence]) -> str:
    """Return a sentence on the parts of the evidence that lack rows of an experiment; empty if none does."""
    short = [
        f"{part.name} has {len(part.of(experiment))} of {part.wanted.get(experiment, 0)} rows"
        for part in parts
        if len(part.of(experiment)) < part.wanted.get(experiment, 0)
    ]
    return f"**Not complete**: {'; '.join(short)}." if short else ""


def _published_line(rows: Mapping[str, Mapping[str, Any]], name: str, experiment: str) -> dict[str, str]:
    """The published numbers of a regularizer; no ratio where its source is another than vanilla's."""
    row = rows[name]
    source = str(row.get("from") or tables.published()[experiment]["source"].split(",")[0])

    def ratio(*keys: str, faster: bool = True) -> str:
        found = published_ratio(rows, name, *keys)
        return "" if math.isnan(found) else f"{1 / found if faster else found:.2f}x"

    cells = dict.fromkeys(COLUMNS, "") | {"from": f"published, {source}"}
    cells["test"] = _published(row, {"test_acc": " %", "test_loss": " x 1e-3", "mse": ""})
    cells["evaluations"], cells["over vanilla's"] = _published(row, {"nfe": ""}), ratio("nfe", faster=False)
    cells["predict"], cells["faster"] = _published(row, {"predict_seconds": " s"}), ratio("predict_seconds")
    cells["train"] = _published(row, dict(zip(TIMES, (" h", " s", " s per batch"), strict=True)))
    cells["trains faster"] = ratio(*TIMES)
    return cells


def _published(row: Mapping[str, Any], units: Mapping[str, str]) -> str:
    return next((f"{row[key][0]:g} ± {row[key][1]:g}{unit}" for key, unit in units.items() if key in row), "")


def _own_line(lines: Lines, experiment: str, name: str, metric: str, broke_off: int) -> dict[str, str]:
    ours, vanilla = lines[experiment, name], lines.get((experiment, VANILLA))
    control = lines.get((experiment, CONTROL))
    percent = metric == "accuracy"
    values = {seed: abs(value) if metric == "mse" else value for seed, value in ours.values.items()}
    cells = {
        "seeds": tables.seeds(len(ours.values) + broke_off, broke_off),
        "test": spread(values, scale=100 if percent else 1, digits=4) + (" %" if percent else f" ({metric})"),
        "gain kept": "",
        "evaluations": spread(ours.costs["nfe"], digits=4),
        "predict": spread(ours.costs["predict"], scale=1e3) + " ms",
        "train": spread(ours.costs["train"]) + " s",
    }
    if vanilla is None or name in (VANILLA, CONTROL):
        return cells | dict.fromkeys(("over vanilla's", "faster", "trains faster"), "")
    if control is not None:
        level = study_tables.rules()["level"]
        cells["gain kept"] = study_tables.kept_text(
            effects.kept_interval(ours.values, vanilla.values, control.values, level=level)
        )
    return cells | {
        "over vanilla's": _ratio(ours, vanilla, "nfe"),
        "faster": _ratio(vanilla, ours, "predict"),
        "trains faster": _ratio(vanilla, ours, "train"),
    }


def _ratio(one: Line, other: Line, what: str) -> str:
    """The ratio over common seeds with its interval; of one seed without."""
    common = sorted(set(one.costs[what]) & set(other.costs[what]))
    if len(common) == 1:
        return f"{one.costs[what][common[0]] / other.costs[what][common[0]]:.2f}x"
    return study_tables.ratio_text(effects.log_ratio(one.costs[what], other.costs[what]))


def spread(values: Seeds, *, scale: float = 1.0, digits: int = 3) -> str:
    """Return mean and standard deviation over seeds as text, without a deviation for a single seed."""
    found = [scale * value for value in values.values()]
    mean = f"{statistics.fmean(found):.{digits}g}"
    return mean + (f" ± {statistics.stdev(found):.2g}" if len(found) > 1 else "")
