"""Version 2's endpoint: equal tolerance with a first step that was chosen for each model, from its rows (no torch)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reproduce.report import effects, endpoints, study, tables
from reproduce.report.against_global import GLOBAL
from reproduce.report.effects import Effect
from reproduce.report.endpoints import Endpoint
from reproduce.report.evidence import Evidence
from reproduce.report.study import LOCAL, Saving
from reproduce.report.study_tables import bold, change_text, kept_text, nats_text, ratio_text, span
from reproduce.report.verdicts import Line
from reproduce.runs import store
from reproduce.runs.registered import REGISTERED_IN, registered
from reproduce.runs.store import VANILLA, Row

SOLVES = ("own", "chosen")
"""The solver's own guess of the first step, and the one that was chosen on training data."""


def complete(part: Evidence) -> list[str]:
    """Return the experiments of which the study and the first steps of all registered models, by key, are there."""
    asked, keys = registered()["first_step"], {row.key for row in part.rows}
    wanted = {(line, seed) for line in asked["lines"] for seed in registered()["seeds"]["study"]}
    there = {
        name: {(x["line"], x["seed"]) for x in store.first_steps(name) if x["key"] in keys}
        for name in asked["experiments"]
    }
    return [name for name in part.complete() if there.get(name) == wanted]


def models(part: Evidence) -> list[Row]:
    """Return the rows of the models that were measured."""
    keys = {one["key"] for name in complete(part) for one in store.first_steps(name)}
    return [row for row in part.rows if row.key in keys]


def by_seed(
    measured: Sequence[dict[str, Any]], line: str, solve: str, tolerance: float | None = None, what: str = "nfe"
) -> dict[int, float]:
    """Return a number of a line by seed in one of SOLVES: 'nfe', or 'value', signed so that higher is better.

    Args:
        tolerance: None: that of training.
    """
    found = {}
    for one in measured:
        if one["line"] == line:
            at = next(way for way in one["ways"] if tolerance in (None, way["tolerance"]))[solve]
            sign = 1.0 if one["higher_is_better"] else -1.0
            found[one["seed"]] = at["nfe"] if what == "nfe" else sign * at["metric"] - at.get("error", 0.0)
    return found


@dataclass(frozen=True)
class Chosen:
    """What a line saves with its chosen first step, over vanilla with its own chosen one."""

    saving: Saving
    own: float
    """Its mean evaluations by the solver's own guess."""
    over_usual: Effect | None
    """Logarithm of its evaluations over those of vanilla by the solver's own guess."""


def savings(part: Evidence, experiment: str) -> list[Chosen]:
    """Return what each penalized line saves at the tolerance of training."""
    measured = store.first_steps(experiment)
    rows = {line: content for (name, line), content in study.lines_of(part.rows).items() if name == experiment}
    vanilla = by_seed(measured, VANILLA, "chosen")
    against = {**rows, VANILLA: Line({"nfe": vanilla}, rows[VANILLA].values)}
    metric, found = measured[0]["metric"], []
    for line in registered()["first_step"]["lines"]:
        if line != VANILLA:
            nfe, values = (by_seed(measured, line, "chosen", what=what) for what in ("nfe", "value"))
            saving = study.saving_of(experiment, line, None, nfe, values, against, metric)
            usual = effects.log_ratio(nfe, by_seed(measured, VANILLA, "own"))
            found.append(Chosen(saving, effects.average(by_seed(measured, line, "own")), usual))
    return found


def table(part: Evidence) -> pd.DataFrame:
    """Return one line for each experiment and penalty."""
    lines = []
    for name in complete(part):
        vanilla = [effects.average(by_seed(store.first_steps(name), VANILLA, solve)) for solve in SOLVES]
        for one in savings(part, name):
            worse = nats_text if one.saving.metric == "log_likelihood" else change_text
            lines.append(
                {
                    "experiment": tables.title(name),
                    "penalty": tables.label(one.saving.line),
                    "evaluations": f"{one.own:.1f} -> {one.saving.evaluations:.1f}",
                    "vanilla's": f"{vanilla[0]:.1f} -> {vanilla[1]:.1f}",
                    "over vanilla's": bold(ratio_text(one.saving.ratio)),
                    "over vanilla's by its own guess": ratio_text(one.over_usual),
                    "gain kept": f"{kept_text(one.saving.kept)}: {one.saving.verdict}",
                    "error": worse(one.saving.worse),
                }
            )
    return pd.DataFrame(lines)


def at_other_tolerances(part: Evidence) -> pd.DataFrame:
    """Return the means of vanilla and of each penalty at the tolerances beside that of training."""
    lines = []
    for name in complete(part):
        measured = store.first_steps(name)
        for tolerance in [way["tolerance"] for way in measured[0]["ways"][1:]]:
            theirs = [by_seed(measured, VANILLA, solve, tolerance) for solve in SOLVES]
            for line in registered()["first_step"]["lines"]:
                if line != VANILLA:
                    ours = [by_seed(measured, line, solve, tolerance) for solve in SOLVES]
                    ratios = [effects.log_ratio(*pair) for pair in zip(ours, theirs, strict=True)]
                    lines.append(
                        {
                            "experiment": tables.title(name),
                            "tolerance": f"{tolerance:g}",
                            "penalty": tables.label(line),
                            "evaluations": " -> ".join(f"{effects.average(x):.1f}" for x in ours),
                            "vanilla's": " -> ".join(f"{effects.average(x):.1f}" for x in theirs),
                            "over vanilla's, own guesses": ratio_text(ratios[0]),
                            "over vanilla's, chosen steps": ratio_text(ratios[1]),
                        }
                    )
    return pd.DataFrame(lines)


def endpoint(part: Evidence) -> Endpoint:
    """Return the endpoint of version 2."""
    names, apart = endpoints.where_dynamics_matter(part, complete(part))
    found = {name: [one.saving for one in savings(part, name) if one.saving.line in LOCAL] for name in names}
    return Endpoint(study.rules()["equal_tolerance"], 2, found, apart)


def in_words(part: Evidence) -> str:
    """Say in how many experiments the endpoint is reached, and the ratios; '' without measurements."""
    if not complete(part):
        return ""
    found = endpoint(part)
    left = [name for name in registered()["first_step"]["experiments"] if name not in complete(part)]
    where = f": {_titles(found.reached())}" if found.reached() else ""
    said = (
        "**With a first step that is chosen** on training data, for vanilla, too (version 2 of the protocol, "
        f"registered in commit {REGISTERED_IN[2]} before its first solve of these models), a local penalty needs at "
        f"most {found.at_most:g}x vanilla's evaluations at equal tolerance, with the gain kept, in {found.count()} "
        f"experiments where dynamics matter{where} (hoped for: {found.hoped}). {_range(part)}{found.not_counted()}"
        + (f" Not measured yet: {_titles(left)}." if left else "")
    )
    told = [
        f"* {tables.title(name)}: "
        + "; ".join(
            f"{tables.label(one.saving.line)} {ratio_text(one.saving.ratio)}, gain {one.saving.verdict}, "
            f"{_ratio(one.over_usual)} of vanilla by its own guess"
            for one in savings(part, name)
        )
        for name in found.savings
    ]
    return "\n\n".join([said, "\n".join(told)]) if told else said


def _titles(names: Sequence[str]) -> str:
    return "; ".join(map(tables.title, names))


def _range(part: Evidence) -> str:
    """Say from where to where the ratios go in all experiments: of the biased penalty, the global one, and both."""
    all_of = {name: {one.saving.line: one for one in savings(part, name)} for name in complete(part)}
    biased, world = ([of_name[line] for of_name in all_of.values()] for line in (LOCAL[0], GLOBAL))
    both = [
        effects.log_ratio(*(by_seed(store.first_steps(name), line, "chosen") for line in (LOCAL[0], GLOBAL)))
        for name in complete(part)
    ]
    return (
        f"In all {len(all_of)} that were measured the {tables.draw(LOCAL[0])} one takes "
        f"{span([x.saving.ratio for x in biased])} of vanilla's with its chosen step, and "
        f"{span([x.over_usual for x in biased])} of vanilla's by the solver's own guess; the global penalty on the "
        f"error takes {span([x.saving.ratio for x in world])} and {span([x.over_usual for x in world])}. The "
        f"{tables.draw(LOCAL[0])} one takes {span(both)} of its evaluations."
    )


def _ratio(effect: Effect | None) -> str:
    return "" if effect is None else f"{math.exp(effect.mean):.2f}x"
