"""Everything that a training run needs to go on where it stopped, in one file that is whole or not there."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from reproduce import files


def save(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write the state of a run atomically: 64 hex digits (the sha256 of the rest), then torch's own format.

    Args:
        path: file of the checkpoint; an older one is replaced in one step.
        key: key of the run, so that no other run goes on from it.
        state: tensors, state dictionaries, numbers, lists.
    """
    buffer = io.BytesIO()
    torch.save({"key": key, "state": state}, buffer)
    content = buffer.getvalue()
    files.write_atomically(path, hashlib.sha256(content).hexdigest().encode() + content)


def load(path: Path, key: str) -> dict[str, Any] | None:
    """Return the state stored by `save`, on the CPU, or None if there is no checkpoint of this run.

    Raises:
        ValueError: the file is damaged; it is named, and left as it is.
    """
    if not path.exists():
        return None
    content = path.read_bytes()
    digest, content = content[:64], content[64:]
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError(f"{path} is a damaged checkpoint; delete it to have the run start from its beginning")
    stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return stored["state"] if stored["key"] == key else None
