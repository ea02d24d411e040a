"""The papers' tables beside ours: published lines, our lines profile by profile, ratios to vanilla (no torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reproduce.report import tables
from reproduce.report.evidence import Evidence, Group
from reproduce.report.ratios import Comparison, compare
from reproduce.report.tables import VANILLA, in_order, label

SHORT = "†"
"""Marks a cell that averages fewer seeds than the profile lists."""

NOT_RUN = "not run"
TITLES = {
    "spiral_ode": "Spiral, neural ODE",
    "spiral_sde": "Spiral, neural SDE",
    "mnist_ode": "MNIST, neural ODE",
    "mnist_sde": "MNIST, neural SDE",
    "physionet": "PhysioNet 2012, latent ODE",
    "cifar10_ode": "CIFAR-10, neural ODE",
    "cifar10_multiscale_ode": "CIFAR-10, multiscale neural ODE",
    "digits_cnf": "Digits, density by a continuous flow",
}
"""Experiments for readers, in the order of the report; others follow by name."""


def experiments(parts: Sequence[Evidence]) -> list[str]:
    """Return every experiment that is published or run, in the order of the report."""
    names = {*tables.published(), *(name for part in parts for name in part.experiments())}
    names -= {"abstract_claims", "memory_by_gradient_method"}
    return sorted(names, key=lambda name: (list(TITLES).index(name) if name in TITLES else len(TITLES), name))


def title(regularizer: str, variant: str = "") -> str:
    """Return the name for readers of a table line."""
    return label(regularizer) + (f" ({variant})" if variant else "")


PUBLISHED_NAMES = {"vanilla": VANILLA, "global_both": "global_error+global_stiffness"}
"""Names of paper_results.yaml that are others in the menu."""


def published_rows(experiment: str) -> dict[str, dict[str, Any]]:
    """Return the published lines of an experiment by regularizer; none where nothing is published."""
    rows = tables.published().get(experiment, {}).get("rows", {})
    return {PUBLISHED_NAMES.get(name, name): row for name, row in rows.items()}


def published_ratio(rows: Mapping[str, Mapping[str, Any]], name: str, key: str) -> float:
    """Return a published entry / vanilla's; NaN where one is missing or was measured by the other paper."""
    row, vanilla = rows.get(name, {}), rows.get(VANILLA, {})
    comparable = key in row and key in vanilla and row.get("from") == vanilla.get("from") and name != VANILLA
    return float(row[key][0] / vanilla[key][0]) if comparable else math.nan


def experiment_table(experiment: str, parts: Sequence[Evidence]) -> pd.DataFrame:
    """Return the paper's table beside ours: for each regularizer the published line, then ours, profile by profile.

    A line without rows says "not run"; a cell that averages fewer seeds than its profile lists is marked.
    """
    published = published_rows(experiment)
    ours = [(part, *line) for part in parts if _has(part, experiment) for line in part.lines(experiment)]
    lines: list[dict[str, str]] = []
    for name in in_order([*published, *(regularizer for _, _, regularizer, _ in ours)]):
        if name in published:
            lines.append({"regularizer": title(name), **_published_line(published, name, experiment)})
        for part, tolerance, regularizer, variant in ours:
            if regularizer == name:
                against = compare(part, experiment, name, tolerance, variant)
                lines.append({"regularizer": title(name, variant), **_own_line(part, tolerance, against)})
    return pd.DataFrame(lines)


def short_line(experiment: str, regularizer: str, tolerance: float, part: Evidence) -> dict[str, str]:
    """Return one line of the report's first table: ratios to vanilla, the published ones beside ours."""
    published, columns = published_rows(experiment), ("NFE ratio", "faster")
    theirs = _published_line(published, regularizer, experiment) if regularizer in published else {}
    ours = _own_line(part, tolerance, compare(part, experiment, regularizer, tolerance))
    line = {"experiment": TITLES.get(experiment, experiment), "penalty": title(regularizer)}
    for column in columns:
        line |= {f"{column}, published": theirs.get(column, ""), f"{column}, ours": ours[column]}
    return line | {name: ours[name] for name in ("gain kept", "seeds", "tolerance")}


def _has(part: Evidence, experiment: str) -> bool:
    return any(row.experiment == experiment for row in part.found())


def not_run(experiment: str, parts: Sequence[Evidence]) -> str:
    """Return a sentence on the parts of the evidence that have no row of an experiment; empty if all have some."""
    if not any(experiment in part.experiments() for part in parts):
        return "**Not run yet**: this project has no such experiment; the published lines stand alone."
    missing = [part.name for part in parts if not _has(part, experiment)]
    return f"**Not run**: {'; '.join(missing)}." if missing else ""


COLUMNS = ("from", "tolerance", "seeds", "test", "gain kept", "NFE", "NFE ratio", "predict", "faster", "train",
           "trains faster")  # fmt: skip


TIMES = ("train_hours", "train_seconds", "train_seconds_per_batch")


def _published_line(rows: Mapping[str, Mapping[str, Any]], name: str, experiment: str) -> dict[str, str]:
    """The published numbers of a regularizer; no ratio where its source is another than vanilla's."""
    row = rows[name]
    source = str(row.get("from") or tables.published()[experiment]["source"].split(",")[0])

    def ratio(*keys: str, faster: bool = True) -> str:
        found = [value for key in keys if not math.isnan(value := published_ratio(rows, name, key))]
        return "" if not found else f"{1 / found[0] if faster else found[0]:.2f}x"

    cells = dict.fromkeys(COLUMNS, "") | {"from": f"published, {source}"}
    cells["test"] = _published(row, {"test_acc": " %", "test_loss": " x 1e-3", "mse": ""})
    cells["NFE"], cells["NFE ratio"] = _published(row, {"nfe": ""}), ratio("nfe", faster=False)
    cells["predict"], cells["faster"] = _published(row, {"predict_seconds": " s"}), ratio("predict_seconds")
    cells["train"] = _published(row, dict(zip(TIMES, (" h", " s", " s per batch"), strict=True)))
    cells["trains faster"] = ratio(*TIMES)
    return cells


def _published(row: Mapping[str, Any], units: Mapping[str, str]) -> str:
    return next((f"{row[key][0]:g} ± {row[key][1]:g}{unit}" for key, unit in units.items() if key in row), "")


def _own_line(part: Evidence, tolerance: float, against: Comparison) -> dict[str, str]:
    cells = dict.fromkeys(COLUMNS, NOT_RUN) | {"from": part.name, "tolerance": f"{tolerance:g}"}
    if not against.ours.rows:
        return cells
    row = against.ours.rows[0]
    percent = row.metric == "accuracy"
    mark = _mark(against.ours)
    cells["seeds"] = against.seeds
    cells["test"] = spread(against.ours, "metric", scale=100 if percent else 1, digits=4 if percent else 3)
    cells["test"] += (" %" if percent else f" ({row.metric})") + mark
    cells["gain kept"] = _gain(against)
    cells["NFE"] = spread(against.ours, "nfe", digits=4) + mark
    cells["predict"] = spread(against.ours, "predict", scale=1e3) + " ms" + mark
    cells["train"] = spread(against.ours, "train") + " s" + mark
    ratios = {"NFE ratio": against.nfe, "faster": against.predict, "trains faster": against.train}
    for column, ratio in ratios.items():
        if row.regularizer in (VANILLA, tables.CONTROL):
            cells[column] = ""
        elif ratio is not None:
            cells[column] = (ratio if column == "NFE ratio" else ratio.inverse()).text()
            cells[column] += _mark(against.ours, against.vanilla)
    return cells


def _mark(*groups: Group) -> str:
    return "" if all(group.complete for group in groups) else f" {SHORT}"


def _gain(against: Comparison) -> str:
    """The share of the gain that is kept; why there is none, otherwise."""
    if not math.isnan(against.gain):
        return f"{against.gain:z.2f}{_mark(against.ours, against.vanilla, against.control)}"
    return against.gain_note if "not run" in against.gain_note or "no control" in against.gain_note else "none to keep"


def spread(group: Group, what: str, *, scale: float = 1.0, digits: int = 3) -> str:
    """Return mean and standard deviation over seeds as text, without a deviation for a single seed."""
    mean, std = scale * group.mean(what), scale * group.std(what)
    return f"{mean:.{digits}g}" + ("" if math.isnan(std) else f" ± {std:.2g}")
