"""The study's verdicts once more, from the committed rows and the registered text, by code that shares none."""

# Where PROTOCOL.md leaves something open, these readings are taken. They are those of the project's code, in it since
# the registration (084a954; the last two since 48471e8, before study rows were committed; that on NaN since 591f7c1).
# * A way is measured on fewer examples than a row's metric, which is not said there. Its value is that of the row on
#   all of them, plus the difference that the way makes on the fewer. (On the fewer alone other verdicts come out.)
# * The error of the likelihood counts as lost in every solve of the flow, those of training among them.
# * An "all" is above, worse or lost if one part is (Bonferroni), an "any" if all are. A number that is none refutes
#   nothing.
# * A printed deviation enters where a claim is about one experiment; the abstract's numbers have none.
# * The endpoints' verdicts on the gain are by the interval of each, and a ratio is that of the mean.
# * The matched-error ratio that is hoped for is that of the local line that the held-out data prefer, the gain kept,
#   and counted in every experiment.

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

REFERENCE = Path(__file__).resolve().parents[1] / "data" / "reference"
PROTOCOL: dict[str, Any] = yaml.safe_load((REFERENCE / "protocol.yaml").read_text())
CLAIMS: list[dict[str, Any]] = yaml.safe_load((REFERENCE / "claims.yaml").read_text())["claims"] + PROTOCOL["besides"]
PRINTED: dict[str, Any] = yaml.safe_load((REFERENCE / "paper_results.yaml").read_text())
CHOSEN: dict[str, Any] = json.loads((REFERENCE / "chosen.json").read_text())
RULES: dict[str, float] = PROTOCOL["rules"]
SEEDS: list[int] = PROTOCOL["seeds"]["study"]
ERROR_RATE = 1 - RULES["level"]

Row = dict[str, Any]
Cells = dict[str, dict[int, Row]]  # line -> seed -> row
Numbers = dict[int, float]  # by seed
Way = tuple[str, float | None, int | None]
Sides = tuple[float, float]  # one-sided p of lying below, and of lying above


@cache
def rows_of(stage: str, experiment: str) -> list[Row]:
    path = REFERENCE / "measured" / "study" / stage / f"{experiment}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def by_line(rows: Iterable[Row], name: str = "regularizer") -> Cells:
    cells: Cells = {}
    for row in rows:
        if row["seed"] in cells.setdefault(row[name], {}):
            raise ValueError(f"two rows for {row[name]}, seed {row['seed']}")
        cells[row[name]][row["seed"]] = row
    return cells


def study(experiment: str) -> Cells | None:
    """Its rows, or None as long as one is missing: no verdict is read from a part of an experiment."""
    registered = PROTOCOL["experiments"][experiment]
    lines = {*PROTOCOL["lines"], *registered["ladders"], *registered.get("also", [])}
    lines |= {f"{line}:few" for line in CHOSEN[experiment].get("few", {})}
    cells = by_line(row for row in rows_of("study", experiment) if row["part"] == "test")
    return cells if all(set(cells.get(line, {})) >= set(SEEDS) for line in lines) else None


@dataclass(frozen=True)
class Effect:
    """A mean of differences within seeds with its t-interval, and the p of its lying below and above some null."""

    mean: float
    low: float
    high: float
    sides: Sides


def effect(differences: Sequence[float], null: float = 0.0, printed: Sequence[tuple[float, int]] = ()) -> Effect:
    """`printed`: squared standard errors of the null, each with its degrees of freedom (Welch and Satterthwaite)."""
    d, n = np.asarray(differences, dtype=float), len(differences)
    if n < 2 or not np.isfinite(d).all():
        return Effect(math.nan, math.nan, math.nan, (1.0, 1.0))
    mean, own = float(np.mean(d)), float(np.var(d, ddof=1)) / n
    if np.ptp(d) == 0:  # equal differences have no spread, whatever their mean is rounded to
        mean, own = float(d[0]), 0.0
    half = float(stats.t.isf(ERROR_RATE / 2, n - 1)) * math.sqrt(own)
    variances = [(own, n - 1), *printed]
    total = sum(v for v, _ in variances)
    if total == 0:
        sides = (float(mean >= null), float(mean <= null))
    else:
        freedom = total**2 / sum(v**2 / k for v, k in variances)
        t = (mean - null) / math.sqrt(total)
        sides = (float(stats.t.cdf(t, freedom)), float(stats.t.sf(t, freedom)))
    return Effect(mean, mean - half, mean + half, sides)


def log_ratio(of: Numbers, over: Numbers) -> list[float]:
    return [math.log(of[seed] / over[seed]) for seed in SEEDS]


def beyond(vanilla: Numbers, control: Numbers, line: Numbers) -> list[float]:
    """What a line loses beyond the share of vanilla's gain that it may lose: below zero is kept."""
    return [vanilla[s] - line[s] - (1 - RULES["gain"]) * (vanilla[s] - control[s]) for s in SEEDS]


def good(row: Row) -> float:
    """The metric as the row's model was trained and solved, the larger the better."""
    return row["metrics"][row["metric"]] * (1 if row["higher_is_better"] else -1) - row["metrics"].get(
        "solver_error", 0
    )


def goods(cells: Cells, line: str) -> Numbers:
    return {seed: good(row) for seed, row in cells[line].items()}


def cost(row: Row, measure: str) -> float:
    if measure == "error":
        return 1 - good(row) if row["metric"] == "accuracy" else -good(row)
    return row["nfe"] if measure == "nfe" else row["seconds"][measure]


# (a) the claims

COLUMNS = {"nfe": ("nfe",), "predict": ("predict_seconds",), "error": ("test_loss", "mse")}
COLUMNS["train"] = ("train_hours", "train_seconds", "train_seconds_per_batch")
PRINTED_NAMES = {"none": "vanilla", "global_error+global_stiffness": "global_both"}


def printed_variances(claim: dict[str, Any], experiment: str, lines: Iterable[str]) -> list[tuple[float, int]]:
    """Squared standard errors of the logarithms of what the paper prints with a deviation."""
    if len(claim["parts"]) > 1:
        return []
    rows, runs = PRINTED[experiment]["rows"], int(RULES["printed_runs"])
    of = [rows.get(PRINTED_NAMES.get(line, line), {}).get(c) for line in lines for c in COLUMNS[claim["measure"]]]
    return [((deviation / mean) ** 2 / runs, runs - 1) for mean, deviation in filter(None, of)]


def combined(claim: dict[str, Any], parts: Sequence[Sides]) -> Sides:
    """All: below if all are, above if one is. Any: below if one is, above if all are. "If one is" pays Bonferroni."""
    lows, highs, k = [p[0] for p in parts], [p[1] for p in parts], len(parts)
    if claim.get("combine", "all") == "any":
        return min(1.0, k * min(lows)), max(highs)
    return max(lows), min(1.0, k * min(highs))


Key = tuple[str, str]  # claim, form


def holm(family: dict[Key, Sides | None], below: str, above: str, neither: str) -> dict[Key, str]:
    """The verdict of each comparison; those that were not run count in the family, too."""
    p = {key: 1.0 if sides is None else min(1.0, 2 * min(sides)) for key, sides in family.items()}
    verdicts, refuting = {}, True
    for rank, key in enumerate(sorted(family, key=lambda key: p[key])):
        sides, refuting = family[key], refuting and p[key] <= ERROR_RATE / (len(family) - rank)
        if sides is None:
            verdicts[key] = "not run"
        else:
            verdicts[key] = neither if not refuting else below if sides[0] < sides[1] else above
    return verdicts


@dataclass(frozen=True)
class Judged:
    ratios: dict[tuple[str, str], Effect]  # (experiment, line) -> of logarithms
    lost: dict[tuple[str, str], Effect]
    direction: str
    agreement: str
    costs: str


def ledger() -> dict[Key, Judged]:
    studies = {experiment: study(experiment) for experiment in PROTOCOL["experiments"]}
    ratios: dict[Key, dict[tuple[str, str], Effect]] = {}
    lost: dict[Key, dict[tuple[str, str], Effect]] = {}
    families: tuple[dict[Key, Sides | None], ...] = ({}, {}, {})
    for claim in CLAIMS:
        measure, against = claim["measure"], claim.get("against", "none")
        printed = math.log(claim["published"]) * (-1 if measure in ("predict", "train") else 1)
        local = any(line.startswith("local") for lines in claim["parts"].values() for line in lines)
        for form in ("ours", "released", "text") if local else ("ours",):
            key = claim["id"], form
            ratios[key], lost[key], agrees = {}, {}, []
            for experiment, lines in claim["parts"].items():
                cells = studies[experiment]
                for line in lines if cells is not None else ():
                    assert cells is not None
                    name = line if form == "ours" else f"{line}:{form}"
                    of, over = ({s: cost(r, measure) for s, r in cells[x].items()} for x in (name, against))
                    excess = beyond(*(goods(cells, x) for x in ("none", "no_dynamics", name)))
                    ratios[key][experiment, name] = effect(log_ratio(of, over))
                    lost[key][experiment, name] = effect(excess)
                    deviations = printed_variances(claim, experiment, (line, against))
                    agrees.append(effect(log_ratio(of, over), printed, deviations).sides)
            run = all(studies[experiment] is not None for experiment in claim["parts"])
            sides = [e.sides for e in ratios[key].values()], agrees, [e.sides for e in lost[key].values()]
            for family, of_parts in zip(families, sides, strict=True):
                family[key] = combined(claim, of_parts) if run else None
    direction = holm(families[0], "below 1", "above 1", "undecided")
    agreement = holm(families[1], "better than printed", "worse than printed", "compatible")
    for key, of_parts in ratios.items():  # corrected since: what has no number is not compatible with one
        if agreement[key] == "compatible" and any(math.isnan(e.mean) for e in of_parts.values()):
            agreement[key] = "undecided"
    costs = holm(families[2], "kept", "lost", "undecided")
    return {key: Judged(ratios[key], lost[key], direction[key], agreement[key], costs[key]) for key in ratios}


# (b) equal tolerance, (c) matched error, (e) the first step


@dataclass(frozen=True)
class Saved:
    """A line's evaluations over vanilla's, whether the gain is kept, and how much worse it is."""

    ratio: Effect  # of logarithms
    gain: str
    worse: Effect  # of the error's logarithms, or nats

    def reached(self, at_most: float) -> bool:
        return self.ratio.mean <= math.log(at_most) + 1e-12 and self.gain == "kept"


def saved(cells: Cells, nfe: Numbers, over: Numbers, values: Numbers) -> Saved:
    excess = effect(beyond(goods(cells, "none"), goods(cells, "no_dynamics"), values))
    gain = "kept" if excess.high < 0 else "lost" if excess.low > 0 else "undecided"
    metric, vanilla = cells["none"][SEEDS[0]]["metric"], goods(cells, "none")
    if metric == "log_likelihood":
        worse = [vanilla[seed] - values[seed] for seed in SEEDS]
    else:
        most = 1 if metric == "accuracy" else 0
        worse = log_ratio({s: most - v for s, v in values.items()}, {s: most - v for s, v in vanilla.items()})
    return Saved(effect(log_ratio(nfe, over)), gain, effect(worse))


def dynamics_matter(cells: Cells) -> bool:
    vanilla, control = goods(cells, "none"), goods(cells, "no_dynamics")
    return effect([vanilla[seed] - control[seed] for seed in SEEDS]).low > 0


def equal_tolerance(cells: Cells, line: str) -> Saved:
    of, over = ({s: r["nfe"] for s, r in cells[x].items()} for x in (line, "none"))
    return saved(cells, of, over, goods(cells, line))


def as_way(way: Sequence[Any]) -> Way:
    return way[0], way[1], way[2]


def own_way(row: Row) -> Way:
    steps = row["budget"]["fixed_steps"]
    return row["budget"]["method"], None if steps else row["budget"]["rtol"], steps


def in_way(row: Row, way: Way) -> tuple[float, float]:
    """Value and evaluations of a row's model, solved in some way; NaN where the solve failed."""
    at = {(entry["method"], entry["tolerance"], entry["steps"]): entry for entry in row["ways"]}
    there, own = at.get(way), at.get(own_way(row))
    if there is None or own is None or there.get("failed") or there["metric"] is None:
        return math.nan, math.nan
    sign = 1 if row["higher_is_better"] else -1
    change = own["error"] - there["error"] if "error" in there else sign * (there["metric"] - own["metric"])
    return good(row) + change, there["nfe"]


def matched_error(experiment: str, cells: Cells) -> dict[str, Saved]:
    """Each line in the way that was chosen for it, over vanilla in its own; what is not kept fails."""
    ways = {line: as_way(way) for line, way in CHOSEN[experiment]["ways"].items()}
    found = {line: {s: in_way(r, way) for s, r in cells[line].items()} for line, way in ways.items()}
    nfe = {line: {s: pair[1] for s, pair in of.items()} for line, of in found.items()}
    values = {line: {s: pair[0] for s, pair in of.items()} for line, of in found.items()}
    return {line: saved(cells, nfe[line], nfe["none"], values[line]) for line in ways}


def first_step(experiment: str) -> dict[str, tuple[Saved, Effect]]:
    """Each penalty with its chosen first step, over vanilla with its own, and over vanilla by the solver's guess."""
    cells, measured = study(experiment), by_line(rows_of("first_step", experiment), "line")
    lines, tolerance = PROTOCOL["first_step"]["lines"], PROTOCOL["experiments"][experiment]["tolerance"]
    if cells is None or not all(set(measured.get(x, {})) >= set(SEEDS) for x in lines):
        return {}

    def at(line: str, solve: str, what: str) -> Numbers:
        found = {}
        for seed, row in measured[line].items():
            if row["key"] != cells[line][seed]["key"]:
                raise ValueError(f"{experiment}, {line}, {seed}: not the study's model")
            (entry,) = (way[solve] for way in row["ways"] if way["tolerance"] == tolerance)
            sign = 1 if row["higher_is_better"] else -1
            found[seed] = entry["nfe"] if what == "nfe" else sign * entry["metric"] - entry.get("error", 0)
        return found

    own, chosen = at("none", "own", "nfe"), at("none", "chosen", "nfe")
    of = {line: (at(line, "chosen", "nfe"), at(line, "chosen", "value")) for line in lines if line != "none"}
    return {x: (saved(cells, nfe, chosen, v), effect(log_ratio(nfe, own))) for x, (nfe, v) in of.items()}


def chosen_share(tried: dict[str, float]) -> float | None:
    """The share with the fewest evaluations; of equals the own guess (None), then the longest step."""
    equals = [name for name, nfe in tried.items() if nfe == min(tried.values())]
    return None if "own" in equals else max(map(float, equals))
