"""Checks of lesson 02: adaptive solvers and what they cost."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from regnde import TSIT5, Trace, error_ratio, rk_step, solve_ode
from reproduce.course.checks.checked import Checked, Mistake
from reproduce.data.spiral import cubic_field

START = torch.tensor([2.0, 0.0], dtype=torch.float64)


@lru_cache(maxsize=2)
def _trace(tol: float) -> Trace:
    """The diary of a short solve of the spiral."""
    return solve_ode(cubic_field, START, torch.tensor([0.0, 0.4], dtype=torch.float64), rtol=tol, atol=tol).trace


def _errors(trace: Trace, *, whole: bool = False, second: bool = False) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each step its true error, start and end: of the step, or of the whole solve; of the kept answer or not."""
    found = []
    for t, y, dt in zip(trace.t.tolist(), trace.y, trace.dt.tolist(), strict=True):
        step = rk_step(cubic_field, t, y, dt, TSIT5)
        exact = _from_start(t + dt) if whole else _exact(t, y, t + dt)
        found.append((step.y1 - exact - (step.error if second else 0.0), y, step.y1))
    return found


@lru_cache(maxsize=100)
def _from_start(end: float) -> Tensor:
    return _exact(0.0, START, end)


def _exact(t: float, y: Tensor, end: float) -> Tensor:
    over = torch.tensor([t, end], dtype=torch.float64)
    return solve_ode(cubic_field, y, over, rtol=1e-12, atol=1e-12).y[-1]


def _ratios(f: Any, trace: Trace, tol: float, *, whole: bool = False, second: bool = False) -> Tensor:
    errors = _errors(trace, whole=whole, second=second)
    return torch.stack([error_ratio(error, y, y1, rtol=tol, atol=tol) for error, y, y1 in errors])


CHECKS = (
    Checked(
        number="02.1",
        call="nfe_of(accepted, rejected, stages)",
        returns="the evaluations of a whole solve, a number",
        cases=lambda: [(10, 3, 7), (25, 0, 4), (7, 7, 7)],
        right=lambda accepted, rejected, stages: 2 + (stages - 1) * (accepted + rejected),
        mistakes=(
            Mistake("rejected attempts are evaluated as well.", lambda a, r, s: 2 + (s - 1) * a),
            Mistake(
                "one stage of each attempt is known already from the step before (first same as last).",
                lambda a, r, s: 2 + s * (a + r),
            ),
            Mistake(
                "the start of the solve is missing: what does it need to begin?", lambda a, r, s: (s - 1) * (a + r)
            ),
            Mistake(
                "two things: one stage of an attempt is known already (first same as last), and a solve has a start.",
                lambda a, r, s: s * (a + r),
            ),
            Mistake("every attempt is counted once, whether accepted or not.", lambda a, r, s: 2 + (s - 1) * (a - r)),
        ),
    ),
    Checked(
        number="02.2",
        call="true_ratios(f, trace, tol)",
        returns="a ratio for each accepted step, (accepted,)",
        cases=lambda: [(cubic_field, _trace(tol), tol) for tol in (1e-3, 1e-5)],
        right=_ratios,
        rtol=1e-3,
        mistakes=(
            Mistake("those are the estimates. The true errors are asked for.", lambda f, trace, tol: trace.error_ratio),
            Mistake(
                "that is the error of the whole solve up to there: begin each exact solve where the step begins.",
                lambda f, trace, tol: _ratios(f, trace, tol, whole=True),
            ),
            Mistake(
                "that is the error of the second answer, which the solver throws away.",
                lambda f, trace, tol: _ratios(f, trace, tol, second=True),
            ),
            Mistake(
                "the errors are not divided by what is tolerated.",
                lambda f, trace, tol: torch.stack([error.square().mean().sqrt() for error, _, _ in _errors(trace)]),
            ),
        ),
    ),
    Checked(
        number="02.3",
        call="steps_predicted(steps, slower, longer)",
        returns="a number of steps",
        cases=lambda: [(100.0, 2.0, 2.0), (60.0, 3.0, 1.0), (80.0, 1.0, 4.0)],
        right=lambda steps, slower, longer: steps * longer / slower,
        mistakes=(
            Mistake("a slower field is easier, not harder.", lambda n, slower, longer: n * longer * slower),
            Mistake(
                "the interval counts, too: the integral runs over all of it.", lambda n, slower, longer: n / slower
            ),
            Mistake(
                "the fifth root is taken of C already, and C has five powers of the field's speed in it.",
                lambda n, slower, longer: n * longer / slower ** (1 / 5),
            ),
            Mistake("slowing down makes C smaller. By what?", lambda n, slower, longer: n * longer),
        ),
    ),
)
