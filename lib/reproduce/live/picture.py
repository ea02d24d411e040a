"""The drawing of an element: panels as SVG, whose moving marks are paths that a script exchanges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from reproduce.live.parts import Axis, Index, Panel, Series

WIDTH, LEFT, RIGHT, HEIGHT, BELOW, GAP = 380, 56, 10, 200, 42, 12
"""Of a panel; left and right of its plot; of the plot; below it; between panels: in pixels at full size."""
LINE = 17  # of the legend
FINE = 10
"""Coordinates inside a plot are whole tenths of a pixel, which makes short paths."""
INK, FAINT = "#1b1f24", "#8a929a"


def drawing(shown: Sequence[Panel], frames: Sequence[tuple[Series, ...]]) -> str:
    """Return panels, each with one of its frames, as one SVG of its own, side by side."""
    panels = [_panel(panel, frame) for panel, frame in zip(shown, frames, strict=True)]
    width, height = len(panels) * (WIDTH + GAP) - GAP, max(high for _, high in panels)
    parts = [
        f'<svg x="{i * (WIDTH + GAP)}" y="0" width="{WIDTH}" height="{high}" viewBox="0 0 {WIDTH} {high}">{svg}</svg>'
        for i, (svg, high) in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12">{"".join(parts)}</svg>'
    )


def paths(panel: Panel, by: Index) -> list[str]:
    """Return the paths of a frame's series, in their order."""
    return [path(series, panel) for series in panel.frames[by]]


def path(series: Series, panel: Panel) -> str:
    """Return a series as a path of SVG, in tenths of a pixel from the plot's upper left corner."""
    x, y = np.broadcast_arrays(np.asarray(series.x, dtype=float), np.asarray(series.y, dtype=float))
    px = _scaled(panel.x, x.ravel(), (WIDTH - LEFT - RIGHT) * FINE)
    py = HEIGHT * FINE - _scaled(panel.y, y.ravel(), HEIGHT * FINE)
    seen = np.isfinite(px) & np.isfinite(py)
    points = [(int(a), int(b)) if ok else None for a, b, ok in zip(px, py, seen, strict=True)]
    if series.kind in ("line", "area"):
        return "".join(_lines(points)) + ("z" if series.kind == "area" and any(points) else "")
    if series.kind in ("dots", "squares"):
        return "".join(_dots([at for at in points if at is not None]))
    half = round(series.width * FINE / 2)
    mark = {
        "triangles": f"m0-{half}l{half} {2 * half}h-{2 * half}z",
        "crosses": f"m-{half}-{half}l{2 * half} {2 * half}m0-{2 * half}l-{2 * half} {2 * half}",
    }[series.kind]
    return "".join(f"M{at[0]} {at[1]}{mark}" for at in points if at is not None)


def _scaled(axis: Axis, values: np.ndarray, size: int) -> np.ndarray:
    """Return values as whole tenths of a pixel along an axis; NaN where they cannot be drawn."""
    with np.errstate(divide="ignore", invalid="ignore"):
        at, low, high = (np.log10(v) if axis.log else v for v in (values, axis.low, axis.high))
        share = (at - low) / (high - low)
    return np.where(np.isfinite(share), np.round(np.clip(share, -9, 9) * size), np.nan)


def _lines(points: Iterable[tuple[int, int] | None]) -> Iterator[str]:
    last: tuple[int, int] | None = None
    for at in points:
        if at is not None and last is None:
            yield f"M{at[0]} {at[1]}l"
        elif at is not None and last is not None and at != last:
            yield f"{_signed(at[0] - last[0])}{_signed(at[1] - last[1])}"
        last = at


def _dots(points: list[tuple[int, int]]) -> Iterator[str]:
    """Yield lines of no length, whose round or square ends are the marks; each begins relative to the one before."""
    for (x, y), (last_x, last_y) in zip(points, [(0, 0), *points], strict=False):
        yield f"m{x - last_x}{_signed(y - last_y)}h0"


def _signed(number: int) -> str:
    return f"{number}" if number < 0 else f" {number}"


def _panel(panel: Panel, frame: tuple[Series, ...]) -> tuple[str, int]:
    """Return the content of a panel and its height."""
    legend, rows = _legend([series for series in (*panel.stays, *frame) if series.label])
    top = 8 + (LINE if panel.title else 0) + rows * LINE
    plot = WIDTH - LEFT - RIGHT
    title = f'<text x="{LEFT}" y="16" font-weight="bold" fill="{INK}">{escape(panel.title)}</text>'
    stays, moves = ("".join(_drawn(series, panel) for series in group) for group in (panel.stays, frame))
    content = (
        f"{title if panel.title else ''}"
        f'<g transform="translate(0 {LINE if panel.title else 0})">{legend}</g>'
        f'<g transform="translate({LEFT} {top})">{"".join(_axes(panel))}'
        f'<svg width="{plot}" height="{HEIGHT}" viewBox="0 0 {plot * FINE} {HEIGHT * FINE}" overflow="hidden">'
        f'{stays}<g class="moves">{moves}</g></svg></g>'
    )
    return content, top + HEIGHT + BELOW


def _drawn(series: Series, panel: Panel, scale: int = FINE, d: str | None = None) -> str:
    d = path(series, panel) if d is None else d
    if series.kind in ("area", "triangles"):
        pale = ' fill-opacity="0.25"' if series.kind == "area" else ""
        return f'<path class="fill" style="--c:{series.color}" fill="{series.color}"{pale} d="{d}"/>'
    width = 1.8 if series.kind == "crosses" else series.width
    cap = {"dots": "round", "squares": "square"}.get(series.kind, "butt")
    dashes = " ".join(str(int(part) * scale) for part in series.dash.split())
    return (
        f'<path class="line" style="--c:{series.color}" fill="none" stroke="{series.color}" '
        f'stroke-width="{width * scale:g}" stroke-linecap="{cap}" stroke-linejoin="round"'
        f'{f" stroke-dasharray={chr(34)}{dashes}{chr(34)}" if dashes else ""} d="{d}"/>'
    )


def _legend(entries: list[Series]) -> tuple[str, int]:
    """Return the legend's lines, filled from the left, and how many they are."""
    x, row, found = LEFT, 0, []
    for series in entries:
        width = 42 + round(6.4 * len(series.label))
        if x > LEFT and x + width > WIDTH:
            x, row = LEFT, row + 1
        y, half = 15 + row * LINE - 4, series.width / 2
        d = {
            "line": "M0 0h22", "area": "M0-5h22v10h-22z", "dots": "M11 0h0", "squares": "M11 0h0",
            "triangles": f"M11-{half}l{half} {2 * half}h-{2 * half}z",
            "crosses": f"M{11 - half}-{half}l{2 * half} {2 * half}m0-{2 * half}l-{2 * half} {2 * half}",
        }[series.kind]  # fmt: skip
        mark = _drawn(series, Panel(Axis("", 0, 1), Axis("", 0, 1)), 1, d)
        text = f'<text x="{x + 28}" y="{y + 4}" fill="{INK}">{escape(series.label)}</text>'
        found.append(f'<g transform="translate({x} {y})">{mark}</g>{text}')
        x += width
    return "".join(found), row + 1 if entries else 0


def _axes(panel: Panel) -> Iterator[str]:
    """Yield frame, grid, ticks and labels, from the plot's upper left corner."""
    plot = WIDTH - LEFT - RIGHT
    for at, text in ticks(panel.x):
        x = _scaled(panel.x, np.array([at]), plot)[0]
        yield f'<path class="grid" d="M{x:g} 0v{HEIGHT}" stroke="{FAINT}" stroke-opacity="0.35"/>'
        yield f'<text x="{x:g}" y="{HEIGHT + 15}" text-anchor="middle" fill="{INK}">{text}</text>'
    for at, text in ticks(panel.y):
        y = HEIGHT - _scaled(panel.y, np.array([at]), HEIGHT)[0]
        yield f'<path class="grid" d="M0 {y:g}h{plot}" stroke="{FAINT}" stroke-opacity="0.35"/>'
        yield f'<text x="-6" y="{y + 4:g}" text-anchor="end" fill="{INK}">{text}</text>'
    yield f'<path d="M0 0V{HEIGHT}H{plot}" fill="none" stroke="{FAINT}"/>'
    yield f'<text x="{plot / 2:g}" y="{HEIGHT + 33}" text-anchor="middle" fill="{INK}">{escape(panel.x.label)}</text>'
    yield (
        f'<text transform="translate({14 - LEFT} {HEIGHT / 2:g}) rotate(-90)" text-anchor="middle" fill="{INK}">'
        f"{escape(panel.y.label)}</text>"
    )


def ticks(axis: Axis) -> list[tuple[float, str]]:
    """Return a few round values inside an axis, each as it is written there."""
    if axis.log and axis.high > 30 * axis.low:
        found = LogLocator(numticks=6).tick_values(axis.low, axis.high)
    elif axis.log:
        found = LogLocator(subs=(1.0, 2.0, 5.0), numticks=8).tick_values(axis.low, axis.high)
    else:
        found = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(axis.low, axis.high)
    inside = [float(at) for at in found if axis.low <= at <= axis.high]
    return [(at, f"{at:g}".replace("e-0", "e-").replace("-", "−", at < 0)) for at in inside]
