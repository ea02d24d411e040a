"""How a trained model may be solved: every way measured on held-out data, and the cheapest that keeps the metric."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regnde.dropin.solve_ways import KNOWN, Paid, Way, solving
from regnde.solvers.checks import choose

STEPS = (1, 2, 4, 8, 16)
FAILURES = (RuntimeError, AssertionError, ValueError, ArithmeticError)
"""What a way may raise where another one works: SolverError, torchdiffeq's underflow, a method that does not fit."""
MOST_DEGREES = 1000
"""Student's distribution is taken with so many degrees at most: its quantiles are then too large by a thousandth."""


@dataclass(frozen=True)
class Line:
    """One way to solve, measured."""

    way: Way
    metric: float = math.nan
    """Its mean."""
    lost: float = math.nan
    """By how much the metric is worse than with the reference, on average; negative: it is better."""
    bound: float = math.nan
    """The one-sided upper confidence bound of what is lost."""
    nfe: float = math.inf
    """Evaluations of f in the solves of one batch, mean over batches."""
    nfe_diffusion: float = 0.0
    """Evaluations of g, 0 for ODEs."""
    seconds: float = math.nan
    """Processor time of one prediction, that of the fastest batch."""
    keeps: bool = False
    """Whether the bound is at most the margin."""
    note: str = ""
    """Why the way failed."""

    @property
    def evaluations(self) -> float:
        """Evaluations of f and g together; infinite for a way that failed."""
        return self.nfe + self.nfe_diffusion


@dataclass(frozen=True)
class Ways:
    """Ways to solve a trained model, as `cheapest_way` found them; `print` shows them as a table.

    Raises nothing. Source: this project; the bounds are Student's.
    """

    lines: tuple[Line, ...]
    """The fewest evaluations first, ways that failed last."""
    reference: Way
    margin: float
    level: float

    @property
    def cheapest(self) -> Line:
        """The fewest evaluations among the ways that keep the metric; at worst those of the reference."""
        return next(line for line in self.lines if line.keeps)

    def __str__(self) -> str:
        rows = [["", "way", "metric", "lost", "bound", "f", "g", "ms", "keeps"]]
        for line in self.lines:
            seen = (line.metric, line.lost, line.bound, line.nfe, line.nfe_diffusion, 1e3 * line.seconds)
            told = ["failed: " + line.note] if line.note else [f"{x:.4g}" for x in seen]
            mark = "*" if line is self.cheapest else ""
            rows.append([mark, line.way.name, *told, *([] if line.note else ["yes" if line.keeps else "no"])])
        full = [row for row in rows if len(row) == len(rows[0])]
        widths = [max(map(len, column)) for column in zip(*full, strict=True)]
        widths[1] = max(len(row[1]) for row in rows)
        tail = (
            f"* cheapest that keeps the metric: with {self.level:.0%} confidence at most {self.margin:g} lost against "
            f"{self.reference.name}.\nf, g: evaluations per batch; ms: processor time of the fastest batch"
        )
        padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in rows)
        return "\n".join([*(text.rstrip() for text in padded), tail])


def standard_ways(host: str) -> tuple[Way, ...]:
    """Return the ways that somebody who deploys a model would try first.

    Args:
        host: 'torchdiffeq' or 'own': a method of order 5 and one of order 3 at tolerances 1, 0.1, ..., 1e-7; Euler,
            midpoint and RK4 with 1, 2, 4, 8 and 16 steps. 'torchsde': SRK at 1, 0.1 and 0.01 (it needs some 30
            evaluations for a step), Euler and Milstein with 1 to 16 steps. 'own_sde': SOSRI2 at 1 to 1e-3, and with 1
            to 16 steps.

    Raises ValueError for an unknown host. Source: this project.
    """
    choose("host", KNOWN, host)
    adaptive, finest, fixed = {
        "torchdiffeq": (("dopri5", "bosh3"), 7, ("euler", "midpoint", "rk4")),
        "torchsde": (("srk",), 2, ("euler", "milstein")),
        "own": (("tsit5", "bosh3"), 7, ("euler", "midpoint", "rk4")),
        "own_sde": (("sosri2",), 3, ("sosri2",)),
    }[host]
    tolerances = [float(f"1e-{digits}") for digits in range(finest + 1)]
    loose = [Way(method, tolerance=tolerance) for method in adaptive for tolerance in tolerances]
    return (*loose, *(Way(method, steps=steps) for method in fixed for steps in STEPS))


def cheapest_way(
    predict: Callable[[Any, Callable[..., Any]], Any],
    batches: Iterable[Any],
    metric: Callable[[Any, Any], Any],
    *,
    margin: float,
    host: str,
    higher_is_better: bool,
    ways: Sequence[Way] | None = None,
    reference: Way | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Ways:
    """Predict held-out data with a trained model in every way, and find the cheapest that keeps the metric.

    Args:
        predict: (batch, solve) -> prediction: the program's own code, with `solve` called where it calls
            torchdiffeq.odeint(f, y0, t, ...), torchsde.sdeint(sde, y0, ts, ...), solve_ode(f, y0, t, ...) or
            solve_sde(f, g, y0, t, ...) (or the adjoint's), with keywords after the times. A way decides on method,
            tolerances, steps, options and the Brownian path, and nothing is compiled; the rest of the call is passed
            on. Several solves in one prediction add up.
        batches: held-out data, which did not train the model. They choose the way: measure it on others afterwards.
        metric: (prediction, batch) -> one number for each example, (examples,), or one for the batch. Means and bounds
            are over these numbers, paired with the reference's and taken as independent.
        margin: how much of the metric may be lost, in its own units, >= 0.
        host: 'torchdiffeq', 'torchsde', 'own' or 'own_sde': whose solve it is.
        higher_is_better: True for an accuracy, False for an error or a loss.
        ways: to be tried; None: `standard_ways(host)`.
        reference: what is kept is the metric with this way; None: the tightest of the adaptive ways that works. Give
            that of training where a model was trained with a few fixed steps: they may be a part of what it learned.
        level: confidence with which no more than the margin is lost, one-sided, by Student's t. It holds for each way
            on its own: of many ways that lose a little more than the margin, some may still pass. Where all n
            examples agree the bound is 0, though up to 3 / n of others may not: for accuracies take n above 3 / margin.
        seed: of the Brownian paths and of torch's global generators, which are put back afterwards: each batch sees the
            same noise in every way, so that differences are those of the methods. A generator of the program's own is
            not put back: make it inside `predict`.

    Runs without gradients, in whatever mode the model is: call model.eval() before. torchdiffeq and torchsde
    interpolate linearly between fixed steps, our solvers by their dense output. torchsde evaluates f and g once more
    in each call to check them, which counts. On a GPU `seconds` are those of the host's processor.

    Raises:
        ValueError: for arguments that cannot be, before anything is evaluated; for a metric of another shape.
        Otherwise what the reference raises; of another way that fails, its line tells why.

    Source: this project; the bound is Student's, one-sided, of a mean of paired differences.
    """
    choose("host", KNOWN, host)
    batches = list(batches)
    ways = _checked(host, standard_ways(host) if ways is None else ways, reference)
    for wanted, fits, found in (
        ("batches must hold at least one batch", bool(batches), batches),
        ("margin must be a number >= 0, in units of the metric", math.isfinite(margin) and margin >= 0, margin),
        ("level must lie in [0.5, 1)", 0.5 <= level < 1, level),
        ("seed must be a whole number >= 0", isinstance(seed, int) and seed >= 0, seed),
    ):
        if not fits:
            raise ValueError(f"{wanted}, found {found!r}")

    def attempt(way: Way) -> _Tried | Exception:
        try:
            return _try(predict, batches, metric, host, way, seed)
        except FAILURES as error:
            return error

    tight = sorted((way for way in ways if way.tolerance is not None), key=lambda way: way.tolerance or 0.0)
    tried: dict[Way, _Tried | Exception] = {}
    with torch.no_grad(), torch.random.fork_rng(range(torch.cuda.device_count())):
        for way in tight if reference is None else [reference]:
            base = tried[way] = attempt(way)
            if isinstance(base, _Tried):
                break
        if isinstance(base, Exception):
            raise base
        quantile = _quantile(level, len(base.numbers) - 1)
        tried |= {other: attempt(other) for other in ways if other not in tried}
    sign = 1.0 if higher_is_better else -1.0
    lines = [_line(other, found, base, sign, margin, quantile) for other, found in tried.items()]
    lines.sort(key=lambda line: (line.evaluations, 0.0 if line.note else line.lost))
    return Ways(tuple(lines), reference=way, margin=margin, level=level)


def _checked(host: str, ways: Sequence[Way], reference: Way | None) -> tuple[Way, ...]:
    """Return the ways, each once, or raise ValueError where the host does not have one, or none is a reference."""
    for way in (*ways, *([] if reference is None else [reference])):
        if not isinstance(way, Way):
            raise ValueError(f"ways are Way(method, tolerance=...) or Way(method, steps=...), found {way!r}")
        known = KNOWN[host][way.tolerance is None]
        if way.method not in known:
            what = "with fixed steps" if way.tolerance is None else "at a tolerance"
            raise ValueError(f"{host!r} has no {way.method!r} {what}; choose one of {sorted(known)}")
    if reference is None and all(way.tolerance is None for way in ways):
        raise ValueError("no way has a tolerance, so none is a reference by itself: give reference=Way(...)")
    return tuple(dict.fromkeys(ways))


@dataclass(frozen=True)
class _Tried:
    numbers: Tensor  # of the metric, (examples or batches,), float64
    nfe: float
    nfe_diffusion: float
    seconds: float


def _try(
    predict: Callable[..., Any], batches: list[Any], metric: Callable[..., Any], host: str, way: Way, seed: int
) -> _Tried:
    numbers, bills, seconds = [], [], []
    for i, batch in enumerate(batches):
        paid = Paid((seed << 32) + i)
        torch.manual_seed((seed + i) % 2**63)
        started = time.process_time()
        prediction = predict(batch, solving(host, way, paid))
        seconds.append(time.process_time() - started)
        if not paid.solves:
            raise ValueError(f"predict(batch, solve) did not call solve: call it in place of {host}'s own")
        bills.append((paid.nfe, paid.nfe_diffusion))
        number = metric(prediction, batch)
        number = number.detach().cpu() if isinstance(number, Tensor) else number
        numbers.append(torch.as_tensor(number, dtype=torch.float64))  # a float keeps its digits
    if {x.ndim for x in numbers} not in ({0}, {1}):
        shapes = sorted({tuple(x.shape) for x in numbers})
        raise ValueError(f"metric must give one number for each example, (examples,), or one, (); found {shapes}")
    joined = torch.cat([x.reshape(-1) for x in numbers])
    if len(joined) < 2:
        raise ValueError("one number of the metric has no spread: give more batches, or a metric for each example")
    if not bool(joined.isfinite().all()):
        raise ValueError("the metric is not finite")
    f, g = (sum(column) / len(batches) for column in zip(*bills, strict=True))
    return _Tried(joined, f, g, min(seconds))


def _line(way: Way, found: _Tried | Exception, base: _Tried, sign: float, margin: float, quantile: float) -> Line:
    if isinstance(found, Exception):
        return Line(way, note=f"{type(found).__name__}: {found}".partition("\n")[0])
    if len(found.numbers) != len(base.numbers):
        return Line(way, note=f"{len(found.numbers)} numbers of the metric, {len(base.numbers)} by the reference")
    worse = sign * (base.numbers - found.numbers)  # paired
    lost = float(worse.mean())
    bound = lost + quantile * float(worse.std()) / math.sqrt(len(worse))
    metric = float(found.numbers.mean())
    return Line(way, metric, lost, bound, found.nfe, found.nfe_diffusion, found.seconds, keeps=bound <= margin)


def _quantile(level: float, degrees: int) -> float:
    """Return the one-sided quantile of Student's t, by bisection.

    Source: Abramowitz and Stegun 1964, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    n = min(degrees, MOST_DEGREES)

    def below(t: float) -> float:
        angle = math.atan(t / math.sqrt(n))
        term, total = math.cos(angle) ** (n % 2), 0.0
        for power in range(n % 2, n - 1, 2):
            total += term
            term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
        total *= math.sin(angle)
        return (1 + (total if n % 2 == 0 else (angle + total) * 2 / math.pi)) / 2

    low, high = 0.0, 1.0
    while below(high) < level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < level else (low, middle)
    return high
