"""Which weight and which draw of `LocalPenalty` work untuned: programs that it may help, and some that it should not.

Each program is trained plainly, and from the same seeds (parameters and batches) with weights that are a share of the
mean loss in the first ten steps of the plain run. Evaluations (for one solve) and loss are those of one held-out
batch without the penalty, means over the last fifth of training and over seeds. Cheap fields are easy to have early
in training; so a penalized run is also held against the plain run at equal loss: against the evaluations that it
needed when its held-out loss first was as low as the one that the penalized run ends with.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from _timing import OUT, report, table
from _weight_programs import PROGRAMS, Program, Solver
from torchdiffeq import odeint

from regnde import LocalPenalty
from reproduce import checkout
from reproduce.runs import provenance

TRIED = tuple((draw, share) for draw in ("biased", "unbiased") for share in (0.01, 0.03, 0.1, 0.3))
FIRST, LOOKS = 10, 25
KEPT = checkout.ROOT / "data" / "reference" / "measured" / "dropin_weights.json"
BY_SEED = "nfe", "loss", "nfe_plain", "loss_plain"
Run = dict[str, list[float]]


def train(make: Callable[[], Program], seed: int, steps: int, *, weight: float = 0.0, sampling: str = "biased") -> Run:
    """Train a program; return its training losses, and what it looked like on held-out data, at `LOOKS` moments."""
    torch.manual_seed(seed)
    program, local = make(), LocalPenalty(rng=torch.Generator().manual_seed(seed), sampling=sampling)
    solve, plain = Solver(local.odeint if weight else odeint), Solver(odeint)
    optimizer = torch.optim.Adam(program.parameters(), lr=program.lr)
    run: Run = {"trained": [], "loss": [], "nfe": []}
    for step in range(steps):
        loss = program.loss(solve, torch.Generator().manual_seed(1000 * seed + step), 64)
        run["trained"].append(loss.item())
        optimizer.zero_grad()
        (loss + weight * local.penalty() if weight else loss).backward()
        optimizer.step()
        if (step + 1) * LOOKS // steps > step * LOOKS // steps:
            plain.nfe = plain.solves = 0
            with torch.no_grad():
                run["loss"].append(program.loss(plain, torch.Generator().manual_seed(10**6), 256).item())
            run["nfe"].append(plain.nfe / plain.solves)
    return run


def end(run: Run) -> tuple[float, float]:
    """Return (evaluations, loss), means over the last fifth of training."""
    return mean(run["nfe"][-LOOKS // 5 :]), mean(run["loss"][-LOOKS // 5 :])


def at_equal_loss(plain: Run, loss: float) -> float:
    """Return what the plain run needed when it first had a loss; if it never had, what it needs at its end."""
    reached = (nfe for nfe, found in zip(plain["nfe"], plain["loss"], strict=True) if found <= loss)
    return min(next(reached, end(plain)[0]), end(plain)[0])


def compared(program: str, make: Callable[[], Program], steps: int, seeds: range) -> Iterator[dict[str, Any]]:
    """Yield one row for each draw and share; `paid` is the loss lost, as a share of what the plain run learned."""
    plain = [train(make, seed, steps) for seed in seeds]
    first = [mean(run["trained"][:FIRST]) for run in plain]
    for sampling, share in TRIED:
        runs = [
            train(make, seed, steps, weight=share * abs(loss), sampling=sampling)
            for seed, loss in zip(seeds, first, strict=True)
        ]
        ends, before = [end(run) for run in runs], [end(run) for run in plain]
        nfe, loss, nfe_plain, loss_plain = (mean(x) for x in (*zip(*ends, strict=True), *zip(*before, strict=True)))
        equal = mean(at_equal_loss(run, after) for run, (_, after) in zip(plain, ends, strict=True))
        yield {
            "program": program,
            "helps": make().helps,
            "sampling": sampling,
            "share": share,
            "weight": share * mean(map(abs, first)),
            "loss_first": mean(first),
            "nfe_plain": nfe_plain,
            "nfe": nfe,
            "nfe_equal_loss": equal,
            "loss_plain": loss_plain,
            "loss": loss,
            "paid": (loss - loss_plain) / (mean(first) - loss_plain),
            "by_seed": [dict(zip(BY_SEED, (*a, *b), strict=True)) for a, b in zip(ends, before, strict=True)],
        }


def line(row: dict[str, Any]) -> list[str]:
    numbers = (f"{row[key]:.1f}" for key in ("nfe_plain", "nfe_equal_loss", "nfe"))
    losses = (f"{row[key]:.3g}" for key in ("loss_first", "loss_plain", "loss"))
    return [row["program"], row["sampling"], f"{row['share']:g}", *numbers, *losses, f"{row['paid']:.1%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="write the rows to data/reference/measured")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=float, default=1.0, help="times the steps of each program")
    asked, start = parser.parse_args(), time.perf_counter()
    torch.set_num_threads(1)
    made_from = provenance.commit()  # before this run writes a file
    rows = list[dict[str, Any]]()
    for name, make in PROGRAMS.items():
        rows += compared(name, make, max(LOOKS, int(asked.steps * make().steps)), range(asked.seeds))
        seconds = time.perf_counter() - start
        write(rows, KEPT if asked.keep else OUT.parent / "bench_weight.json", made_from, range(asked.seeds), seconds)
        print(f"{name}: {seconds:.0f} s", flush=True)
    head = [
        "program",
        "draw",
        "share",
        "NFE plain",
        "NFE at equal loss",
        "NFE",
        "first loss",
        "loss plain",
        "loss",
        "paid",
    ]
    report("weight", f"## Weights\n\n{table(head, [line(row) for row in rows])}", {"rows": rows})


def write(
    rows: list[dict[str, Any]],
    path: Path,
    made_from: tuple[str, bool],
    seeds: Iterable[int],
    seconds: float,
    drawn: str = "drawn in bench_weight",
) -> None:
    """Write the rows so far, with what made them."""
    record = provenance.record("quick", data=[drawn], seeds=seeds, seconds=seconds)
    record |= dict(zip(("commit", "dirty"), made_from, strict=True))
    provenance.check(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"provenance": record, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
