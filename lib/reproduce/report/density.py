"""Cost and correctness side by side: the table of an experiment whose metric is measured against a reference."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

import pandas as pd

from reproduce.report import tables
from reproduce.runs.store import Row


def cost_and_correctness(rows: Sequence[Row]) -> pd.DataFrame:
    """Return a table for readers: the metric as it is and as the solve in use computes it, its error, and the cost.

    A line for each regularizer and each way of training (see `tables.WAYS`); mean and standard deviation over seeds.
    'Against vanilla' is the mean difference to vanilla's metric of the same seeds, and so on the same test data.

    Raises:
        ValueError: a row that was not measured against a reference.
    """
    for row in rows:
        if "solver_error" not in row.metrics:
            raise ValueError(
                f"{row.experiment}/{row.regularizer}: no metric 'solver_error'; its budget has no reference"
            )
    comparison = tables.compare(rows)
    several, lines = comparison["host"].nunique() > 1, []
    ways = tables.frame(rows)[list(tables.WAYS)].to_numpy().tolist()
    for _, line in comparison.iterrows():
        way = [line[name] for name in tables.WAYS]
        same = [row for row, of in zip(rows, ways, strict=True) if of == way]
        group = [row for row in same if row.regularizer == line["regularizer"]]
        name = group[0].metric
        kept, ratio, away = line["gain_kept"], line["nfe_ratio"], line["metric"] - line["vanilla_metric"]
        lines.append(
            {
                **({"trained through": line["host"]} if several else {}),
                "regularizer": tables.label(line["regularizer"]),
                "seeds": len(group),
                "log-likelihood [nats]": _spread([row.metrics[name] for row in group], ".2f"),
                "against vanilla": "" if pd.isna(away) or line["regularizer"] == tables.VANILLA else f"{away:+.2f}",
                "as computed": _spread([row.metrics[f"{name}_in_use"] for row in group], ".2f"),
                "error of one image": f"{fmean(row.metrics['solver_error'] for row in group):.1e}",
                "gain kept": "" if pd.isna(kept) else f"{kept:.2f}",
                "NFE": _spread([row.nfe for row in group], ".1f"),
                "NFE ratio": "" if pd.isna(ratio) else f"{ratio:.2f}x",
                "accepted / rejected": f"{line['accepted']:.1f} / {line['rejected']:.1f}",
                "train [s]": f"{line['train_s']:.0f}",
            }
        )
    return pd.DataFrame(lines)


def _spread(values: Sequence[float], form: str) -> str:
    """Return mean and standard deviation over seeds as text; one value stands alone."""
    return f"{fmean(values):{form}}" + (f" ± {stdev(values):{form}}" if len(values) > 1 else "")
