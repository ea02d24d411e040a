"""A study as tests of the report need it: four lines of MNIST with ten seeds each, solved in two ways."""

from __future__ import annotations

import math
from dataclasses import replace

from rows import ROW

from reproduce.report.evidence import STUDY, Evidence
from reproduce.runs.store import Row

MADE = {"commit": "0123456789", "made": "2026-01-01T00:00:00Z"}
COSTS = {"none": 100.0, "local_biased": 40.0, "local_unbiased": 60.0, "no_dynamics": 0.0}
FEW, TIGHT = ("midpoint", None, 1), ("tsit5", 1e-7, None)


def row(name: str, seed: int, experiment: str = "mnist_ode") -> Row:
    accuracy = (0.85 if name == "no_dynamics" else 0.95) + 1e-3 * (seed % 3)
    nfe = COSTS[name] + (seed % 3 if COSTS[name] else 0)
    curve = {TIGHT: (accuracy, nfe), FEW: (accuracy - (0.05 if name == "none" else 0.001), 2.0)}
    ways = [
        {"method": m, "tolerance": t, "steps": n, "metric": value, "nfe": cost, "seconds": 1e-3 * cost, "failed": ""}
        for (m, t, n), (value, cost) in curve.items()
    ]
    return replace(
        ROW,
        key=f"{experiment}{name}{seed}",
        experiment=experiment,
        budget={"rtol": 1e-7, "method": "tsit5", "fixed_steps": None, "lr": 0.006},
        provenance=MADE,
        regularizer=name,
        seed=seed,
        metrics={"accuracy": accuracy, "train_accuracy": accuracy},
        nfe=nfe,
        seconds={"train": 10.0 + seed % 3, "predict": 1e-3 * (nfe + 1)},
        ways=ways,
    )


def broken(row: Row) -> Row:
    """The row that the same training leaves when it breaks off."""
    nothing = dict.fromkeys(row.metrics, math.nan)
    made = {"more": {"broke_off": "after step 4 of 12, by its checkpoints: the solve has non-finite states"}}
    seconds = {"train": math.nan, "predict": math.nan}
    return replace(row, metrics=nothing, nfe=math.nan, seconds=seconds, ways=[], provenance={**row.provenance, **made})


ROWS = [row(name, seed) for name in COSTS for seed in range(10, 20)]


def part(*gone: str, name: str = STUDY) -> Evidence:
    """The evidence of MNIST without the rows of these keys, and without any row of another experiment."""
    rows = tuple(one for one in ROWS if one.key not in gone)
    return Evidence(name, rows, {"mnist_ode": len(ROWS), "physionet": 130})
