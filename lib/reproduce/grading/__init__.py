"""Grading of problem sets: points with reasons, submissions run in a sandbox, nbgrader around both."""
