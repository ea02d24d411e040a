"""Pictures: the common ones and their look here, one file beside for each family (no training)."""

from reproduce.plots.axes import interval, legend_below, legend_of_all, plain_ticks
from reproduce.plots.base import history, picture, reference_slope, save, steps_along_time
from reproduce.plots.cost import nfe_against_metric, nfe_panels
from reproduce.plots.palette import DASHES, MARKERS, PALETTE, Look, look, style

__all__ = [
    "DASHES",
    "MARKERS",
    "PALETTE",
    "Look",
    "history",
    "interval",
    "legend_below",
    "legend_of_all",
    "look",
    "nfe_against_metric",
    "nfe_panels",
    "picture",
    "plain_ticks",
    "reference_slope",
    "save",
    "steps_along_time",
    "style",
]
