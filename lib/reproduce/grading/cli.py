"""The two commands of a class, as `make assignments` and `make grade` call them, in the course's environment."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from reproduce import checkout
from reproduce.grading.classroom import Classroom, set_named
from reproduce.grading.grade import TouchedError, grade
from reproduce.grading.outputs import environment
from reproduce.grading.release import release
from reproduce.grading.sandbox import SandboxError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0, or 2 after a sentence that says what was wrong."""
    parser = argparse.ArgumentParser(prog="reproduce.grading")
    parser.add_argument("--home", type=Path, default=checkout.ROOT / "my_class", help="folder of the class")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("release")
    order = commands.add_parser("grade")
    order.add_argument("submissions", type=Path)
    order.add_argument("--set", default="1")
    order.add_argument("--workers", type=int, default=2)
    order.add_argument("--python", default=None, help="interpreter that submissions run in; default: .venv's")
    given = parser.parse_args(arguments)
    # nbgrader starts `alembic` by its bare name when it makes a gradebook.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    classroom, began = Classroom(checkout.ROOT, given.home.resolve()), time.monotonic()
    try:
        if given.command == "release":
            for path in release(classroom):
                print(f"released {path}")
        else:
            _grade(classroom, given)
    except (ValueError, SandboxError, TouchedError, RuntimeError) as error:
        print(f"grading: {error}", file=sys.stderr)
        return 2
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    return 0


def _grade(classroom: Classroom, given: argparse.Namespace) -> None:
    name = set_named(given.set)
    results = grade(
        classroom, name, given.submissions, python=given.python or environment(), workers=max(1, given.workers)
    )
    mean = sum(result["points"] for result in results) / len(results)
    print(f"{len(results)} graded, {mean:.1f} of {results[0]['most']:g} points in the mean")
    for kind in (".csv", ".html"):
        print(f"table     {classroom.home / (name + kind)}")
    print(f"feedback  {classroom.home / 'feedback' / name}")


if __name__ == "__main__":
    sys.exit(main())
