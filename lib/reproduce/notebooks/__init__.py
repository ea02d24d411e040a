"""The lessons: executed headless, kept while nothing changed, checked against their contract."""

from reproduce import left_out as left_out
