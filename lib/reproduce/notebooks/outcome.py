"""What became of a notebook, as data and in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Failure:
    """Where and why a notebook stopped."""

    error: str
    """Type of the error, as Python names it."""
    message: str
    """Without terminal colours."""
    cell: int | None = None
    """Counted from 1 over all cells of the source notebook; None: in none of them."""
    source: str = ""
    """Of that cell."""


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook."""

    name: str
    copy: Path | None
    """The executed copy, relative to the root; after a failure: up to the failing cell."""
    seconds: float
    failure: Failure | None = None
    kept: bool = False
    """The copy of an earlier run is still good: nothing was executed."""


def explain(outcome: Outcome) -> str:
    """Say in some lines which cell of a failed notebook failed, with its first lines and the error."""
    failure = outcome.failure
    if failure is None:
        return f"{outcome.name}: finished"
    place = "outside its cells" if failure.cell is None else f"cell {failure.cell}"
    lines = failure.source.splitlines()
    shown = [f"    | {line}" for line in lines[:8]] + (["    | ..."] if len(lines) > 8 else [])
    head = f"FAILED {outcome.name}, {place}: {failure.error}: {failure.message}"
    copy = [f"    the copy up to there: {outcome.copy}"] if outcome.copy else []
    return "\n".join([head, *shown, *copy])
