"""What a reader takes home in a minute: two tables and some lines, for the README and the report (no torch)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from reproduce.report import endpoints, first_step, study, tables
from reproduce.report.against_global import GLOBAL
from reproduce.report.evidence import Evidence
from reproduce.report.study import DECAYED, LOCAL, Saving, rules
from reproduce.report.study_tables import FORM_TITLES, bold, ratio_text, span, titled
from reproduce.report.tables import VANILLA, title
from reproduce.report.told import Told, mean_ratio, told
from reproduce.report.verdicts import COST, FORMS
from reproduce.runs.curves import words
from reproduce.runs.registered import REGISTERED_IN

HEAD = (
    "Each experiment by itself: evaluations of f for one batch, in the mean, and bold their ratio with its interval: "
    "of the penalty and of the coarser solve to vanilla as it was trained, of both to vanilla's coarser solve. A "
    "coarser solve is the cheapest way that kept the gain on held-out data; it *fails* where the gain on test data is "
    "not surely kept. Errors are changes to vanilla's as it was trained, on test data (of a coarser solve on a part of "
    "them). In round brackets: how a line was trained for few steps, and the way to solve."
)
"""Leads in `in_short`."""
AS_TRAINED = {
    LOCAL[0]: f"a local penalty ({tables.draw(LOCAL[0])})",
    LOCAL[1]: f"a local penalty ({tables.draw(LOCAL[1])})",
    GLOBAL: "the global penalty on the error",
    DECAYED[0]: "weight decay, no penalty",
}
"""Lines that are told of as they were trained -> words."""


def in_a_minute(part: Evidence) -> str:
    """Say what each way to save brings over all experiments, and what the penalty adds to a coarser solve; or ''."""
    found = [one for one in told(part) if one.solved]
    if not found:
        return ""
    n, draw = len(found), tables.draw(LOCAL[0])
    cheaper = [one for one in found if mean_ratio(one.coarser) < mean_ratio(one.alone[LOCAL[0]])]
    fewer, added = (
        [one for one in found if (ratio := of(one).ratio) and ratio.interval(rules()["level"])[1] < 0]
        for of in (lambda one: one.alone[LOCAL[0]], lambda one: one.both)
    )
    return (
        "**In a minute.** *Vanilla* is trained without a penalty. Evaluations of f for one batch:\n\n"
        "* **A coarser solve, no penalty.** Vanilla, solved in the cheapest way that held-out data allow, takes "
        f"{_ranges(found, lambda one: one.coarser)} of what it takes as it was trained. That is fewer than a "
        f"model with the {draw} local penalty, solved as it was trained, in "
        f"{_counted(cheaper, n, lambda one: one.coarser)}.\n"
        f"* **The penalty, no coarser solve.** With all else equal a model with the {draw} local penalty takes "
        f"{_ranges(found, lambda one: one.alone[LOCAL[0]])} of vanilla's, and fewer, by the interval of the "
        f"ratio, in {_counted(fewer, n, lambda one: one.alone[LOCAL[0]])}.\n"
        "* **Both.** With the same freedom to solve coarsely a penalized model takes "
        f"{_ranges(found, lambda one: one.both)} of vanilla's coarser solve, and fewer, by the interval of the ratio, "
        f"in {_counted(added, n, lambda one: one.both)}.\n"
        f"* **Is the penalty needed?** {without_a_penalty(part)}\n\n"
        f"{tables.markdown(_ways_to_save(part))}\n\n"
        f"{_what_kept_means(found)} {_own_forms(found)}{_left_out(part)}"
    )


def _ranges(found: Sequence[Told], of: Callable[[Told], Saving]) -> str:
    """Return the range of some ratios, and that of those whose gain is kept, where it is another."""
    all_of, kept = span([of(one).ratio for one in found]), span([of(one).ratio for one in found if one.kept(of(one))])
    return f"**{all_of}**" + (f" ({kept} where the gain is kept)" if kept not in ("", all_of) else "")


def _counted(which: Sequence[Told], n: int, of: Callable[[Told], Saving]) -> str:
    return f"{len(which)} of {n} experiments (gain kept in {sum(one.kept(of(one)) for one in which)})"


def without_a_penalty(part: Evidence) -> str:
    """Say in how many experiments a model without a penalty is as cheap as the penalized one, each solved coarsely."""
    plain = study.as_cheap(part.rows, part.complete())
    sides = ("vanilla itself", (VANILLA,)), ("a model with weight decay", DECAYED)
    said = []
    for words_of, lines in sides:
        of = {name: [saving for saving in savings if saving.line in lines] for name, savings in plain.items()}
        as_cheap = [name for name, savings in of.items() if savings]
        kept = sum(any(saving.verdict == COST[0] for saving in of[name]) for name in as_cheap)
        said.append(f"{words_of} in {len(as_cheap)} of {len(plain)} (gain kept in {kept})")
    dearer = "; ".join(title(name) for name, savings in plain.items() if not savings)
    return f"No more than the penalized one takes {', '.join(said)}" + (f"; neither in: {dearer}." if dearer else ".")


def _ways_to_save(part: Evidence) -> pd.DataFrame:
    """Return one line for each way to save, from the smallest to the largest ratio of experiments that are solved."""
    found = [one for one in told(part) if one.solved]
    sure = {one.experiment for one in found if one.sure}
    lines = [
        (f"{words_of}, solved as trained", [one.alone[line] for one in found if line in one.alone], "vanilla's")
        for line, words_of in AS_TRAINED.items()
    ]
    lines.append(("a coarser solve, no penalty", [one.coarser for one in found], "vanilla's"))
    lines.append(("a local penalty and a coarser solve", [one.both for one in found], "vanilla's coarser solve"))
    stepped = [one.saving for name in first_step.complete(part) for one in first_step.savings(part, name)]
    sure |= {name for name in first_step.complete(part) if study.gain_is_sure(part.of(name), name)}
    for line, words_of in AS_TRAINED.items():
        of = [saving for saving in stepped if saving.line == line]
        lines.append((f"{words_of}, with a chosen first step", of, "vanilla's with its own chosen one"))
    return pd.DataFrame(
        {
            "what is changed": what,
            "evaluations": f"**{span([saving.ratio for saving in of])}** of {beside}",
            "experiments": len(of),
            "gain kept, where it is sure": _kept_in([saving for saving in of if saving.experiment in sure]),
            "largest error, of vanilla's": _largest_error(of),
        }
        for what, of, beside in lines
        if of
    )


def _kept_in(savings: Sequence[Saving]) -> str:
    return f"{sum(saving.verdict == COST[0] for saving in savings)} of {len(savings)}"


def _largest_error(savings: Iterable[Saving]) -> str:
    """Return '4.2x (Spiral, neural ODE)'; of likelihoods there is no ratio."""
    worse = {x.experiment: x.worse.mean for x in savings if x.worse is not None and x.metric != "log_likelihood"}
    most = max(worse, key=lambda name: worse[name], default=None)
    return f"{math.exp(worse[most]):.2g}x ({title(most)})" if most else ""


def _what_kept_means(found: Sequence[Told]) -> str:
    """Say what a kept gain is, how much an error may rise with it, and how many seeds lose most of it."""
    rises = {one.experiment: one.rise for one in found if one.sure and math.isfinite(one.rise)}
    ends = [end(rises, key=lambda name: rises[name]) for end in (min, max) if rises]
    allowed = " to ".join(dict.fromkeys(f"{_percent(rises[name])} ({title(name)})" for name in ends))
    astray = "; ".join(
        f"{title(one.experiment)}, {' and '.join(f'{n} {tables.draw(line)}' for line, n in one.astray.items())}"
        for one in found
        if any(one.astray.values())
    )
    return (
        "*Gain* is what vanilla gains over a model without dynamics; it is *kept* where at least "
        f"{100 * rules()['gain']:g} % of it surely are, over ten seeds."
        + (f" Before it counts as lost an error may rise by {allowed}, so errors stand beside it." if allowed else "")
        + " Ratios and errors are geometric means over pairs of one seed."
        + (f" Of the penalized models solved as trained, these lose more than half of it: {astray}." if astray else "")
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _own_forms(found: Sequence[Told]) -> str:
    """Say what the papers' own forms of the penalty take, solved as trained, and how often the gain is kept."""
    said = []
    for form, ending in FORMS.items():
        lines = [line + ending for line in LOCAL] if ending else []
        of = [(one, one.alone[line]) for one in found for line in lines if line in one.alone]
        kept = [one.kept(saving) for one, saving in of if one.sure]
        if of:
            ratios = span([saving.ratio for _, saving in of])
            said.append(f"that of {FORM_TITLES[form]} takes {ratios} (gain kept in {sum(kept)} of {len(kept)} lines)")
    return f"The penalty is our form of it; solved as trained, {' and '.join(said)}." if said else ""


def _left_out(part: Evidence) -> str:
    names = {one.experiment for one in told(part) if one.solved}
    rest = "; ".join(title(name) for name in part.complete() if name not in names)
    return f" Left out, since a chosen way does not solve every seed: {rest}." if rest else ""


def goals(part: Evidence) -> str:
    """Say in how many experiments each registered endpoint is reached."""
    equal, matched, stepped = endpoints.equal_tolerance(part), endpoints.matched_error(part), first_step.endpoint(part)
    others = endpoints.other_readings(part)
    rest = f"; by other readings of what the protocol leaves open in {others}" if others else ""
    said = [
        f"at equal tolerance in **{equal.count()}** experiments where vanilla's gain is sure (hoped for: "
        f"{equal.hoped})",
        f"with the same freedom to solve on both sides in **{matched.count()}** (hoped for: {matched.hoped}{rest})",
    ]
    if stepped.savings:
        said.append(
            f"at equal tolerance with a chosen first step in **{stepped.count()}** that were measured (hoped for: "
            f"{stepped.hoped}; a further question, registered in commit {REGISTERED_IN[2]} when the first two had been "
            "answered)"
        )
    return (
        "**What was registered and hoped for**: a local penalty, biased or unbiased, that needs at most "
        f"{equal.at_most:g}x of vanilla's evaluations and keeps the gain: {'; '.join(said)}."
    )


@dataclass(frozen=True)
class Mark:
    """What a model takes for one batch, in the mean over seeds, solved in one of two ways."""

    experiment: str
    line: str
    coarse: bool
    """Solved in the way that was chosen for it, else as it was trained."""
    evaluations: float
    kept: bool
    """Whether vanilla's gain is surely kept."""


def marks(part: Evidence) -> list[Mark]:
    """Return four marks for each experiment: without and with the penalty, as trained and solved coarsely."""
    found = []
    for one in told(part):
        found.append(Mark(one.experiment, VANILLA, False, one.vanilla, one.sure))
        for saving in (one.coarser, one.alone[LOCAL[0]], one.both):
            coarse = saving.way is not None
            found.append(Mark(one.experiment, saving.line, coarse, saving.evaluations, one.kept(saving)))
    return found


def lead(part: Evidence) -> str:
    """Return what leads in `in_short`; of stars only where it has some."""
    starred = "*)" in in_short(part).to_string()
    return HEAD + (" A star: the way keeps most on held-out data, where none keeps what is asked." if starred else "")


def in_short(part: Evidence) -> pd.DataFrame:
    """Return one line for each experiment: vanilla as trained, the penalty alone, a coarser solve alone, and both."""
    return pd.DataFrame(
        {
            "experiment": titled(one.experiment, part.of(one.experiment)),
            "vanilla": f"{one.vanilla:.3g}",
            f"penalty alone ({tables.label(LOCAL[0])})": _cell(one.alone[LOCAL[0]]),
            "coarser solve alone": _cell(one.coarser),
            "both": _cell(one.both, f"{tables.label(one.both.line)}, "),
        }
        for one in told(part)
    )


def _cell(saving: Saving, which: str = "") -> str:
    """Say what a line saves, how it is solved (with the star of `lead`), and what that costs."""
    way = ""
    if saving.way is not None:
        star = "" if study.kept_on_held_out(saving.experiment, saving.line) else "*"
        way = f" ({words(saving.way)}{star})"
    cost = f"{which}{saving.evaluations:.3g}{way}"
    return f"{bold(ratio_text(saving.ratio))}: {cost}, gain {saving.verdict}, {error(saving)}"


def error(saving: Saving) -> str:
    """Say how the error changed, so that a hopeless control cannot hide a loss; of a likelihood, in nats."""
    if saving.worse is None:
        return "error not known"
    if saving.metric == "log_likelihood":
        return f"{abs(saving.worse.mean):.2f} nats {'worse' if saving.worse.mean > 0 else 'better'}"
    return f"error {100 * math.expm1(saving.worse.mean):+.0f} %"
