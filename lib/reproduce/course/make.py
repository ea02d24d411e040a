"""`make course`: the lessons for students, with solutions, and for instructors, in build/course."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from reproduce.course import tasks, versions
from reproduce.files import write_atomically
from reproduce.notebooks.runner import relinked, source_notebooks

FOLDER = Path("build", "course")


def make(root: Path, *, only: str = "") -> Iterator[str]:
    """Write the three versions of each lesson, and say in a line for each what it holds.

    Args:
        root: the bundle's folder; its notebooks/ are the masters.
        only: numbers of lessons, "05" or "05,06"; empty: all.

    Raises:
        ValueError: before anything is written, for a number that no lesson has and for exercises that break a rule.
    """
    masters = {path: nbformat.read(path, as_version=4) for path in source_notebooks(root / "notebooks", only)}
    wrong = [f"{path.stem}: {text}" for path, nb in masters.items() for text in tasks.violations(nb, path.stem[:2])]
    if wrong:
        raise ValueError("; ".join(wrong))
    for path, master in masters.items():
        for name, made in _versions(master).items():
            _write(root, FOLDER / name / path.name, made)
        found = tasks.tasks(master)
        kinds = Counter(task.kind for task in found)
        checked = sum(task.answer is not None for task in found)
        told = ", ".join(f"{kinds[kind]} {kind}" for kind in tasks.KINDS if kinds[kind])
        yield f"{path.stem}: {len(found)} exercises ({told}), {checked} checked"
    yield f"student/, solutions/ and instructor/ are in {FOLDER}; change the masters in notebooks/, not these"


def _versions(master: Any) -> dict[str, Any]:
    from reproduce.course.checks import mistakes_of  # here, since PyTorch takes seconds
    from reproduce.course.pictures import expected

    return {
        "student": versions.student(master, pictures=dict(expected(master))),
        "solutions": versions.solutions(master),
        "instructor": versions.instructor(master, mistakes_of=mistakes_of),
    }


def _write(root: Path, path: Path, notebook: Any) -> None:
    """Write a version where its links lead to the same files as the master's; what is there already stays."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = relinked(cell.source, path.parent)
    content = (nbformat.writes(notebook).rstrip("\n") + "\n").encode()
    if not (root / path).exists() or (root / path).read_bytes() != content:
        write_atomically(root / path, content)
