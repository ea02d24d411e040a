"""Elements from the study's committed rows: weight, or tolerance, against evaluations and error (lessons 06, 13)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

from reproduce.live.colors import DASHES, MUTED, of_regularizer
from reproduce.live.element import Element
from reproduce.live.parts import Axis, Control, Panel, Series, around, each, power
from reproduce.report import ladders, tables
from reproduce.report.effects import mean_effect
from reproduce.report.study import rules
from reproduce.runs import store
from reproduce.runs.curves import Name, common, curve, gain_kept, value
from reproduce.runs.registered import registered
from reproduce.runs.store import CONTROL, VANILLA, Row

REACH = (-0.5, 1.5)
"""Shares of the gain that are drawn; what lies outside is off the picture, and said in the sentence."""


def weights(experiment: str) -> Element:
    """Return the element of a ladder: choose penalty and weight, see evaluations and the gain that is kept.

    Args:
        experiment: one of `ladders.measured()`.

    Raises:
        ValueError: there are no committed rows of its ladders.

    Rows: the stage `ladders` of the study, on held-out training data, solved as trained; vanilla and control beside
    them are those of the stage `rates`.
    """
    ladder, (vanilla, control) = ladders.weights(experiment), ladders.references(experiment)
    if not ladder or not vanilla or not control:
        raise ValueError(
            f"experiment: expected one of {ladders.measured()}, whose ladders have rows, found {experiment!r}"
        )
    lines, tried = list(ladder), list(next(iter(ladder.values())))
    own = statistics.fmean(row.nfe for row in vanilla)
    rungs = each(lambda i, k: ladder[lines[i]][tried[k]], len(lines), len(tried))
    kept = {index: ladders.kept(rows, vanilla, control) for index, rows in rungs.items()}
    chosen = ladders.chosen_weight(experiment, "local_biased")
    start = (lines.index("local_biased"), tried.index(chosen) if chosen in tried else len(tried) // 2)
    controls = (
        Control("line", "penalty", tuple(tables.label(line) for line in lines), start[0], "menu"),
        Control("weight", "weight", tuple(power(w) for w in tried), start[1]),
    )
    nfe = {index: [row.nfe for row in rows] for index, rows in rungs.items()}
    x = Axis("weight of the penalty", *around(tried, log=True, margin=0.12), log=True)
    evaluations = Axis("evaluations", 0.0, 1.15 * max(own, *(max(v) for v in nfe.values())))
    panels = (
        _rung_panel("What a prediction costs", x, evaluations, lines, tried, nfe, (own, "vanilla")),
        _rung_panel("What is kept", x, Axis("share of vanilla's gain", *REACH), lines, tried, kept, (1.0, "vanilla")),
    )
    texts = {
        index: f"{tables.label(lines[index[0]])}, weight {power(tried[index[1]])}: "
        f"{statistics.fmean(nfe[index]):.1f} evaluations ({statistics.fmean(nfe[index]) / own:.2f} of vanilla's), "
        f"{_share(statistics.fmean(kept[index]))}; {_metric(rows)}."
        for index, rows in rungs.items()
    }
    title = tables.title(experiment)
    return Element(
        f"The weight of a penalty: {title}",
        controls,
        panels,
        texts,
        f"Held-out rows of the study's ladders, {len(vanilla)} seeds, at tolerance {power(vanilla[0].tolerance)}; "
        f"small marks are seeds. {vanilla[0].data}.",
        f"{title}. Left: evaluations against the weight of the penalty, which is logarithmic; right: share of "
        "vanilla's gain over the control that is kept. A line for each penalty, a dashed one for vanilla. Shown: "
        f"{texts[start]}",
    )


def _rung_panel(
    title: str,
    x: Axis,
    y: Axis,
    lines: Sequence[str],
    tried: Sequence[float],
    found: dict[tuple[int, ...], list[float]],
    level: tuple[float, str],
) -> Panel:
    stays = [Series("line", [x.low, x.high], [level[0]] * 2, of_regularizer(VANILLA), level[1], "7 3")]
    for i, line in enumerate(lines):
        means = [statistics.fmean(found[i, k]) for k in range(len(tried))]
        stays.append(Series("line", tried, means, of_regularizer(line), tables.label(line), DASHES[i % 4]))
    frames = each(
        lambda i, k: (
            Series("squares", [tried[k]], [statistics.fmean(found[i, k])], MUTED[6], "shown", width=10),
            Series("dots", [tried[k]] * len(found[i, k]), found[i, k], MUTED[7], width=5),
        ),
        len(lines),
        len(tried),
    )
    return Panel(x, y, title, tuple(stays), ("line", "weight"), frames)


def _share(share: float) -> str:
    return "vanilla gains nothing here" if math.isnan(share) else f"{share:.2f} of vanilla's gain kept"


def _metric(rows: Sequence[Row]) -> str:
    values = [row.metrics[row.metric] for row in rows]
    effect, level = mean_effect(values), rules()["level"]
    end = "" if effect is None else f" (interval {effect.interval(level)[0]:.4g} to {effect.interval(level)[1]:.4g})"
    return f"{rows[0].metric.replace('_', ' ')} {statistics.fmean(values):.4g}{end}"


def ways(experiment: str) -> Element:
    """Return the element of ways to solve: choose method and tolerance, see what vanilla and penalized models cost.

    Args:
        experiment: one of `ladders.measured()`.

    Raises:
        ValueError: there are no committed rows of its ladders.

    Rows: those of the stage `study`, on test data, once they are committed with every seed of every line drawn; until
    then the ladders' on held-out data, each penalty with the weight that the ladder chose.
    """
    lines, source = _solved(experiment)
    control = lines.pop(CONTROL, [])
    if len(lines) < 2 or not control:
        raise ValueError(
            f"experiment: expected one of {ladders.measured()}, whose ladders have rows, found {experiment!r}"
        )
    found = {line: _means(rows, lines[VANILLA], control) for line, rows in lines.items()}
    methods = list(dict.fromkeys(method for method, tolerance, _ in found[VANILLA] if tolerance is not None))
    at = sorted({tol for of in found.values() for _, tol, _ in of if tol is not None}, reverse=True)
    own = str(lines[VANILLA][0].budget["method"]), lines[VANILLA][0].tolerance
    start = (methods.index(own[0]) if own[0] in methods else 0, at.index(own[1]) if own[1] in at else len(at) // 2)
    title = tables.title(experiment)
    texts = each(lambda i, k: _way_words(found, methods[i], at[k]), len(methods), len(at))
    return Element(
        f"How tightly to solve: {title}",
        (
            Control("method", "method", tuple(methods), start[0], "menu"),
            Control("tolerance", "tolerance", tuple(power(tol) for tol in at), start[1]),
        ),
        (_cost_panel(found, methods, at), _frontier_panel(found, methods, at)),
        texts,
        f"{source}; means over {len(lines[VANILLA])} seeds, all trained at tolerance {power(own[1])}. "
        f"{lines[VANILLA][0].data}.",
        f"{title}. Left: evaluations against the tolerance of the prediction, both logarithmic. Right: share of "
        "vanilla's gain over the control that is kept, against evaluations. A line for vanilla and for each penalty, a "
        f"mark at the chosen tolerance. Shown: {texts[start]}",
    )


def _solved(experiment: str) -> tuple[dict[str, list[Row]], str]:
    """Return line -> rows with curves, the control among them, and where they are from, in words."""
    of: dict[str, list[Row]] = {}
    for row in store.committed_rows("study", experiment):
        of.setdefault(row.regularizer, []).append(row)
    lines = {line: of[line] for line in (VANILLA, *ladders.LINES, CONTROL) if line in of}
    seeds = set(registered()["seeds"]["study"])
    if {VANILLA, CONTROL} < set(lines) and all({row.seed for row in rows} == seeds for rows in lines.values()):
        return lines, "Rows of the study, on test data"
    vanilla, control = ladders.references(experiment)
    picked = {
        line: of.get(ladders.chosen_weight(experiment, line) or math.nan, [])
        for line, of in ladders.weights(experiment).items()
    }
    lines = {VANILLA: vanilla, **{line: rows for line, rows in picked.items() if rows}, CONTROL: control}
    return {line: rows for line, rows in lines.items() if rows}, "Rows of the ladders, on held-out training data"


def _means(rows: Sequence[Row], vanilla: Sequence[Row], control: Sequence[Row]) -> dict[Name, tuple[float, float]]:
    """Return way -> (evaluations, share of vanilla's gain kept), means over the rows."""
    curves = [curve(row) for row in rows]
    against = [value(row) for row in vanilla], [value(row) for row in control]
    return {
        way: (statistics.fmean(of[way][1] for of in curves), gain_kept([of[way][0] for of in curves], *against))
        for way in common(rows)
    }


Found = dict[str, dict[Name, tuple[float, float]]]


def _of(found: dict[Name, tuple[float, float]], method: str, at: Sequence[float]) -> np.ndarray:
    """Return evaluations and shares at each tolerance, (tolerances, 2); NaN where some row has no value."""
    return np.array([found.get((method, tol, None), (math.nan, math.nan)) for tol in at])


def _cost_panel(found: Found, methods: Sequence[str], at: Sequence[float]) -> Panel:
    def series(i: int, k: int) -> tuple[Series, ...]:
        made = []
        for j, (line, of) in enumerate(found.items()):
            points, color = _of(of, methods[i], at), of_regularizer(line)
            made.append(Series("line", at, points[:, 0], color, tables.label(line), DASHES[j % 4]))
            made.append(Series("squares", [at[k]], [points[k, 0]], color, width=9))
        return tuple(made)

    nfe = np.concatenate([_of(of, method, at)[:, 0] for of in found.values() for method in methods])
    x, y = (
        Axis("tolerance", *around(at, log=True), log=True),
        Axis("evaluations", *around(nfe, log=True, margin=0.12), log=True),
    )
    return Panel(x, y, "What a prediction costs", (), ("method", "tolerance"), each(series, len(methods), len(at)))


def _frontier_panel(found: Found, methods: Sequence[str], at: Sequence[float]) -> Panel:
    def series(i: int, k: int) -> tuple[Series, ...]:
        made = []
        for j, (line, of) in enumerate(found.items()):
            points, color = _of(of, methods[i], at), of_regularizer(line)
            made.append(Series("line", points[:, 0], points[:, 1], color, tables.label(line), DASHES[j % 4]))
            made.append(Series("squares", [points[k, 0]], [points[k, 1]], color, width=9))
        return tuple(made)

    points = np.concatenate([_of(of, method, at) for of in found.values() for method in methods])
    low = max(REACH[0], min(0.5, float(np.nanmin(points[:, 1])) - 0.1))
    high = min(REACH[1], max(1.1, float(np.nanmax(points[:, 1])) + 0.1))
    x = Axis("evaluations", *around(points[:, 0], log=True, margin=0.12), log=True)
    stays = (Series("line", [x.low, x.high], [1.0, 1.0], MUTED[7], dash="2 3", width=1.5),)
    y = Axis("share of vanilla's gain", low, high)
    return Panel(x, y, "What is kept", stays, ("method", "tolerance"), each(series, len(methods), len(at)))


def _way_words(found: Found, method: str, tolerance: float) -> str:
    told = []
    for line, of in found.items():
        nfe, kept = of.get((method, tolerance, None), (math.nan, math.nan))
        told.append(
            f"{tables.label(line)} "
            + ("not measured" if math.isnan(nfe) else f"{nfe:.1f} evaluations, {kept:.2f} kept")
        )
    return f"{method} at {power(tolerance)}: {'; '.join(told)}."
