"""Forty submissions of problem set 1 that a class might hand in, with the grades that they should get.

    .venv-course/bin/python tests/forty.py --python .venv/bin/python --keep docs/instructors/measured_grading.json

makes them, kills the grader in the middle, starts it again, and compares; minutes. `make test` grades four of them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

LIB = Path(__file__).resolve().parents[1] / "lib"
SET = "set1_solver"
PARTS = ("step", "ratio", "size", "loop", "order")
FULL = (6.0, 3.0, 4.0, 5.0, 2.0)


@dataclass(frozen=True)
class Wanted:
    """A submission: which problems are solved, what is changed in the solution, and what it should get."""

    student: str
    points: tuple[float, ...]
    status: str = "ok"
    solved: frozenset[str] = frozenset(("p1", "p2", "p3", "p4", "p5"))
    changes: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    """Cell -> a whole new source."""


ZERO = (0.0,) * 5
MISTAKES = (
    # Changed, and what it costs: the parts in the order of PARTS.
    ({"f(t + ci * dt, ": "f(t, "}, (1, 3, 4, 3, 2)),
    ({"(bi - hi) * ki": "(hi - bi) * ki"}, (3, 3, 4, 5, 2)),
    ({"error = dt * sum": "error = sum"}, (3, 3, 4, 5, 2)),
    ({"np.sqrt(np.mean((error / scale) ** 2))": "np.mean(np.abs(error / scale))"}, (6, 1, 4, 5, 2)),
    ({"np.maximum(np.abs(y0), np.abs(y1))": "np.abs(y0)"}, (6, 0, 4, 5, 2)),
    ({"ratio ** (-1 / power)": "ratio ** (1 / power)"}, (6, 3, 1, 0, 2)),
    ({"0.9 * ratio": "ratio"}, (6, 3, 2, 5, 2)),
    ({"            rejected += 1\n": "            rejected += 1\n            t, y = t + dt, y1\n"}, (6, 3, 4, 4, 2)),
    ({"        dt = min(dt, t1 - t)\n": ""}, (6, 3, 4, 2, 2)),
    (
        {"3 * (len(starts) + rejected)": "3 * len(starts)", "for dt in sizes]) - 1": "for dt in sizes])"},
        (6, 3, 4, 4, 1),
    ),
)
HALVES = ("1", "12", "123", "2", "3", "23", "13", "1235", "15", "5")
LOOP = "def embedded_step(f, t, y, dt, a, b, b_hat, c):\n    pass\n\n\nwhile True:\n    pass\n"
STUBBORN = "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass\n"
HUNGRY = "hoard = []\nwhile True:\n    hoard.append('x' * 10**7)\n"
DESTROYER = """
import os, shutil
for place in ({outside!r}, os.path.expanduser('~'), os.getcwd()):
    shutil.rmtree(place, ignore_errors=True)
"""
"""The first is refused, without a word to its author; the others are its own folder."""


def forty(outside: str) -> list[Wanted]:
    """Return the class; `outside` is a folder that one of them tries to remove."""
    perfect = [Wanted(f"perfect{i:02d}", FULL) for i in range(10)]
    typical = [Wanted(f"typical{i:02d}", points, changes=changes) for i, (changes, points) in enumerate(MISTAKES)]
    half = [
        Wanted(f"half{i:02d}", _half(which), solved=frozenset(f"p{n}" for n in which)) for i, which in enumerate(HALVES)
    ]
    empty = [Wanted(f"empty{i:02d}", ZERO, solved=frozenset()) for i in range(3)]
    nothing = [Wanted(f"empty{i:02d}", ZERO, "unreadable") for i in range(3, 6)]
    bad = [
        Wanted("loop00", ZERO, "time", code={"p1": LOOP}),
        Wanted("loop01", ZERO, "time", code={"p4": STUBBORN}),
        Wanted("memory00", ZERO, "memory", code={"p2": HUNGRY}),
        Wanted("remover00", ZERO, "input", code={"p5": DESTROYER.format(outside=outside)}),
    ]
    return [*perfect, *half, *typical, *empty, *nothing, *bad]


def _half(which: str) -> tuple[float, ...]:
    """A problem that is solved gets its points; the measured order needs the step, the loop everything before it."""
    of = dict(zip("12345", FULL, strict=True))
    points = {n: of[n] if n in which else 0.0 for n in "12345"}
    if "5" in which and "1" not in which:
        points["5"] = 1.0
    return tuple(points[n] for n in "12345")


def hand_in(wanted: Wanted, *, master: Path, release: Path, folder: Path) -> None:
    """Write a submission as a student would have: the released notebook with answers in its cells."""
    if wanted.status == "unreadable":
        path = folder / wanted.student
        path.mkdir()
        if wanted.student != "empty05":
            (path / f"{SET}.ipynb").write_text("" if wanted.student == "empty03" else '{"cells": [')
        return
    solutions = {cell.metadata.nbgrader.grade_id: cell.source for cell in nbformat.read(master, 4).cells}
    notebook = nbformat.read(release, as_version=4)
    for cell in notebook.cells:
        name = cell.metadata.nbgrader.grade_id
        if not cell.metadata.nbgrader.solution:
            continue
        if name in wanted.code:
            cell.source = wanted.code[name]
        elif name in wanted.solved:
            cell.source = changed(solutions[name], wanted.changes)
    nbformat.write(notebook, folder / f"{wanted.student}.ipynb")


def changed(source: str, changes: Mapping[str, str]) -> str:
    """Return a solution with each change made where it fits."""
    for old, new in changes.items():
        source = source.replace(old, new)
    return source


def wrong(class_: list[Wanted], results: Path) -> Iterator[str]:
    """Yield a line for each grade that is not as expected."""
    import csv

    with results.open(encoding="utf-8") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    for wanted in class_:
        row = rows.pop(wanted.student, None)
        if row is None:
            yield f"{wanted.student}: no row"
            continue
        found = tuple(float(row[part]) for part in PARTS)
        if found != wanted.points or row["status"] != wanted.status:
            yield f"{wanted.student}: expected {wanted.points} {wanted.status}, found {found} {row['status']}"
    yield from (f"{student}: not handed in" for student in rows)


def measured(records: Path, *, minutes: float) -> dict[str, object]:
    """Return what a class took: minutes of the whole, and seconds, memory and disk of the runs that ended well."""
    used = [json.loads(path.read_text(encoding="utf-8")) for path in records.glob("*.json")]
    ran = [record for record in used if record["status"] == "ok"]
    return {
        "submissions": len(used),
        "minutes_in_all": round(minutes, 1),
        "workers": 2,
        "cores": os.cpu_count(),
        "load_at_the_end": round(os.getloadavg()[0], 1),
        "seconds_of_a_run_median": statistics.median(record["seconds"] for record in ran),
        "memory_mb_of_a_run_median": statistics.median(record["memory_mb"] for record in ran),
        "memory_mb_of_a_run_most": max(record["memory_mb"] for record in ran),
        "disk_mb_of_a_run_most": max(record["disk_mb"] for record in ran),
        "stopped": {record["student"]: record["reason"] for record in used if record["status"] != "ok"},
    }


def main() -> int:
    """Make, grade, kill, grade again, compare; return the number of wrong grades."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default=".venv/bin/python")
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("--keep", type=Path, default=None, help="file for what was measured")
    given = parser.parse_args()
    home = given.home or Path(tempfile.mkdtemp(prefix="forty-"))
    classroom, folder, outside = home / "class", home / "handed_in", home / "outside"
    command = [sys.executable, "-m", "reproduce.grading.cli", "--home", str(classroom)]
    environment = os.environ | {"PYTHONPATH": str(LIB)}
    subprocess.run([*command, "release"], check=True, env=environment)
    folder.mkdir()
    outside.mkdir()
    (outside / "canary").write_text("alive")
    class_, root = forty(str(outside)), LIB.parent
    for wanted in class_:
        master = root / "course" / SET / f"{SET}.ipynb"
        hand_in(wanted, master=master, release=classroom / "release" / SET / f"{SET}.ipynb", folder=folder)
    grade = [*command, "grade", str(folder), "--python", str(Path(given.python).absolute())]
    records, began = classroom / "results" / SET, time.monotonic()
    process = subprocess.Popen(grade, env=environment, start_new_session=True)
    while process.poll() is None and len(list(records.glob("*.json"))) < 12:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in records.glob("*.json")}
    print(f"killed after {len(kept)} of {len(class_)}, {time.monotonic() - began:.0f} s", flush=True)
    subprocess.run(grade, check=True, env=environment)
    minutes = (time.monotonic() - began) / 60
    again = [path.stem for path, when in kept.items() if path.stat().st_mtime_ns != when]
    faults = [*wrong(class_, classroom / f"{SET}.csv"), *(f"{name}: graded twice" for name in again)]
    if (outside / "canary").read_text() != "alive":
        faults.append("the canary outside is gone")
    print("\n".join(faults) or "every grade as expected, nothing outside touched, the graded ones kept")
    found = measured(records, minutes=minutes)
    print(json.dumps(found, indent=1))
    if given.keep is not None and not faults:
        given.keep.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return len(faults)


if __name__ == "__main__":
    sys.exit(main())
