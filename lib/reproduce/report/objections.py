"""The strongest objections to the study's own report, with the numbers that they rest on (no torch)."""

from __future__ import annotations

from collections import Counter

from reproduce.report import endpoints, study
from reproduce.report.evidence import Evidence
from reproduce.report.tables import title
from reproduce.report.verdicts import COST
from reproduce.runs.registered import registered

PENALTY_RULE = ("48471e8", "2026-11-29T03:59:26Z")
"""The commit that first took one local line for the penalty (`study.chosen_line`), and when it was made."""


def objections(part: Evidence) -> list[str]:
    """Return the three strongest objections that we found, as sentences; counts are those of the rows."""
    return [_not_the_penalty(part), _small(), _three_seeds(part)]


def _not_the_penalty(part: Evidence) -> str:
    names = part.complete()
    of = study.as_cheap(part.rows, names)
    as_cheap = [title(name) for name, plain in of.items() if any(saving.cost != COST[1] for saving in plain)]
    which = f": {', '.join(as_cheap)}" if as_cheap else ""
    return (
        "**Is it the penalty?** Plain vanilla or vanilla with weight decay, each solved in its own chosen way, takes "
        f"no more evaluations than the local penalty, and is not sure to lose its gain, in {len(as_cheap)} of "
        f"{len(names)} experiments{which}. There the penalty is one of several ways to the same saving, "
        "and not the simplest."
    )


def rates_at_an_end() -> list[str]:
    """Return the experiments whose learning rate, as chosen, is the largest or smallest that was tried."""
    rates = {name: study.chosen(name).get("lr") for name in registered()["experiments"]}
    of = {name: registered()["experiments"][name]["lr"] for name in rates}
    return [title(name) for name, lr in rates.items() if lr in (min(of[name]), max(of[name]))]


def _small() -> str:
    ends = rates_at_an_end()
    return (
        "**Is it the size?** Models are small, trained for minutes and solved at tolerances looser than the printed "
        "ones. The learning rate that served vanilla best is the largest or smallest that was tried in "
        f"{len(ends)} of {len(registered()['experiments'])} experiments ({', '.join(ends)}): a longer training, or a "
        "rate beyond the ladder, may give a vanilla that is better, and dearer or cheaper to solve."
    )


def _three_seeds(part: Evidence) -> str:
    of, names = Counter[str](), part.complete()
    for name in names:
        for saving in study.matched_error(part.rows, name, study.chosen_ways(name)):
            of["failed" if saving.failed else saving.cost] += 1
    unsolved = f", {of['failed']} are not solved by every seed" if of["failed"] else ""
    commit, when = PENALTY_RULE
    ends = dict.fromkeys(map(str, endpoints.by_any_line(part)))
    before = sum(row.provenance["made"] < when for row in part.rows)
    return (
        "**Is it the choice?** Weights and ways were chosen on means over three seeds, without an interval, and the "
        f"choice is part of the method. Of {of.total()} chosen ways, vanilla's among them, {of[COST[0]]} keep the gain "
        f"on the test part, {of[COST[1]]} lose it, {of[COST[2]]} are undecided{unsolved}. Which local line stands for "
        "the penalty there, the protocol does not say: we take the one with the fewest evaluations on held-out data, a "
        f"rule of commit {commit}, when {before} rows of the study had been made. Whichever local line is taken in "
        f"each experiment, the ratio is reached in {' to '.join(ends)} of {len(names)}; the tables have them all. "
        f"{_on_fewer(part)}"
        "The endpoint of version 2, the chosen first step, was registered when version 1's verdicts were known, and "
        "for models that had been solved and read in other ways. "
        "Someone who deploys one model should choose its way on more held-out data than we had."
    )


def _on_fewer(part: Evidence) -> str:
    """Say how far matched error hangs on how a way is valued, and where its gain is kept most narrowly."""
    whole = endpoints.matched_error(part)
    alone = endpoints.matched_error(endpoints.on_the_curves_examples(part))
    said = (
        "Nor does it say how a way is valued that was measured on fewer examples than the model: we take the model's "
        "value on all of them and the difference that the way makes on the fewer, since the registration; by the "
        f"fewer alone the ratio is reached in {alone.count()} instead of {whole.count()}. "
    )
    kept = [saving for name in whole.reached() for saving in whole.savings[name]]
    if not kept:
        return said
    least = min(kept, key=lambda saving: saving.kept[1])
    return (
        f"{said}Where it is reached, the gain is kept most narrowly on {title(least.experiment)}: "
        f"{least.kept[0]:.3f} [{least.kept[1]:.3f}, {least.kept[2]:.3f}] of it, where {study.rules()['gain']:g} is "
        "asked. "
    )
