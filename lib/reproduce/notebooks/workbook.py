"""The reader's own copies of the lessons, to run and to write in; the masters in notebooks/ stay as git has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reproduce.files import write_atomically

FOLDER = "my_lessons"
"""Beside notebooks/, so that every link of a lesson leads to the same place; ignored by git."""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""Of every master."""
MADE = ".made.json"
"""In it: the sha256 of each copy as it was made."""


def update(root: Path, *, version: Callable[[bytes], bytes] = bytes) -> Iterator[str]:
    """Copy every lesson that the reader has not; renew a copy that nobody touched; never touch one that was changed.

    Args:
        root: the bundle's folder.
        version: what a copy is made of, from the content of its master; the master itself unless said otherwise.

    Yields:
        What was done, a line each; nothing for copies that are as they should be.
    """
    folder = root / FOLDER
    made: dict[str, str] = json.loads((folder / MADE).read_text()) if (folder / MADE).exists() else {}
    for master in sorted((root / "notebooks").glob("*.ipynb")):
        copy, content = folder / master.name, version(master.read_bytes())
        newest = _digest(content)
        if not copy.exists():
            yield f"new    {FOLDER}/{copy.name}"
        elif made.get(copy.name) == newest:
            continue
        elif _digest(copy.read_bytes()) != made.get(copy.name):
            yield f"yours  {FOLDER}/{copy.name}: the lesson has changed since; rename your copy to get the new one, too"
            continue
        else:
            yield f"newer  {FOLDER}/{copy.name}"
        write_atomically(copy, content)
        made[copy.name] = newest
        write_atomically(folder / MADE, (json.dumps(made, indent=1) + "\n").encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def save_masters_without_outputs(model: dict[str, Any], path: str, **others: Any) -> None:
    """Jupyter's hook before it saves: a master keeps no outputs, counts and kernel's details, whoever executed it.

    Source: jupyter_server, ContentsManager.pre_save_hook.
    """
    if model["type"] != "notebook" or not path.lstrip("/").startswith("notebooks/"):
        return
    notebook = model["content"]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        for name in ("execution", "trusted"):
            cell["metadata"].pop(name, None)
    notebook["metadata"] = METADATA
