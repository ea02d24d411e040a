"""One file per experiment; each defines EXPERIMENT, and is found by being here."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from reproduce.experiments.experiment import PAPERS_FORMS, Budget, Entry, Experiment, Problem

__all__ = ["PAPERS_FORMS", "Budget", "Entry", "Experiment", "Problem", "get", "names"]

SHARED = ("chosen", "experiment", "of_images")
"""Modules of this folder that are no experiments."""


def names() -> list[str]:
    """Return the names of all experiments."""
    return sorted(module.name for module in iter_modules(__path__) if module.name not in SHARED)


def get(name: str) -> Experiment:
    """Return an experiment by name; ValueError if there is none."""
    if name not in names():
        raise ValueError(f"unknown experiment {name!r}; choose one of {names()}")
    experiment = import_module(f"{__name__}.{name}").EXPERIMENT
    assert isinstance(experiment, Experiment)
    return experiment
