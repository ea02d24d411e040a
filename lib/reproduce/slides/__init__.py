"""Slides: decks of reveal.js, whose code, text and pictures come from the lessons' masters."""
