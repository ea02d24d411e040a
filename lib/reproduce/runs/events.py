"""What a process tells the runner of its notebook: files made or read, training runs to do and done (no torch).

The runner names a file in $REGNDE_TOLD; processes append to it, one JSON object a line. Without it nobody listens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproduce import checkout

PLACE = "REGNDE_TOLD"


def listens() -> bool:
    """Whether a runner listens to this process."""
    return bool(os.environ.get(PLACE))


def file(path: Path) -> None:
    """Tell of a file that this notebook made or read."""
    _tell({"file": os.path.relpath(path, checkout.ROOT)})


def to_do(runs: Mapping[str, float | None]) -> None:
    """Tell of training runs that begin now: name -> the seconds that each will take, None where nobody knows."""
    _tell({"to_do": dict(runs)})


def done(run: str, *, nfe: float, seconds: float) -> None:
    """Tell of a training run that has been made: its name, NFE of a prediction, seconds of its training."""
    _tell({"done": run, "nfe": nfe, "seconds": seconds})


def _tell(what: dict[str, Any]) -> None:
    if name := os.environ.get(PLACE):
        with open(name, "a", encoding="utf-8") as stream:  # one write: lines of several processes do not mix
            stream.write(json.dumps(what) + "\n")
