"""Colours of elements: those of the pictures, as pages want them."""

from __future__ import annotations

from matplotlib.colors import to_hex

from reproduce.plots.palette import PALETTE, look

MUTED = tuple(to_hex(color) for color in PALETTE)
"""For all that is no regularizer and no method."""
DASHES = ("", "7 3", "2 3", "9 3 2 3")
TRUTH = "#7A7F87"
"""Of what a solver does not know."""


def of_regularizer(name: str) -> str:
    """Return the colour that a regularizer has in all pictures."""
    return to_hex(look(name).color)
