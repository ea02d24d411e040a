"""Shared by all tests: one thread, fields that count, small problems with known solutions, folders without rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from study_rows import FEW, TIGHT
from torch import Tensor, nn
from xdist.scheduler import LoadScopeScheduling

from reproduce import checkout
from reproduce.data import registry
from reproduce.models.fields import TimeMLP
from reproduce.report import precision, study
from reproduce.runs import ways

TOGETHER = {
    "kernels": (
        "test_notebooks.py",
        "test_kernels.py",
        "test_report.py::test_the_report_runs_after_the_others",
    ),  # ports found by chance
    "sandbox": ("test_grading.py",),
    "undisturbed": ("test_sweep.py::test_a_sweep_killed", "test_sweep.py::test_a_dask_cluster_makes_the_same_rows"),
}
"""Tests that one process has to take: those whose names begin so. (Marks of xdist_group do nothing with pytest 9.2.)"""


class Together(LoadScopeScheduling):
    """Gives each test to the next free process, but for those of TOGETHER."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid) or nodeid


def group_of(nodeid: str) -> str | None:
    """Return the group of TOGETHER that a test belongs to."""
    name = nodeid.rpartition("tests/")[2]
    return next((group for group, begins in TOGETHER.items() if name.startswith(begins)), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together | None:
    return Together(config, log) if config.getvalue("dist") == "loadgroup" else None


class Counting(nn.Module):
    """A field that counts how often it is called, independently of the library's own count."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f, self.calls = f, 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return self.f(t, y)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def no_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without the curve over ways to solve: most of a smoke run, and nothing of what the training makes."""
    monkeypatch.setattr(ways, "measured", lambda *given, **more: [])


@pytest.fixture
def empty_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository without data, no folder of the user's, no network: for tests of loaders."""
    for name in ("REGNDE_DATA", "REGNDE_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    monkeypatch.setenv("REGNDE_OFFLINE", "1")
    registry._silence.cache_clear()
    return tmp_path


@pytest.fixture
def mlp() -> Counting:
    """A small field R^3 -> R^3 in float64 with weights large enough that the solver has to work."""
    torch.manual_seed(0)
    field = TimeMLP((3, 16, 3)).double()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.mul_(2.0)
    return Counting(field)


@pytest.fixture
def y0() -> Tensor:
    """A batch of four states in R^3."""
    return torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def rowless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder with the reference data, without rows."""
    shutil.copytree(
        checkout.ROOT / "data" / "reference", tmp_path / "data" / "reference", ignore=lambda *_: {"measured"}
    )
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ladders that chose the tight way for vanilla and one midpoint step for the biased penalty."""
    of = {
        "lr": 0.012,
        "ways": {"none": list(TIGHT), "local_biased": list(FEW)},
        "gains": {
            "none": {"evaluations": 100.0, "held_out_gain": 1.0},
            "local_biased": {"evaluations": 2.0, "held_out_gain": 0.99},
            "local_unbiased": {"evaluations": 1.0, "held_out_gain": 0.5},
        },
    }
    monkeypatch.setattr(study, "chosen", lambda name: of if name == "mnist_ode" else {})
    monkeypatch.setattr(precision, "rows", list)  # what was measured of real models is nothing to made-up rows
