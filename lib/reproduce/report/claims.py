"""The quantitative claims of the papers as data: claims.yaml (no torch). The verdicts on them are in `verdicts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import yaml

from reproduce import checkout
from reproduce.runs.store import VANILLA

MEASURES = {"nfe": "evaluations", "predict": "time of a prediction", "train": "time of training", "error": "error"}
"""What a claim is about, in words: always ours / theirs, so that less is better."""


@dataclass(frozen=True)
class Claim:
    """One published number, and the lines that it is about."""

    id: str
    says: str
    source: str
    measure: str
    """A key of MEASURES."""
    published: float
    """Of times: how many times faster."""
    parts: Mapping[str, Sequence[str]]
    """Experiment -> regularizers."""
    combine: Literal["all", "any"] = "all"
    note: str = ""
    against: str = VANILLA
    """The line that ours is compared with."""

    @property
    def ratio(self) -> float:
        """The published cost, ours over theirs: of times, the inverse of how many times faster."""
        return self.published if self.measure in ("nfe", "error") else 1 / self.published

    @property
    def local(self) -> bool:
        """Whether it is about local penalties alone."""
        return all(line.startswith("local_") for lines in self.parts.values() for line in lines)

    def __post_init__(self) -> None:
        if self.measure not in MEASURES or self.combine not in ("all", "any"):
            raise ValueError(f"claim {self.id}: unknown measure or combine: {self}")
        if not (self.published > 0 and any(self.parts.values())):
            raise ValueError(f"claim {self.id}: needs a positive published number and at least one regularizer")


@dataclass(frozen=True)
class Book:
    """What claims.yaml holds."""

    claims: tuple[Claim, ...]
    deviations: Mapping[str, Sequence[str]]
    """Experiment (or 'all') -> ids of DEVIATIONS.md."""
    elsewhere: tuple[Mapping[str, str], ...]
    """Claims that no row of a training run can test, and where they are tested."""


def book() -> Book:
    """Return the claims; ValueError for one that is not as it should be."""
    path = checkout.ROOT / "data" / "reference" / "claims.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    claims = tuple(Claim(**entry) for entry in content["claims"])
    if len({claim.id for claim in claims}) < len(claims):
        raise ValueError(f"{path}: an id is used twice")
    return Book(claims, content["deviations"], tuple(content["elsewhere"]))
