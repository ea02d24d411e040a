"""What tests of resumed runs share: a run that is killed, and goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reproduce.runs import checkpoint, store
from reproduce.runs.run import Run, weights_path
from reproduce.runs.store import Row


def without_clock(row: Row) -> Row:
    """Return a row without what a clock said, and without what says when and where it was made."""
    ways = [{name: value for name, value in entry.items() if name != "seconds"} for entry in row.ways]
    return replace(row, seconds={}, provenance={}, ways=ways)


def assert_resumes_bitwise(run: Run, *, at: list[int]) -> None:
    """Make a run; make it again, killed when it has stored its state after the last training step of `at`; go on.

    Row (but for the clock) and weights must be those of the uninterrupted run, to the bit.
    """
    whole = run.make()
    weights = torch.load(weights_path(whole), weights_only=True)
    store.path_of(whole).unlink()
    save, stored = checkpoint.save, list[int]()

    def save_and_die(path: Path, key: str, state: dict[str, int]) -> None:
        save(path, key, state)
        stored.append(state["step"])
        if len(stored) == len(at):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run.make()
    assert stored == at
    resumed = run.make()
    assert without_clock(resumed) == without_clock(whole)
    again = torch.load(weights_path(resumed), weights_only=True)
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[part], again[part]) for part in weights)
