"""`make grade`: every submission once through the sandbox into the gradebook; killed in the middle, it goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from reproduce.files import write_atomically
from reproduce.grading import book, pages, sandbox
from reproduce.grading.classroom import LIMITS, Classroom, completed, handed_in, readable
from reproduce.grading.outputs import scored
from reproduce.grading.sandbox import Limits, Verdict

UNREADABLE = Verdict("unreadable", "there is no notebook, or it cannot be read as one", None, 0.0, 0.0, 0.0)
INPUT_BYTES = 5 * 2**20
"""Files beside a notebook are copied up to this size each."""


class TouchedError(RuntimeError):
    """A run changed something outside of its folder."""


@dataclass(frozen=True)
class Job:
    """One problem set being graded."""

    classroom: Classroom
    name: str
    submissions: Path
    python: str
    limits: Limits
    lock: threading.Lock
    """Around everything but the runs: the gradebook has one writer."""


def grade(
    classroom: Classroom,
    name: str,
    submissions: Path,
    *,
    python: str,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Grade a folder of submissions; return a result for each student, and write the table and the pages.

    A submission that was graded before, with the same files, master and limits, is kept.

    Raises:
        ValueError: the folder is wrong, or no release was made.
        TouchedError: a run changed the masters, the releases or the submissions; nothing more is graded.
    """
    if not classroom.release(name).is_file():
        raise ValueError(f"{name} was not released here: run `make assignments` first")
    students = handed_in(submissions, name)
    job = Job(classroom, name, submissions, python, LIMITS.get(name, Limits()), threading.Lock())
    todo = [student for student, path in students.items() if _kept(job, student, path) is None]
    say(f"{name}: {len(students)} submissions, {len(students) - len(todo)} kept, {len(todo)} to grade")
    say(sandbox.protection())
    sandbox.sweep()
    before = _guarded(job)
    with ThreadPoolExecutor(workers) as pool:
        runs = [pool.submit(_grade_one, job, student, students[student], before) for student in todo]
        for number, run in enumerate(runs, 1):
            try:
                say(f"{number}/{len(todo)}  {run.result()}")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return _written(job, sorted(students))


def _grade_one(job: Job, student: str, path: Path | None, before: dict[str, tuple[int, int, int]]) -> str:
    """Grade one submission; return a line about it."""
    classroom, name = job.classroom, job.name
    key, found = _key(job, path), readable(path)
    with job.lock:
        release = nbformat.read(classroom.release(name), as_version=4)
        notebook = completed(found if found is not None else release, release)
        _hand_in(classroom.submitted(name, student), notebook, path)
        notebook = book.prepared(classroom, name, student, notebook)
    folder = classroom.submitted(name, student).parent
    run = {"inputs": folder, "limits": job.limits, "python": job.python}
    verdict = UNREADABLE if found is None else sandbox.run(notebook, **run)  # type: ignore[arg-type]
    with job.lock:
        if changed := sorted(path for path, what in (before.items() ^ _guarded(job).items())):
            raise TouchedError(
                f"while {student} ran, these changed: {', '.join(changed[:5])}; find out why, restore them"
            )
        notebook = scored(notebook, verdict)
        write_atomically(classroom.autograded(name, student), (nbformat.writes(notebook) + "\n").encode())
        if verdict.status == "ok":
            book.enter(classroom, name, student, notebook)
        else:
            book.enter_zero(classroom, name, student)
        _record(job, student, key, verdict)
    return f"{student}: {verdict.reason or 'ran'} ({verdict.seconds:.0f} s, {verdict.memory_mb:.0f} MB)"


def _hand_in(target: Path, notebook: nbformat.NotebookNode, path: Path | None) -> None:
    """Put a submission where nbgrader expects it, with the small plain files beside it."""
    shutil.rmtree(target.parent, ignore_errors=True)
    write_atomically(target, (nbformat.writes(notebook) + "\n").encode())
    for other in _beside(path):
        shutil.copy(other, target.parent / other.name)


def _beside(path: Path | None) -> list[Path]:
    """Return the plain files beside a notebook that has a folder of its own."""
    if path is None or len(list(path.parent.glob("*.ipynb"))) > 1:
        return []
    plain = [other for other in sorted(path.parent.iterdir()) if other.is_file() and not other.is_symlink()]
    return [other for other in plain if other != path and other.stat().st_size <= INPUT_BYTES]


def _key(job: Job, path: Path | None) -> str:
    """A checksum of all that a grade depends on."""
    content = hashlib.sha256(job.classroom.master(job.name).read_bytes())
    content.update(json.dumps(asdict(job.limits)).encode())
    for part in [] if path is None else [path, *_beside(path)]:
        content.update(part.name.encode() + hashlib.sha256(part.read_bytes()).digest())
    return content.hexdigest()


def _kept(job: Job, student: str, path: Path | None) -> dict[str, Any] | None:
    record = job.classroom.record(job.name, student)
    if not record.is_file():
        return None
    found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return found if found["key"] == _key(job, path) else None


def _record(job: Job, student: str, key: str, verdict: Verdict) -> None:
    known = asdict(replace(verdict, notebook=None))
    del known["notebook"]
    rounded = {name: round(value, 1) if isinstance(value, float) else value for name, value in known.items()}
    when = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"set": job.name, "student": student, "key": key, "graded": when} | rounded
    write_atomically(job.classroom.record(job.name, student), (json.dumps(content, indent=1) + "\n").encode())


def _guarded(job: Job) -> dict[str, tuple[int, int, int]]:
    """What no run may change: masters, releases, submissions; path -> size, time of change, permissions."""
    places = (job.classroom.master(job.name).parent, job.classroom.home / "release", job.submissions)
    files = [path for place in places for path in place.rglob("*")]
    found = ((str(path), path.lstat()) for path in files)
    return {path: (stat.st_size if stat.st_nlink == 1 else 0, stat.st_mtime_ns, stat.st_mode) for path, stat in found}


def _written(job: Job, students: list[str]) -> list[dict[str, Any]]:
    """Write table and pages from the gradebook, in which a person may have changed points since; return the results."""
    classroom, name, results = job.classroom, job.name, []
    for student in students:
        result = json.loads(classroom.record(name, student).read_text(encoding="utf-8"))
        result["parts"] = [asdict(part) for part in book.parts(classroom, name, student)]
        result["points"] = sum(part["points"] for part in result["parts"])
        result["most"] = sum(part["most"] for part in result["parts"])
        notebook = nbformat.read(classroom.autograded(name, student), as_version=4)
        write_atomically(classroom.feedback(name, student), pages.feedback(result, notebook).encode())
        results.append(result)
    write_atomically(classroom.home / f"{name}.csv", pages.table(results).encode())
    write_atomically(classroom.home / f"{name}.html", pages.overview(name, results, sandbox.protection()).encode())
    return results
