"""What ladders on held-out training data chose for profile quick: learning rates and weights, as data."""

from __future__ import annotations

import json
from typing import Any

from reproduce import checkout
from reproduce.experiments.experiment import Budget


def chosen(experiment: str, quick: Budget) -> Budget:
    """Return a budget with the learning rate and the settings that the ladders of the protocol chose, where they did.

    They are data (see `choices`), and not part of this source: a row's key holds what it was trained with.
    """
    found = choices().get(experiment, {})
    settings = {**quick.regularizers, **found.get("regularizers", {})}
    return quick.but(lr=found.get("lr", quick.lr), regularizers=settings)


def choices() -> dict[str, Any]:
    """Return all choices by experiment: 'lr', 'weight_decay', 'regularizers'; nothing before there are any."""
    path = checkout.ROOT / "data" / "reference" / "chosen.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found
