"""Strict papermill runner: parameters checked before, finished notebooks kept, a failing cell named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from reproduce import checkout
from reproduce.notebooks import stamps
from reproduce.notebooks.alone import Busy, alone
from reproduce.notebooks.contract import ParameterError, accepted_parameters, check_parameters, contract
from reproduce.runs import provenance
from reproduce.runs.store import PROFILES, write_atomically

__all__ = [
    "PROFILES",
    "Busy",
    "Failure",
    "Outcome",
    "ParameterError",
    "accepted_parameters",
    "check_parameters",
    "contract",
    "explain",
    "run",
    "source_notebooks",
]

CELL_SECONDS = {"smoke": 900, "quick": 7200, "paper": 7 * 86400}  # a cell that takes longer hangs
SOURCE_NAME = re.compile(r"(\d\d)_\w+\.ipynb")
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
RESULT = "regnde-result "  # starts the line by which a worker answers


@dataclass(frozen=True)
class Failure:
    """Where and why a notebook stopped."""

    error: str  # type of the error, as Python names it
    message: str  # without terminal colours
    cell: int | None = None  # counted from 1 over all cells of the source notebook; None: in none of them
    source: str = ""  # of that cell


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook."""

    name: str
    copy: Path | None  # the executed copy, relative to the root; after a failure: up to the failing cell
    seconds: float
    failure: Failure | None = None
    kept: bool = False  # the copy of an earlier run is still good: nothing was executed


def source_notebooks(folder: str | Path, only: str | None = None) -> list[Path]:
    """Return the notebooks `NN_name.ipynb` in `folder` by number; `only` ("05" or "05,06") selects some.

    Raises ValueError for a number that no notebook has.
    """
    found = [path for path in sorted(Path(folder).glob("*.ipynb")) if SOURCE_NAME.fullmatch(path.name)]
    wanted = [part.strip().zfill(2) for part in (only or "").split(",") if part.strip()]
    for number in wanted:
        if not any(path.name[:2] == number for path in found):
            names = ", ".join(path.stem for path in found) or "none"
            raise ValueError(f"no notebook has the number {number!r}; there are: {names}")
    return [path for path in found if not wanted or path.name[:2] in wanted]


def run(
    profile: str,
    *,
    only: str | None = None,
    jobs: int | None = None,
    parameters: Mapping[str, object] | None = None,
    root: str | Path = checkout.ROOT,
    timeout: float | None = None,
    force: bool = False,
    wait: bool = False,
    say: Callable[[str], None] = lambda line: print(f"{line}\n", end="", flush=True),
) -> list[Outcome]:
    """Execute the notebooks of `root`/notebooks into `root`/build/`profile`/notebooks, `jobs` at a time.

    A notebook whose copy is still good (see `stamps`) is kept. A failing cell ends only its own notebook; the
    outcome tells of it.

    Args:
        profile: 'smoke', 'quick' or 'paper'.
        only: numbers of notebooks, "05" or "05,06"; None: all.
        jobs: notebooks at a time, all cores by default; also reaches the kernels, as REGNDE_JOBS.
        parameters: for every notebook, beside the profile.
        root: the bundle's folder.
        timeout: seconds for each cell; None: by profile.
        force: execute what could be kept, too.
        wait: while another process executes notebooks here, wait for its end.
        say: prints a line of progress.

    Raises:
        ValueError: before anything runs, for an unknown profile or number and for parameters that a notebook does
            not accept; Busy, which is one, if another process executes notebooks here.
    """
    if profile not in PROFILES:
        raise ParameterError(f"unknown profile {profile!r}; choose one of: {', '.join(PROFILES)}")
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"at least one job is needed, not {jobs}")
    if "profile" in (parameters or {}):
        raise ParameterError("the profile is not given as a parameter but by its own option")
    root = Path(root).resolve()
    sources = source_notebooks(root / "notebooks", only)
    if not sources:
        raise ValueError("the folder notebooks/ holds no notebook named like 05_spiral_ode.ipynb")
    given = {"profile": profile, **(parameters or {})}
    for source in sources:
        check_parameters(source, given)
    stamps.data_found()  # refuses a REGNDE_DATA that is no folder

    limit = CELL_SECONDS[profile] if timeout is None else timeout
    order = {"parameters": given, "timeout": limit, "jobs": jobs, "force": force}
    with alone(root, wait=wait, say=say):
        (root / "build" / profile / "notebooks").mkdir(parents=True, exist_ok=True)
        return _run_all(sources, order, root, say)


def _run_all(sources: list[Path], order: Mapping[str, Any], root: Path, say: Callable[[str], None]) -> list[Outcome]:
    workers: set[subprocess.Popen[str]] = set()
    pool = ThreadPoolExecutor(order["jobs"])
    try:
        futures = [pool.submit(_execute, source, order, root, workers, say) for source in sources]
        return [future.result() for future in futures]
    except BaseException:  # Ctrl-C: leave no kernel behind
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in list(workers):
            worker.terminate()
        raise
    finally:
        pool.shutdown()


def explain(outcome: Outcome) -> str:
    """Say in some lines which cell of a failed notebook failed, with its first lines and the error."""
    failure = outcome.failure
    if failure is None:
        return f"{outcome.name}: finished"
    place = "outside its cells" if failure.cell is None else f"cell {failure.cell}"
    lines = failure.source.splitlines()
    shown = [f"    | {line}" for line in lines[:8]] + (["    | ..."] if len(lines) > 8 else [])
    head = f"FAILED {outcome.name}, {place}: {failure.error}: {failure.message}"
    copy = [f"    the copy up to there: {outcome.copy}"] if outcome.copy else []
    return "\n".join([head, *shown, *copy])


def _execute(
    source: Path,
    order: Mapping[str, Any],
    root: Path,
    workers: set[subprocess.Popen[str]],
    say: Callable[[str], None],
) -> Outcome:
    """Keep one notebook's copy, or run it in a process of its own, so that none can harm another, and file the copy."""
    folder = Path("build") / order["parameters"]["profile"] / "notebooks"
    part, copy, failed = (folder / f"{source.stem}{end}.ipynb" for end in (".part", "", ".failed"))
    wanted = stamps.inputs(source, order["parameters"], root)
    if not order["force"] and stamps.holds(root / copy, wanted, root):
        say(f"kept   {source.stem}")
        return Outcome(source.stem, copy, 0.0, kept=True)
    for old in (part, copy.with_suffix(".provenance.json")):
        (root / old).unlink(missing_ok=True)
    say(f"start  {source.stem}")
    start = time.monotonic()
    commit = dict(zip(("commit", "dirty"), provenance.commit(root), strict=True))  # that it began with
    job = {**order, "source": f"notebooks/{source.name}", "part": str(part)}
    failure, told = _ask_worker(job, root, workers)
    seconds = time.monotonic() - start
    for old in (copy, failed):  # no copy of an earlier run beside this one
        (root / old).unlink(missing_ok=True)
    if failure is None:
        try:
            _file_copy(root, part, copy, _record(order, source.stem, wanted, told, seconds, root) | commit)
            say(f"done   {source.stem}  {seconds:.1f} s")
            return Outcome(source.stem, copy, seconds)
        except (OSError, ValueError) as error:  # a full disk, a row that cannot be read
            (root / copy).unlink(missing_ok=True)
            failure = Failure(type(error).__name__, str(error))
    begun = (root / part).exists()
    if begun:
        (root / part).replace(root / failed)
    say(f"FAILED {source.stem}  {seconds:.1f} s")
    return Outcome(source.stem, failed if begun else None, seconds, failure)


def _ask_worker(
    job: Mapping[str, Any], root: Path, workers: set[subprocess.Popen[str]]
) -> tuple[Failure | None, list[str]]:
    """Hand `job` to a new process (see `_work`); return what it answers and the files that the notebook told of."""
    own = {"OMP_NUM_THREADS": "1", "REGNDE_JOBS": str(job["jobs"]), "JUPYTER_PREFER_ENV_PATH": "1"}
    with tempfile.TemporaryDirectory() as folder:
        log_path, told_path = Path(folder, "log"), Path(folder, "artefacts")
        told_path.touch()
        with log_path.open("w", encoding="utf-8") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "reproduce.notebooks.runner"],
                cwd=root,
                env=os.environ | own | {"REGNDE_HOME": str(root), "REGNDE_ARTEFACTS": str(told_path)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        workers.add(worker)
        assert worker.stdin is not None  # a pipe, as asked for; it stays open while the worker should live
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.flush()
        worker.wait()
        worker.stdin.close()
        workers.discard(worker)
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        told = told_path.read_text(encoding="utf-8").splitlines()
    for line in reversed(lines):
        if line.startswith(RESULT):
            answer = json.loads(line.removeprefix(RESULT))
            return None if answer is None else Failure(**answer), told
    said = "\n".join(lines[-10:])
    return Failure("WorkerDied", f"the process that ran the notebook ended with {worker.returncode}\n{said}"), told


def _record(
    order: Mapping[str, Any], name: str, inputs: Mapping[str, Any], told: list[str], seconds: float, root: Path
) -> dict[str, Any]:
    """What made an executed copy: the rows behind it, and the stamp by which a later run knows it is still good."""
    stamp = {"inputs": inputs, "data": stamps.data_found(), "files": stamps.files(told, root)}
    behind = stamps.of_rows(stamp["files"], root)
    profile = order["parameters"]["profile"]
    return provenance.record(profile, **behind, seconds=seconds, root=root, notebook=name, stamp=stamp)


def _file_copy(root: Path, part: Path, copy: Path, record: dict[str, Any]) -> None:
    """Move a finished copy to its place in one step, with its final name and what made it in its metadata."""
    notebook = nbformat.read(root / part, as_version=4)
    notebook.metadata.papermill.output_path = str(copy)
    notebook.metadata["regnde"] = record
    write_atomically(root / copy, (nbformat.writes(notebook) + "\n").encode())
    provenance.beside(root / copy, record)
    (root / part).unlink()


def _work() -> None:
    """Execute the notebook that the first line of standard input describes; answer on standard output."""
    job = json.loads(sys.stdin.readline())
    # The runner holds the other end open: when it ends, however it ends, this process and its kernel end too.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    import papermill

    failure: Failure | None = None
    try:
        papermill.execute_notebook(
            job["source"],
            job["part"],
            parameters=job["parameters"],
            kernel_name="python3",
            language="python",
            progress_bar=False,
            log_output=False,
            start_timeout=120,
            execution_timeout=job["timeout"],
        )
    except papermill.PapermillExecutionError as error:
        failure = Failure(error.ename, ANSI.sub("", error.evalue), *_last_cell(Path(job["part"])))
    except Exception as error:  # a time limit, a kernel that died, no kernel at all
        message = ANSI.sub("", str(error)).partition("\n")[0]
        failure = Failure(type(error).__name__, message, *_last_cell(Path(job["part"])))
    print(RESULT + json.dumps(None if failure is None else vars(failure)), flush=True)


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
    _work()
