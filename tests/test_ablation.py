"""The ablation: forms are read from the names of lines, and each choice's effect is that of the crossed design."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from rows import ROW

from reproduce.plots import ablation as pictures
from reproduce.report import ablation, study
from reproduce.report.ablation import CHOICES, Form, form_of
from reproduce.runs import protocol, store
from reproduce.runs.registered import registered
from reproduce.runs.store import Row

EFFECTS = {"sampling": 0.1, "step": -0.4, "size": 0.0, "first stage": 0.7}
"""Changes of log evaluations that the rows below are made with."""


def name_of(second: tuple[bool, ...]) -> str:
    unbiased, initial, dt, held = second
    step = f"{'initial' if initial else 'solver'}{'_dt' if dt else ''}{'_held' if held else ''}"
    return f"local_{'unbiased' if unbiased else 'biased'}:{step}"


def crossed() -> list[Row]:
    """Rows of all sixteen forms with five seeds, whose evaluations are a product of the effects; vanilla, control."""
    found = []
    for seed in range(10, 15):
        budget = {"rtol": 1e-7, "method": "tsit5", "fixed_steps": None}
        base = replace(ROW, seed=seed, budget=budget)
        control = {"accuracy": 0.8, "train_accuracy": 0.8}
        found += [replace(base, nfe=90.0 + seed), replace(base, regularizer="no_dynamics", nfe=0.0, metrics=control)]
        for second in product((False, True), repeat=4):
            change = sum(effect for effect, taken in zip(EFFECTS.values(), second, strict=True) if taken)
            nfe = (40.0 + seed) * math.exp(change + 0.01 * (seed - 12))
            found.append(replace(base, regularizer=name_of(second), settings={"weight": 0.3}, nfe=nfe))
    return found


def test_every_line_of_the_registered_ablation_names_a_form_and_no_two_the_same() -> None:
    lines = {run.regularizer for run in protocol.ablation("mnist_ode")}
    assert len({form_of(line) for line in lines}) == len(lines) == 16
    assert None not in {form_of(line) for line in lines}
    for line in ("local_biased", "local_biased:released", "none", "local_biased:loose"):
        assert form_of(line) is None


def test_the_effect_of_a_choice_is_that_of_the_crossed_design() -> None:
    found = ablation.ingredients(crossed())
    assert {name: effect.mean for name, effect in found.items()} == pytest.approx(EFFECTS, abs=1e-12)
    assert all(effect.error < 1e-12 for effect in found.values())  # equal in each seed
    said = ablation.in_words(crossed(), "mnist_ode")
    assert "* first stage, *held constant* for *differentiated*: evaluations 2.01x" in said
    assert "* step, *an initial step* for *the solver's own*: evaluations 0.67x" in said
    assert "by the two that change most: the solver's own step, first stage differentiated 0.51x to 0.56x" in said
    assert "; an initial step, first stage held constant 0.69x to 0.76x" in said
    assert ablation.by_size(crossed()) == ["first stage", "step", "sampling", "size"]
    errors = ablation.ingredients(crossed(), "error")
    assert [effect.mean for effect in errors.values()] == pytest.approx([0.0] * 4, abs=1e-12)
    worse = [replace(row, metrics={"accuracy": 0.8}) if "held" in row.regularizer else row for row in crossed()]
    assert math.exp(ablation.ingredients(worse, "error")["first stage"].mean) == pytest.approx(2.0)


def test_the_front_says_what_the_strongest_choices_do_where_the_ablation_is_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ablation, "rows_of", lambda name: crossed() if name == "mnist_ode" else crossed()[:-1])
    said = ablation.in_short()
    assert "PhysioNet" not in said
    assert (
        "On MNIST, neural ODE, over vanilla's evaluations: the solver's own step, first stage differentiated 0.51x to "
        "0.56x (fewer by its own interval in 4 of 4); the solver's own step, first stage held constant 1.03x to 1.13x "
        "(fewer by its own interval in 0 of 4)"
    ) in said
    assert "The rest changes less: unbiased for biased 1.11x [1.11, 1.11], times dt for" in said
    monkeypatch.setattr(ablation, "rows_of", lambda name: [])
    assert ablation.in_short() == ""


def test_a_form_without_its_partner_enters_no_effect_and_an_ablation_with_gaps_is_not_told() -> None:
    held = [row for row in crossed() if "held" not in row.regularizer]
    assert set(ablation.ingredients(held)) == {"sampling", "step", "size"}
    for rows in ([], held, crossed()[:-1]):
        assert "MNIST, neural ODE: the ablation is not run, or not complete." in ablation.in_words(rows, "mnist_ode")
        assert ablation.table(rows, "mnist_ode").empty


def test_the_table_has_a_line_for_each_form_with_its_choices_and_its_weight() -> None:
    table = ablation.table(crossed(), "mnist_ode")
    assert len(table) == 16
    assert list(table.columns[1:5]) == list(CHOICES)
    first = table.iloc[0]
    assert list(first[1:5]) == [of[0] for of in CHOICES.values()]
    assert (first["weight"], first["gain kept"]) == ("0.3", "1.00 [1.00, 1.00]")
    assert form_of("local_biased:solver") == Form((False, False, False, False))


def test_the_picture_has_a_mark_for_each_form_and_two_for_each_choice() -> None:
    fig = pictures.crossed(crossed(), "mnist_ode")
    effects, forms = fig.axes
    marks = [line for line in effects.lines if line.get_marker() in ("o", "D")]
    assert [float(line.get_xdata()[0]) for line in marks[:4]] == pytest.approx([math.exp(x) for x in EFFECTS.values()])
    assert len(marks) == 8
    drawn = {(line.get_color(), line.get_marker(), line.get_fillstyle()) for line in forms.lines
             if line.get_marker() in pictures.MARKS.values()}  # fmt: skip
    assert len(drawn) == 16
    plt.close(fig)
    none = pictures.crossed(crossed()[:-1], "mnist_ode")
    assert [text.get_text() for ax in none.axes for text in ax.texts] == ["no rows yet"]
    plt.close(none)


def test_ladders_are_told_while_the_test_rows_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "COMMITTED", str(tmp_path))
    forms = [row for row in crossed() if row.seed == 10 and form_of(row.regularizer)]
    chosen = {"lr": 0.012, "ablation": {row.regularizer: 0.3 for row in forms}}
    monkeypatch.setattr(study, "chosen", lambda name: chosen if name == "mnist_ode" else {})
    held = [replace(row, part="validation", seed=0, budget=row.budget | {"lr": 0.012}) for row in crossed()[:2] + forms]
    heavy = [replace(row, settings={"weight": 3.0}, nfe=1.0) for row in held[2:]]
    for stage, rows in (("rates", held[:2]), ("ablation", held[2:] + heavy)):
        store.committed_path(stage, "mnist_ode").parent.mkdir(parents=True)
        store.committed_path(stage, "mnist_ode").write_text("\n".join(json.dumps(asdict(row)) for row in rows))
    table = ablation.on_ladders("mnist_ode")
    assert len(table) == 16
    assert table.iloc[0]["evaluations"] == f"{forms[0].nfe:.1f}"
    assert table.iloc[0]["over vanilla's"] == f"{forms[0].nfe / 100:.2f}x"
    assert set(table["gain kept"]) == {"1.00"}
    assert "Its ladders are" in ablation.in_words([], "mnist_ode")
    store.committed_path("ablation", "mnist_ode").write_text("\n".join(json.dumps(asdict(row)) for row in held[3:]))
    assert ablation.on_ladders("mnist_ode").empty
    assert ablation.on_ladders("physionet").empty


def test_what_docs_advise_to_a_penalty_written_elsewhere_is_what_the_committed_rows_show() -> None:
    """docs/use.md, *How to choose a weight*."""
    experiments = registered()["ablation"]["experiments"]
    for name in experiments:
        rows = ablation.rows_of(name)
        assert ablation.complete(rows)
        assert set(ablation.by_size(rows)[:2]) == {"step", "first stage"}
        assert all(ablation.ingredients(rows)[choice].interval(0.95)[0] > 0 for choice in ("step", "first stage"))
    assert len(experiments) == 2  # "both experiments"
    assert (len(ablation.CHOICES), len(ablation.FORMS)) == (4, 16)
