"""Element: latent paths of one intensive-care stay, from what was read until some hour (lesson 07)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from reproduce.live.colors import MUTED, of_regularizer
from reproduce.live.element import Element
from reproduce.live.parts import Axis, Control, Panel, Series, around, band, each
from reproduce.models.latent import LatentODE, draw
from reproduce.models.solve import Solve
from reproduce.runs.store import VANILLA

HOURS = (6, 12, 24, 36, 48)


def latent_paths(
    model: LatentODE,
    solve: Solve,
    stay: tuple[Tensor, Tensor, Tensor],
    variables: Mapping[str, int],
    *,
    in_units: Callable[[Tensor], Tensor] = lambda values: values,
    hours: Sequence[int] = HOURS,
    components: int = 3,
    shown: int = 8,
    draws: int = 100,
    seed: int = 0,
) -> Element:
    """Return the element of a stay: choose until when it was read, see the latent paths that the model holds possible.

    Args:
        model: trained.
        solve: as in its tests.
        stay: values (times, variables), their mask of the same shape, and times from 0 to 1 (times,) for 48 hours.
        variables: name of a variable to its column, at least one.
        in_units: values (times, variables) to their units.
        hours: until which the recognition network reads.
        components: of the latent state to choose from: those that move most.
        shown: paths that are drawn.
        draws: initial states behind a band.
        seed: of the draws.

    Raises:
        ValueError: values and mask of different shapes, or no variable.
    """
    values, mask, t = stay
    if values.shape != mask.shape or values.ndim != 2 or len(values) != len(t) or not variables:
        raise ValueError(
            f"stay: expected values and mask (times, variables) and times (times,), and variables to show; found "
            f"{tuple(values.shape)}, {tuple(mask.shape)}, {tuple(t.shape)} and {list(variables)}"
        )
    model.eval()
    clock = 48 * t.numpy()
    with torch.no_grad():
        paths = [_paths(model, solve, values, mask * (t <= h / 48 + 1e-9)[:, None], t, draws, seed) for h in hours]
        said = [in_units(model.decode(path)) for path in paths]  # (draws, times, variables) each
    moving = paths[-1].mean(1).std(0).argsort(descending=True)[:components].tolist()
    names, start = list(variables), (len(hours) - 1, 0, 0)
    truth = in_units(values)
    texts = each(lambda i, j, k: _words(hours[i], said[i], truth, mask, clock, variables, names[k]),
                 len(hours), len(moving), len(names))  # fmt: skip
    return Element(
        "Latent paths of one stay",
        (
            Control("read", "read until hour", tuple(map(str, hours)), start[0]),
            Control("component", "latent component", tuple(str(c + 1) for c in moving), 0, "menu"),
            Control("variable", "variable", tuple(names), 0, "menu"),
        ),
        (
            _latent_panel(paths, moving, clock, shown),
            _variable_panel(said, truth, mask, clock, [variables[name] for name in names], hours),
        ),
        texts,
        f"Left: {shown} draws of the latent path. Right: their prediction, mean and the middle 95 % of {draws} draws, "
        "without observation noise; filled marks were read, crosses came later.",
        "Left: one component of the latent state over 48 hours, several drawn paths. Right: a variable over time, "
        f"observed values, the predicted mean and a band. Shown: {texts[start]}",
    )


def _paths(model: LatentODE, solve: Solve, values: Tensor, mask: Tensor, t: Tensor, draws: int, seed: int) -> Tensor:
    """Return latent paths (times, draws, d) after reading what the mask allows."""
    mean, std = model.encode((values * mask)[None], mask[None], t)
    rng = torch.Generator().manual_seed(seed)
    y0 = draw(mean.expand(draws, -1), std.expand(draws, -1), rng)
    return solve(model.dynamics, y0, t).y


def _latent_panel(paths: Sequence[Tensor], moving: Sequence[int], clock: np.ndarray, shown: int) -> Panel:
    def series(i: int, j: int) -> tuple[Series, ...]:
        drawn = np.pad(paths[i][:, :shown, moving[j]].numpy(), ((0, 1), (0, 0)), constant_values=np.nan).T
        x = np.tile(np.append(clock, np.nan), shown)
        mean = paths[i][..., moving[j]].mean(1)
        return (
            Series("line", x, drawn.ravel(), MUTED[7], "drawn path", width=1),
            Series("line", clock, mean, of_regularizer(VANILLA), "mean", width=3),
        )

    seen = np.concatenate([path[:, :shown][..., list(moving)].numpy().ravel() for path in paths])
    x, y = Axis("hours since admission", 0.0, 48.0), Axis("latent state", *around(seen))
    return Panel(x, y, "Latent paths", (), ("read", "component"), each(series, len(paths), len(moving)))


def _variable_panel(
    said: Sequence[Tensor], truth: Tensor, mask: Tensor, clock: np.ndarray, columns: Sequence[int], hours: Sequence[int]
) -> Panel:
    def standardized(values: np.ndarray, column: int) -> np.ndarray:
        seen = truth[mask[:, column] > 0, column].numpy()
        low, high = (seen.min(), seen.max()) if len(seen) else (0.0, 1.0)
        return (values - low) / (high - low or 1.0)

    def series(i: int, k: int) -> tuple[Series, ...]:
        column = columns[k]
        of = standardized(said[i][..., column].numpy(), column)  # (draws, times)
        low, high = np.quantile(of, (0.025, 0.975), axis=0)
        there, points = mask[:, column].numpy() > 0, standardized(truth[:, column].numpy(), column)
        read = there & (clock <= hours[i] + 1e-6)
        return (
            Series("area", *band(clock, low, high), of_regularizer(VANILLA), "95 % of draws"),
            Series("line", clock, of.mean(0), of_regularizer(VANILLA), "mean"),
            Series("dots", clock[read], points[read], MUTED[6], "read", width=6),
            Series("crosses", clock[there & ~read], points[there & ~read], MUTED[3], "came later", width=7),
        )

    y = Axis("0 and 1: lowest and highest observed", -0.4, 1.4)
    frames = each(series, len(said), len(columns))
    return Panel(Axis("hours since admission", 0.0, 48.0), y, "What it predicts", (), ("read", "variable"), frames)


def _words(
    hour: int, said: Tensor, truth: Tensor, mask: Tensor, clock: np.ndarray, variables: Mapping[str, int], name: str
) -> str:
    column = variables[name]
    mean = said[..., column].mean(0)
    later = (mask[:, column] > 0) & torch.as_tensor(clock > hour + 1e-6)
    there = mask[:, column] > 0
    part, what = (later, "the values that came later") if bool(later.any()) else (there, "the observed values")
    if not bool(part.any()):
        return f"Read until hour {hour}. {name} was never observed in this stay."
    error = float((mean[part] - truth[part, column]).square().mean().sqrt())
    return f"Read until hour {hour}. {name}: the mean is {error:.1f} away from {what} (root mean square)."
