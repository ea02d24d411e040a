"""What the ladders of the protocol choose, by its rules alone: learning rate, weights, and ways to solve."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

from reproduce import checkout, experiments
from reproduce.experiments.chosen import choices
from reproduce.files import write_atomically
from reproduce.runs import protocol
from reproduce.runs.curves import Name, common, curve, gain_kept, value
from reproduce.runs.protocol import DECAY
from reproduce.runs.registered import registered
from reproduce.runs.run import Run
from reproduce.runs.store import CONTROL, VANILLA, Row

FEW = (DECAY, "local_biased", "global_error")
"""Lines that may have a second weight, the one that serves few evaluations best."""
Rung = tuple[dict[str, Any], list[Row]]
"""A ladder's setting and its rows, one for each seed."""


def rows_of(runs: Sequence[Run]) -> list[Row] | None:
    """Return the stored rows of runs, or None while one is missing."""
    found = [protocol.stored(run) for run in runs]
    return None if None in found else [row for row in found if row is not None]


def _at_rate(experiment: str, lr: float, line: str) -> list[Row] | None:
    runs = [run for run in protocol.rates(experiment) if run.overrides["lr"] == lr and run.regularizer == line]
    return rows_of(runs)


def rate(experiment: str) -> float | None:
    """Return the learning rate at which vanilla is best on held-out data, in the mean; None while rows are missing."""
    means = {}
    for lr in registered()["experiments"][experiment]["lr"]:
        rows = _at_rate(experiment, lr, VANILLA)
        if rows is None or _at_rate(experiment, lr, CONTROL) is None:
            return None
        means[lr] = statistics.fmean(map(value, rows))
    return max(means, key=lambda lr: means[lr])


def keeps_most(options: Sequence[tuple[float, float]], asked: float) -> int:
    """Return which of (gain kept, evaluations) to take: the fewest evaluations among those that keep what is asked.

    Of equals the one that keeps most, then the first. If none keeps it, the one that keeps most.
    """
    able = [i for i, (gain, _) in enumerate(options) if gain >= asked]
    if able:
        return min(able, key=lambda i: (options[i][1], -options[i][0], i))
    return max(range(len(options)), key=lambda i: (options[i][0] if math.isfinite(options[i][0]) else -math.inf, -i))


def own_options(rungs: Sequence[Rung], vanilla: Sequence[Row], control: Sequence[Row]) -> list[tuple[float, float]]:
    """Return (gain kept, evaluations) of each rung, solved as it was trained."""
    references = [value(row) for row in vanilla], [value(row) for row in control]
    return [
        (gain_kept([value(row) for row in rows], *references), statistics.fmean(row.nfe for row in rows))
        for _, rows in rungs
    ]


def way_options(
    rows: Sequence[Row], vanilla: Sequence[Row], control: Sequence[Row]
) -> list[tuple[Name, tuple[float, float]]]:
    """Return each way that all rows have measured, with (gain kept, evaluations), in the mean over the rows."""
    curves = [curve(row) for row in rows]
    references = [value(row) for row in vanilla], [value(row) for row in control]
    found = []
    for name in common(rows):
        values, evaluations = zip(*(at[name] for at in curves), strict=True)
        found.append((name, (gain_kept(values, *references), statistics.fmean(evaluations))))
    return found


def of_experiment(experiment: str) -> dict[str, Any]:
    """Return the choices that the stored rows of an experiment's ladders allow; what misses rows is left out."""
    lr = rate(experiment)
    if lr is None:
        return {}
    found: dict[str, Any] = {"lr": lr, "regularizers": {}, "few": {}, "ways": {}, "gains": {}}
    if lr != experiments.get(experiment).budget(registered()["profile"]).lr:
        return {"lr": lr}  # the ladders come next, at this rate
    vanilla, control = _at_rate(experiment, lr, VANILLA), _at_rate(experiment, lr, CONTROL)
    assert vanilla is not None
    assert control is not None
    _choose_way(found, VANILLA, vanilla, vanilla, control)
    for line in registered()["experiments"][experiment]["ladders"]:
        _choose_line(found, experiment, line, vanilla, control)
    _choose_forms(found, experiment, vanilla, control)
    return {key: content for key, content in found.items() if content not in ({}, None)}


def _asked() -> float:
    return float(registered()["rules"]["held_out_gain"])


def _choose_way(found: dict[str, Any], line: str, rows: list[Row], vanilla: list[Row], control: list[Row]) -> None:
    options = way_options(rows, vanilla, control)
    if options:
        best = keeps_most([option for _, option in options], _asked())
        name, (gain, evaluations) = options[best]
        found["ways"][line] = list(name)
        found["gains"][line] = {"held_out_gain": round(gain, 4), "evaluations": round(evaluations, 2)}


def _choose_line(found: dict[str, Any], experiment: str, line: str, vanilla: list[Row], control: list[Row]) -> None:
    settings, runs = protocol.values_of(experiment, line), protocol.ladder(experiment, line)
    rows = [rows_of(rung) for rung in runs]
    rungs = [(setting, made) for setting, made in zip(settings, rows, strict=True) if made is not None]
    if len(rungs) < len(settings):
        return
    joint = [(i, option) for i, (_, made) in enumerate(rungs) for _, option in way_options(made, vanilla, control)]
    for_few, option = _best(joint) if joint else (None, None)
    for_own = keeps_most(own_options(rungs, vanilla, control), _asked())
    best = for_few if line in registered()["variants"] and line != DECAY and for_few is not None else for_own
    _note(found, experiment, line, rungs[best][0])
    _choose_way(found, line, rungs[best][1], vanilla, control)
    if line not in FEW or for_few is None or option is None:
        return
    own = [(i, other) for i, other in joint if i == for_own]
    if own and option[1] < _best(own)[1][1]:
        found["few"][line] = _full(experiment, line, rungs[for_few][0])
        _choose_way(found, f"{line}:few", rungs[for_few][1], vanilla, control)


def _best(joint: Sequence[tuple[int, tuple[float, float]]]) -> tuple[int, tuple[float, float]]:
    """Return the rung, with its (gain kept, evaluations), that `keeps_most` takes among the ways of several."""
    return joint[keeps_most([option for _, option in joint], _asked())]


def _full(experiment: str, line: str, setting: dict[str, Any]) -> dict[str, Any]:
    of_profile = experiments.get(experiment).budget(registered()["profile"]).regularizers.get(line, {})
    return {key: value for key, value in {**of_profile, **setting}.items() if value is not None}


def _note(found: dict[str, Any], experiment: str, line: str, setting: dict[str, Any]) -> None:
    if line == DECAY:
        found["weight_decay"] = setting["weight_decay"]
    else:
        found["regularizers"][line] = _full(experiment, line, setting)


def _choose_forms(found: dict[str, Any], experiment: str, vanilla: list[Row], control: list[Row]) -> None:
    """Choose the weight of each form of the ablation, by the same rule."""
    ladders: dict[str, list[Rung]] = {}
    for run in protocol.ablation(experiment):
        if run.part == "validation":
            rows = rows_of([run])
            ladders.setdefault(run.regularizer, []).append((run.settings, rows or []))
    seeds = set(registered()["ablation"]["ladder_seeds"])
    references = [[row for row in rows if row.seed in seeds] for rows in (vanilla, control)]
    for name, rungs in ladders.items():
        if all(rows for _, rows in rungs):
            best = keeps_most(own_options(rungs, *references), _asked())
            found.setdefault("ablation", {})[name] = rungs[best][0]["weight"]


def check_stage(stage: str, names: Sequence[str]) -> None:
    """Raise ValueError where a stage needs choices that the stages before it have not made yet."""
    missing = {"ladders": _without_rate, "study": _without_ladders}.get(stage, lambda name: False)
    if lacking := [name for name in names if missing(name)]:
        before = "rates" if stage == "ladders" else "ladders"
        raise ValueError(f"stage {stage!r} needs what stage {before!r} chooses, which is not there for {lacking}")


def _without_rate(experiment: str) -> bool:
    return "lr" not in choices().get(experiment, {})


def _without_ladders(experiment: str) -> bool:
    found = choices().get(experiment, {})
    chosen = {*found.get("regularizers", {}), *([DECAY] if "weight_decay" in found else [])}
    return not set(registered()["experiments"][experiment]["ladders"]) <= chosen


def update(names: Sequence[str]) -> list[str]:
    """Write what the stored rows of experiments choose to data/reference/chosen.json; return what changed, in words."""
    before = choices()
    now = {**before, **{name: found for name in names if (found := of_experiment(name))}}
    if now != before:
        text = json.dumps(dict(sorted(now.items())), indent=1, sort_keys=True) + "\n"
        write_atomically(checkout.ROOT / "data" / "reference" / "chosen.json", text.encode())
    return [name for name in names if now.get(name) != before.get(name)]
