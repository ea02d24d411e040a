"""The command line behind the Makefile: `python -m reproduce.cli reproduce`, `report`, `plan`, `why` or `doctor`."""

from __future__ import annotations

import argparse
import ast
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from reproduce import checkout, doctor
from reproduce.notebooks import runner as notebooks
from reproduce.notebooks import stamps
from reproduce.runs import provenance, store
from reproduce.runs.store import results_folder, write_atomically

OK, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
REPORT = "12_report"
"""The notebook that reports on the others, and so runs after them, whenever they do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named by `arguments` (default: those of the process) and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except KeyboardInterrupt:
        print("regnde: interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED


def reproduce(options: argparse.Namespace) -> int:
    """Execute the notebooks, then the report, print and store the summary, and say what was made and where."""
    start = time.time()
    commit = provenance.commit(checkout.ROOT)
    try:
        outcomes = _run_notebooks(options)
    except ValueError as error:  # found before anything ran
        print(f"regnde: {error}", file=sys.stderr)
        return BAD_USAGE
    except OSError as error:
        print(f"regnde: {error}; `make doctor` says more", file=sys.stderr)
        return FAILED

    failures = [notebooks.explain(outcome) for outcome in outcomes if outcome.failure]
    try:
        rows = _write_summary(options.profile)
        _write_page(options.profile)
        if not failures:
            _write_time(options, outcomes, rows, start, commit)
    except Exception as error:  # the report of the notebooks must still be printed
        failures.append(f"FAILED the summary of the results: {type(error).__name__}: {error}")
    print(_made(options.profile, outcomes, start), flush=True)  # before what goes to stderr
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    return FAILED if failures else OK


def _run_notebooks(options: argparse.Namespace) -> list[notebooks.Outcome]:
    """Execute the notebooks asked for, and after them the report, always: the others may have made rows."""
    given = dict(_assignment(text) for text in options.parameter)
    how = {"jobs": options.jobs, "parameters": given, "timeout": options.timeout, "wait": options.wait}
    sources = notebooks.source_notebooks(checkout.ROOT / "notebooks", options.only)
    others = [path.name[:2] for path in sources if path.stem != REPORT]
    if len(others) == len(sources):
        return notebooks.run(options.profile, only=options.only, force=options.force, **how)
    for path in sources:  # before the first of the two runs
        notebooks.check_parameters(path, {"profile": options.profile, **given})
    made = notebooks.run(options.profile, only=",".join(others), force=options.force, **how) if others else []
    return [*made, *notebooks.run(options.profile, only=REPORT[:2], force=True, **how)]


def report(options: argparse.Namespace) -> int:
    """Make the report from the rows that are stored; with --keep, first copy them to the committed ones."""
    from reproduce.report import evidence, front
    from reproduce.runs import run as runs

    try:
        if options.keep:
            kept = evidence.keep(options.profile, evidence.wanted(runs.needed(options.profile)))
            where = _shown(evidence.kept_folder(options.profile))
            print(f"{len(kept.found())} of {len(kept.wanted)} rows kept in {where}; commit them")
        [outcome] = notebooks.run(options.profile, only=REPORT[:2], jobs=1, force=True, wait=options.wait)
    except ValueError as error:
        print(f"regnde: {error}", file=sys.stderr)
        return BAD_USAGE
    _write_page(options.profile)
    if outcome.failure:
        print(notebooks.explain(outcome), file=sys.stderr)
        return FAILED
    print(f"the report: {_shown(_page(options.profile))}")
    if front.update():
        print("README.md: the generated block is new; commit it")
    return OK


def _page(profile: str) -> Path:
    return checkout.ROOT / "build" / profile / f"{REPORT}.html"


def _write_page(profile: str) -> None:
    """Write the executed report as one HTML file; where there is none, leave none of an earlier run."""
    copy = checkout.ROOT / "build" / profile / "notebooks" / f"{REPORT}.ipynb"
    if not copy.exists():
        _page(profile).unlink(missing_ok=True)
        return
    import nbformat

    from reproduce.report.page import page

    write_atomically(_page(profile), page(nbformat.read(copy, as_version=4)).encode())


def _write_time(
    options: argparse.Namespace,
    outcomes: Sequence[notebooks.Outcome],
    rows: Sequence[store.Row],
    start: float,
    commit: tuple[str, bool],
) -> None:
    """Write into README.md how long this run took, if it was a whole one: everything executed, every row made in it."""
    began = datetime.fromtimestamp(int(start), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    is_part = options.only or options.parameter or any(outcome.kept for outcome in outcomes)
    if is_part or not rows or any(str(row.provenance.get("made", "")) < began for row in rows):
        return
    from reproduce.report import front

    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = commit[0][:7] + ("-dirty" if commit[1] else "")
    time_taken = front.Time((time.time() - start) / 60, min(options.jobs or here, here), name, began[:10])
    if front.update({options.profile: time_taken}):
        print(f"README.md: a whole run of profile {options.profile} took {time_taken.minutes:.1f} min")


def plan(options: argparse.Namespace) -> int:
    """Print which runs of a profile are stored, which would be trained, and about how long that would take."""
    from reproduce.runs import run as runs
    from reproduce.runs import sweep

    try:
        print("\n".join(sweep.plan(runs.needed(options.profile), options.jobs or os.cpu_count() or 1)))
    except ValueError as error:
        print(f"regnde: {error}", file=sys.stderr)
        return BAD_USAGE
    return OK


def why(options: argparse.Namespace) -> int:
    """Print what changed since the stored row of a run was made."""
    from reproduce.runs import run as runs

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


def _write_summary(profile: str) -> list[store.Row]:
    """Print the summary, and store it with what made it; the files of an equal one are left as they are.

    Returns the rows that it tells of.
    """
    from reproduce.report import tables  # here, since PyTorch takes seconds
    from reproduce.runs import run as runs  # here, since PyTorch takes seconds

    found = runs.status(runs.needed(profile))
    missing, stale = [run.name for run in found.missing], [run.name for run, _ in found.stale]
    text = tables.summary(profile, found.rows, missing=missing, stale=stale).rstrip() + "\n"
    path = checkout.ROOT / "build" / profile / "summary.md"
    is_there = path.exists() and path.with_suffix(".provenance.json").exists()
    if not is_there or path.read_text(encoding="utf-8") != text:
        record = provenance.record(profile, **stamps.behind(found.rows), rows=sorted(row.key for row in found.rows))
        path.with_suffix(".provenance.json").unlink(missing_ok=True)
        write_atomically(path, text.encode())
        provenance.beside(path, record)
    print(f"\n{text}")
    return found.rows


def _made(profile: str, outcomes: Sequence[notebooks.Outcome], start: float) -> str:
    """Say what a run that began at `start` (seconds since the epoch) left, and where."""
    finished = f"{sum(outcome.failure is None for outcome in outcomes)} of {len(outcomes)} finished"
    kept = f" ({n} kept)" if (n := sum(outcome.kept for outcome in outcomes)) else ""
    build, results = checkout.ROOT / "build" / profile, results_folder(profile)
    figures = [path for kind in ("png", "svg", "pdf") for path in (checkout.ROOT / "figures").rglob(f"*.{kind}")]
    lines = [
        f"profile {profile}, {time.time() - start:.0f} s:",
        f"  notebooks  {finished}{kept}, in {_shown(build / 'notebooks')}",
        f"  figures    {_count(figures, start)}, in {_shown(checkout.ROOT / 'figures')}",
        f"  rows       {_count(results.rglob('*.json'), start)}, in {_shown(results)}",
    ]
    if (build / "summary.md").exists():
        lines.append(f"  summary    {_shown(build / 'summary.md')}")
    if _page(profile).exists():
        lines.append(f"  report     {_shown(_page(profile))}")
    return "\n".join(lines)


def _count(paths: Iterable[Path], start: float) -> str:
    times = [path.stat().st_mtime for path in paths]
    return f"{len(times)} ({sum(made >= start - 1 for made in times)} made now)"


def _shown(path: Path) -> str:
    return os.path.relpath(path, checkout.ROOT)


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
    parser = argparse.ArgumentParser(prog="python -m reproduce.cli", description=__doc__)
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
    command = commands.add_parser("report", help="make the report from the stored rows")
    command.add_argument("--profile", default="quick", help="smoke, quick (default) or paper")
    command.add_argument("--keep", action="store_true", help="first copy the rows to data/reference/measured/")
    command.add_argument("--wait", action="store_true", help="wait while another process reproduces in this clone")
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
    "report": report,
    "plan": plan,
    "why": why,
    "doctor": lambda options: doctor.main(),
}


if __name__ == "__main__":
    sys.exit(main())
