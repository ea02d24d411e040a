"""Shared by the benchmarks: alternating repetitions and their medians, machine facts, tables and JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from reproduce.runs import provenance

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "bench"
PACKAGES = ("torch", "torchdiffeq", "torchsde", "numpy", "torchode", "jax", "jaxlib", "diffrax", "equinox")
"""Whose versions are told, where they were used."""


def load() -> list[float] | None:
    """Return the machine's load over 1, 5 and 15 minutes: at most 1 for each core says that nobody waited."""
    return [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None


BEFORE = {"load_before": load(), "commit": provenance.commit(ROOT)}


def alternate(
    contenders: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    min_rounds: int = 5,
    max_rounds: int = 400,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Run all contenders in turn, again and again, and return the milliseconds of each round.

    The first round warms up and is not counted. Rounds go on until `seconds` are spent, but `min_rounds` at least.
    `clock=time.process_time` measures processor time: for one thread the time on the wall of a machine that does
    nothing else. On a busy one, only what takes longer than a time slice would be charged with other work.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    start = time.perf_counter()
    for done in range(max_rounds + 1):
        if done > min_rounds and time.perf_counter() - start > seconds:
            break
        for name, run in contenders.items():
            before = clock()
            run()
            times[name].append(1e3 * (clock() - before))
    return {name: values[1:] for name, values in times.items()}


def speedup(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the median over rounds of slow / fast: neighbours in time, so that noise hits both."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def machine() -> dict[str, Any]:
    """Return what a reader needs to know about where this was measured."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if name in sys.modules}
    commit, dirty = BEFORE["commit"]  # type: ignore[misc]
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": BEFORE["load_before"],
        "load_average": load(),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit[:7] + (" (changed)" if dirty else ""),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **versions,
    }


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def options(doc: str, *, seconds: float | None = None) -> argparse.Namespace:
    """Read the command line, and set one thread; without `seconds` there is no such option."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    if seconds is not None:
        help_ = f"time for one measurement (one case, one mode); {seconds:g} by default"
        parser.add_argument("--seconds", type=float, default=seconds, help=help_)
    torch.set_num_threads(1)
    return parser.parse_args()


def report(name: str, text: str, results: Mapping[str, Any]) -> None:
    """Print a report, and write it to build/bench/<name>.md, with its numbers to build/bench/<name>.json."""
    facts = machine()
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps({"machine": facts, **results, "text": text}, indent=1) + "\n", encoding="utf-8")
    page = f"{text}\n\n{measured_on(facts)}\n"
    path.with_suffix(".md").write_text(page, encoding="utf-8")
    print(f"{page}Numbers: {path.relative_to(ROOT)}\n")


def measured_on(facts: Mapping[str, Any]) -> str:
    """Return the facts about a machine as a sentence."""
    return f"Measured on: {', '.join(f'{key} {value}' for key, value in facts.items() if key != 'platform')}."
