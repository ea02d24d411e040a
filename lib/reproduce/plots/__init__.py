"""Pictures: the common ones and their look here, one file beside for each family (no training)."""

from reproduce.plots.base import history, nfe_against_metric, reference_slope, save, steps_along_time
from reproduce.plots.palette import DASHES, MARKERS, PALETTE, Look, look, style

__all__ = [
    "DASHES",
    "MARKERS",
    "PALETTE",
    "Look",
    "history",
    "look",
    "nfe_against_metric",
    "reference_slope",
    "save",
    "steps_along_time",
    "style",
]
