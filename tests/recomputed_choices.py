"""What the ladders choose, once more from the committed rows and the registered text, by code that shares none."""

# Where PROTOCOL.md leaves something open, these readings are taken, those of the project's code:
# * Of equals that keep enough the one that keeps most is taken, then the first that was tried.
# * A further weight, "few", is what the rule takes among all weights with all their ways, where it takes fewer
#   evaluations than the line in its way. (Any other weight that takes fewer, gain kept or not, would be more lines.)
# * The ablation's ladders have vanilla and the control of their own seed, at the rate that all seeds chose.

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recomputed import CHOSEN, PROTOCOL, RULES, Row, Way, as_way, by_line, good, in_way, rows_of

JOINT = ("local_biased:loose", "local_biased:coarse")
MAY_HAVE_FEW = ("none:decay", "local_biased", "global_error")


@dataclass(frozen=True)
class Option:
    """A setting (None: of vanilla), a way to solve (None: that of training), mean evaluations, share of the gain."""

    setting: float | None
    way: Way | None
    evaluations: float
    keeps: float


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


def take(options: Sequence[Option]) -> Option:
    """The fewest evaluations among those that keep enough; if none does, what keeps most. `min` takes the first."""
    enough = [option for option in options if option.keeps >= RULES["held_out_gain"]]
    return min(enough or options, key=lambda o: (o.evaluations if enough else 0.0, -o.keeps))


def setting_of(row: Row) -> float:
    of_decay = row["regularizer"] == "none:decay"
    setting: float = row["budget"]["weight_decay"] if of_decay else row["settings"]["weight"]
    return setting


class Ladders:
    """The held-out rows of an experiment, and what the rules take from them."""

    def __init__(self, experiment: str, seeds: Sequence[int] = tuple(PROTOCOL["seeds"]["ladder"])) -> None:
        self.experiment, self.seeds = experiment, seeds
        self.registered = PROTOCOL["experiments"][experiment]
        rates = [row for row in rows_of("rates", experiment) if row["part"] == "validation"]
        self.lr = self.rate([row for row in rates if row["regularizer"] == "none"])
        at_rate = by_line(row for row in rates if row["budget"]["lr"] == self.lr)
        self.none = [at_rate["none"][seed] for seed in seeds]
        self.control = mean(good(at_rate["no_dynamics"][seed]) for seed in seeds)
        self.gain = mean(map(good, self.none)) - self.control

    def held_out(self, rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if row["part"] == "validation" and row["seed"] in self.seeds]

    def rate(self, vanilla: Sequence[Row]) -> float:
        def held_out(lr: float) -> float:
            return mean(map(good, self.complete([row for row in vanilla if row["budget"]["lr"] == lr])))

        return float(max(self.registered["lr"], key=held_out))

    def complete(self, rows: list[Row]) -> list[Row]:
        if sorted(row["seed"] for row in rows) != sorted(PROTOCOL["seeds"]["ladder"]):
            raise ValueError(f"{self.experiment}: seeds {[row['seed'] for row in rows]}")
        return rows

    def rungs(self, line: str) -> dict[float, list[Row]]:
        (values,) = [v for k, v in self.registered["ladders"][line].items() if k in ("weight", "weight_decay")]
        rows = [row for row in self.held_out(rows_of("ladders", self.experiment)) if row["regularizer"] == line]
        if any(row["budget"]["lr"] != self.lr for row in rows):
            raise ValueError(f"{self.experiment}, {line}: a ladder at another rate")
        return {value: self.complete([row for row in rows if setting_of(row) == value]) for value in values}

    def share(self, values: Iterable[float]) -> float:
        return (mean(values) - self.control) / self.gain

    def as_trained(self, rungs: dict[float, list[Row]]) -> list[Option]:
        return [
            Option(setting, None, mean(row["nfe"] for row in rows), self.share(map(good, rows)))
            for setting, rows in rungs.items()
        ]

    def in_ways(self, rows: Sequence[Row], setting: float | None = None) -> list[Option]:
        """Every way that each seed is solved in, in the order in which they were tried."""
        found = []
        for entry in rows[0]["ways"]:
            way = as_way([entry["method"], entry["tolerance"], entry["steps"]])
            if way[0] == "reference":
                continue
            values, evaluations = zip(*(in_way(row, way) for row in rows), strict=True)
            if all(map(math.isfinite, values)):
                found.append(Option(setting, way, mean(evaluations), self.share(values)))
        return found

    def choices(self) -> dict[str, Option]:
        """Line -> its setting and its way."""
        found = {"none": take(self.in_ways(self.none))}
        for line in self.registered["ladders"]:
            rungs = self.rungs(line)
            together = take([option for setting, rows in rungs.items() for option in self.in_ways(rows, setting)])
            setting = together.setting if line in JOINT else take(self.as_trained(rungs)).setting
            assert setting is not None
            found[line] = take(self.in_ways(rungs[setting], setting))
            if line in MAY_HAVE_FEW and together.evaluations < found[line].evaluations:
                found[f"{line}:few"] = together
        return found


def written(experiment: str, line: str) -> tuple[float | None, Way, float, float]:
    """What chosen.json says of a line: setting, way, evaluations, share of the gain."""
    of = CHOSEN[experiment]
    base, few = line.removesuffix(":few"), line.endswith(":few")
    settings = of["few"] if few else {**of["regularizers"], "none:decay": of}
    setting = None if line == "none" else settings[base]["weight_decay" if base == "none:decay" else "weight"]
    gains = of["gains"][line]
    return setting, as_way(of["ways"][line]), gains["evaluations"], gains["held_out_gain"]


def ablation(experiment: str) -> dict[str, float]:
    """Form -> the weight that its own ladder takes."""
    ladders = Ladders(experiment, PROTOCOL["ablation"]["ladder_seeds"])
    forms: dict[str, dict[float, list[Row]]] = {}
    for row in ladders.held_out(rows_of("ablation", experiment)):
        forms.setdefault(row["regularizer"], {}).setdefault(setting_of(row), []).append(row)
    taken = {form: take(ladders.as_trained(dict(sorted(rungs.items())))).setting for form, rungs in forms.items()}
    return {form: setting for form, setting in taken.items() if setting is not None}
