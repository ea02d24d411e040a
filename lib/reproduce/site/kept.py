"""Outputs of executed lessons as git tracks them, so that the site is made where nothing was executed or trained."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import nbformat

from reproduce import checkout
from reproduce.files import write_atomically
from reproduce.notebooks.runner import source_notebooks
from reproduce.report.publish import PICTURES_OF
from reproduce.site.lessons import PICTURE, is_shown

FOLDER = "data/reference/lessons"
"""A file for each lesson: what made it, and the outputs of its cells."""
PUBLISHED = re.compile(r'src="figures/([\w.-]+\.png)"')
"""A picture of a kept output: a file of figures/, where it is kept already."""


def keep(profile: str, *, root: Path | None = None) -> str:
    """Keep the outputs of the lessons that were executed to their end; return what was done, in words.

    A picture that is among the published ones is kept as its name. Profiles but `PICTURES_OF` keep nothing; the outputs
    of lessons that were not executed here, or with changes that were not committed, stay as they are.
    """
    root = root or checkout.ROOT
    if profile != PICTURES_OF:
        return "no outputs of lessons kept"
    masters = {path.stem: path for path in source_notebooks(root / "notebooks")}
    for old in (root / FOLDER).glob("*.json"):
        if old.stem not in masters:
            old.unlink()
    pictures = {hashlib.sha256(path.read_bytes()).digest(): path.name for path in (root / "figures").glob("*.png")}
    count = unclean = 0
    for name, master in masters.items():
        copy_of_it = root / "build" / profile / "notebooks" / master.name
        executed = nbformat.read(copy_of_it, as_version=4) if copy_of_it.exists() else None
        if executed is None or not (made := executed.metadata.get("regnde")):
            continue
        if made.get("dirty"):
            unclean += 1
            continue
        of_lesson = {cell.id for cell in nbformat.read(master, as_version=4).cells}  # papermill adds its parameters
        cells = {}
        for cell in executed.cells:
            outputs = [_kept(output, pictures) for output in cell.get("outputs", ()) if is_shown(output)]
            if outputs and cell.id in of_lesson:
                cells[cell.id] = {"source": _digest(cell.source), "outputs": outputs}
        content = json.dumps({"made": made, "cells": cells}, indent=1, sort_keys=True, ensure_ascii=False)
        write_atomically(root / FOLDER / f"{name}.json", f"{content}\n".encode())
        count += 1
    beside = f"; not those of {unclean} executed with changes that were not committed" if unclean else ""
    return f"outputs of {count} lessons kept in {FOLDER}{beside}"


def with_outputs(master: Path, *, root: Path | None = None) -> Any:
    """Return a lesson with its kept outputs, as if it had been executed; a cell that has changed since has none.

    Its metadata holds what made the outputs, and under `changed` the number of those cells.

    Raises:
        ValueError: no outputs of this lesson are kept, or a picture is not among the published ones any more.
    """
    root = root or checkout.ROOT
    path = root / FOLDER / f"{master.stem}.json"
    if not path.exists():
        raise ValueError(f"no outputs of {master.stem} are kept; `make reproduce PROFILE={PICTURES_OF} KEEP=1` does")
    content, notebook = json.loads(path.read_text(encoding="utf-8")), nbformat.read(master, as_version=4)
    changed = set(content["cells"])
    for cell in notebook.cells:
        kept = content["cells"].get(cell.id)
        if kept and cell.cell_type == "code" and kept["source"] == _digest(cell.source):
            cell.outputs = [_shown(nbformat.from_dict(output), root / "figures") for output in kept["outputs"]]
            changed.discard(cell.id)
    notebook.metadata["regnde"] = {**content["made"], "changed": len(changed)}
    return notebook


def without_outputs(root: Path | None = None) -> list[Path]:
    """Return the masters of which no outputs are kept."""
    root = root or checkout.ROOT
    masters = source_notebooks(root / "notebooks")
    return [path for path in masters if not (root / FOLDER / f"{path.stem}.json").exists()]


def _kept(output: Any, pictures: dict[bytes, str]) -> Any:
    """Return an output with the published pictures in it as their names."""

    def named(match: re.Match[str]) -> str:
        name = pictures.get(hashlib.sha256(b64decode(match[1])).digest())
        return f'src="figures/{name}"' if name else match[0]

    return _with_html(output, PICTURE, named)


def _shown(output: Any, figures: Path) -> Any:
    """Return a kept output with its pictures inside of it."""

    def inside(match: re.Match[str]) -> str:
        path = figures / match[1]
        if not path.exists():
            raise ValueError(f"a kept output shows figures/{match[1]}, which is not there; keep a run's pictures again")
        return f'src="data:image/png;base64,{b64encode(path.read_bytes()).decode()}"'

    return _with_html(output, PUBLISHED, inside)


def _with_html(output: Any, pattern: re.Pattern[str], change: Any) -> Any:
    output = copy.deepcopy(output)
    if "text/html" in output.get("data", {}):
        output["data"]["text/html"] = pattern.sub(change, "".join(output["data"]["text/html"]))
    return output


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:16]
