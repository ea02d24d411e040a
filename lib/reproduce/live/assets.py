"""What elements and quizzes bring to a page: their look, their script, and data for it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


def scripts(data: Any, name: str) -> str:
    """Return data and the script that reads them, for the end of an element; the report's page knows them by class."""
    content = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return (
        f'<script class="rg-part" type="application/json">{content}</script>'
        f'<script class="rg-part">{asset(name)}</script>'
    )


@cache
def asset(name: str) -> str:
    """Return a file of this folder that pages need: the script or the look."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
