"""Checks of lesson 05: what is kept of a gain, and fields that share a trajectory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reproduce.course.checks.checked import Checked, Mistake

OFF = torch.tensor([[0.5, 0.0], [0.0, 2.0], [0.6, 0.8]], dtype=torch.float64)


def _turn(y: Tensor) -> Tensor:
    return torch.stack((-y[..., 1], y[..., 0]), dim=-1)


def _field(radial: Callable[[Tensor], Tensor], turn: Callable[[Tensor], Tensor] = _turn) -> Callable[[float], Any]:
    """A family of fields: a turn, and pull times a radial part."""
    return lambda pull: lambda t, y: turn(y) + pull * radial(y) * y


def _inside(y: Tensor) -> Tensor:
    return 1 - y.square().sum(-1, keepdim=True)


def pulls(answer: Callable[[float], Any]) -> str | None:
    """Say what a field does wrong on the circle, and beside it."""
    time = torch.tensor(0.0, dtype=torch.float64)
    for pull in (2.0, 7.0):
        field = answer(pull)
        if not callable(field):
            return "expected a field (t, y) for each strength: return the function, not its value."
        angle = torch.linspace(0, 6, 7, dtype=torch.float64)
        on = torch.stack((angle.cos(), angle.sin()), dim=-1)
        if (field(time, on) + _turn(on)).abs().max() < 1e-9:
            return "it turns the wrong way round."
        if (field(time, on) - _turn(on)).abs().max() > 1e-9:
            return "on the circle itself it is not the turning field: the pull must vanish there."
        found, wanted = ((value * OFF).sum(-1) for value in (field(time, OFF), pull * _inside(OFF) * OFF))
        if torch.allclose(found, -wanted, atol=1e-9):
            return "the pull has the wrong sign: it drives states away from the circle."
        if found.abs().max() < 1e-9:
            return "there is no pull: beside the circle the field only turns."
        if not torch.allclose(found, wanted, atol=1e-9):
            return "beside the circle the radial part is not pull times (1 - |y|^2) y."
        if field(time, OFF[0]).shape != (2,):
            return "a single state of shape (2,) must work as well."
    return None


CHECKS = (
    Checked(
        number="05.1",
        call="gain_kept(error, vanilla, control)",
        returns="a share, a number",
        cases=lambda: [(0.2, 0.1, 1.1), (0.05, 0.1, 0.9), (0.91, 0.95, 0.15)],
        right=lambda error, vanilla, control: (error - control) / (vanilla - control),
        mistakes=(
            Mistake(
                "that is lost, not kept.",
                lambda error, vanilla, control: 1 - (error - control) / (vanilla - control),
            ),
            Mistake(
                "the control is missing: a share of the gain counts from what a model without dynamics reaches.",
                lambda error, vanilla, control: vanilla / error,
            ),
            Mistake("numerator and denominator are swapped.", lambda e, v, c: (v - c) / (e - c)),
            Mistake("divided by the control's error, not by vanilla's gain.", lambda e, v, c: (c - e) / c),
        ),
    ),
    Checked(
        number="05.2",
        call="with_pull(pull)",
        returns="a field (t, y)",
        cases=lambda: [(2.0,), (7.0,)],
        right=_field(_inside),
        mistakes=(
            Mistake(
                "the pull has the wrong sign: it drives states away from the circle.",
                _field(lambda y: -_inside(y)),
            ),
            Mistake(
                "on the circle itself it is not the turning field: the pull must vanish there.",
                _field(lambda y: -torch.ones_like(y)),
            ),
            Mistake("it turns the wrong way round.", _field(_inside, lambda y: -_turn(y))),
            Mistake("there is no pull: beside the circle the field only turns.", _field(lambda y: 0 * y)),
        ),
        wrong=pulls,
    ),
)
