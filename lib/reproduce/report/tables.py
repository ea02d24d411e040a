"""Tables from rows: mean +- std over seeds, ratio to vanilla, share of the gain kept (no torch)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd
import yaml

from reproduce import checkout
from reproduce.report import effects
from reproduce.runs import curves
from reproduce.runs.registered import registered
from reproduce.runs.store import CONTROL, VANILLA, Row

LABELS = {
    VANILLA: "vanilla",
    "steer": "STEER",
    "global_error": "global error",
    "global_stiffness": "global stiffness",
    "local_unbiased": "local, unbiased",
    "local_biased": "local, biased",
    "local_stiffness": "local stiffness",
    "taynode": "TayNODE",
    "kinetic_jacobian": "kinetic + Jacobian",
    CONTROL: "control: no dynamics",
}
"""Names for readers, in the order of the tables."""

VARIANTS = {
    "decay": "weight decay",
    "loose": "trained loosely",
    "coarse": "trained on two midpoint steps",
    "few": "weight for few evaluations",
}
"""Lines of the study whose variant needs other words."""

TITLES = {
    "spiral_ode": "Spiral, neural ODE",
    "spiral_sde": "Spiral, neural SDE",
    "mnist_ode": "MNIST, neural ODE",
    "mnist_sde": "MNIST, neural SDE",
    "physionet": "PhysioNet 2012, latent ODE",
    "cifar10_ode": "CIFAR-10, neural ODE",
    "cifar10_multiscale_ode": "CIFAR-10, multiscale neural ODE",
    "digits_cnf": "Digits, density by a continuous flow",
}
"""Experiments for readers, in the order of the report."""


def title(experiment: str) -> str:
    """Return the name of an experiment for readers."""
    return TITLES.get(experiment, experiment)


def draw(line: str) -> str:
    """Return how a local penalty draws its time: 'biased', 'unbiased'."""
    return line.removeprefix("local_")


def label(regularizer: str) -> str:
    """Return the name for readers of a regularizer, of a sum ("a+b"), or of a variant ("a:variant")."""
    base, _, variant = regularizer.partition(":")
    name = " and ".join(LABELS.get(part, part) for part in base.split("+"))
    words = ", ".join(VARIANTS.get(part, part.replace("_", " ")) for part in variant.split(":"))
    return f"{name} ({words})" if variant else name


def rank(regularizer: str) -> int:
    """Return the place of a regularizer in tables and legends: that of its first part; unknown ones come last."""
    known, first = list(LABELS), regularizer.partition(":")[0].split("+")[0]
    return known.index(first) if first in known else len(known)


def in_order(regularizers: Iterable[str]) -> list[str]:
    """Return the different names in the order of the tables; names without a label come last, by alphabet."""
    return sorted(set(regularizers), key=lambda name: (rank(name), name))


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line for each row with everything that tables and plots need."""
    return pd.DataFrame(
        {
            "experiment": row.experiment,
            "data": row.data,
            "profile": row.profile,
            "host": row.host,
            "method": str(row.budget.get("method", "")),
            "steps": int(row.budget.get("steps", 0)),
            "tolerance": row.tolerance,
            "regularizer": row.regularizer,
            "seed": row.seed,
            "broke_off": bool(row.broke_off),
            "metric": row.metrics[row.metric],
            "higher_is_better": row.higher_is_better,
            "train_metric": row.metrics[f"train_{row.metric}"],
            "nfe": row.nfe,
            "accepted": row.accepted,
            "rejected": row.rejected,
            "train_nfe": row.train_nfe,
            "predict_ms": 1e3 * row.seconds["predict"],
            "train_s": row.seconds["train"],
        }
        for row in rows
    )


def gain_kept(value: float, *, vanilla: float, control: float, higher_is_better: bool) -> float:
    """Return the share of vanilla's gain over the control that a model keeps: (m - control) / (vanilla - control).

    NaN when vanilla is no better than the control, for then there is nothing to keep.
    """
    sign = 1.0 if higher_is_better else -1.0
    return curves.gain_kept([sign * value], [sign * vanilla], [sign * control])


def kept_in_words(share: float) -> str:
    """Return the share of the gain that is kept for a sentence; that there is no sure gain, where it is NaN."""
    return "vanilla has no sure gain to keep" if math.isnan(share) else f"{share:.0%} of vanilla's gain kept"


WAYS = ("host", "tolerance", "method", "steps")
"""What lines that are compared have in common: what solved in training, tolerance, method, number of training steps."""


def compare(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line for each regularizer and each of the WAYS to train it: means over seeds, ratios, gain kept.

    Ratios and the gain kept compare with the vanilla (and the control) that was trained in the same way with the same
    seeds: a line with one seed is compared with this seed alone, whose vanilla has the metric 'vanilla_metric'. Ratios
    are geometric means over pairs of one seed. Of a gain whose interval is not above zero no share is told. Where
    the split goes by the seed, lines with other seeds were tested on other data. Of the hosts 'own' stands first.

    Args:
        rows: of one experiment, one profile and one data set.

    Raises:
        ValueError: there are no rows, or they are of several experiments, profiles, data sets, parts or device classes,
            which no table may mix.
    """
    if not rows:
        raise ValueError("there are no rows to compare; run `make reproduce` first")
    for what in ("experiment", "profile", "data", "part", "device"):
        values = sorted({row.made_of.get(what, "cpu") if what == "device" else getattr(row, what) for row in rows})
        if len(values) > 1:
            raise ValueError(f"rows of several {what}s cannot stand in one table: {values}")
    runs = frame(rows)
    lines = [
        _line(group, name)
        for _, group in runs.groupby(list(WAYS), sort=True)  # 'own' sorts before the names of the hosts
        for name in in_order(group["regularizer"])
    ]
    return pd.DataFrame(lines)


def _line(runs: pd.DataFrame, name: str) -> dict[str, float | str | int]:
    """Return the line of one regularizer among the runs that were trained in one way; of numbers where there are some.

    Trainings that broke off have none: they are counted beside the seeds.
    """

    def of(regularizer: str) -> pd.DataFrame:
        return runs[(runs["regularizer"] == regularizer) & ~runs["broke_off"]].set_index("seed")

    def mean(regularizer: str, column: str, seeds: pd.Index) -> float:
        return float(of(regularizer)[column].reindex(seeds).mean())  # NaN where there are none

    every, group = runs[runs["regularizer"] == name], of(name)
    pairs = group.index.intersection(of(VANILLA).index)
    line: dict[str, float | str | int] = {way: every[way].iloc[0] for way in WAYS}
    line["regularizer"] = name
    line["seeds"], line["broke_off"] = len(every), len(every) - len(group)
    for column in ("metric", "nfe", "accepted", "rejected", "predict_ms", "train_s"):
        line[column], line[f"{column}_std"] = float(group[column].mean()), float(group[column].std(ddof=1))
    line["vanilla_metric"], solves = mean(VANILLA, "metric", pairs), name != CONTROL
    cost = {column: [of(which)[column].reindex(pairs) for which in (name, VANILLA)] for column in ("nfe", "predict_ms")}
    line["nfe_ratio"] = _mean_ratio(*cost["nfe"]) if solves else math.nan
    line["predict_speedup"] = 1.0 / _mean_ratio(*cost["predict_ms"]) if solves else math.nan
    three, higher = pairs.intersection(of(CONTROL).index), bool(every["higher_is_better"].iloc[0])
    line["gain_kept"] = math.nan
    if _may_gain((of(VANILLA)["metric"] - of(CONTROL)["metric"]).dropna() * (1 if higher else -1)):
        line["gain_kept"] = gain_kept(
            mean(name, "metric", three),
            vanilla=mean(VANILLA, "metric", three),
            control=mean(CONTROL, "metric", three),
            higher_is_better=higher,
        )
    return line


def _may_gain(gains: pd.Series) -> bool:
    """Return whether the interval of vanilla's gains, one for each seed, lies above zero, or they are those of one."""
    gain = effects.mean_effect(gains.tolist())
    return gain is None or gain.interval(registered()["rules"]["level"])[0] > 0


def _mean_ratio(ours: pd.Series, theirs: pd.Series) -> float:
    """Return the geometric mean of ratios, pair by pair; NaN without pairs."""
    return math.exp((ours / theirs).map(math.log).mean())


def seeds(n: int, broke_off: int) -> str:
    """Return '10 (1 broke off)': a number of seeds, and how many of them have no numbers."""
    return f"{n} ({broke_off} broke off)" if broke_off else str(n)


def readable(comparison: pd.DataFrame, *, metric: str) -> pd.DataFrame:
    """Return the table of `compare` as text for readers; accuracies in %, an empty cell where nothing is known."""
    percent = metric == "accuracy"
    scale, digits, unit = (100.0, 2, " [%]") if percent else (1.0, 3, "")

    def spread(line: pd.Series, column: str, scale: float, form: str) -> str:
        mean, std = scale * line[column], scale * line[f"{column}_std"]
        return f"{mean:{form}}" + ("" if math.isnan(std) else f" ± {std:{form}}")

    def number(value: float, form: str, unit: str = "") -> str:
        return "" if math.isnan(value) else f"{value:z{form}}{unit}"

    form = f".{digits}f" if percent else ".2f" if metric == "log_likelihood" else f".{digits}g"
    titles = {"host": "trained through", "method": "method", "steps": "training steps"}
    several = {title: name for name, title in titles.items() if comparison[name].nunique() > 1}
    return pd.DataFrame(
        {
            **{title: line[name] for title, name in several.items()},
            "tolerance": f"{line['tolerance']:g}",
            "regularizer": label(line["regularizer"]),
            "seeds": seeds(line["seeds"], line["broke_off"]),
            f"test {metric}{unit}": spread(line, "metric", scale, form),
            "gain kept": number(line["gain_kept"], ".2f"),
            "NFE": spread(line, "nfe", 1.0, ".1f"),
            "NFE ratio": number(line["nfe_ratio"], ".2f", "x"),
            "accepted / rejected": f"{line['accepted']:.1f} / {line['rejected']:.1f}",
            "predict [ms]": spread(line, "predict_ms", 1.0, ".1f"),
            "faster": number(line["predict_speedup"], ".2f", "x"),
            "train [s]": f"{line['train_s']:.0f}",
        }
        for _, line in comparison.iterrows()
    )


def markdown(table: pd.DataFrame) -> str:
    """Return a table as GitHub markdown; nothing for one without lines."""
    if table.empty:
        return ""
    cells = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def published() -> dict[str, Any]:
    """Return the published numbers and settings of both papers, by experiment (data/reference/paper_results.yaml)."""
    return _parsed((checkout.ROOT / "data" / "reference" / "paper_results.yaml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _parsed(text: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(text)
    return content


SMOKE = "A smoke run trains for a few steps: it shows that everything works, and nothing else."


def caption(rows: Sequence[Row]) -> str:
    """Return one sentence on what the rows are: experiment, data set, profile, device if it is not the CPU.

    It is never silent about a small set.
    """
    row = rows[0]
    names = {str(row.provenance.get("device")) for row in rows if row.made_of.get("device", "cpu") != "cpu"}
    where = f", computed on {', '.join(sorted(names))}" if names else ""
    what = f"{row.experiment}: {row.data}; profile {row.profile}, {row.n_test:,} {row.part} examples{where}."
    return " ".join(part for part in (what, SMOKE if row.profile == "smoke" else "", row.note) if part)


def summary(profile: str, rows: Sequence[Row], *, missing: Sequence[str] = (), stale: Sequence[str] = ()) -> str:
    """Return the tables of all experiments as one markdown text, and what they lack.

    Args:
        profile: of the rows.
        rows: current ones only.
        missing: names of the runs that the profile needs and that have no current row.
        stale: those of them with a row made of other settings, data or source.
    """
    parts = [f"# Results of this machine, profile {profile}"]
    for experiment in dict.fromkeys(row.experiment for row in rows):
        group = [row for row in rows if row.experiment == experiment]
        table = markdown(readable(compare(group), metric=group[0].metric))
        parts += [f"## {experiment}", caption(group), table]
    if not rows and not missing:
        parts.append("No rows yet: no notebook of this profile has trained anything.")
    if missing:
        parts.append(f"**Not run yet** ({len(missing)}): {', '.join(missing)}.")
    if stale:
        parts.append(f"**Stale** ({len(stale)}), left out above; `make why RUN=...` tells why: {', '.join(stale)}.")
    return "\n\n".join(parts) + "\n"
