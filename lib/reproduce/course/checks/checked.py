"""How an answer is judged: called on given arguments, held against the right one, and against typical wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Case = tuple[Any, ...]
Values = list[list[Tensor]]
"""For each case the numbers that an answer returns, each as a float64 tensor."""


@dataclass(frozen=True)
class Verdict:
    """What a check found."""

    right: bool
    says: str
    """One sentence or two, for the student."""


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer: what it would return, and what to say about it without giving the right one away."""

    says: str
    gives: Callable[..., Any]
    """Called like the answer."""


@dataclass(frozen=True)
class Checked:
    """One exercise that is checked: how its answer is called, what is right, and which mistakes are known."""

    number: str
    call: str
    """The call in words, as 'heun_pair(f, t, y, dt)'."""
    returns: str
    """What it should return, in words: 'the state y1 and the estimate, two tensors like y'."""
    cases: Callable[[], Sequence[Case]]
    """Makes the arguments of the calls, anew for each use."""
    right: Callable[..., Any]
    mistakes: tuple[Mistake, ...]
    rtol: float = 1e-4
    wrong: Callable[[Any], str | None] | None = None
    """Where many answers are right: what is wrong with the answer, or None; then `right` is only an example."""


class _Unfit(Exception):
    """An answer that cannot be compared; its text is for the student."""


def judge(checked: Checked, answer: Any) -> Verdict:
    """Return whether an answer is right, or the sentence for what is wrong; never raises, whatever the answer does."""
    if not callable(answer):
        return Verdict(
            False,
            f"expected the function {checked.call} itself, found {_kind(answer)}. Pass its name without calling it.",
        )
    try:
        if checked.wrong is not None:
            complaint = checked.wrong(answer)
            return Verdict(complaint is None, complaint or "right.")
        return _compared(checked, answer)
    except _Unfit as unfit:
        return Verdict(False, str(unfit))
    except NotImplementedError as error:
        return Verdict(False, f"not done yet. {str(error)[:200]}")
    except (Exception, SystemExit) as error:
        return Verdict(False, f"{checked.call} could not be called: {type(error).__name__}: {str(error)[:200]}")


def _compared(checked: Checked, answer: Callable[..., Any]) -> Verdict:
    """Hold the values of an answer against the right ones, then against those of each known mistake."""
    right = _values(checked, checked.right)
    found = [_parted(mine, true) for mine, true in zip(_values(checked, answer), right, strict=True)]
    if _same(found, right, checked.rtol):
        return Verdict(True, "right.")
    for mistake in checked.mistakes:
        if _same(found, _values(checked, mistake.gives), checked.rtol):
            return Verdict(False, mistake.says)
    for mine, true in zip(found, right, strict=True):
        if len(mine) != len(true):
            raise _Unfit(f"expected {checked.returns}: {_count(len(true))}; found {_count(len(mine))}.")
        shapes = [(tuple(a.shape), tuple(b.shape)) for a, b in zip(mine, true, strict=True)]
        if different := [pair for pair in shapes if pair[0] != pair[1]]:
            raise _Unfit(f"expected {checked.returns}, of shape {different[0][1]}; found the shape {different[0][0]}.")
    if not all(value.isfinite().all() for values in found for value in values):
        return Verdict(False, "some of the numbers are not finite: is something divided by zero?")
    return Verdict(False, _in_general(found, right, checked))


def _in_general(found: Values, right: Values, checked: Checked) -> str:
    """A sentence for a wrong answer that is none of the known mistakes."""
    if _same([[-value for value in values] for values in found], right, checked.rtol):
        return "the size is right, the sign is not."
    if all(len(values) > 1 for values in right) and _same([v[::-1] for v in found], right, checked.rtol):
        return f"the right numbers in the wrong order: expected {checked.returns}."
    agree = sum(_same([mine], [true], checked.rtol) for mine, true in zip(found, right, strict=True))
    if agree:
        return f"right in {agree} of {len(right)} cases that were tried, not in all: which case did you not think of?"
    return f"not right yet; expected {checked.returns}. Try a case that you can compute by hand."


def _values(checked: Checked, function: Callable[..., Any]) -> Values:
    return [_numbers(function(*case), checked) for case in checked.cases()]


def _numbers(value: Any, checked: Checked) -> list[Tensor]:
    """What a call returned as a list of float64 tensors; a single value is a list of one."""
    parts = value if isinstance(value, tuple | list) else [value]
    try:
        if isinstance(value, list) and value and all(isinstance(part, int | float) for part in value):
            parts = [value]  # a list of numbers is one row
        return [_plain(torch.as_tensor(part).detach().double()) for part in parts]
    except (TypeError, ValueError, RuntimeError):
        raise _Unfit(f"expected {checked.returns}; found {_kind(value)}.") from None


def _parted(found: list[Tensor], right: list[Tensor]) -> list[Tensor]:
    """One list or tensor as the several values that are right: how an answer holds them is all one."""
    if len(found) == 1 < len(right) and found[0].shape == (len(right), *right[0].shape):
        return list(found[0])
    return found


def _plain(value: Tensor) -> Tensor:
    """A tensor with one entry as a number: nobody's answer is wrong for an axis of length one around it."""
    return value.reshape(()) if value.numel() == 1 else value


def _same(found: Values, right: Values, rtol: float) -> bool:
    return all(
        len(mine) == len(true) and all(_close(a, b, rtol) for a, b in zip(mine, true, strict=True))
        for mine, true in zip(found, right, strict=True)
    )


def _close(a: Tensor, b: Tensor, rtol: float) -> bool:
    scale = b.abs().max().item() if b.numel() else 0.0
    return a.shape == b.shape and bool(((a - b).abs() <= rtol * scale + 1e-12).all())


def _count(n: int) -> str:
    return "one value" if n == 1 else f"{n} values"


def _kind(value: Any) -> str:
    """An object in words, for a sentence."""
    if value is None:
        return "nothing (None): is a return missing?"
    return f"{str(value)[:40]!r} of type {type(value).__name__}"
