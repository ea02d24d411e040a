"""What float32 takes of the gain: numbers are those that the measurements are made with; the benchmark, in small."""

from __future__ import annotations

import importlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch

from regnde import solve_ode
from reproduce import checkout
from reproduce.plots import precision as plots_precision
from reproduce.report import precision
from reproduce.runs import protocol

TIGHT = 1e-8
NFE = {
    ("none", "float32", 1e-7): 68,
    ("none", "float64", 1e-7): 60,
    ("local_biased", "float32", 1e-7): 51,
    ("local_biased", "float64", 1e-7): 30,
    ("none", "float32", TIGHT): 110,
    ("none", "float64", TIGHT): 90,
    ("local_biased", "float32", TIGHT): 110,
    ("local_biased", "float64", TIGHT): 45,
}
ROWS: list[dict[str, Any]] = [
    {"experiment": "mnist_ode", "line": line, "seed": seed, "dtype": dtype, "tolerance": tolerance, "trained_at": 1e-7,
     "nfe": nfe * (1 + seed), "straight": 32 if dtype == "float32" else 20}
    for (line, dtype, tolerance), nfe in NFE.items() for seed in (0, 1)
]  # fmt: skip


def test_ratios_are_of_pairs_of_one_seed_in_one_precision_at_one_tolerance() -> None:
    assert precision.tolerances(ROWS, "mnist_ode") == (1e-7, TIGHT)
    for dtype, tolerance, expected in (
        ("float32", 1e-7, 51 / 68),
        ("float64", 1e-7, 0.5),
        ("float32", TIGHT, 1.0),
        ("float64", TIGHT, 0.5),
    ):
        effect = precision.ratio(ROWS, "mnist_ode", dtype, tolerance)
        assert effect is not None
        assert math.exp(effect.mean) == pytest.approx(expected)
    assert precision.ratio(ROWS, "mnist_ode", "float64", 1e-3) is None


def test_words_and_table_have_both_precisions_at_the_tolerance_of_training_and_at_the_tightest() -> None:
    said = precision.in_words(ROWS)
    assert "at 1e-07 0.75x in float32 and 0.50x in float64; at 1e-08 1.00x in float32 and 0.50x in float64" in said
    assert "(seeds 0 and 1, which enter no verdict" in said
    first, _, tight, _ = precision.table(ROWS).to_dict("records")
    assert (first["tolerance"], tight["tolerance"]) == ("1e-07 (as trained)", "1e-08")
    assert (first["evaluations"], first["vanilla's"], first["a straight line's"]) == (
        "76.5 / 45.0",
        "102.0 / 90.0",
        "32.0 / 20.0",
    )
    assert (first["ratio in float32"], first["ratio in float64"]) == ("0.75x", "0.50x")


def test_a_path_with_output_times_has_no_straight_line() -> None:
    bent = [row | {"straight": None} for row in ROWS]
    assert set(precision.table(bent)["a straight line's"]) == {""}
    assert precision.by_seed(bent, "mnist_ode", "none", "float32", 1e-7, "straight") == {}


def test_what_float64_saves_is_told_of_every_missed_goal_that_was_measured_whichever_way_it_is() -> None:
    assert "take 0.50x on MNIST, neural ODE (0.75x in float32) (2 seeds" in precision.missed(ROWS, ["mnist_ode", "x"])
    alike = [row | {"nfe": 50} for row in ROWS]
    assert "1.00x on MNIST, neural ODE (1.00x in float32)" in precision.missed(alike, ["mnist_ode"])
    assert precision.missed(ROWS, ["spiral_ode"]) == ""


def test_without_a_file_nothing_is_said_and_the_picture_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    assert precision.rows() == []
    assert precision.in_words([]) == precision.missed([], ["mnist_ode"]) == ""
    assert len(precision.table([])) == 0
    plt.close(plots_precision.over_tolerances([]))


def test_the_picture_has_each_model_and_a_straight_line_in_both_precisions() -> None:
    fig = plots_precision.over_tolerances(ROWS)
    drawn = [tuple(line.get_ydata()) for line in fig.axes[0].lines if len(line.get_xdata()) == 2]
    assert (165.0, 102.0) in drawn  # vanilla in float32, from the tightest tolerance on
    assert (67.5, 45.0) in drawn
    assert drawn.count((32.0, 32.0)) == drawn.count((20.0, 20.0)) == 1
    plt.close(fig)


def test_both_precisions_give_the_same_answers() -> None:
    """So the model is in evaluation mode: no batch statistics, no noise that is drawn in another dtype."""
    measured = precision.rows()
    for name in precision.names(measured):
        tight = [row for row in measured if row["experiment"] == name and row["tolerance"] <= 1e-6]
        for row in tight:
            if row["dtype"] == "float64":
                (single,) = (
                    other["value"] for other in tight
                    if other["dtype"] == "float32" and all(other[x] == row[x] for x in ("line", "seed", "tolerance"))
                )  # fmt: skip
                assert row["value"] == pytest.approx(single, rel=0.01, abs=0.01), (name, row["line"], row["seed"])


def test_the_kept_measurement_is_complete_and_from_a_clean_tree() -> None:
    content = json.loads((checkout.ROOT / precision.KEPT).read_text(encoding="utf-8"))
    assert not content["provenance"]["dirty"]
    bench = _bench()
    found = {(row["experiment"], row["line"], row["dtype"], row["tolerance"]) for row in content["rows"]}
    expected = {
        (name, line, dtype, at)
        for name in bench.TASKS for line in bench.LINES for dtype in bench.DTYPES for at in bench.TOLERANCES
    }  # fmt: skip
    assert found == expected
    assert not [row for row in content["rows"] if row["seed"] >= 10], "reported seeds stay unseen"


def _bench() -> Any:
    folder = str(Path(__file__).resolve().parents[1] / "benchmarks")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("bench_precision")


def test_the_benchmark_counts_what_a_solve_takes_and_rounding_costs_a_straight_line_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, run = _bench(), replace(protocol.run_of("mnist_ode", "none", 0), profile="smoke")  # reads the protocol
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    trained = run.trained()
    single, double = (bench.solved(trained, run, dtype, TIGHT) for dtype in bench.DTYPES.values())
    images = trained.problem.test_batches("test")[0][0]
    moments = torch.tensor([0.0, 1.0], dtype=torch.float64)
    with torch.no_grad():
        own = solve_ode(trained.model.dynamics, images.flatten(1), moments, method="tsit5", rtol=TIGHT, atol=TIGHT)
    assert single["nfe"] == own.trace.nfe
    assert double["straight"] < single["straight"] < single["nfe"]
    assert double["nfe"] < single["nfe"]
