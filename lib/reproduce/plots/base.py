"""Figures from rows and traces (no training); saves with alt text and provenance."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reproduce import files
from reproduce.plots.axes import legend_below, plain_ticks
from reproduce.plots.palette import Look, look
from reproduce.report import tables
from reproduce.runs import events, store
from reproduce.runs.store import Row

SAVED, SHOWN, PAGE = 150, 90, 1000
"""Dots per inch in a file, and on a page; the widest picture on a page, in its pixels."""


def save(
    fig: Figure,
    name: str,
    *,
    alt: str,
    caption: str,
    profile: str,
    rows: Sequence[Row] = (),
    pdf: bool = False,
    show: bool = True,
) -> Path:
    """Write a figure as PNG and SVG, and beside them a JSON file with alt text, caption and what made it.

    The pictures carry the same in their metadata. It names the rows and what trained them, but no time and no
    present commit, so that the figure made again from stored rows is the same to the byte.

    Args:
        fig: the figure.
        name: file name without ending.
        alt: what the axes are and what the picture shows, for readers who do not see it.
        caption: one or two sentences.
        profile: profile of the run.
        rows: the rows it was drawn from.
        pdf: write a PDF, too.
        show: in a notebook, show the picture with alt text and caption, and close the figure, whose output has none.

    Returns:
        Path of the PNG.
    """
    folder = store.figures_folder(profile)
    source = {
        "profile": profile,
        "data": sorted({row.data for row in rows}),
        "rows": sorted(row.key for row in rows),
        "trained_with": _trained_with(rows),
    }
    text = json.dumps(source, sort_keys=True)
    metadata: dict[str, dict[str, str | None]] = {
        "png": {"Description": alt, "Source": text, "Software": None},
        "svg": {"Description": alt, "Source": text, "Date": None},
        "pdf": {"Subject": alt, "Keywords": text, "CreationDate": None},
    }
    endings = ("png", "svg", "pdf") if pdf else ("png", "svg")
    for ending, content in _drawn(fig, {ending: metadata[ending] for ending in endings}).items():
        _write(folder / f"{name}.{ending}", content)
    about = json.dumps({"alt": alt, "caption": caption, **source}, indent=1, sort_keys=True, ensure_ascii=False)
    _write(folder / f"{name}.json", f"{about}\n".encode())
    if show and get_ipython() is not None:
        display(Picture((folder / f"{name}.png").read_bytes(), alt, caption))
        plt.close(fig)
    return folder / f"{name}.png"


@dataclass(frozen=True)
class Picture:
    """A picture as an output of a notebook: an HTML figure, which unlike a bare PNG keeps alt text and caption."""

    png: bytes = field(repr=False)
    alt: str
    caption: str = ""

    def _repr_html_(self) -> str:
        pixels = int.from_bytes(self.png[16:20])  # where a PNG tells its width
        width, data = min(round(pixels * SHOWN / SAVED), PAGE), b64encode(self.png).decode()
        image = f'<img src="data:image/png;base64,{data}" alt="{escape(self.alt)}" width="{width}">'
        below = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        return f'<figure style="margin: 0">{image}{below}</figure>'


def picture(fig: Figure, *, alt: str) -> Picture:
    """Return a figure as an output with its alt text, kept in no file; the figure is closed."""
    png = _drawn(fig, {"png": {"Description": alt, "Software": None}})["png"]
    plt.close(fig)
    return Picture(png, alt)


def _drawn(fig: Figure, metadata: Mapping[str, Mapping[str, str | None]]) -> dict[str, bytes]:
    """Return a figure in the formats that have metadata, laid out and cut to what it shows once for all of them.

    `savefig` would lay it out for each format, and draw it one more time to find its edges.
    """
    before, engine = fig.dpi, fig.get_layout_engine()
    fig.dpi = SAVED
    fig.draw_without_rendering()
    edges = fig.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])
    fig.set_layout_engine(None)  # what the layout has placed stays where it is
    found = {}
    for ending, told in metadata.items():
        buffer = BytesIO()
        fig.savefig(buffer, format=ending, metadata=dict(told), dpi=SAVED, bbox_inches=edges)
        found[ending] = buffer.getvalue()
    fig.dpi = before
    fig.set_layout_engine(engine)
    return found


def _trained_with(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The different commits, locks and devices that rows were trained with; what a row does not tell is left out."""
    found = set()
    for made in (row.provenance for row in rows):
        told = {name: str(made[name]) for name in ("commit", "lock", "device") if name in made}
        if "commit" in told and made.get("dirty"):
            told["commit"] += "-dirty"
        found.add(tuple(sorted(told.items())))
    return [dict(told) for told in sorted(found) if told]


def _write(path: Path, content: bytes) -> None:
    files.write_atomically(path, content)
    events.file(path)


def history(rows: Sequence[Row], what: str, *, ax: Axes | None = None) -> Axes:
    """Draw an entry of the training history ('nfe', 'loss', 'penalty') over steps: mean and range over seeds.

    A regularizer with fewer seeds than the others is drawn thin, and the legend says so.
    """
    ax = ax or plt.gca()
    groups = {name: [row for row in rows if row.regularizer == name] for name in {row.regularizer for row in rows}}
    most = max(map(len, groups.values()))
    for name in tables.in_order(groups):
        group, seen = groups[name], look(name)
        steps = [entry["step"] for entry in group[0].history]
        values = np.array([[entry[what] for entry in row.history] for row in group])
        few = len(group) < most
        label = tables.label(name) + (f" ({len(group)} of {most} seeds)" if few else "")
        ax.plot(steps, values.mean(0), color=seen.color, linestyle=seen.dash, label=label, linewidth=1 if few else 2)
        ax.fill_between(steps, values.min(0), values.max(0), color=seen.color, alpha=0.15, linewidth=0)
    ax.set(xlabel="training step", ylabel={"nfe": "NFE of the training solve"}.get(what, what))
    legend_below(ax)
    return ax


def steps_along_time(trace: Any, *, ax: Axes | None = None, name: str = "none", label: str | None = None) -> Axes:
    """Draw the size of each accepted step over time as a staircase, and rejected attempts as crosses.

    A last step that the end of the interval cut shorter than all others is left out: it tells nothing of the field, and
    would take half of the axis. The legend comes below.

    Args:
        trace: of a solve.
        ax: axes; None: the current ones.
        name: the regularizer; "" for what is none, as the equation of the data.
        label: for the legend; None: that of the regularizer.
    """
    ax = ax or plt.gca()
    seen = look(name) if name else Look("0.35", "", "--")
    t, dt = trace.t.numpy(), np.abs(trace.dt.numpy())
    if len(dt) > 1 and dt[-1] < dt[:-1].min():
        t, dt = t[:-1], dt[:-1]
    end = trace.t[len(dt) - 1].item() + trace.dt[len(dt) - 1].item()
    ax.step(np.append(t, end), np.append(dt, dt[-1]), where="post", color=seen.color, linestyle=seen.dash,
            label=label or tables.label(name))  # fmt: skip
    ax.scatter(trace.rejected_t, trace.rejected_dt.abs(), marker="x", s=28, color=seen.color)
    ax.set(xlabel="time t", ylabel="size of the step", yscale="log")
    plain_ticks(ax.yaxis)
    legend_below(ax)
    return ax


def reference_slope(x: Sequence[float], y: float, slope: float, *, ax: Axes | None = None, above: bool = False) -> Axes:
    """Draw a grey line of a known slope in log-log axes, from (x[0], y) to x[1], with the slope written at its middle.

    The text stands above the line (`above`, for a line above the data) or below it, where it is clear of it.
    """
    ax = ax or plt.gca()
    ax.loglog(x, [y, y * (x[1] / x[0]) ** slope], color="0.35", linewidth=1.5)
    ratio = (x[1] / x[0]) ** 0.5
    left = above == (slope > 0)
    ax.annotate(f"slope {slope:g}", (x[0] * ratio, y * ratio**slope), xytext=(-4 if left else 4, 4 if above else -4),
                textcoords="offset points", ha="right" if left else "left", va="bottom" if above else "top",
                fontsize="small", color="0.25")  # fmt: skip
    return ax
