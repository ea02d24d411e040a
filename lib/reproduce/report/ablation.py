"""Which ingredient makes the published effect: forms of the penalty, crossed, and what each choice does (no torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean

import pandas as pd

from reproduce.report import effects, ladders, study, tables
from reproduce.report.effects import Effect
from reproduce.report.study import Saving
from reproduce.report.study_tables import kept_text, ratio_text, span
from reproduce.runs import store
from reproduce.runs.curves import value
from reproduce.runs.registered import registered
from reproduce.runs.store import CONTROL, VANILLA, Row

CHOICES = {
    "sampling": ("biased", "unbiased"),
    "step": ("the solver's own", "an initial step"),
    "size": ("the error ratio alone", "times dt"),
    "first stage": ("differentiated", "held constant"),
}
"""What is crossed: the choice of our form first, that of the papers' released code second."""

PHRASES = {
    "sampling": ("biased", "unbiased"),
    "step": ("the solver's own step", "an initial step"),
    "size": ("the error ratio alone", "times dt"),
    "first stage": ("first stage differentiated", "first stage held constant"),
}
"""The same for sentences, where a choice stands by itself."""


@dataclass(frozen=True)
class Form:
    """One of the crossed forms of the local penalty: for each of CHOICES, whether it is the second."""

    second: tuple[bool, bool, bool, bool]

    def words(self) -> dict[str, str]:
        """Return the choices for readers."""
        return {name: of[taken] for (name, of), taken in zip(CHOICES.items(), self.second, strict=True)}


FORMS = tuple(Form((a, b, c, d)) for a, b, c, d in product((False, True), repeat=4))
"""All of them."""


def form_of(line: str) -> Form | None:
    """Return the form that a line of the ablation names, such as 'local_biased:initial_dt_held'; None for another."""
    sampling, _, rest = line.partition(":")
    step, *more = rest.split("_")
    if sampling not in ("local_biased", "local_unbiased") or step not in ("solver", "initial"):
        return None
    return Form((sampling == "local_unbiased", step == "initial", "dt" in more, "held" in more))


def rows_of(experiment: str) -> list[Row]:
    """Return the committed rows of the ablation on the test part, and those of vanilla and the control of its seeds."""
    seeds = registered()["seeds"]["ablation"]
    own = [row for row in store.committed_rows("ablation", experiment) if row.part == "test"]
    others = store.committed_rows("study", experiment)
    return own + [row for row in others if row.regularizer in (VANILLA, CONTROL) and row.seed in seeds]


def complete(rows: Sequence[Row]) -> bool:
    """Return whether every form has a row of every seed: before, nothing is said of what a choice does."""
    wanted = set(product(FORMS, registered()["seeds"]["ablation"]))
    return wanted <= {(form_of(row.regularizer), row.seed) for row in rows}


def savings(rows: Sequence[Row], experiment: str) -> dict[Form, Saving]:
    """Return what each form saves against vanilla at the tolerance of training, at the weight that its ladder chose."""
    found = {form_of(saving.line): saving for saving in study.equal_tolerance(rows, experiment)}
    return {form: saving for form, saving in found.items() if form is not None}


def table(rows: Sequence[Row], experiment: str) -> pd.DataFrame:
    """Return one line for each form: its choices, evaluations over vanilla's, gain kept; none before all rows."""
    if not complete(rows):
        return pd.DataFrame()
    weights = {form_of(row.regularizer): row.settings.get("weight") for row in rows}
    return pd.DataFrame(
        {
            "experiment": tables.title(experiment),
            **form.words(),
            "weight": f"{weights[form]:g}",
            "evaluations": f"{saving.evaluations:.1f}",
            "over vanilla's": ratio_text(saving.ratio),
            "gain kept": kept_text(saving.kept),
            "verdict": saving.verdict,
        }
        for form, saving in sorted(savings(rows, experiment).items(), key=lambda pair: pair[0].second)
    )


def on_ladders(experiment: str) -> pd.DataFrame:
    """Return one line for each form at the weight that its ladder chose: one seed, held-out data, no interval.

    Empty before every form has its ladder.
    """
    chosen = study.chosen(experiment).get("ablation", {})
    seeds = registered()["ablation"]["ladder_seeds"]
    references = [[row for row in rows if row.seed in seeds] for rows in ladders.references(experiment)]
    rows = {
        form: row
        for row in store.committed_rows("ablation", experiment)
        if row.part == "validation" and row.settings["weight"] == chosen.get(row.regularizer)
        if (form := form_of(row.regularizer)) is not None
    }
    if not set(FORMS) <= set(rows) or not all(references):
        return pd.DataFrame()
    own = fmean(row.nfe for row in references[0])
    return pd.DataFrame(
        {
            "experiment": tables.title(experiment),
            **form.words(),
            "weight": f"{row.settings['weight']:g}",
            "evaluations": f"{row.nfe:.1f}",
            "over vanilla's": f"{row.nfe / own:.2f}x",
            "gain kept": f"{fmean(ladders.kept([row], *references)):.2f}",
        }
        for form, row in sorted(rows.items(), key=lambda pair: pair[0].second)
    )


def ingredients(rows: Sequence[Row], what: str = "evaluations") -> Mapping[str, Effect]:
    """Return, for each of CHOICES, how the logarithm of evaluations, or of 'error', changes with the second choice.

    The mean over all other choices, of differences within a seed; its error is that over seeds.
    """
    at: dict[Form, dict[int, float]] = {}
    for row in rows:
        if (form := form_of(row.regularizer)) is not None and not row.broke_off:
            number = row.nfe if what == "evaluations" else study.error_of(value(row), row.metric)
            at.setdefault(form, {})[row.seed] = math.log(number)
    found = {}
    for i, name in enumerate(CHOICES):
        pairs = [(of, at.get(_other(form, i))) for form, of in at.items() if not form.second[i]]
        whole = [(ours, theirs) for ours, theirs in pairs if theirs is not None]
        seeds = sorted(set.intersection(*(set(ours) & set(theirs) for ours, theirs in whole))) if whole else []
        changes = [math.fsum(theirs[seed] - ours[seed] for ours, theirs in whole) / len(whole) for seed in seeds]
        effect = effects.mean_effect(changes)
        if effect is not None:
            found[name] = effect
    return found


def _other(form: Form, i: int) -> Form:
    return Form(tuple(taken != (i == j) for j, taken in enumerate(form.second)))  # type: ignore[arg-type]


def by_size(rows: Sequence[Row]) -> list[str]:
    """Return the choices, the one that changes evaluations most first."""
    cost = ingredients(rows)
    return sorted(cost, key=lambda name: -abs(cost[name].mean))


def strongest(rows: Sequence[Row], experiment: str) -> str:
    """Say what forms take of vanilla's evaluations, by the two choices that change them most together."""
    found, names = savings(rows, experiment), list(CHOICES)
    i, j = sorted(map(names.index, by_size(rows)[:2]))
    level, told = study.rules()["level"], []
    for first, second in product((False, True), repeat=2):
        ratios = [x.ratio for form, x in found.items() if (form.second[i], form.second[j]) == (first, second)]
        fewer = sum(ratio.interval(level)[1] < 0 for ratio in ratios if ratio is not None)
        words = f"{PHRASES[names[i]][first]}, {PHRASES[names[j]][second]}"
        told.append(f"{words} {span(ratios)} (fewer by its own interval in {fewer} of {len(ratios)})")
    return "; ".join(told)


def in_words(rows: Sequence[Row], experiment: str) -> str:
    """Say what each choice does to the evaluations; that there is nothing to say without rows."""
    if not complete(rows):
        there = "" if on_ladders(experiment).empty else " Its ladders are: one seed, held-out data, and no verdict."
        return f"{tables.title(experiment)}: the ablation is not run, or not complete.{there}"
    cost, error = ingredients(rows), ingredients(rows, "error")
    told = [
        f"* {name}, *{CHOICES[name][1]}* for *{CHOICES[name][0]}*: evaluations {ratio_text(effect)}, "
        f"error {ratio_text(error[name])}"
        for name, effect in cost.items()
    ]
    return (
        f"**{tables.title(experiment)}**: what the second choice takes of the first one's, in the mean over all else "
        f"crossed, each form at the weight of its own ladder:\n\n"
        + "\n".join(told)
        + f"\n\nOver vanilla's evaluations, by the two that change most: {strongest(rows, experiment)}."
    )


def in_short() -> str:
    """Say for the front what the strongest choices do in each experiment whose ablation is complete; or ''."""
    found = {name: rows_of(name) for name in registered()["ablation"]["experiments"]}
    told = [
        f" On {tables.title(name)}, over vanilla's evaluations: {strongest(rows, name)}. {_weaker(rows)}"
        for name, rows in found.items()
        if complete(rows)
    ]
    if not told:
        return ""
    ours, theirs = (", ".join(PHRASES[name][which] for name in list(CHOICES)[1:]) for which in (0, 1))
    seeds = len(registered()["seeds"]["ablation"])
    return (
        f"**Which ingredient?** A form of the penalty is {len(CHOICES)} choices: {', '.join(CHOICES)}. With either "
        f"sampling ours takes {ours}; the papers' code takes {theirs}. All {len(FORMS)} forms were trained, each at "
        f"the weight of its own ladder, with {seeds} seeds.{''.join(told)}"
    )


def _weaker(rows: Sequence[Row]) -> str:
    """Say what the choices other than the two strongest change in the mean over all else."""
    cost = ingredients(rows)
    return "The rest changes less: " + ", ".join(
        f"{PHRASES[name][1]} for {PHRASES[name][0]} {ratio_text(cost[name])}" for name in by_size(rows)[2:]
    ) + "."  # fmt: skip
