"""The process in which one notebook is executed: `python -m reproduce.notebooks.worker`, started by the runner."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import threading
from pathlib import Path

import nbformat
from nbformat import NotebookNode, v4

from reproduce.notebooks.exercises import lesson_only

RESULT = "regnde-result "
"""Starts the line by which a worker answers: null, or error, message, cell and source of a failure."""
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def work() -> None:
    """Execute the notebook that the first line of standard input describes; answer on standard output."""
    job = json.loads(sys.stdin.readline())
    # The runner holds the other end open: when it ends, however it ends, this process and its kernel end too.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    import papermill

    error, message = "", ""
    lesson = Path(job["part"]).with_suffix(".lesson.ipynb")
    try:
        if not job["solutions"]:
            nbformat.write(lesson_only(nbformat.read(job["source"], as_version=4)), lesson)
        papermill.execute_notebook(
            job["source"] if job["solutions"] else str(lesson),
            job["part"],
            parameters=job["parameters"],
            kernel_name="python3",
            language="python",
            progress_bar=False,
            log_output=False,
            engine_name=_engine(),
            start_timeout=120,
            execution_timeout=math.ceil(job["timeout"]),  # papermill takes whole seconds only
            shutdown_kernel="immediate",  # its last cell has ended: a graceful end takes a second and does nothing more
        )
    except papermill.PapermillExecutionError as failed:
        error, message = failed.ename, ANSI.sub("", failed.evalue)
    except Exception as failed:  # a time limit, a kernel that died, no kernel at all
        error, message = type(failed).__name__, ANSI.sub("", str(failed)).partition("\n")[0]
    finally:
        lesson.unlink(missing_ok=True)
    cell, source = _last_cell(Path(job["part"])) if error else (None, "")
    failure = {"error": error, "message": message, "cell": cell, "source": source}
    print(RESULT + json.dumps(failure if error else None), flush=True)


def _engine() -> str:
    """Return the name of papermill's own engine without its writing the whole notebook before and after each cell."""
    from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, *given: object, **named: object) -> None:
            place, nb_man.output_path = nb_man.output_path, None
            try:
                super().execute_managed_notebook(nb_man, *given, **named)
            finally:  # after which papermill writes it, whatever happened
                nb_man.output_path = place

    papermill_engines.register("written_once", Engine)
    return "written_once"


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return a cell's outputs with neighbours of one stream as one: kernels send a print in as many pieces as it took.

    nbclient's `coalesce_streams` would also join what was printed before and after a picture.
    """
    found: list[NotebookNode] = []
    for output in outputs:
        before = found[-1] if found else None
        if before and output.output_type == before.output_type == "stream" and output.name == before.name:
            found[-1] = v4.new_output("stream", name=output.name, text=before.text + output.text)
        else:
            found.append(output)
    return found


def _last_cell(part: Path) -> tuple[int | None, str]:
    """Number (as in the source notebook) and source of the cell at which an execution stopped."""
    if not part.exists():
        return None, ""
    added = {"injected-parameters", "papermill-error-cell-tag"}
    notebook = nbformat.read(part, as_version=4)
    cells = [cell for cell in notebook.cells if not added & set(cell.metadata.get("tags", []))]
    code = [(n, cell) for n, cell in enumerate(cells, start=1) if cell.cell_type == "code"]
    for number, cell in code:
        if any(output.output_type == "error" for output in cell.outputs):
            return number, cell.source
    begun = [(number, cell.source) for number, cell in code if cell.metadata.papermill.start_time]
    return begun[-1] if begun else (None, "")


if __name__ == "__main__":
    work()
