"""What `LocalPenalty` does, untuned, for the programs of tests/programs.py: evaluations at equal loss, and time.

Each program is trained on a few fixed batches, plainly and from the same seeds with a penalty, whose weight is three
hundredths of the mean loss in the first steps of the plain run: the rule in LocalPenalty's docstring. Evaluations of f
in one training step (all of its solves, without the penalty's own) and loss are means over one pass of the batches;
at the end, over the last fifth of training. An ear counts both runs: in the plain one it only hears, which changes no
bit. `nfe_equal_loss` is what the plain run needed when a pass first had the loss that the penalized run ends with; what
it needs at its end, where that is less or where it never had that loss.

Time is that of one training step (loss, penalty, backward pass) with the parameters at the end, in alternation:
`time` the penalized program with its penalty by the plain program, `time_penalty` by the penalized one without it.

Nothing is tuned, and not every program has something to save: those with steps of fixed size (`fixed`) cannot.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from statistics import mean
from typing import Any

import torch
from _timing import OUT, alternate, median, speedup, table
from bench_weight import BY_SEED, FIRST, KEPT, LOOKS, Run, at_equal_loss, end, write
from torch import nn

from regnde import LocalPenalty
from reproduce import checkout
from reproduce.runs import provenance

sys.path.insert(0, str(checkout.ROOT / "tests"))
from programs import ODES, PLAIN, SDES, GraphOde, LatentSde, SdeGan

SHARE, LR, FIXED = 0.03, 0.01, (GraphOde, LatentSde, SdeGan)
Step = Callable[[], object]


def ear(seed: int) -> LocalPenalty:
    return LocalPenalty(rng=torch.Generator().manual_seed(seed))


def train(make: type[nn.Module], seed: int, batches: int, weight: float = 0.0) -> tuple[Any, Run]:
    """Train a program for `LOOKS` passes of its batches; return it, and what it looked like in each pass."""
    torch.manual_seed(seed)
    program: Any = make()
    local = ear(seed)
    optimizer = torch.optim.Adam(program.parameters(), lr=LR)
    run: Run = {"trained": [], "loss": [], "nfe": []}
    for _ in range(LOOKS):
        nfe = []
        for batch in range(batches):
            loss = program.loss(local, batches * seed + batch)
            run["trained"].append(loss.item())
            nfe.append(local.cost.nfe)
            optimizer.zero_grad()
            penalty = local.penalty() if weight else 0.0
            (loss + weight * penalty).backward()
            optimizer.step()
            if not weight:
                local = ear(seed)  # forget what was heard, as a penalty does
        run["loss"].append(mean(run["trained"][-batches:]))
        run["nfe"].append(mean(nfe))
    return program, run


def step_of(program: Any, batch: int, weight: float = 0.0) -> Step:
    """Return one step of training, which leaves the parameters as they are."""
    local = ear(0)

    def step() -> None:
        program.zero_grad()
        loss = program.loss(local if weight else PLAIN, batch)
        (loss + weight * local.penalty() if weight else loss).backward()

    return step


def compared(make: type[nn.Module], batches: int, seeds: range, seconds: float) -> dict[str, Any]:
    """Return the row of a program; `paid` is the loss lost, as a share of what the plain run learned."""
    firsts, befores, ends, equal, ratios, ratios_penalty = [], [], [], [], [], []
    for seed in seeds:
        plain, before = train(make, seed, batches)
        firsts.append(mean(before["trained"][:FIRST]))
        weight = SHARE * abs(firsts[-1])
        cheap, after = train(make, seed, batches, weight)
        befores.append(end(before))
        ends.append(end(after))
        equal.append(at_equal_loss(before, ends[-1][1]))
        first = batches * seed
        steps = {"plain": step_of(plain, first), "with": step_of(cheap, first, weight), "same": step_of(cheap, first)}
        times = alternate(steps, seconds=seconds)
        ratios.append(1 / speedup(times["plain"], times["with"]))
        ratios_penalty.append(1 / speedup(times["same"], times["with"]))
    nfe, loss, nfe_plain, loss_plain = map(mean, (*zip(*ends, strict=True), *zip(*befores, strict=True)))
    return {
        "program": make.__name__,
        "fixed": make in FIXED,
        "share": SHARE,
        "weight": SHARE * mean(map(abs, firsts)),
        "steps": LOOKS * batches,
        "loss_first": mean(firsts),
        "nfe_plain": nfe_plain,
        "nfe_equal_loss": mean(equal),
        "nfe": nfe,
        "loss_plain": loss_plain,
        "loss": loss,
        "paid": (loss - loss_plain) / (mean(firsts) - loss_plain),
        "time": median(ratios),
        "time_penalty": median(ratios_penalty),
        "by_seed": [dict(zip(BY_SEED, (*a, *b), strict=True)) for a, b in zip(ends, befores, strict=True)],
    }


def lines(rows: list[dict[str, Any]]) -> Iterator[list[str]]:
    for row in rows:
        numbers = (f"{row[key]:.1f}" for key in ("nfe_plain", "nfe_equal_loss", "nfe"))
        losses = (f"{row[key]:.3g}" for key in ("loss_first", "loss_plain", "loss"))
        name = row["program"] + (" (fixed steps)" if row["fixed"] else "")
        yield [name, *numbers, *losses, f"{row['paid']:.1%}", f"{row['time']:.2f}", f"{row['time_penalty']:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="write the rows to data/reference/measured")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--batches", type=int, default=5, help=f"of each program; there are {LOOKS} passes of them")
    parser.add_argument("--seconds", type=float, default=1.0, help="for the times of one program and seed")
    asked, start, rows = parser.parse_args(), time.perf_counter(), list[dict[str, Any]]()
    torch.set_num_threads(1)
    made_from, seeds = provenance.commit(), range(asked.seeds)  # before this run writes a file
    path = (KEPT.parent if asked.keep else OUT) / "dropin_programs.json"
    for make in (*ODES, *SDES):
        rows.append(compared(make, asked.batches, seeds, asked.seconds))
        seconds = time.perf_counter() - start
        write(rows, path, made_from, seeds, seconds, drawn="drawn in tests/programs.py")
        print(f"{make.__name__}: {seconds:.0f} s", flush=True)
    head = "program, NFE plain, NFE at equal loss, NFE, first loss, loss plain, loss, paid, time, time of penalty"
    text = table(head.split(", "), list(lines(rows)))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "dropin_programs.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
