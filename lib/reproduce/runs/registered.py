"""The registration of the study, as data (no torch)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import yaml

from reproduce import checkout

PATH = "data/reference/protocol.yaml"
REGISTERED_IN = {1: "7a49edf", 2: "a8734b5"}
"""Version -> the commit that registered it: older than each of its rows (a test asks git)."""


@lru_cache(maxsize=1)
def registered() -> dict[str, Any]:
    """Return what PROTOCOL.md registers: experiments, ladders, seeds, rules, claims."""
    content: dict[str, Any] = yaml.safe_load((checkout.ROOT / PATH).read_text(encoding="utf-8"))
    return content
