"""What there is to tell of an experiment of which both sides were solved in their chosen ways, too (no torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from reproduce.report import effects, endpoints, study
from reproduce.report.evidence import Evidence
from reproduce.report.study import LOCAL, Saving, rules
from reproduce.report.tables import VANILLA
from reproduce.report.verdicts import COST, Line
from reproduce.runs.store import CONTROL


@dataclass(frozen=True)
class Told:
    """An experiment of which both sides were solved in their chosen ways, too."""

    experiment: str
    sure: bool
    """Whether vanilla's gain over the control is sure: elsewhere nothing can be said to keep it."""
    vanilla: float
    """Evaluations of vanilla as it was trained, in the mean."""
    alone: Mapping[str, Saving]
    """Line -> solved as it was trained."""
    coarser: Saving
    """Vanilla in its chosen way, beside itself as it was trained."""
    both: Saving
    """The chosen local penalty in its chosen way, beside vanilla in its own."""
    rise: float
    """By what share vanilla's error may rise while the registered share of the gain is kept; NaN of a likelihood."""
    astray: Mapping[str, int]
    """Local line -> seeds that lose more than half of the gain, solved as trained."""

    def kept(self, saving: Saving) -> bool:
        """Return whether the gain is surely kept."""
        return self.sure and saving.verdict == COST[0]

    @property
    def solved(self) -> bool:
        """Whether the chosen ways of both sides solve every seed."""
        return not self.coarser.failed + self.both.failed


def told(part: Evidence) -> list[Told]:
    """Return what there is to tell of the complete experiments."""
    found = []
    for name in part.complete():
        alone = {saving.line: saving for saving in study.equal_tolerance(part.rows, name)}
        coarser, both = endpoints.matched(part, name)
        if LOCAL[0] in alone and coarser and both and coarser.way:
            here, lines = part.of(name), {line: content for (_, line), content in study.lines_of(part.of(name)).items()}
            trained = lines[VANILLA].costs["nfe"]
            solved = {seed: pair[1] for seed, pair in study.solved(here, VANILLA, coarser.way).items() if pair}
            coarser = replace(coarser, ratio=effects.log_ratio(solved, trained))
            sure = study.gain_is_sure(here, name)
            rise = _rise(lines, here[0].metric)
            astray = {line: _astray(line, lines) for line in LOCAL if line in alone} if sure else {}
            found.append(Told(name, sure, effects.average(trained), alone, coarser, both, rise, astray))
    return found


def _rise(lines: Mapping[str, Line], metric: str) -> float:
    """Return `Told.rise`."""
    vanilla, control = (effects.average(lines[line].values) for line in (VANILLA, CONTROL))
    lost = (1 - rules()["gain"]) * (vanilla - control)
    return math.nan if metric == "log_likelihood" else lost / study.error_of(vanilla, metric)


def _astray(line: str, lines: Mapping[str, Line]) -> int:
    """Return how many seeds of a line lose more than half of vanilla's gain."""
    ours, vanilla, control = (lines[name].values for name in (line, VANILLA, CONTROL))
    return sum(ours[seed] < (vanilla[seed] + control[seed]) / 2 for seed in ours)


def mean_ratio(saving: Saving) -> float:
    """Return the mean ratio of evaluations."""
    return math.nan if saving.ratio is None else math.exp(saving.ratio.mean)
