"""Pictures: colours that can be told apart, marks that say how many seeds they have, legends beside the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from test_tables import ROW, row

from reproduce import plots
from reproduce.plots import palette
from reproduce.plots.base import Picture
from reproduce.report import tables
from reproduce.report.page import LOADS

COLORS = {**palette.REGULARIZERS, **{f"other {i}": color for i, color in enumerate(palette.PALETTE)}}


@pytest.fixture
def ax() -> Iterator[Axes]:
    plots.style()
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def linear(color: tuple[float, float, float]) -> np.ndarray:
    """The light of each of the three primaries (sRGB's transfer function undone)."""
    c = np.array(color)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(color: tuple[float, float, float]) -> np.ndarray:
    """CIELAB of an sRGB colour."""
    rgb_to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(rgb_to_xyz @ linear(color) / (0.9505, 1.0, 1.089), 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("name", COLORS)
def test_each_color_has_a_contrast_of_three_to_one_on_white(name: str) -> None:
    luminance = linear(COLORS[name]) @ (0.2126, 0.7152, 0.0722)
    assert 1.05 / (luminance + 0.05) >= 3


def test_no_two_colors_look_alike_and_none_of_a_regularizer_is_used_for_anything_else() -> None:
    near = {pair: np.linalg.norm(lab(COLORS[pair[0]]) - lab(COLORS[pair[1]])) for pair in combinations(COLORS, 2)}
    assert min(near.values()) > 18, min(near, key=lambda pair: near[pair])
    assert set(palette.REGULARIZERS) == set(tables.LABELS)
    plots.style()
    cycle = {to_hex(color) for color in plt.rcParams["axes.prop_cycle"].by_key()["color"]}
    assert not cycle & {to_hex(color) for color in palette.REGULARIZERS.values()}


def test_a_variant_and_a_sum_have_the_color_of_their_regularizer_and_a_marker_of_their_own() -> None:
    base, variant = plots.look("local_biased"), plots.look("local_biased:released")
    assert base.color == variant.color
    assert base.marker != variant.marker
    assert plots.look("global_error+steer").color == plots.look("global_error").color


def mark(ax: Axes, label: str) -> SimpleNamespace:
    """The large mark of a legend's entry: where it is, and whether it is filled."""
    [found] = [one for one in ax.collections if one.get_label() == label]
    return SimpleNamespace(at=found.get_offsets().tolist()[0], filled=bool(len(found.get_facecolor())))


def test_one_seed_is_hollow_beside_means_of_several_and_has_no_interval(ax: Axes) -> None:
    several = [row("none", 0.94 + 0.01 * seed, 60.0 + seed, seed) for seed in range(3)]
    plots.nfe_against_metric([*several, row("steer", 0.95, 50.0)], ax=ax)
    assert mark(ax, "vanilla (3)").filled
    assert not mark(ax, "STEER (1)").filled
    assert {to_hex(line.get_color()) for line in ax.lines} == {to_hex(plots.look("none").color)}


def test_intervals_are_students_over_seeds_in_both_directions(ax: Axes) -> None:
    plots.nfe_against_metric([row("none", 0.94 + 0.01 * seed, 60.0 + seed, seed) for seed in range(3)], ax=ax)
    half = 4.302653 / 3**0.5  # of a standard deviation, two degrees of freedom
    across, along = ax.lines
    assert list(across.get_xdata()) == pytest.approx([61 - half, 61 + half])
    assert list(along.get_ydata()) == pytest.approx([0.95 - 0.01 * half, 0.95 + 0.01 * half])
    assert plots.interval([2.0]) == (2.0, 2.0)
    low, high = plots.interval([1.0, 2.0, 3.0], log=True)
    assert low * high == pytest.approx(4.0)
    assert low > 0


def test_a_control_far_away_sits_on_the_frame_with_its_number_and_leaves_the_others_room(ax: Axes) -> None:
    models = [
        row(name, 0.95 + 0.001 * seed, nfe, seed) for name, nfe in (("none", 60.0), ("steer", 50.0)) for seed in (0, 1)
    ]
    plots.nfe_against_metric([*models, row(tables.CONTROL, 0.5, 0.0, 0), row(tables.CONTROL, 0.5, 0.0, 1)], ax=ax)
    low, _ = ax.get_ylim()
    assert low > 0.9
    assert mark(ax, "control: no dynamics (2)").at == pytest.approx([0.0, low])
    assert [text.get_text() for text in ax.texts] == ["control: no dynamics: 0.5"]


def test_a_variant_far_away_tells_both_numbers_in_words_that_are_read_at_once(ax: Axes) -> None:
    models = [row(name, 0.95, nfe) for name, nfe in (("none", 60.0), ("steer", 50.0))]
    plots.nfe_against_metric([*models, row("local_biased:released", 0.93, 1134.9)], ax=ax)
    assert [text.get_text() for text in ax.texts] == ["local, biased (released): 1,135, 0.93"]


def test_panels_side_by_side_have_one_vertical_range() -> None:
    fig, axes = plt.subplots(1, 2)
    parts = {"a": [row("none", 0.9, 60.0, 0), row("none", 0.91, 60.0, 1)], "b": [row("none", 0.97, 60.0, 0)]}
    plots.nfe_panels(parts, axes=axes)
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert axes[0].get_ylim()[0] < 0.9 < 0.97 < axes[0].get_ylim()[1]
    plt.close(fig)


def test_every_legend_stands_below_the_axes_and_their_label(ax: Axes) -> None:
    plots.history([replace(ROW, seed=seed) for seed in (0, 1)] + [replace(ROW, regularizer="steer")], "nfe", ax=ax)
    ax.figure.canvas.draw()
    legend, label = ax.get_legend(), ax.xaxis.label
    assert legend.get_window_extent().y1 <= label.get_window_extent().y0
    assert [text.get_text() for text in legend.get_texts()] == ["vanilla", "STEER (1 of 2 seeds)"]


@pytest.mark.parametrize("span", [1.5, 8.0, 1e3, 1e7])
def test_a_logarithmic_axis_has_two_to_nine_plain_numbers(ax: Axes, span: float) -> None:
    ax.set(yscale="log", ylim=(0.013, 0.013 * span))
    plots.plain_ticks(ax.yaxis)
    ax.figure.canvas.draw()
    shown = [tick for tick in ax.yaxis.get_major_ticks() if 0.013 <= tick.get_loc() <= 0.013 * span]
    assert 2 <= len(shown) <= 9
    assert all("$" not in tick.label1.get_text() for tick in shown)


def test_a_last_step_that_the_end_cut_short_takes_no_room(ax: Axes) -> None:
    t, dt = torch.tensor([0.0, 0.1, 0.5, 0.9999]), torch.tensor([0.1, 0.4, 0.4999, 0.0001])
    none = torch.tensor([])
    plots.steps_along_time(SimpleNamespace(t=t, dt=dt, rejected_t=none, rejected_dt=none), ax=ax)
    assert ax.lines[0].get_ydata().min() == pytest.approx(0.1)
    assert ax.lines[0].get_xdata()[-1] == pytest.approx(0.9999)


def test_a_picture_in_a_notebook_carries_its_alt_text_escaped_and_fits_the_page() -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR" + (3000).to_bytes(4) + (100).to_bytes(4)
    text = Picture(png, 'Axes & "finding"')._repr_html_()
    assert 'alt="Axes &amp; &quot;finding&quot;"' in text
    assert 'width="1000"' in text
    assert not LOADS.search(text)
