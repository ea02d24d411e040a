"""Element: where biased and unbiased draws of a local penalty look (lesson 04)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regnde import Field, Trace, solve_ode
from reproduce.data.spiral import load_spiral
from reproduce.live.colors import MUTED, of_regularizer
from reproduce.live.element import Element
from reproduce.live.parts import Axis, Control, Index, Panel, Series, around, each, power, staircase

BINS = 50
KINDS = {"local_unbiased": "unbiased", "local_biased": "biased"}


def draws(
    f: Field | None = None,
    y0: Tensor | None = None,
    t: Tensor | None = None,
    *,
    at: Sequence[float] = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7),
    numbers: Sequence[int] = (1, 10, 100, 1000, 10_000),
    seed: int = 0,
) -> Element:
    """Return the element of the two samplings: choose the tolerance and the number of draws, see where they fall.

    Args:
        f: field, called as f(t, y); None: the cubic spiral of lesson 02, with its own y0 and t.
        y0: state of any shape.
        t: times (times,); draws are between the first and the last one.
        at: tolerances of the solve, relative and absolute.
        numbers: of draws, in rising order: more draws go on from the fewer ones.
        seed: of the draws.

    Raises:
        ValueError: a field without y0 and t.
    """
    if f is None:
        spiral = load_spiral(n_times=2, t1=25.0)
        f, y0, t = spiral.f, spiral.y0, spiral.t
    if y0 is None or t is None:
        raise ValueError(f"expected a field with its state y0 and its times t, found y0 {y0} and t {t}")
    with torch.no_grad():
        traces = [solve_ode(f, y0, t, rtol=tol, atol=tol, max_steps=100_000).trace for tol in at]
    drawn = [_drawn(trace, float(t[0]), float(t[-1]), max(numbers), seed) for trace in traces]
    found = each(lambda i, k: _first(drawn[i], numbers[k]), len(at), len(numbers))
    ends = float(t[0]), float(t[-1])
    start = (len(at) // 2, len(numbers) - 1)
    texts = {index: _words(at[index[0]], traces[index[0]], times, ends) for index, times in found.items()}
    return Element(
        "Where the two samplings look",
        (
            Control("tolerance", "tolerance", tuple(power(tol) for tol in at), start[0]),
            Control("number", "draws", tuple(f"{n:,}" for n in numbers), start[1]),
        ),
        (_steps_panel(traces, ends), _density_panel(traces, found, ends)),
        texts,
        "Left: the accepted steps of the solve. Right: how densely the times of both samplings lie; dashed, the "
        "density that is expected.",
        "Left: size of the accepted steps over time, logarithmic. Right: density of the drawn times over time. "
        f"Unbiased draws are level; biased ones lie densely where steps are short. Shown: {texts[start]}",
    )


def _drawn(trace: Trace, start: float, end: float, n: int, seed: int) -> dict[str, Tensor]:
    """Return n times of each sampling, (n,): uniform on the interval; the start of an accepted step, each alike."""
    rng = torch.Generator().manual_seed(seed)
    uniform = start + (end - start) * torch.rand(n, generator=rng, dtype=torch.float64)
    return {"local_unbiased": uniform, "local_biased": trace.t[torch.randint(trace.accepted, (n,), generator=rng)]}


def _first(drawn: dict[str, Tensor], n: int) -> dict[str, np.ndarray]:
    return {name: times[:n].numpy() for name, times in drawn.items()}


def _words(tolerance: float, trace: Trace, times: dict[str, np.ndarray], ends: tuple[float, float]) -> str:
    fifth = ends[0] + (ends[1] - ends[0]) / 5
    shares = {name: np.mean(found < fifth) for name, found in times.items()}
    told = ", ".join(f"{KINDS[name]} {share:.0%}" for name, share in shares.items())
    n = len(times["local_biased"])
    return (
        f"Tolerance {power(tolerance)}: {trace.accepted} accepted steps. Of {n:,} draw{'s' if n > 1 else ''} in the "
        f"first fifth of the time: {told}."
    )


def _edges(trace: Trace) -> np.ndarray:
    return np.append(trace.t.numpy(), float(trace.t[-1] + trace.dt[-1]))


def _steps_panel(traces: Sequence[Trace], ends: tuple[float, float]) -> Panel:
    frames: dict[Index, tuple[Series, ...]] = {
        (i,): (Series("line", *staircase(_edges(trace), trace.dt.abs()), MUTED[0], "accepted step"),)
        for i, trace in enumerate(traces)
    }
    sizes = np.concatenate([trace.dt.abs().numpy()[:-1] for trace in traces])
    y = Axis("size of the step", *around(sizes, log=True), log=True)
    return Panel(Axis("time t", *around(ends)), y, "The solver's steps", (), ("tolerance",), frames)


def _density_panel(
    traces: Sequence[Trace], found: dict[Index, dict[str, np.ndarray]], ends: tuple[float, float]
) -> Panel:
    edges = np.linspace(*ends, BINS + 1)

    def expected(trace: Trace) -> dict[str, np.ndarray]:
        share = np.interp(edges, _edges(trace), np.arange(trace.accepted + 1) / trace.accepted)
        level = np.full(BINS, 1 / (ends[1] - ends[0]))
        return {"local_unbiased": level, "local_biased": np.diff(share) / np.diff(edges)}

    def series(times: dict[str, np.ndarray], trace: Trace) -> tuple[Series, ...]:
        made = []
        for name, of in expected(trace).items():
            density = np.histogram(times[name], edges, density=True)[0]
            made.append(Series("line", *staircase(edges, density), of_regularizer(name), KINDS[name]))
            label = "expected" if name == "local_biased" else ""
            made.append(Series("line", *staircase(edges, of), MUTED[6], label, "5 3", 1.5))
        return tuple(made)

    frames = each(lambda i, k: series(found[i, k], traces[i]), len(traces), len({k for _, k in found}))
    top = 1.5 * max(float(of.max()) for trace in traces for of in expected(trace).values())
    by = ("tolerance", "number")
    return Panel(Axis("time t", *around(ends)), Axis("density", 0.0, top), "The draws", (), by, frames)
