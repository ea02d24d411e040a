"""Checks of lesson 03: what gradients keep, and the adjoint."""

from __future__ import annotations

import math

from reproduce.course.checks.checked import Checked, Mistake


def _end(theta: float, y0: float, T: float) -> float:
    return y0 * math.exp(theta * T)


CHECKS = (
    Checked(
        number="03.1",
        call="states_held(steps, stages)",
        returns="three numbers of states: backpropagation, checkpointing, adjoint",
        cases=lambda: [(10, 6), (40, 3)],
        right=lambda steps, stages: (steps * stages, steps, 1),
        mistakes=(
            Mistake(
                "backpropagation keeps every stage, not only where steps begin.",
                lambda steps, stages: (steps, steps, 1),
            ),
            Mistake(
                "the adjoint does not keep the trajectory: it finds it again, backwards.",
                lambda steps, stages: (steps * stages, steps, steps),
            ),
            Mistake(
                "checkpointing takes the stages again: it keeps where each step begins.",
                lambda steps, stages: (steps * stages, steps * stages, 1),
            ),
            Mistake(
                "steps and stages do not add up: each step has all its stages.",
                lambda steps, stages: (steps + stages, steps, 1),
            ),
        ),
    ),
    Checked(
        number="03.2",
        call="best_checkpoints(steps)",
        returns="how many to keep, and the sum held then, two numbers",
        cases=lambda: [(100,), (10_000,), (64,)],
        right=lambda steps: (math.sqrt(steps), 2 * math.sqrt(steps)),
        mistakes=(
            Mistake(
                "half of the states is not the best: try a quarter.",
                lambda steps: (steps / 2, steps / 2 + 2),
            ),
            Mistake(
                "the number to keep is right; the sum has two parts.",
                lambda steps: (math.sqrt(steps), math.sqrt(steps)),
            ),
            Mistake("the two are in the wrong order.", lambda steps: (2 * math.sqrt(steps), math.sqrt(steps))),
        ),
    ),
    Checked(
        number="03.3",
        call="adjoint_gradient(theta, y0, T)",
        returns="dL/dtheta, a number",
        cases=lambda: [(-0.7, 1.5, 2.0), (0.4, 1.0, 1.0), (-0.2, 2.0, 3.0)],
        right=lambda theta, y0, T: T * _end(theta, y0, T) ** 2,
        rtol=2e-3,
        mistakes=(
            Mistake(
                "the wrong sign: the integral runs from T to 0, and has a minus before it.",
                lambda theta, y0, T: -T * _end(theta, y0, T) ** 2,
            ),
            Mistake(
                "something is not integrated over time.",
                lambda theta, y0, T: _end(theta, y0, T) ** 2,
            ),
            Mistake(
                "a(T) is the derivative of the loss, which is not that of y(T).",
                lambda theta, y0, T: T * _end(theta, y0, T),
            ),
            Mistake(
                "a was held at its end value: it has an equation of its own.",
                lambda theta, y0, T: _end(theta, y0, T) * (_end(theta, y0, T) - y0) / theta,
            ),
        ),
    ),
)
