"""What a penalty costs in a training step, as a multiple of one step of the method, with one thread.

A training step is: solve with tsit5, mean square of the output states, penalty, backward. One step of the method is
a step from scratch as the solver takes it: seven evaluations of f, their combinations, and the error ratio for its
control (without gradient), forward and backward. A local penalty leaves the solve alone (the same bits, the same
NFE: checked here), so what it adds is the penalty itself, and for `local_unbiased` the state at its sampled time.
That is timed by itself, where it is not lost in the noise of the whole training step; the difference of whole
training steps is given beside it, with its quartiles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from _cases import Case, latent, mnist
from _timing import alternate, median, options, quartiles, report, speedup, table
from torch import Tensor

from regnde import Regularizer, Solution, error_ratio, make_regularizer, rk_step, solve_ode

NONE, ONE_STEP, STAGES, SEVEN = "none", "one step from scratch", "... without its error ratio", "7 x one call of f"
LOCAL = ("local_biased", "local_unbiased")
PENALTIES = {name: make_regularizer(name) for name in (NONE, *LOCAL, "global_error")}
ALLOWED = 0.05  # a local penalty adds one step and this share


def solve(case: Case, regularizer: Regularizer, rng: torch.Generator) -> Solution:
    t, sampled_t = regularizer.times(case.t, rng)
    return solve_ode(
        case.f,
        case.y0,
        t,
        rtol=case.tolerance,
        atol=case.tolerance,
        sampled_t=sampled_t,
        records=regularizer.records,
    )


def training_step(case: Case, regularizer: Regularizer, rng: torch.Generator) -> None:
    """Run forward, penalty and backward, without the optimizer."""
    solution = solve(case, regularizer, rng)
    loss = solution.y.square().mean()
    if regularizer.penalty is not None:
        loss = loss + 0.1 * regularizer.penalty(solution, rng)
    torch.autograd.grad(loss, case.inputs)


def parts(case: Case, rng: torch.Generator) -> dict[str, Callable[[], None]]:
    """Return one step of the method, its seven evaluations, and what each local penalty adds to a training step."""
    with torch.no_grad():
        solution = solve(case, PENALTIES["local_unbiased"], rng)
    trace, parameters = solution.trace, list(case.f.parameters())
    middle = trace.accepted // 2
    t, dt, y = float(trace.t[middle]), float(trace.dt[middle]), trace.y[middle]
    with torch.no_grad():
        taken = rk_step(case.f, t, y, dt, solution.tableau)

    def one_step(*, with_error: bool) -> None:
        step = rk_step(case.f, t, y, dt, solution.tableau)
        if with_error:
            with torch.no_grad():
                error_ratio(step.error, y, step.y1, rtol=case.tolerance, atol=case.tolerance).item()
        torch.autograd.grad([step.y1, step.k[-1]], parameters, [cotangent, cotangent])

    def seven_calls() -> None:
        for _ in range(len(solution.tableau.c)):
            torch.autograd.grad(case.f(at, inside), [inside, *parameters], cotangent)

    def penalty(name: str) -> None:
        if name == "local_unbiased":
            with torch.no_grad():
                taken.at([t + dt / 2])  # the state at the sampled time
        value: Callable[[Solution, torch.Generator], Tensor] | None = PENALTIES[name].penalty
        assert value is not None
        torch.autograd.grad(value(solution, rng), parameters)

    cotangent, at, inside = torch.ones_like(y), y.new_tensor(t), y.clone().requires_grad_()
    return {
        ONE_STEP: partial(one_step, with_error=True),
        STAGES: partial(one_step, with_error=False),
        SEVEN: seven_calls,
        **{name: partial(penalty, name) for name in LOCAL},
    }


def check_that_the_solve_is_left_alone(case: Case, rng: torch.Generator) -> None:
    plain = solve(case, PENALTIES[NONE], rng)
    for name, regularizer in PENALTIES.items():
        solution = solve(case, regularizer, rng)
        if not torch.equal(solution.y, plain.y) or solution.trace.nfe != plain.trace.nfe:
            raise RuntimeError(f"{name} changed the solve: NFE {plain.trace.nfe} -> {solution.trace.nfe}")


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Time training steps and the parts that a penalty adds."""
    rng = torch.Generator().manual_seed(0)
    check_that_the_solve_is_left_alone(case, rng)
    part = alternate(parts(case, rng), seconds=seconds / 2)
    step = alternate({n: partial(training_step, case, r, rng) for n, r in PENALTIES.items()}, seconds=seconds)
    added = {n: [with_ - without for with_, without in zip(step[n], step[NONE], strict=True)] for n in PENALTIES}
    return {
        "case": case.name,
        "training_step_ms": {name: median(times) for name, times in step.items()},
        "part_ms": {name: median(times) for name, times in part.items()},
        "part_in_steps": {name: speedup(times, part[ONE_STEP]) for name, times in part.items()},
        "added_ms": {name: median(times) for name, times in added.items()},
        "added_quartiles_ms": {name: quartiles(times) for name, times in added.items()},
        "rounds": {"training_step": len(step[NONE]), "part": len(part[ONE_STEP])},
        "allowed_beyond_one_step": ALLOWED,
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the lines of one case."""
    lines = []
    one = result["part_ms"][ONE_STEP]
    for name, ms in result["training_step_ms"].items():
        low, high = (x / one for x in result["added_quartiles_ms"][name])
        added = result["added_ms"][name]
        whole = ["", ""] if name == NONE else [f"{added:.1f}", f"{added / one:.2f} ({low:.2f} to {high:.2f})"]
        alone = (
            [f"{result['part_ms'][name]:.1f}", f"{result['part_in_steps'][name]:.2f}"] if name in LOCAL else ["", ""]
        )
        lines.append([result["case"], name, f"{ms:.1f}", *whole, *alone])
    for name in (ONE_STEP, STAGES, SEVEN):
        alone = [f"{result['part_ms'][name]:.1f}", f"{result['part_in_steps'][name]:.2f}"]
        lines.append([result["case"], name, "", "", "", *alone])
    return lines


def verdicts(results: list[dict[str, Any]]) -> list[list[str]]:
    """Hold what a local penalty adds beyond one step against 5 % of that step, and against 5 % of the training step."""
    lines = []
    for result in results:
        for name in LOCAL:
            of_step = result["part_in_steps"][name] - 1
            of_training = of_step * result["part_ms"][ONE_STEP] / result["training_step_ms"][NONE]
            found = [f"{x:+.1%} {'holds' if x <= ALLOWED else 'MISSED'}" for x in (of_step, of_training)]
            lines.append([result["case"], name, *found])
    return lines


def main() -> None:
    seconds = options(__doc__ or "", seconds=16.0).seconds
    results = [measure(case(), seconds) for case in (mnist, latent)]
    header = ["case", "penalty", "training step ms", "adds ms (whole step)", "in steps (quartiles)"]
    header += ["alone ms", "alone, in steps"]
    costs = table(header, [line for result in results for line in rows(result)])
    beyond = ["beyond one step, of that step (5 % allowed)", "of the training step (5 % allowed)"]
    targets = table(["case", "penalty", *beyond], verdicts(results))
    about = (
        "One thread, float32, tsit5. Medians of alternating rounds; 'whole step' is the difference of a training step\n"
        "with and without the penalty in the same round. One step from scratch: 7 evaluations, forward and backward,\n"
        "and the error ratio for the control. Targets are held against 'alone'."
    )
    report("penalty", f"## Penalty\n\n{about}\n\n{costs}\n\n{targets}", {"cases": results, "seconds": seconds})


if __name__ == "__main__":
    main()
