"""What a training step of the latent ODE spends its time on, and what a local penalty adds, with one thread.

The model of the experiment `physionet` on random series with its share of observed values (20 %), and dynamics scaled
so that they need about as many steps as trained ones. Each part is timed by itself, forward and backward, and held
against the whole training step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from _cases import scaled
from _timing import alternate, median, options, report, table
from torch import Tensor

from regnde import Regularizer, Solution, solve_ode
from regnde import make_regularizer as make
from reproduce.experiments import get
from reproduce.experiments.physionet import Batch, loss
from reproduce.models.latent import LatentODE, Prediction, draw

LOCAL = ("local_biased", "local_unbiased")
ALLOWED = 0.10  # of a training step, for a local penalty
SERIES, VARIABLES, OBSERVED = 49, 37, 0.2


@dataclass(frozen=True)
class Case:
    """One batch size and tolerance, with a model and series."""

    name: str
    model: LatentODE
    batch: Batch
    tolerance: float
    t: Tensor

    def solve(self, y0: Tensor, regularizer: Regularizer, rng: torch.Generator) -> Solution:
        t, sampled_t = regularizer.times(self.t, rng)
        return solve_ode(
            self.model.dynamics,
            y0,
            t,
            rtol=self.tolerance,
            atol=self.tolerance,
            sampled_t=sampled_t,
            records=regularizer.records,
        )


def case(name: str, size: int, tolerance: float) -> Case:
    torch.manual_seed(0)
    settings = dict(get("physionet").budget("quick").model)
    del settings["centered"]
    model = LatentODE(torch.zeros(VARIABLES), **settings)  # type: ignore[arg-type]
    scaled(model.dynamics, 2.0)
    mask = (torch.rand(size, SERIES, VARIABLES) < OBSERVED).float()
    batch = Batch(torch.rand_like(mask) * mask, mask, torch.ones(size))
    return Case(name, model, batch, tolerance, torch.linspace(0, 1, SERIES, dtype=torch.float64))


def training_step(case: Case, regularizer: Regularizer, rng: torch.Generator) -> None:
    """Run forward, loss, penalty and backward, without the optimizer."""
    model, batch = case.model, case.batch
    mean, std = model.encode(batch.values, batch.mask, case.t)
    solution = case.solve(draw(mean, std, rng), regularizer, rng)
    total = loss(Prediction(model.decode(solution.y), mean, std), batch, 400)
    if regularizer.penalty is not None:
        total = total + 0.3 * regularizer.penalty(solution, rng)
    torch.autograd.grad(total, list(model.parameters()))


def parts(case: Case, rng: torch.Generator) -> dict[str, Callable[[], object]]:
    """Return the parts of a training step, each by itself."""
    model, batch, none = case.model, case.batch, make("none")
    encoder = [*model.recognition.parameters(), *model.to_state.parameters()]
    field, decoder = list(model.dynamics.parameters()), list(model.decoder.parameters())
    with torch.no_grad():
        mean, std = model.encode(batch.values, batch.mask, case.t)
        solutions = {name: case.solve(mean, make(name), rng) for name in ("none", *LOCAL)}
    y0, y = mean.clone().requires_grad_(), solutions["none"].y.clone().requires_grad_()

    def recognition(*, backward: bool) -> None:
        out = model.encode(batch.values, batch.mask, case.t)
        if backward:
            torch.autograd.grad(out[0].sum() + out[1].sum(), encoder)

    def solve(*, backward: bool) -> None:
        out = case.solve(y0, none, rng).y
        if backward:
            torch.autograd.grad(out.sum(), [y0, *field])

    def decode(*, backward: bool) -> None:
        out = loss(Prediction(model.decode(y), mean, std), batch, 400)
        if backward:
            torch.autograd.grad(out, [y, *decoder])

    def penalty(name: str, *, backward: bool) -> None:
        value = make(name).penalty
        assert value is not None
        out = value(solutions[name], rng)
        if backward:
            torch.autograd.grad(out, field)

    named: dict[str, Callable[..., None]] = {"recognition": recognition, "solve": solve, "decoder and loss": decode}
    named |= {f"penalty {name}": partial(penalty, name) for name in LOCAL}
    return {
        f"{name}, {kind}": partial(part, backward=kind == "both")
        for name, part in named.items()
        for kind in ("forward", "both")
    }


def measure(case: Case, seconds: float) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(0)
    names = ("none", *LOCAL)
    steps = alternate({name: partial(training_step, case, make(name), rng) for name in names}, seconds=seconds)
    alone = alternate(parts(case, rng), seconds=seconds)
    with torch.no_grad():
        mean, _ = case.model.encode(case.batch.values, case.batch.mask, case.t)
        trace = case.solve(mean, make("none"), rng).trace
    whole = median(steps["none"])
    return {
        "case": case.name,
        "nfe": trace.nfe,
        "accepted": trace.accepted,
        "training_step_ms": {name: median(times) for name, times in steps.items()},
        "part_ms": {name: median(times) for name, times in alone.items()},
        "added_share": {name: median(alone[f"penalty {name}, both"]) / whole for name in LOCAL},
        "rounds": {"training_step": len(steps["none"]), "part": len(alone["solve, both"])},
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    whole, part = result["training_step_ms"]["none"], result["part_ms"]
    names = dict.fromkeys(name.split(", ")[0] for name in part)
    lines = []
    for name in names:
        forward, both = part[f"{name}, forward"], part[f"{name}, both"]
        cells = [f"{forward:.1f}", f"{both - forward:.1f}", f"{both:.1f}", f"{both / whole:.1%}"]
        lines.append([result["case"], name, *cells])
    lines.append([result["case"], f"**training step** (NFE {result['nfe']})", "", "", f"{whole:.1f}", "100 %"])
    return lines


def main() -> None:
    seconds = options(__doc__ or "", seconds=12.0).seconds
    cases = [("batch 128, 1e-5", 128, 1e-5), ("batch 512, 1.4e-8", 512, 1.4e-8)]
    results = [measure(case(*settings), seconds) for settings in cases]
    header = ["case", "part", "forward ms", "backward ms", "together ms", "of the training step"]
    found = table(header, [line for result in results for line in rows(result)])
    verdicts = [
        [result["case"], name, f"{share:.1%}", "holds" if share <= ALLOWED else "MISSED"]
        for result in results
        for name, share in result["added_share"].items()
    ]
    targets = table(["case", "penalty", "adds to the training step (10 % allowed)", ""], verdicts)
    about = (
        "One thread, float32, tsit5; medians of alternating rounds. Each part alone, forward and backward; the\n"
        "training step is the whole of recognition, solve, decoder and loss, without penalty and optimizer."
    )
    report("latent", f"## Latent ODE\n\n{about}\n\n{found}\n\n{targets}", {"cases": results, "seconds": seconds})


if __name__ == "__main__":
    main()
