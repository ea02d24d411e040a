"""An executed lesson as a page of the site: figures numbered and in files of their own, no progress, no widgets."""

from __future__ import annotations

import copy
import html
import re
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any

import nbformat

from reproduce.notebooks.exercises import lesson_only
from reproduce.report.captions import for_sphinx, numbered

PICTURE = re.compile(r'src="data:image/png;base64,([^"]+)"')
WIDGET = "application/vnd.jupyter.widget-view+json"
SHOWN_AS_PAGE = "13_report"
"""The lesson whose code is folded away: its page is the report."""


@dataclass
class Lesson:
    """A lesson's page: the notebook as the site shows it, and the pictures beside it."""

    name: str
    notebook: Any
    pictures: dict[str, bytes] = field(default_factory=dict)
    """File name -> PNG."""


def prepared(name: str, notebook: Any) -> Lesson:
    """Return an executed notebook as the site shows it.

    Solutions of its exercises, their checks and notes for instructors are left out, and so are progress on standard
    error and widgets, which need a kernel; pictures inside of HTML become
    files; figures and tables are numbered (`report.captions`); a last cell says what executed it.

    Args:
        name: of the notebook, '01_one_step'.
        notebook: as nbformat reads it, with outputs. It is left as it is.

    Raises:
        ValueError: a picture has no text in its place (`plots.save` gives it one).
    """
    lesson = Lesson(name, numbered(lesson_only(copy.deepcopy(notebook))))
    lesson.notebook.metadata.pop("widgets", None)
    for cell in lesson.notebook.cells:
        if cell.cell_type != "code":
            cell.source = for_sphinx(cell.source)
            continue
        if name == SHOWN_AS_PAGE or "hide-input" in cell.metadata.get("tags", ()):
            cell.metadata["tags"] = sorted({*cell.metadata.get("tags", ()), "hide-input"})
        cell.outputs = [output for output in cell.outputs if is_shown(output)]
        for output in cell.outputs:
            _filed(lesson, output.get("data", {}))
    lesson.notebook.cells.append(nbformat.v4.new_markdown_cell(_made(notebook.metadata.get("regnde", {}))))
    return lesson


def is_shown(output: Any) -> bool:
    """Whether an output is one that the site shows: progress and widgets are not."""
    return output.get("name") != "stderr" and WIDGET not in output.get("data", {})


def _filed(lesson: Lesson, data: Any) -> None:
    """Move the pictures of one output into files, and captions of its tables to where Sphinx expects them."""
    if "image/png" in data and "text/html" not in data:
        raise ValueError(f"lesson {lesson.name}: a picture has no text in its place; show it by plots.save(alt=...)")

    def file(match: re.Match[str]) -> str:
        picture = f"{lesson.name}-{len(lesson.pictures) + 1}.png"
        lesson.pictures[picture] = b64decode(match[1])
        return f'src="pictures/{picture}"'

    if "text/html" in data:
        data["text/html"] = PICTURE.sub(file, data["text/html"])
    elif "text/markdown" in data:
        data["text/markdown"] = for_sphinx("".join(data["text/markdown"]))


def _made(record: Any) -> str:
    """Return in words what executed a lesson, for its end."""
    if not record:
        return "*This lesson was not executed for this site.*"
    commit = str(record.get("commit", "unknown"))[:7] + ("-dirty" if record.get("dirty") else "")
    profile = html.escape(str(record.get("profile", "unknown")))
    note = " A smoke run trains for a few steps: its numbers show nothing." if profile == "smoke" else ""
    if changed := record.get("changed"):
        note += f" Cells that have changed since, and show no output: {changed}."
    return (
        f"*This page was executed with profile {profile} at commit {commit}, {str(record.get('made', ''))[:10]}.{note}*"
    )
