"""The ledgers before the study, and what was changed after each had been read (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from reproduce import checkout

VERDICTS = ("holds", "same direction", "does not hold", "not run")
"""Of the ledgers before the study."""


def history() -> Mapping[str, Any]:
    """Return the earlier ledgers and what was changed after each was read (data/reference/history.yaml)."""
    path = checkout.ROOT / "data" / "reference" / "history.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def in_full() -> list[str]:
    """Return one sentence or two for each earlier ledger."""
    return [_told(ledger) for ledger in history()["ledgers"]]


def in_one_sentence() -> str:
    """Return the history for a front page."""
    counts = "; ".join(f"{_counts(one['verdicts'])} at {one['commit']}" for one in history()["ledgers"])
    return (
        "Before the study, rules and settings were changed after results on the same test data had been read (ledgers: "
        f"{counts}); so it begins again, registered beforehand, with seeds that nobody had seen."
    )


def _counts(verdicts: Mapping[str, int]) -> str:
    return " / ".join(f"{verdicts[name]} {name}" for name in VERDICTS)


def _told(ledger: Mapping[str, Any]) -> str:
    changes = "; ".join(f"{change['what']} ({change['commit']})" for change in ledger["changes"])
    return (
        f"The ledger of commit {ledger['commit']} read {_counts(ledger['verdicts'])}, this project's own goal reached "
        f"in {ledger['goal_reached']} of 5 experiments. Then: {changes}."
    )
