"""The registered endpoints: in how many experiments a local penalty halves the evaluations (no torch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reproduce.report import study, tables
from reproduce.report.evidence import Evidence
from reproduce.report.study import LOCAL, Saving, rules
from reproduce.report.tables import VANILLA
from reproduce.runs.curves import on_its_examples


@dataclass(frozen=True)
class Endpoint:
    """What the local penalties save in each experiment that counts, and what PROTOCOL.md hopes for."""

    at_most: float
    """Ratio of evaluations to vanilla's that is asked."""
    hoped: int
    """In how many experiments."""
    savings: Mapping[str, Sequence[Saving]]
    """Experiment -> its local lines."""
    apart: Sequence[str] = ()
    """Experiments that do not count, since vanilla's gain over the control is not sure."""

    def reached(self, line: str | None = None) -> list[str]:
        """Return the experiments in which a line (None: any) needs no more, with the gain kept."""
        return [
            name
            for name, of in self.savings.items()
            if any(saving.reached(self.at_most) for saving in of if line in (None, saving.line))
        ]

    def count(self) -> str:
        """Return '2 of 5'."""
        return f"{len(self.reached())} of {len(self.savings)}"

    def not_counted(self) -> str:
        """Say which experiments are apart; '' for none."""
        names = "; ".join(map(tables.title, self.apart))
        return f" Not counted, since vanilla's gain over the control is not sure: {names}." if names else ""


def where_dynamics_matter(part: Evidence, among: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the experiments whose vanilla surely gains over the control, and the others."""
    sure = [name for name in among if study.gain_is_sure(part.of(name), name)]
    return sure, [name for name in among if name not in sure]


def equal_tolerance(part: Evidence) -> Endpoint:
    """Return the endpoint at the tolerance of training."""
    names, apart = where_dynamics_matter(part, part.complete())
    found = {name: study.equal_tolerance(part.rows, name) for name in names}
    local = {name: [saving for saving in of if saving.line in LOCAL] for name, of in found.items()}
    return Endpoint(rules()["equal_tolerance"], 4, local, apart)


def matched_error(part: Evidence) -> Endpoint:
    """Return the endpoint with the same freedom to solve on both sides; where one side solves no seed it is missed."""
    found = {name: matched(part, name) for name in part.complete()}
    ours = {name: [ours] if vanilla and ours else [] for name, (vanilla, ours) in found.items()}
    return Endpoint(rules()["matched_error"], 3, ours)


def matched(part: Evidence, experiment: str) -> tuple[Saving | None, Saving | None]:
    """Return vanilla and the local penalty that the ladders chose, each solved in its chosen way."""
    ways = study.chosen_ways(experiment)
    found = {saving.line: saving for saving in study.matched_error(part.rows, experiment, ways)}
    return found.get(VANILLA), found.get(study.chosen_line(experiment, study.PENALIZED) or "")


def by_any_line(part: Evidence) -> tuple[int, int]:
    """Return in how many experiments every local line reaches matched error, and in how many one does."""
    each = [
        [saving.reached(rules()["matched_error"]) for saving in savings if saving.line in study.PENALIZED]
        for name in part.complete()
        if (savings := study.matched_error(part.rows, name, study.chosen_ways(name)))
    ]
    return sum(all(of) for of in each if of), sum(map(any, each))


def on_the_curves_examples(part: Evidence) -> Evidence:
    """Return the rows with each metric as it is on the fewer examples on which the ways to solve were measured."""
    return replace(part, rows=tuple(map(on_its_examples, part.rows)))


def other_readings(part: Evidence) -> str:
    """Say, as '2 to 3', in how many experiments matched error is reached by other readings of the protocol.

    It leaves open which local line stands for the penalty, and on which examples a way is valued. '' where that
    changes nothing.
    """
    counts = []
    for rows in (part, on_the_curves_examples(part)):
        counts += [*by_any_line(rows), len(matched_error(rows).reached())]
    return f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else ""
