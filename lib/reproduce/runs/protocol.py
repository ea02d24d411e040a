"""The registered study as runs: protocol.yaml, and what its ladders chose -> lists of Run, stage by stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from itertools import product
from typing import Any

from reproduce import experiments
from reproduce.experiments.chosen import choices
from reproduce.runs import store
from reproduce.runs.registered import registered
from reproduce.runs.run import Files, Run, keys_of
from reproduce.runs.store import CONTROL, VANILLA, Row

DECAY = "none:decay"
_files: dict[tuple[str, ...], Files] = {}
"""Of data that a key of this process was asked with."""


def names() -> list[str]:
    """Return the experiments of the study."""
    return list(registered()["experiments"])


def lines(experiment: str) -> list[str]:
    """Return the lines of an experiment's study: those of all, those of its ladders, those it has besides."""
    of = registered()["experiments"][experiment]
    few = choices().get(experiment, {}).get("few", {})
    return list(
        dict.fromkeys([*registered()["lines"], *of["ladders"], *of.get("also", ()), *(f"{x}:few" for x in few)])
    )


def run_of(experiment: str, line: str, seed: int, *, part: str = "test", **varied: Any) -> Run:
    """Return the run of a line: the profile's budget at the tolerance of the study, with the line's own entries.

    Args:
        experiment, line, seed: what to train; a line is a regularizer, with a variant after a colon, or the control.
        part: 'test', or 'validation' for ladders.
        varied: a ladder's values: 'lr' and 'weight_decay' are entries of the budget, others are settings.
    """
    rules, name = registered(), line.removesuffix(":few")
    tolerance, chosen = rules["experiments"][experiment]["tolerance"], choices().get(experiment, {})
    if name != line:
        varied = {**chosen["few"][name], **varied}
    if name == DECAY:
        varied = {"weight_decay": chosen.get("weight_decay", 0.0), **varied}
    of_budget = {key: value for key, value in varied.items() if key in ("lr", "weight_decay")}
    settings = {key: value for key, value in varied.items() if key not in of_budget}
    overrides = {"rtol": tolerance, "atol": tolerance, **rules["variants"].get(name, {}), **of_budget}
    return Run(experiment, line, seed, rules["profile"], part=part, settings=settings, overrides=overrides)


def stored(run: Run) -> Row | None:
    """Return the stored row of a run, or None; its key is found once, since for some data that takes seconds."""
    return store.find(run.profile, run.experiment, _key(run.experiment, json.dumps(asdict(run), sort_keys=True)))


@cache
def _key(experiment: str, run: str) -> str:
    return keys_of([Run(**json.loads(run))], _files)[0]


def rates(experiment: str) -> list[Run]:
    """Return vanilla and the control at each learning rate, on held-out training data."""
    rates, seeds = registered()["experiments"][experiment]["lr"], registered()["seeds"]["ladder"]
    return [
        run_of(experiment, line, seed, part="validation", lr=lr)
        for lr, line, seed in product(rates, (VANILLA, CONTROL), seeds)
    ]


def values_of(experiment: str, line: str) -> list[dict[str, Any]]:
    """Return the settings that a line's ladder tries."""
    ladder = dict(registered()["experiments"][experiment]["ladders"][line])
    fixed = {key: value for key, value in ladder.items() if not isinstance(value, list)}
    (varied,) = ((key, value) for key, value in ladder.items() if isinstance(value, list))
    return [{varied[0]: value, **fixed} for value in varied[1]]


def ladder(experiment: str, line: str) -> list[list[Run]]:
    """Return the runs of a line's ladder, one list of all seeds for each of its values."""
    seeds = registered()["seeds"]["ladder"]
    return [
        [run_of(experiment, line, seed, part="validation", **setting) for seed in seeds]
        for setting in values_of(experiment, line)
    ]


def ladders(experiment: str) -> list[Run]:
    """Return the runs of all ladders of an experiment, at the learning rate that was chosen."""
    of = registered()["experiments"][experiment]["ladders"]
    return [run for line in of for rung in ladder(experiment, line) for run in rung]


def study(experiment: str) -> list[Run]:
    """Return the runs that verdicts are read from: every line with the study's seeds, on the test part."""
    seeds = registered()["seeds"]["study"]
    return [run_of(experiment, line, seed) for seed in seeds for line in lines(experiment)]


def ablation(experiment: str) -> list[Run]:
    """Return the ladders of the crossed forms, on held-out data, and the runs of those that have chosen a weight."""
    of = registered()["ablation"]
    if experiment not in of["experiments"]:
        return []
    found = []
    for name, settings, weights in _forms(of):
        for weight, seed in product(weights, of["ladder_seeds"]):
            found.append(run_of(experiment, name, seed, part="validation", weight=weight, **settings))
        weight = choices().get(experiment, {}).get("ablation", {}).get(name)
        if weight is not None:
            seeds = registered()["seeds"]["ablation"]
            found += [run_of(experiment, name, seed, weight=weight, **settings) for seed in seeds]
    return found


def _forms(of: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], list[float]]]:
    for sampling, dt, step, k1 in product(of["sampling"], of["times_dt"], of["weights"], ("differentiated", "held")):
        factor = of["factor_with_dt"] if dt else 1.0
        name = f"{sampling}:{step}{'_dt' if dt else ''}{'_held' if k1 == 'held' else ''}"
        settings = {"step": step, "times_dt": dt, "detach_k1": k1 == "held", "weight_end": None}
        yield name, settings, [factor * weight for weight in of["weights"][step][k1]]


def published(experiment: str) -> list[Run]:
    """Return the runs of profile `paper` that are registered, as its budgets have them."""
    found = []
    for block in registered()["published"]:
        if block["experiment"] != experiment:
            continue
        seeds = block.get("seeds", registered()["seeds"]["published"])
        for entry in experiments.get(experiment).budget("paper").runs:
            here = [line for line in entry.regularizers if block["lines"] == "all" or line in block["lines"]]
            found += [Run(experiment, x, s, "paper", overrides=entry.overrides()) for s, x in product(seeds, here)]
    return found


STAGES: dict[str, Callable[[str], list[Run]]] = {
    "rates": rates,
    "ladders": ladders,
    "study": study,
    "ablation": ablation,
    "published": published,
}
"""Stage -> its runs of one experiment, in the order in which they are made."""
