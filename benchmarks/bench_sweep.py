"""Sweeps over 1, 2 and 4 Dask workers on this machine: how much faster, and how far from ideal."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    folder = tempfile.TemporaryDirectory()
    os.environ["REGNDE_HOME"] = folder.name  # before the library is imported: rows of their own

from _timing import options, report, table
from distributed import LocalCluster

from reproduce.runs import sweep
from reproduce.runs.run import Run

WORKERS = (1, 2, 4)
TRAINING = {"steps": 60, "history_every": 30}


def seconds(workers: int, round_: int) -> float:
    """Return the wall seconds of eight equal runs on so many workers, which have run once before."""
    runs = [Run("spiral_ode", "none", seed, "smoke", overrides=TRAINING | {"lr": 1e-3 * round_}) for seed in range(8)]
    warm = [Run("spiral_ode", "none", seed, "smoke", overrides={"steps": 1, "lr": 1e-3 * round_}) for seed in range(8)]
    with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster:
        os.environ["DASK_SCHEDULER"] = cluster.scheduler_address
        for some in (warm, runs):
            start = time.perf_counter()
            sweep.sweep(some)
            taken = time.perf_counter() - start
    return taken


def main() -> None:
    options(__doc__ or "")
    taken = {workers: seconds(workers, i) for i, workers in enumerate(WORKERS, start=1)}
    lines = []
    for workers, value in taken.items():
        faster, cores = taken[WORKERS[0]] / value, min(workers, os.cpu_count() or 1)
        lines.append(
            [f"{workers}", f"{value:.1f}", f"{faster:.2f}x", f"{faster / workers:.0%}", f"{faster / cores:.0%}"]
        )
    found = table(["workers", "seconds", "speed-up", "efficiency per worker", "efficiency per core"], lines)
    about = f"Eight runs of {TRAINING['steps']} steps each, {os.cpu_count()} cores."
    report("sweep", f"## Sweeps\n\n{about}\n\n{found}", {"seconds": taken})


if __name__ == "__main__":
    print(f"rows go to {Path(folder.name).name} and are deleted", file=sys.stderr)
    main()
