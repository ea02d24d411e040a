"""The registered study from its rows: numbers of each line, equal tolerance, matched error, the ledger (no torch)."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reproduce import checkout
from reproduce.report import effects, tables, verdicts
from reproduce.report.effects import Effect, Seeds
from reproduce.report.verdicts import COST, Line, Lines, Verdict
from reproduce.runs.curves import Name, common, curve, name, own_way, value
from reproduce.runs.registered import registered
from reproduce.runs.store import CONTROL, VANILLA, Row


def rules() -> dict[str, Any]:
    """Return the registered rules."""
    found: dict[str, Any] = registered()["rules"]
    return found


LOCAL = ("local_biased", "local_unbiased")
PENALIZED = (*LOCAL, "local_biased:few", "local_biased:loose", "local_biased:coarse")
DECAYED = ("none:decay", "none:decay:few")
"""Lines of our form of the local penalty, and those of them that are made for few steps."""


def chosen(experiment: str) -> dict[str, Any]:
    """Return what the ladders of an experiment chose (chosen.json); nothing before they did."""
    path = checkout.ROOT / "data" / "reference" / "chosen.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found: dict[str, Any] = content.get(experiment, {})
    return found


def chosen_ways(experiment: str) -> dict[str, Name]:
    """Return line -> the way to solve that its ladder chose."""
    return {line: (way[0], way[1], way[2]) for line, way in chosen(experiment).get("ways", {}).items()}


def kept_on_held_out(experiment: str, line: str) -> bool:
    """Return whether the way that a ladder chose keeps on held-out data what the rules ask; else it keeps most."""
    gain: float = chosen(experiment).get("gains", {}).get(line, {}).get("held_out_gain", math.nan)
    return gain >= rules()["held_out_gain"]


def chosen_line(experiment: str, among: Sequence[str]) -> str | None:
    """Return which of some lines takes the fewest evaluations on the ladders' held-out data; None before.

    Only those that keep the gain there count, if any does; of equals the one that keeps most.
    """
    asked, gains = rules()["held_out_gain"], chosen(experiment).get("gains", {})
    able = {line: of for line, of in gains.items() if line in among and of["held_out_gain"] >= asked}
    able = able or {line: of for line, of in gains.items() if line in among}
    return min(able, key=lambda line: (able[line]["evaluations"], -able[line]["held_out_gain"]), default=None)


def lines_of(rows: Sequence[Row]) -> Lines:
    """Return the numbers of each line of the study, by seed."""
    of: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        of.setdefault((row.experiment, row.regularizer), []).append(row)
    return {key: _line(group) for key, group in of.items()}


def _line(rows: Sequence[Row]) -> Line:
    costs: dict[str, dict[int, float]] = {
        "nfe": {row.seed: row.nfe for row in rows},
        "predict": {row.seed: row.seconds["predict"] for row in rows},
        "train": {row.seed: row.seconds["train"] for row in rows},
    }
    values = {row.seed: value(row) for row in rows}
    if rows[0].metric != "log_likelihood":
        costs["error"] = {seed: error_of(of, rows[0].metric) for seed, of in values.items()}
    return Line(costs, values)


def gain_is_sure(rows: Sequence[Row], experiment: str) -> bool:
    """Return whether vanilla's gain over the control has an interval above zero: whether dynamics matter."""
    lines = lines_of(rows)
    vanilla, control = lines.get((experiment, VANILLA)), lines.get((experiment, CONTROL))
    if vanilla is None or control is None:
        return False
    seeds = sorted(set(vanilla.values) & set(control.values))
    gain = effects.mean_effect([vanilla.values[seed] - control.values[seed] for seed in seeds])
    return gain is not None and gain.interval(rules()["level"])[0] > 0


def error_of(value: float, metric: str) -> float:
    """Return the error that a ratio makes sense of, from a signed value: share of wrong answers, mean square."""
    return 1.0 - value if metric == "accuracy" else -value


def ledger(rows: Sequence[Row]) -> list[Verdict]:
    """Return the verdicts on all claims, from the study's rows."""
    given = rules()
    numbers = {"gain": given["gain"], "level": given["level"], "runs": given["printed_runs"]}
    return verdicts.ledger(lines_of(rows), verdicts.claims(), tables.published(), **numbers)


@dataclass(frozen=True)
class Saving:
    """What one line of an experiment saves, and what that costs."""

    experiment: str
    line: str
    way: Name | None
    """How it is solved; None: as in training."""
    evaluations: float
    """Mean over the seeds."""
    ratio: Effect | None
    """Logarithm of its evaluations over vanilla's."""
    kept: tuple[float, float, float]
    """Share of vanilla's gain that is kept, and its interval."""
    cost: str
    """'kept', 'lost', 'undecided': each by itself, the families of the ledger alone are corrected by Holm."""
    worse: Effect | None
    """Logarithm of its error over vanilla's as trained; of a likelihood, vanilla's minus its own in nats."""
    metric: str
    seeds: int
    failed: int = 0
    """Seeds that the way did not solve, or whose training broke off: where there are some, nothing is reached."""

    @property
    def verdict(self) -> str:
        """Return what is said of the gain: a chosen way that does not surely keep it is said to fail."""
        if self.failed:
            what = "broke off" if self.way is None else "not solved"
            return f"{self.failed} of {self.seeds + self.failed} seeds {what}: fails"
        return self.cost if self.way is None or self.cost in (COST[0], verdicts.NOT_RUN) else f"{self.cost}: fails"

    def reached(self, at_most: float) -> bool:
        """Return whether so small a ratio is reached, with the gain kept."""
        return self.ratio is not None and math.exp(self.ratio.mean) <= at_most and self.verdict == COST[0]


def equal_tolerance(rows: Sequence[Row], experiment: str) -> list[Saving]:
    """Return the saving of each line that was trained, and is solved, in the same way as vanilla.

    Numbers are those of the seeds whose training did not break off; where one did, nothing is reached. Where one of
    vanilla or the control did, no line has a ratio, or a gain.
    """
    here = [row for row in rows if row.experiment == experiment]
    way = next((own_way(row) for row in here if row.regularizer == VANILLA), None)
    alike = [row for row in here if row.regularizer == CONTROL or own_way(row) == way]
    broken = Counter(row.regularizer for row in alike if row.broke_off)
    with_numbers = [row for row in alike if not row.broke_off or row.regularizer in (VANILLA, CONTROL)]
    lines = {line: content for (_, line), content in lines_of(with_numbers).items()}
    savings = [
        saving_of(experiment, line, None, content.costs["nfe"], content.values, lines, here[0].metric)
        for line, content in lines.items()
        if line not in (VANILLA, CONTROL)
    ]
    return [replace(saving, failed=broken[saving.line]) for saving in savings]


def solved(rows: Sequence[Row], line: str, way: Name) -> dict[int, tuple[float, float] | None]:
    """Return, by seed, the value and the evaluations of a line of one experiment in some way; None where it fails."""
    return {row.seed: curve(row).get(way) for row in rows if row.regularizer == line}


def matched_error(rows: Sequence[Row], experiment: str, ways: Mapping[str, Name]) -> list[Saving]:
    """Return the saving of each line, solved in its own chosen way, over vanilla in its own; vanilla is among them.

    The gain is that over the control of vanilla as it was trained and solved, so that vanilla may lose some, too. Where
    vanilla's way does not solve some seed, no line has a ratio.
    """
    own = {line: content for (name, line), content in lines_of(rows).items() if name == experiment}
    here = [row for row in rows if row.experiment == experiment]
    moved: dict[str, tuple[Seeds, Seeds]] = {}
    failed: dict[str, int] = {}
    for line, way in ways.items():
        found = solved(here, line, way)
        there = {seed: pair for seed, pair in found.items() if pair is not None}
        if there:
            moved[line] = {seed: nfe for seed, (_, nfe) in there.items()}, {seed: v for seed, (v, _) in there.items()}
            failed[line] = len(found) - len(there)
    if VANILLA not in moved:
        return []
    unsolved = dict.fromkeys(own[VANILLA].values, math.nan)
    against = {**own, VANILLA: Line({"nfe": {**unsolved, **moved[VANILLA][0]}}, own[VANILLA].values)}
    savings = {
        line: saving_of(experiment, line, ways[line], *numbers, against, here[0].metric)
        for line, numbers in moved.items()
    }
    return [replace(saving, failed=failed[line]) for line, saving in savings.items()]


def as_cheap(rows: Sequence[Row], experiments: Sequence[str]) -> dict[str, list[Saving]]:
    """Return, by experiment, the lines without a penalty that take no more evaluations than the chosen local penalty.

    Each is solved in its chosen way. Experiments whose penalty has no way are left out, and so are ways that some seeds
    do not solve.
    """
    found = {}
    for experiment in experiments:
        savings = {saving.line: saving for saving in matched_error(rows, experiment, chosen_ways(experiment))}
        if (ours := savings.get(chosen_line(experiment, PENALIZED) or "")) is not None:
            plain = [savings[line] for line in (VANILLA, *DECAYED) if line in savings]
            found[experiment] = [one for one in plain if not one.failed and one.evaluations <= ours.evaluations]
    return found


def saving_of(
    experiment: str, line: str, way: Name | None, nfe: Seeds, values: Seeds, lines: Mapping[str, Line], metric: str
) -> Saving:
    """Return what a line's evaluations and values (by seed) save and cost beside vanilla and the control of `lines`."""
    given, vanilla, control = rules(), lines.get(VANILLA), lines.get(CONTROL)
    ratio = worse = None
    cost, kept = verdicts.NOT_RUN, (math.nan, math.nan, math.nan)
    if vanilla is not None:
        ratio = effects.log_ratio(nfe, vanilla.costs["nfe"])
        worse = worse_by(values, vanilla.values, metric)
        if control is not None:
            lost = effects.lost_beyond(values, vanilla.values, control.values, share=given["gain"])
            kept = effects.kept_interval(values, vanilla.values, control.values, level=given["level"])
            pair = None if lost is None else (lost.below(), lost.above())
            cost = effects.sides([pair], COST, 1 - given["level"])[0] or verdicts.NOT_RUN
    return Saving(experiment, line, way, effects.average(nfe), ratio, kept, cost, worse, metric, len(nfe))


def worse_by(values: Seeds, vanilla: Seeds, metric: str) -> Effect | None:
    """Return how much worse values are than vanilla's: see `Saving.worse`."""
    if metric == "log_likelihood":
        return effects.mean_effect([vanilla[seed] - values[seed] for seed in sorted(set(values) & set(vanilla))])
    ours, theirs = ({seed: error_of(value, metric) for seed, value in x.items()} for x in (values, vanilla))
    return effects.log_ratio(ours, theirs)


@dataclass(frozen=True)
class Point:
    """A line solved in one way: what it costs, and how much of vanilla's gain it keeps."""

    way: Name
    evaluations: float
    seconds: float
    """Of one batch, where they were measured."""
    kept: tuple[float, float, float]
    """Share of vanilla's gain, and its interval over seeds."""


def points(rows: Sequence[Row], experiment: str, line: str) -> list[Point]:
    """Return each way of a line that all its seeds have measured, the fewest evaluations first.

    The gain is that over the control of vanilla as it was trained and solved.
    """
    here = [row for row in rows if row.experiment == experiment]
    own = {name: content.values for (_, name), content in lines_of(here).items()}
    of_line = [row for row in here if row.regularizer == line]
    curves = {row.seed: curve(row) for row in of_line}
    times = {row.seed: {name(entry): entry.get("seconds") for entry in row.ways} for row in of_line}
    found = []
    for way in common(of_line):
        values = {seed: at[way][0] for seed, at in curves.items()}
        kept = effects.kept_interval(values, own[VANILLA], own[CONTROL], level=rules()["level"])
        mean = math.fsum(at[way][1] for at in curves.values()) / len(curves)
        seconds = math.fsum(at[way] or 0.0 for at in times.values()) / len(times)
        found.append(Point(way, mean, seconds, kept))
    return sorted(found, key=lambda point: (point.evaluations, -point.kept[0]))


def frontier(found: Sequence[Point], what: str = "evaluations") -> list[Point]:
    """Return the points that keep more than every cheaper one, by 'evaluations' or 'seconds', the cheapest first."""
    best: list[Point] = []
    for point in sorted(found, key=lambda point: (getattr(point, what), -point.kept[0])):
        if not best or point.kept[0] > best[-1].kept[0]:
            best.append(point)
    return best
