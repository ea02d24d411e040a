"""Tables: what is averaged with what, and how the gain over the control is counted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from rows import ROW

from reproduce import checkout, plots
from reproduce.report import tables
from reproduce.runs import store
from reproduce.runs.store import Row


def row(regularizer: str, accuracy: float, nfe: float, seed: int = 0, rtol: float = 1e-5, predict: float = 0.1) -> Row:
    return replace(
        ROW,
        key=f"{regularizer}{seed}{rtol}",
        regularizer=regularizer,
        seed=seed,
        budget={"rtol": rtol},
        metrics={"accuracy": accuracy, "train_accuracy": accuracy, "loss": 0.3, "train_loss": 0.2},
        nfe=nfe,
        seconds={"train": 10.0, "predict": predict},
    )


ROWS = [
    row("local_biased", 0.93, 20.0, 0, predict=0.05),
    row("local_biased", 0.94, 24.0, 1, predict=0.05),
    row("none", 0.95, 40.0, 0),
    row("none", 0.94, 40.0, 1),
    row("no_dynamics", 0.90, 0.0),
    row("none", 0.96, 100.0, 0, rtol=1e-7),
]


def test_means_deviations_and_ratios_are_those_of_the_seeds_at_one_tolerance() -> None:
    table = tables.compare(ROWS).set_index(["tolerance", "regularizer"])
    biased = table.loc[(1e-5, "local_biased")]
    assert biased["seeds"] == 2
    assert biased["nfe"] == pytest.approx(22.0)
    assert biased["nfe_std"] == pytest.approx(math.sqrt(8.0))
    assert biased["nfe_ratio"] == pytest.approx(math.sqrt(20 / 40 * 24 / 40))  # pair by pair
    assert biased["predict_speedup"] == pytest.approx(2.0)
    assert table.loc[(1e-7, "none")]["nfe_ratio"] == 1.0


def test_a_training_that_broke_off_is_counted_beside_the_seeds_and_has_no_part_in_means_or_pairs() -> None:
    gone = replace(
        row("local_biased", math.nan, math.nan, 1),
        provenance={"more": {"broke_off": "after step 4"}},
        seconds={"train": math.nan, "predict": math.nan},
    )
    table = tables.compare([ROWS[0], gone, *ROWS[2:]])
    line = table.set_index(["tolerance", "regularizer"]).loc[(1e-5, "local_biased")]
    assert (line["seeds"], line["broke_off"]) == (2, 1)
    assert (line["nfe"], line["vanilla_metric"]) == (20.0, 0.95)  # those of seed 0 on both sides
    assert list(tables.readable(table, metric="accuracy")["seeds"]) == ["1", "2", "2 (1 broke off)", "1"]


def test_the_gain_kept_is_counted_from_the_control_to_vanilla_for_either_direction_of_a_metric() -> None:
    table = tables.compare([*ROWS, row("no_dynamics", 0.888, 0.0, 1)]).set_index(["tolerance", "regularizer"])
    assert table.loc[(1e-5, "local_biased")]["gain_kept"] == pytest.approx((0.935 - 0.894) / (0.945 - 0.894))
    assert table.loc[(1e-5, "no_dynamics")]["gain_kept"] == pytest.approx(0.0)
    assert table.loc[(1e-5, "none")]["gain_kept"] == pytest.approx(1.0)
    assert math.isnan(table.loc[(1e-7, "none")]["gain_kept"])  # no control was run at this tolerance
    assert tables.gain_kept(0.3, vanilla=0.2, control=1.2, higher_is_better=False) == pytest.approx(0.9)
    for control, higher in ((0.2, True), (0.3, True), (0.1, False)):  # vanilla is no better than the control
        kept = tables.gain_kept(0.25, vanilla=0.2, control=control, higher_is_better=higher)
        assert math.isnan(kept)
        assert tables.kept_in_words(kept) == "vanilla has no sure gain to keep"


def test_of_a_gain_that_seeds_do_not_agree_on_no_share_is_told() -> None:
    def table(*vanilla: float) -> pd.DataFrame:
        found = [row("none", value, 30.0, seed) for seed, value in enumerate(vanilla)]
        found += [row("no_dynamics", 0.10, 0.0, seed) for seed in range(len(vanilla))]
        return tables.compare([*found, row("steer", 0.20, 30.0, 0)]).set_index("regularizer")

    assert table(0.11, 0.09, 0.34)["gain_kept"].isna().all()  # one of three has learned
    assert table(0.30, 0.32, 0.34).loc["steer"]["gain_kept"] == pytest.approx(0.1 / 0.2)
    assert table(0.05, 0.06, 0.07)["gain_kept"].isna().all()


def test_a_line_with_one_seed_is_compared_with_this_seed_of_vanilla() -> None:
    rows = [row("none", 0.94, 30.0, 0), row("none", 0.96, 90.0, 1), row("steer", 0.93, 30.0, 0)]
    table = tables.compare([*rows, row("no_dynamics", 0.90, 0.0, 0)]).set_index("regularizer")
    assert table.loc["steer"]["nfe_ratio"] == pytest.approx(1.0)  # and not 30 / 60
    assert table.loc["steer"]["gain_kept"] == pytest.approx(0.03 / 0.04)
    assert table.loc["none"]["nfe"] == pytest.approx(60.0)


def test_a_comparison_is_over_the_seeds_that_both_have() -> None:
    rows = [
        row("none", 0.94, 30.0, 0),
        *(row("local_biased", 0.93, nfe, seed) for seed, nfe in enumerate((15.0, 99.0))),
    ]
    table = tables.compare([*rows, row("no_dynamics", 0.90, 0.0, 0)]).set_index("regularizer")
    assert table.loc["local_biased"]["nfe"] == pytest.approx(57.0)
    assert table.loc["local_biased"]["nfe_ratio"] == pytest.approx(0.5)
    apart = tables.compare([rows[0], row("steer", 0.93, 15.0, 7)]).set_index("regularizer").loc["steer"]
    assert math.isnan(apart["nfe_ratio"])
    assert math.isnan(apart["vanilla_metric"])


@pytest.mark.parametrize(("entry", "other"), [("method", "sosri2"), ("steps", 150), ("host", "torchdiffeq")])
def test_rows_trained_in_another_way_have_lines_and_a_vanilla_of_their_own(entry: str, other: str | int) -> None:
    usual: dict[str, Any] = {"method": "sosri", "steps": 400, "rtol": 1e-5}
    rows = [replace(one, budget=usual) for one in (row("none", 0.9, 100.0), row("local_biased", 0.9, 80.0))]
    others = [
        replace(one, budget=usual | {entry: other}) for one in (row("none", 0.8, 200.0), row("steer", 0.8, 160.0))
    ]
    table = tables.compare([*rows, *others])
    assert sorted(table["nfe"]) == [80.0, 100.0, 160.0, 200.0]
    assert set(table.loc[table["regularizer"].isin(["local_biased", "steer"]), "nfe_ratio"]) == {0.8}
    readable = tables.readable(table, metric="accuracy")
    shown = {"method": "method", "steps": "training steps", "host": "trained through"}[entry]
    assert readable[shown].nunique() == 2


def test_a_line_with_one_seed_stands_beside_the_metric_of_this_seed_of_vanilla() -> None:
    rows = [row("none", 0.94, 30.0, 0), row("none", 0.98, 90.0, 1), row("steer", 0.95, 30.0, 0)]
    table = tables.compare(rows).set_index("regularizer")
    assert table.loc["steer", "vanilla_metric"] == pytest.approx(0.94)  # and not 0.96, the mean over other data
    assert table.loc["none", "vanilla_metric"] == pytest.approx(0.96)


def test_marks_from_vanilla_compare_on_the_data_of_the_same_seed() -> None:
    rows = [row("none", 0.94, 30.0, 0), row("none", 0.98, 90.0, 1), row("steer", 0.93, 25.0, 0)]
    _, ax = plt.subplots()
    plots.nfe_against_metric(rows, ax=ax, from_vanilla=True)
    marks = {str(marks.get_label()): marks.get_offsets().tolist() for marks in ax.collections}
    plt.close()
    assert marks["STEER (1)"][0] == pytest.approx([25.0, -0.01])  # below vanilla of its seed, and of the mean alike
    assert marks["vanilla (2)"][0] == pytest.approx([60.0, 0.0])


@pytest.mark.parametrize("field", ["experiment", "profile", "data", "part"])
def test_rows_of_different_origin_are_never_mixed_in_one_table(field: str) -> None:
    with pytest.raises(ValueError, match=f"several {field}s"):
        tables.compare([*ROWS, replace(ROWS[0], **{field: "other"})])


def test_a_table_for_readers_is_in_order_and_says_nothing_where_nothing_is_known() -> None:
    table = tables.readable(tables.compare(ROWS), metric="accuracy")
    at_1e5 = table[table["tolerance"] == "1e-05"]
    assert list(at_1e5["regularizer"]) == ["vanilla", "local, biased", "control: no dynamics"]
    control = at_1e5.iloc[-1]
    assert control["NFE ratio"] == ""
    assert "±" not in control["test accuracy [%]"]
    assert at_1e5.iloc[1]["test accuracy [%]"] == "93.50 ± 0.71"
    assert tables.markdown(table).count("\n") == len(table) + 1


def test_the_summary_names_the_data_what_they_cannot_show_and_what_is_missing() -> None:
    text = tables.summary("quick", ROWS, missing=["mnist_ode/steer/0@1e-05"], stale=["mnist_ode/steer/0@1e-05"])
    for expected in ("ten digits", "Ten digits show nothing.", "profile quick", "Not run yet** (1)", "Stale** (1)"):
        assert expected in text
    assert text.count("mnist_ode/steer/0") == 2
    assert "Not run yet" not in tables.summary("quick", ROWS)


def test_rows_of_different_device_classes_are_never_averaged() -> None:
    with pytest.raises(ValueError, match="several devices"):
        tables.compare([*ROWS, replace(ROWS[0], made_of={"device": "cuda"})])


def test_a_figure_is_stored_with_alt_text_and_what_it_was_drawn_from_and_is_byte_stable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    plots.style()
    contents = []
    for _ in range(2):
        fig, (left, right) = plt.subplots(1, 2)
        plots.nfe_against_metric(ROWS, ax=left)
        plots.history(ROWS, "nfe", ax=right)
        path = plots.save(fig, "test", alt="Axes and finding.", caption="A caption.", profile="quick", rows=ROWS)
        contents.append([path.with_suffix(f".{ending}").read_bytes() for ending in ("png", "svg", "json")])
        plt.close(fig)
    assert contents[0] == contents[1]
    assert b"Axes and finding." in contents[0][0]
    assert b"ten digits" in contents[0][2]


def test_figures_of_a_run_never_touch_the_published_ones() -> None:
    folders = [store.figures_folder(profile) for profile in store.PROFILES]
    assert len({*folders, checkout.ROOT / "figures"}) == 1 + len(store.PROFILES)
