"""`make assignments`: what students get, made from the masters by nbgrader; solutions and hidden tests are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

from reproduce.grading.classroom import SETS, Classroom

CONFIG = """# Made by `make assignments` for nbgrader and its formgrader, started in this folder: changes are lost.
from reproduce.grading.hook import SandboxedExecute

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "regnde"
c.CourseDirectory.root = {home!r}
c.CourseDirectory.db_url = {db_url!r}
c.Autograde.autograde_preprocessors = [
    SandboxedExecute,
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.GenerateFeedback.preprocessors = [
    "nbgrader.preprocessors.GetGrades",
    "nbgrader.preprocessors.ClearHiddenTests",
    "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
]
"""


def release(classroom: Classroom) -> list[Path]:
    """Make the students' notebook of every problem set; return their paths.

    Raises:
        RuntimeError: nbgrader refused a master.
    """
    classroom.home.mkdir(parents=True, exist_ok=True)
    text = CONFIG.format(home=str(classroom.home), db_url=classroom.db_url)
    (classroom.home / "nbgrader_config.py").write_text(text, encoding="utf-8")
    return [_released(classroom, name) for name in SETS]


def _released(classroom: Classroom, name: str) -> Path:
    source = classroom.home / "source" / name
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(classroom.master(name).parent, source)
    config = Config()
    config.CourseDirectory.course_id = "regnde"
    config.CourseDirectory.root = str(classroom.home)
    config.CourseDirectory.db_url = classroom.db_url
    found = NbGraderAPI(config=config).generate_assignment(name, force=True, create=True)
    if not found["success"]:
        raise RuntimeError(f"nbgrader made no release of {name}:\n{found.get('error') or found.get('log')}")
    return classroom.release(name)
