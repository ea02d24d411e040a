"""Slides: decks of reveal.js, whose code, text and pictures come from the lessons' masters."""

from reproduce import left_out as left_out
