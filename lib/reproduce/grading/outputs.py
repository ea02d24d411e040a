"""From a verdict of the sandbox to a notebook that nbgrader scores: outputs, or the reason for a zero in each cell."""

from __future__ import annotations

import nbformat

from reproduce import checkout
from reproduce.grading.sandbox import Verdict

STOPPED = "SubmissionStopped"


def scored(prepared: nbformat.NotebookNode, verdict: Verdict) -> nbformat.NotebookNode:
    """Return the prepared notebook with the outputs that the sandbox reports; a cell of checks without points fails.

    Only outputs are taken from the sandbox: sources stay those that were prepared outside of it. Warnings are left
    out, because nbgrader gives nothing for a cell that writes to stderr.
    """
    notebook = nbformat.reads(nbformat.writes(prepared), as_version=4)
    found = verdict.notebook.cells if verdict.notebook is not None else []
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        outputs = found[i].get("outputs", []) if i < len(found) and found[i].source == cell.source else []
        graded = cell.metadata.get("nbgrader", {}).get("grade", False)
        cell.outputs = [out for out in outputs if not (graded and out.get("name") == "stderr")]
        if graded and not any(out.output_type in ("execute_result", "error") for out in cell.outputs):
            cell.outputs = [*cell.outputs, _error(verdict.reason or "the checks of this cell gave no points")]
    return notebook


def _error(reason: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("error", ename=STOPPED, evalue=reason, traceback=[f"{STOPPED}: {reason}"])


def environment() -> str:
    """Return the interpreter that submissions run in: that of the project's own environment.

    Raises:
        ValueError: it is not there.
    """
    python = checkout.ROOT / ".venv" / "bin" / "python"
    if not python.exists():
        raise ValueError(f"submissions run in the project's environment, and {python} is missing: run `make env`")
    return str(python)
