"""The commands behind the Makefile: `python -m reproduce.cli reproduce`, `report`, `study`, `why`, and others."""

from __future__ import annotations

import argparse
import ast
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from reproduce import checkout, doctor
from reproduce.notebooks import runner, workbook
from reproduce.notebooks.contract import ParameterError
from reproduce.notebooks.outcome import Outcome, explain
from reproduce.report import front, output, publish
from reproduce.runs import device, provenance, store

OK, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named by `arguments` (default: those of the process) and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        with device.asking(getattr(options, "device", None)):
            return COMMANDS[options.command](options)
    except KeyboardInterrupt:
        print("regnde: interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED
    except ValueError as error:  # found before anything ran
        print(f"regnde: {error}", file=sys.stderr)
        return BAD_USAGE
    except OSError as error:
        print(f"regnde: {error}; `make doctor` says more", file=sys.stderr)
        return FAILED


def reproduce(options: argparse.Namespace) -> int:
    """Execute the notebooks, print and store the summary, and say what was made and where."""
    start, commit = time.time(), provenance.commit()
    if options.keep and options.profile == "smoke":
        raise ValueError("what a smoke run leaves shows nothing and is not kept; keep 'quick' or 'paper'")
    if options.keep and device.asked() != "cpu":
        raise ValueError(publish.CPU_ONLY)
    outcomes = runner.run(
        options.profile,
        only=options.only,
        jobs=options.jobs,
        parameters=dict(_assignment(text) for text in options.parameter),
        timeout=options.timeout,
        force=options.force,
        solutions=options.solutions,
        wait=options.wait,
    )
    failures = [explain(outcome) for outcome in outcomes if outcome.failure]
    try:
        text, rows = output.write_summary(options.profile)
        print(f"\n{text}")
        output.write_page(options.profile)
        if not failures and _is_whole(options, outcomes, rows, start):
            _note_time(options, start, commit)
    except Exception as error:  # the report of the notebooks must still be printed
        failures.append(f"FAILED the summary of the results: {type(error).__name__}: {error}")
    print(output.made(options.profile, _in_words(outcomes), since=start, now=time.time()), flush=True)
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    if failures:
        return FAILED
    return report(options) if options.keep else OK


def report(options: argparse.Namespace) -> int:
    """Make the report from the rows that are stored; with --keep, have git see pictures and README block."""
    [outcome] = runner.run(options.profile, only=runner.REPORT[:2], jobs=1, wait=options.wait)
    output.write_page(options.profile)
    if outcome.failure:
        print(explain(outcome), file=sys.stderr)
        return FAILED
    print(f"the report: {output.shown(output.page_path(options.profile))}")
    if options.keep:
        from reproduce.site.kept import keep

        print(publish.pictures(options.profile))
        print(keep(options.profile), publish.readme(), "commit what changed", sep="\n")
    return OK


def _is_whole(
    options: argparse.Namespace, outcomes: Sequence[Outcome], rows: Sequence[store.Row], start: float
) -> bool:
    """Whether a run was a whole one and no more: every notebook executed, no solutions, every row made in it."""
    began = _moment(start)
    is_other = options.only or options.parameter or options.solutions or any(outcome.kept for outcome in outcomes)
    return not is_other and bool(rows) and all(str(row.provenance.get("made", "")) >= began for row in rows)


def _note_time(options: argparse.Namespace, start: float, commit: tuple[str, bool]) -> None:
    """Note how long a whole run took; KEEP=1 brings it into the README."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = commit[0][:7] + ("-dirty" if commit[1] else "")
    cores = min(options.jobs or here, here)
    front.note_time(options.profile, front.Time((time.time() - start) / 60, cores, name, _moment(start)[:10]))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _in_words(outcomes: Sequence[Outcome]) -> str:
    finished = f"{sum(outcome.failure is None for outcome in outcomes)} of {len(outcomes)} finished"
    kept = sum(outcome.kept for outcome in outcomes)
    return finished + (f" ({kept} kept)" if kept else "")


def plan(options: argparse.Namespace) -> int:
    """Print which runs of a profile are stored, which would be trained, and about how long that would take."""
    from reproduce.runs import run, sweep  # here, as below, since PyTorch takes seconds

    print("\n".join(sweep.plan(run.needed(options.profile), options.jobs or os.cpu_count() or 1)))
    return OK


def why(options: argparse.Namespace) -> int:
    """Print what changed since the stored row of a run was made."""
    from reproduce.runs.run import find_run, status
    from reproduce.runs.run import why as changes

    run = find_run(options.run, options.profile)
    found = status([run])
    if found.rows:
        print(f"{run.name}: its stored row is current ({output.shown(store.path_of(found.rows[0]))})")
    elif found.stale:
        lines = "\n".join(f"  {line}" for line in changes(run, found.stale[0][1]))
        print(f"{run.name}: its stored row is stale; since it was made these changed:\n{lines}")
    else:
        print(f"{run.name}: no row is stored; `make reproduce PROFILE={run.profile}` trains it")
    return OK


def study(options: argparse.Namespace) -> int:
    """Train what a stage of the protocol lists and is not stored, note what its ladders choose, and keep the rows."""
    from reproduce.runs import choose, committed, first_step, protocol, sweep

    stages = [*protocol.STAGES, store.FIRST_STEP]
    if options.stage not in stages:
        raise ValueError(f"unknown stage {options.stage!r}; choose one of {stages}, in this order")
    names = _of_study(options.only)
    if options.stage == store.FIRST_STEP:
        first_step.study(names, options.jobs or sweep.jobs_here(), keeps=options.keep)
        return OK
    choose.check_stage(options.stage, names)
    for name in names:
        runs = protocol.STAGES[options.stage](name)
        try:
            sweep.sweep(runs, jobs=options.jobs)
        finally:  # also of a run that is stopped
            kept = committed.keep(options.stage, name, runs) if options.keep else 0
        chosen = "; its ladders choose anew" if choose.update([name]) else ""
        print(
            f"{options.stage} of {name}: {len(runs)} rows, {kept} of them new in {store.COMMITTED}{chosen}", flush=True
        )
    return OK


def restore(options: argparse.Namespace) -> int:
    """Bring the committed rows of the study whose key is still right into this machine's results."""
    from reproduce.runs import committed

    brought, stale = committed.restore(_of_study(options.only))
    print(f"{brought} rows brought; {stale} have another key by now and stay where they are")
    return OK


def _of_study(only: str) -> list[str]:
    """Return the experiments of the protocol that were asked for, or all."""
    from reproduce.runs import protocol

    asked = [name for name in only.split(",") if name]
    if wrong := set(asked) - set(protocol.names()):
        raise ValueError(f"unknown experiments {sorted(wrong)}; the study has {protocol.names()}")
    return asked or protocol.names()


def site(options: argparse.Namespace) -> int:
    """Bring the sources of the site's pages to where Sphinx reads them, for `make site`."""
    from reproduce.site.kept import without_outputs
    from reproduce.site.stage import stage

    folder = stage(None if options.kept else options.profile, only=options.only)
    whose = "outputs that git tracks" if options.kept else f"the executed notebooks of profile {options.profile}"
    print(f"the site's sources, from {whose}: {output.shown(folder)}", flush=True)
    if options.kept and (bare := [path.stem for path in without_outputs()]):
        print(f"without outputs, since none are kept: {', '.join(bare)}", flush=True)
    return OK


def lab(options: argparse.Namespace) -> int:
    """Bring the reader's copies of the lessons up to date, for `make lab`."""
    from reproduce.course.versions import student_bytes

    for line in workbook.update(checkout.ROOT, version=student_bytes):
        print(line)
    return OK


def course(options: argparse.Namespace) -> int:
    """Make the lessons for students, with solutions, and for instructors."""
    from reproduce.course.make import make

    for line in make(checkout.ROOT, only=options.only):
        print(line, flush=True)
    return OK


def _assignment(text: str) -> tuple[str, object]:
    """Split NAME=VALUE; a VALUE that is no Python literal is text."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise ParameterError(f"a parameter is given as NAME=VALUE, not {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reproduce.cli", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, does: str, *options: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=does)
        if "profile" in options:
            made.add_argument("--profile", default="quick", help="smoke, quick (default) or paper")
        if "device" in options:
            helped = f"{', '.join(device.CHOICES)} (default: ${device.PLACE}, else cpu)"
            made.add_argument("--device", help=helped)
        if "jobs" in options:
            made.add_argument("--jobs", type=int, help="processes (default: one for each core)")
        if "keep" in options:
            made.add_argument("--keep", action="store_true", help="copy pictures and times to what git tracks")
            made.add_argument("--wait", action="store_true", help="wait while another process reproduces in this clone")
        return made

    made = command("reproduce", "run the notebooks, then summarize their results", "profile", "device", "jobs", "keep")
    made.add_argument("--only", default="", help="numbers of the notebooks to run: 05 or 05,06 (default: all)")
    made.add_argument("--force", action="store_true", help="execute the notebooks that could be kept, too")
    made.add_argument("--solutions", action="store_true", help="execute the solutions of the exercises, too")
    made.add_argument("--timeout", type=float, help="seconds for one cell (default: by profile)")
    helped = "for every notebook run; repeatable"
    made.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help=helped)
    command("report", "make the report from the stored rows", "profile", "device", "keep")
    command("plan", "say what would be trained, and about how long it would take", "profile", "device", "jobs")
    made = command("study", "train what PROTOCOL.md lists and is not stored", "jobs")
    made.add_argument("stage", help="rates, ladders, study, ablation, published or first_step; needs those before it")
    made.add_argument("--only", default="", help="experiments, separated by commas (default: all)")
    made.add_argument("--keep", action="store_true", help="copy the rows to what git tracks")
    made = command("restore", "bring committed rows of the study into this machine's results")
    made.add_argument("--only", default="", help="experiments, separated by commas (default: all)")
    made = command("why", "say what changed since a run's stored row was made", "profile", "device")
    made.add_argument("run", help="experiment/regularizer/seed, with @tolerance where there are several")
    made = command("site", "bring the sources of the site's pages to where Sphinx reads them", "profile")
    made.add_argument("--only", default="", help="numbers of the lessons to show: 05 or 05,06 (default: all)")
    made.add_argument("--kept", action="store_true", help="from the outputs that git tracks, not those of a profile")
    command("lab", "bring the reader's copies of the lessons up to date")
    made = command("course", "make the lessons for students, with solutions, and for instructors")
    made.add_argument("--only", default="", help="numbers of the lessons: 05 or 05,06 (default: all)")
    command("doctor", "say whether this machine is ready, and what to do")
    return parser


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "reproduce": reproduce,
    "report": report,
    "plan": plan,
    "study": study,
    "restore": restore,
    "why": why,
    "site": site,
    "lab": lab,
    "course": course,
    "doctor": lambda options: doctor.main(),
}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # this process counts beside those that train
    sys.exit(main())
