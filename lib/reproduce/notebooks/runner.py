"""Strict papermill runner: parameters checked before, finished notebooks kept, a failing cell named."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from reproduce import checkout
from reproduce.files import write_atomically
from reproduce.notebooks import stamps
from reproduce.notebooks.contract import ParameterError, check_parameters, experiments_named
from reproduce.notebooks.kernels import FEW, Forks, fixed
from reproduce.notebooks.lock import alone
from reproduce.notebooks.outcome import Failure, Outcome
from reproduce.notebooks.progress import Watch
from reproduce.notebooks.worker import RESULT, joined
from reproduce.runs import device, events, provenance
from reproduce.runs.store import PROFILES

REPORT = "13_report"
"""The notebook that reports on the others: executed after them, and always, since they may have made rows."""
CELL_SECONDS = {"smoke": 900, "quick": 7200, "paper": 7 * 86400}
"""A cell that takes longer hangs."""
SOURCE_NAME = re.compile(r"(\d\d)_\w+\.ipynb")
LINK_UP = re.compile(r"\]\((?=\.\./)")
"""Where the address of a link begins that leads out of the folder of the lessons."""
HEARING = 0.2
"""Seconds between two looks at what a notebook tells."""


@dataclass(frozen=True)
class Order:
    """How the notebooks of one call are executed."""

    root: Path
    profile: str
    jobs: int
    parameters: Mapping[str, object]
    """For every notebook, the profile among them."""
    timeout: float
    """Seconds for one cell."""
    force: bool
    """Execute what could be kept, too."""
    solutions: bool
    """Execute the solutions of the exercises and their checks, too."""
    watch: Watch
    kernels: Forks | None
    """Where kernels come from; None: each is a process of its own from the start."""
    workers: set[subprocess.Popen[str]] = field(default_factory=set)
    """Processes that execute a notebook now."""


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
    root: str | Path | None = None,
    timeout: float | None = None,
    force: bool = False,
    solutions: bool = False,
    wait: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Execute the notebooks of `root`/notebooks into `root`/build/`profile`/notebooks, `jobs` at a time.

    A notebook whose copy is still good (see `stamps`) is kept; the report comes last, and is never kept. A failing cell
    ends only its own notebook; the outcome tells of it. Training runs compute on the device of `device.asked`.

    Args:
        profile: 'smoke', 'quick' or 'paper'.
        only: numbers of notebooks, "05" or "05,06"; None: all.
        jobs: notebooks at a time, all cores by default; also reaches the kernels, as REGNDE_JOBS.
        parameters: for every notebook, beside the profile.
        root: the bundle's folder; None: this one's.
        timeout: seconds for each cell; None: by profile.
        force: execute what could be kept, too.
        solutions: execute the solutions of the exercises and their checks, too, which a reader's results do not need.
        wait: while another process executes notebooks here, wait for its end.
        say: prints a line of progress; None: see `progress.Watch`.

    Raises:
        ValueError: before anything runs, for an unknown profile or number, for a device that is not there and for
            parameters that a notebook does not accept; lock.Busy, which is one, if another process executes notebooks
            here.
    """
    if profile not in PROFILES:
        raise ParameterError(f"unknown profile {profile!r}; choose one of: {', '.join(PROFILES)}")
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"at least one job is needed, not {jobs}")
    if timeout is not None and not 0 < timeout < math.inf:
        raise ValueError(f"a time limit is a positive number of seconds, not {timeout:g}")
    if "profile" in (parameters or {}):
        raise ParameterError("the profile is not given as a parameter but by its own option")
    device.check(device.asked())
    root = Path(root or checkout.ROOT).resolve()
    sources = source_notebooks(root / "notebooks", only)
    if not sources:
        raise ValueError("the folder notebooks/ holds no notebook named like 05_spiral_ode.ipynb")
    given = {"profile": profile, **(parameters or {})}
    for source in sources:
        check_parameters(source, given)
    stamps.data_found()  # refuses a REGNDE_DATA that is no folder

    watch = Watch(len(sources), jobs, say)
    limit = CELL_SECONDS[profile] if timeout is None else timeout
    several = len(sources) >= FEW and sys.platform == "linux" and device.class_of(device.asked()) == "cpu"
    with alone(root, wait=wait, say=watch.line), watch, Forks(root) if several else nullcontext() as forks:
        order = Order(root, profile, jobs, given, limit, force, solutions, watch, forks)
        (root / "build" / profile / "notebooks").mkdir(parents=True, exist_ok=True)
        _count_runs(sources, order)
        others, reports = ([p for p in sources if (p.stem == REPORT) == is_report] for is_report in (False, True))
        return [*_run_all(others, order), *_run_all(reports, order)]


def _count_runs(sources: Sequence[Path], order: Order) -> None:
    """Find out beside the first notebooks which training runs they need: reading data and PyTorch takes seconds."""
    names = sorted({name for source in sources for name in experiments_named(source)})

    def count() -> None:
        from reproduce.runs.sweep import outstanding

        try:
            order.watch.needs(outstanding(order.profile, names))
        except Exception as error:  # the notebooks will meet it, too, and say where
            order.watch.line(f"the training runs could not be counted: {type(error).__name__}: {error}")

    if names and order.root == checkout.ROOT:
        threading.Thread(target=count, daemon=True).start()


def _run_all(sources: Sequence[Path], order: Order) -> list[Outcome]:
    """Execute notebooks, the last first: these train models and take long, so that short ones are left for the end."""
    pool = ThreadPoolExecutor(order.jobs)
    try:
        futures = {source: pool.submit(_execute, source, order) for source in reversed(sources)}
        return [futures[source].result() for source in sources]
    except BaseException:  # Ctrl-C: leave no kernel behind
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in list(order.workers):
            worker.terminate()
        raise
    finally:
        pool.shutdown()


def _execute(source: Path, order: Order) -> Outcome:
    """Keep one notebook's copy, or run it in a process of its own, so that none can harm another, and file the copy."""
    root, watch = order.root, order.watch
    folder = Path("build") / order.profile / "notebooks"
    part, copy, failed = (folder / f"{source.stem}{end}.ipynb" for end in (".part", "", ".failed"))
    wanted = stamps.inputs(source, order.parameters, root, solutions=order.solutions)
    if not order.force and source.stem != REPORT and stamps.holds(root / copy, wanted, root):
        watch.stopped(source.stem, "kept")
        return Outcome(source.stem, copy, 0.0, kept=True)
    for old in (part, part.with_suffix(".lesson.ipynb"), copy.with_suffix(".provenance.json")):
        (root / old).unlink(missing_ok=True)
    watch.started(source.stem)
    start = time.monotonic()
    commit = dict(zip(("commit", "dirty"), provenance.commit(root), strict=True))  # that it began with
    failure, files = _ask_worker(source, part, order)
    seconds = time.monotonic() - start
    for old in (copy, failed):  # no copy of an earlier run beside this one
        (root / old).unlink(missing_ok=True)
    if failure is None:
        try:
            _file_copy(root, part, copy, _record(order, source.stem, wanted, files, seconds) | commit)
            watch.stopped(source.stem, "done", seconds)
            return Outcome(source.stem, copy, seconds)
        except (OSError, ValueError) as error:  # a full disk, a row that cannot be read
            (root / copy).unlink(missing_ok=True)
            failure = Failure(type(error).__name__, str(error))
    begun = (root / part).exists()
    if begun:
        (root / part).replace(root / failed)
    watch.stopped(source.stem, "FAILED", seconds)
    return Outcome(source.stem, failed if begun else None, seconds, failure)


def _ask_worker(source: Path, part: Path, order: Order) -> tuple[Failure | None, list[str]]:
    """Have a new process (see `worker`) execute a notebook; return its failure, and the files that it told of.

    What it tells of training runs goes to the watch as it comes.
    """
    job: dict[str, Any] = {"source": f"notebooks/{source.name}", "part": str(part)}
    job |= {"parameters": dict(order.parameters), "solutions": order.solutions}
    own = fixed(order.root) | {"REGNDE_JOBS": str(order.jobs), "JUPYTER_PREFER_ENV_PATH": "1"}
    own |= order.kernels.environment() if order.kernels else {}
    with tempfile.TemporaryDirectory() as folder:
        log_path, told_path = Path(folder, "log"), Path(folder, "told")
        own[events.PLACE] = str(told_path)
        own["IPYTHONDIR"] = folder  # so no profile of the user's, which may name another backend or run code
        told_path.touch()
        with log_path.open("w", encoding="utf-8") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "reproduce.notebooks.worker"],
                cwd=order.root,
                env=os.environ | own,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        order.workers.add(worker)
        assert worker.stdin is not None  # a pipe, as asked for; it stays open while the worker should live
        worker.stdin.write(json.dumps(job | {"timeout": order.timeout}) + "\n")
        worker.stdin.flush()
        files = []
        for what in _heard(worker, told_path):
            order.watch.told(what)
            files += [what["file"]] if "file" in what else []
        worker.stdin.close()
        order.workers.discard(worker)
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in reversed(lines):
        if line.startswith(RESULT):
            answer = json.loads(line.removeprefix(RESULT))
            return None if answer is None else Failure(**answer), files
    said = "\n".join(lines[-10:])
    return Failure("WorkerDied", f"the process that ran the notebook ended with {worker.returncode}\n{said}"), files


def _heard(worker: subprocess.Popen[str], told_path: Path) -> Iterator[dict[str, Any]]:
    """Yield what the processes of a worker tell (see `runs.events`), as it comes, until the worker has ended."""
    with told_path.open(encoding="utf-8") as stream:
        beginning, ended = "", False
        while not ended:
            ended = worker.poll() is not None  # before the last look
            for line in stream:
                beginning += line
                if line.endswith("\n"):
                    yield json.loads(beginning)
                    beginning = ""
            if not ended:
                time.sleep(HEARING)


def _record(order: Order, name: str, inputs: Mapping[str, Any], files: list[str], seconds: float) -> dict[str, Any]:
    """What made an executed copy: the rows behind it, and the stamp by which a later run knows it is still good."""
    stamp = {"inputs": inputs, "data": stamps.data_found(), "files": stamps.files(files, order.root)}
    behind = stamps.of_rows(stamp["files"], order.root)
    return provenance.record(order.profile, **behind, seconds=seconds, root=order.root, notebook=name, stamp=stamp)


def relinked(text: str, folder: Path) -> str:
    """Return a lesson's text for a copy in a folder of the bundle: links to other files lead to the same ones."""
    return LINK_UP.sub(f"]({os.path.relpath('notebooks', folder)}/", text)


def _file_copy(root: Path, part: Path, copy: Path, record: dict[str, Any]) -> None:
    """Move a finished copy to its place in one step, with its final name and what made it in its metadata."""
    notebook = nbformat.read(root / part, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = relinked(cell.source, copy.parent)
        elif cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    notebook.metadata.papermill |= {"input_path": f"notebooks/{copy.name}", "output_path": str(copy)}
    notebook.metadata["regnde"] = record
    write_atomically(root / copy, (nbformat.writes(notebook) + "\n").encode())
    provenance.beside(root / copy, record)
    (root / part).unlink()
