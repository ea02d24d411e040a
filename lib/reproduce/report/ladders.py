"""The ladders of the study: held-out rows of each weight beside those of vanilla and of the control (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from reproduce.report import study
from reproduce.runs import store
from reproduce.runs.curves import gain_kept, value
from reproduce.runs.registered import registered
from reproduce.runs.store import CONTROL, VANILLA, Row

LINES = (*reversed(study.LOCAL), "global_error")
"""Lines whose ladders are shown together."""


def measured() -> list[str]:
    """Return the experiments whose ladders of weights have committed rows, in the order of the protocol."""
    return [name for name in registered()["experiments"] if weights(name) and references(name)[0]]


def references(experiment: str) -> tuple[list[Row], list[Row]]:
    """Return the held-out rows of vanilla and of the control at the learning rate of the study."""
    lr = study.chosen(experiment).get("lr")
    rows = [row for row in store.committed_rows("rates", experiment) if row.budget["lr"] == lr]
    return [row for row in rows if row.regularizer == VANILLA], [row for row in rows if row.regularizer == CONTROL]


def rungs(experiment: str) -> dict[str, dict[float, list[Row]]]:
    """Return line -> weight -> held-out rows of LINES, at the learning rate of the study; lines with every seed."""
    lr, seeds = study.chosen(experiment).get("lr"), set(registered()["seeds"]["ladder"])
    found: dict[str, dict[float, list[Row]]] = {}
    for row in store.committed_rows("ladders", experiment):
        if row.regularizer in LINES and "weight" in row.settings and row.budget["lr"] == lr:
            found.setdefault(row.regularizer, {}).setdefault(float(row.settings["weight"]), []).append(row)
    whole = {line for line, of in found.items() if all({row.seed for row in rows} == seeds for rows in of.values())}
    return {line: dict(sorted(found[line].items())) for line in LINES if line in whole}


def weights(experiment: str) -> dict[str, dict[float, list[Row]]]:
    """Return those of `rungs` that were tried with the same weights as the biased local penalty."""
    found = rungs(experiment)
    return {line: of for line, of in found.items() if set(of) == set(found.get(study.LOCAL[0], {}))}


def rows_of(experiments: Sequence[str]) -> list[Row]:
    """Return every row of `rungs` and `references`: what a picture of ladders is made of."""
    found = []
    for name in experiments:
        found += [row for group in references(name) for row in group]
        found += [row for of in rungs(name).values() for rows in of.values() for row in rows]
    return found


def kept(rows: Sequence[Row], vanilla: Sequence[Row], control: Sequence[Row]) -> list[float]:
    """Return the share of vanilla's mean gain that each row keeps; NaN where vanilla gains nothing."""
    found = [[value(row) for row in group] for group in (vanilla, control)]
    return [gain_kept([value(row)], *found) for row in rows]


def chosen_weight(experiment: str, line: str) -> float | None:
    """Return the weight that the ladder of a line chose; None before."""
    found: float | None = study.chosen(experiment).get("regularizers", {}).get(line, {}).get("weight")
    return found


def least(experiment: str) -> float | None:
    """Return the fewest evaluations of any weight of the local penalties over vanilla's, solved as in training.

    Both are means over the seeds of the ladders, on held-out data. None where such rows are missing.
    """
    vanilla, _ = references(experiment)
    tried = [rows for line, of in rungs(experiment).items() if line in study.LOCAL for rows in of.values()]
    own = [fmean(row.nfe for row in rows) for rows in tried]
    return min(own) / fmean(row.nfe for row in vanilla) if vanilla and own else None
