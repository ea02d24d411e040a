"""nbgrader's own autograder, made to run submissions in the sandbox: named in my_class/nbgrader_config.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbgrader.preprocessors import NbGraderPreprocessor

from reproduce.grading import sandbox
from reproduce.grading.classroom import LIMITS
from reproduce.grading.outputs import environment, scored


class SandboxedExecute(NbGraderPreprocessor):
    """Takes the place of nbgrader's Execute; a class, since nbgrader asks for one."""

    def preprocess(self, nb: nbformat.NotebookNode, resources: dict[str, Any]) -> tuple[nbformat.NotebookNode, Any]:
        """Execute a notebook in the sandbox; a run that was stopped leaves its reason in every cell of checks."""
        limits = LIMITS.get(resources["nbgrader"]["assignment"], sandbox.USUAL)
        inputs = Path(resources["metadata"]["path"])
        return scored(nb, sandbox.run(nb, inputs=inputs, limits=limits, python=environment())), resources
