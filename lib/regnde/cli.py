"""The command line that the Makefile calls: `python -m regnde.cli reproduce`, `plan`, `why` or `doctor`."""

from __future__ import annotations

import argparse
import ast
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from regnde import doctor, notebooks, provenance, stamps, store
from regnde.store import ROOT, results_folder, write_atomically

OK, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named by `arguments` (default: those of the process) and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except KeyboardInterrupt:
        print("regnde: interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED


def reproduce(options: argparse.Namespace) -> int:
    """Execute the notebooks, print and store the summary, and say what was made and where."""
    start = time.time()
    try:
        outcomes = notebooks.run(
            options.profile,
            only=options.only,
            jobs=options.jobs,
            parameters=dict(_assignment(text) for text in options.parameter),
            timeout=options.timeout,
            force=options.force,
            wait=options.wait,
        )
    except ValueError as error:  # found before anything ran
        print(f"regnde: {error}", file=sys.stderr)
        return BAD_USAGE
    except OSError as error:
        print(f"regnde: {error}; `make doctor` says more", file=sys.stderr)
        return FAILED

    failures = [notebooks.explain(outcome) for outcome in outcomes if outcome.failure]
    try:
        _write_summary(options.profile)
    except Exception as error:  # the report of the notebooks must still be printed
        failures.append(f"FAILED the summary of the results: {type(error).__name__}: {error}")
    print(_made(options.profile, outcomes, start), flush=True)  # before what goes to stderr
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    return FAILED if failures else OK


def plan(options: argparse.Namespace) -> int:
    """Print which runs of a profile are stored, which would be trained, and about how long that would take."""
    from regnde import runs, sweep

    try:
        print("\n".join(sweep.plan(runs.needed(options.profile), options.jobs or os.cpu_count() or 1)))
    except ValueError as error:
        print(f"regnde: {error}", file=sys.stderr)
        return BAD_USAGE
    return OK


def why(options: argparse.Namespace) -> int:
    """Print what changed since the stored row of a run was made."""
    from regnde import runs

    try:
        run = runs.find_run(options.run, options.profile)
        found = runs.status([run])
    except ValueError as error:
        print(f"regnde: {error}", file=sys.stderr)
        return BAD_USAGE
    if found.rows:
        print(f"{run.name}: its stored row is current ({_shown(store.path_of(found.rows[0]))})")
    elif found.stale:
        changes = "\n".join(f"  {line}" for line in runs.why(run, found.stale[0][1]))
        print(f"{run.name}: its stored row is stale; since it was made these changed:\n{changes}")
    else:
        print(f"{run.name}: no row is stored; `make reproduce PROFILE={run.profile}` trains it")
    return OK


def _write_summary(profile: str) -> None:
    """Print the summary, and store it with what made it; the files of an equal one are left as they are."""
    from regnde import runs, tables  # here, since PyTorch takes seconds

    found = runs.status(runs.needed(profile))
    missing, stale = [run.name for run in found.missing], [run.name for run, _ in found.stale]
    text = tables.summary(profile, found.rows, missing=missing, stale=stale).rstrip() + "\n"
    path = ROOT / "build" / profile / "summary.md"
    is_there = path.exists() and path.with_suffix(".provenance.json").exists()
    if not is_there or path.read_text(encoding="utf-8") != text:
        record = provenance.record(profile, **stamps.behind(found.rows), rows=sorted(row.key for row in found.rows))
        path.with_suffix(".provenance.json").unlink(missing_ok=True)
        write_atomically(path, text.encode())
        provenance.beside(path, record)
    print(f"\n{text}")


def _made(profile: str, outcomes: Sequence[notebooks.Outcome], start: float) -> str:
    """Say what a run that began at `start` (seconds since the epoch) left, and where."""
    finished = f"{sum(outcome.failure is None for outcome in outcomes)} of {len(outcomes)} finished"
    kept = f" ({n} kept)" if (n := sum(outcome.kept for outcome in outcomes)) else ""
    build, results = ROOT / "build" / profile, results_folder(profile)
    figures = [path for kind in ("png", "svg", "pdf") for path in (ROOT / "figures").rglob(f"*.{kind}")]
    lines = [
        f"profile {profile}, {time.time() - start:.0f} s:",
        f"  notebooks  {finished}{kept}, in {_shown(build / 'notebooks')}",
        f"  figures    {_count(figures, start)}, in {_shown(ROOT / 'figures')}",
        f"  rows       {_count(results.rglob('*.json'), start)}, in {_shown(results)}",
    ]
    if (build / "summary.md").exists():
        lines.append(f"  summary    {_shown(build / 'summary.md')}")
    return "\n".join(lines)


def _count(paths: Iterable[Path], start: float) -> str:
    times = [path.stat().st_mtime for path in paths]
    return f"{len(times)} ({sum(made >= start - 1 for made in times)} made now)"


def _shown(path: Path) -> str:
    return os.path.relpath(path, ROOT)


def _assignment(text: str) -> tuple[str, object]:
    """Split NAME=VALUE; a VALUE that is no Python literal is text."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise notebooks.ParameterError(f"a parameter is given as NAME=VALUE, not {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m regnde.cli", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("reproduce", help="run the notebooks, then summarize their results")
    command.add_argument("--profile", default="quick", help="smoke, quick (default) or paper")
    command.add_argument("--only", default="", help="numbers of the notebooks to run: 05 or 05,06 (default: all)")
    command.add_argument("--jobs", type=int, help="notebooks at a time (default: one for each core)")
    command.add_argument("--force", action="store_true", help="execute the notebooks that could be kept, too")
    command.add_argument("--wait", action="store_true", help="wait while another process reproduces in this clone")
    command.add_argument("--timeout", type=float, help="seconds for one cell (default: by profile)")
    command.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for every notebook run; repeatable",
    )
    command = commands.add_parser("plan", help="say what would be trained, and about how long it would take")
    command.add_argument("--profile", default="quick", help="smoke, quick (default) or paper")
    command.add_argument("--jobs", type=int, help="processes (default: one for each core)")
    command = commands.add_parser("why", help="say what changed since a run's stored row was made")
    command.add_argument("run", help="experiment/regularizer/seed, with @tolerance where there are several")
    command.add_argument("--profile", default="quick", help="smoke, quick (default) or paper")
    commands.add_parser("doctor", help="say whether this machine is ready, and what to do")
    return parser


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "reproduce": reproduce,
    "plan": plan,
    "why": why,
    "doctor": lambda options: doctor.main(),
}


if __name__ == "__main__":
    sys.exit(main())
