"""Grading of problem sets: points with reasons, submissions run in a sandbox, nbgrader around both."""

from reproduce import left_out as left_out
