"""The report: the study's sentences and tables say what is missing, the README's block, one page, figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from base64 import b64encode
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbformat import v4
from rows import ROW

from reproduce import checkout, cli, plots
from reproduce.notebooks.outcome import Outcome
from reproduce.plots import report as plots_report
from reproduce.plots import study as plots_study
from reproduce.report import (
    answer,
    claims,
    evidence,
    front,
    history,
    ladders,
    objections,
    page,
    papers,
    publish,
    report,
    study,
    study_tables,
)
from reproduce.report.effects import Effect
from reproduce.report.evidence import HERE, STUDY, Evidence
from reproduce.report.verdicts import NOT_RUN
from reproduce.runs import protocol, store
from reproduce.runs.registered import PATH, REGISTERED_IN, registered
from reproduce.runs.run import needed
from reproduce.runs.store import Row

RULES = claims.book()
MADE = {"commit": "0123456789", "made": "2026-01-01T00:00:00Z"}
COSTS = {"none": 100.0, "local_biased": 40.0, "local_unbiased": 60.0, "no_dynamics": 0.0}
FEW, TIGHT = ("midpoint", None, 1), ("tsit5", 1e-7, None)


def row(name: str, seed: int, experiment: str = "mnist_ode") -> Row:
    accuracy = (0.85 if name == "no_dynamics" else 0.95) + 1e-3 * (seed % 3)
    nfe = COSTS[name] + (seed % 3 if COSTS[name] else 0)
    curve = {TIGHT: (accuracy, nfe), FEW: (accuracy - (0.05 if name == "none" else 0.001), 2.0)}
    ways = [
        {"method": m, "tolerance": t, "steps": n, "metric": value, "nfe": cost, "seconds": 1e-3 * cost, "failed": ""}
        for (m, t, n), (value, cost) in curve.items()
    ]
    return replace(
        ROW,
        key=f"{experiment}{name}{seed}",
        experiment=experiment,
        budget={"rtol": 1e-7, "method": "tsit5", "fixed_steps": None, "lr": 0.006},
        provenance=MADE,
        regularizer=name,
        seed=seed,
        metrics={"accuracy": accuracy, "train_accuracy": accuracy},
        nfe=nfe,
        seconds={"train": 10.0 + seed % 3, "predict": 1e-3 * (nfe + 1)},
        ways=ways,
    )


ROWS = [row(name, seed) for name in COSTS for seed in range(10, 20)]


def part(*gone: str, name: str = STUDY) -> Evidence:
    """The evidence of MNIST without the rows of these keys, and without any row of another experiment."""
    rows = tuple(one for one in ROWS if one.key not in gone)
    return Evidence(name, rows, {"mnist_ode": len(ROWS), "physionet": 130})


def lines(*parts: Evidence) -> dict[tuple[str, str], dict[str, str]]:
    """The lines of the MNIST table by regularizer and origin."""
    table = papers.experiment_table("mnist_ode", parts)
    return {(line["regularizer"], line["from"]): line for line in table.to_dict("records")}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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


# The answer


def test_the_answer_counts_experiments_that_reach_the_endpoints_and_names_those_still_to_come(chosen: None) -> None:
    minute, equal, matched, printed, state, head = answer.paragraphs(part())  # no rows of the global penalty
    assert "takes 0.41x of vanilla's (gain kept in 1 of 1, error +0 % at most);" in minute
    assert "takes 1.00x of vanilla's as it was trained (gain kept in 1 of 1, error +0 % at most);" in minute
    assert "takes 0.02x of vanilla's in its coarser solve (gain kept in 1 of 1, error +2 % at most)." in minute
    assert "saves more than the penalty alone in 0 of 1 (gain kept in 0 of these), and" in minute
    assert "adds to it, by its interval, in 1 of 1 (gain kept in 1 of these)" in minute
    assert "40 of 170 rows" in state
    assert REGISTERED_IN in state
    assert "Still to be trained: PhysioNet 2012" in state
    assert "in 1 of 1 experiments where dynamics matter (hoped for: 4; biased in 1, unbiased in 0)" in equal
    assert "missed" not in equal
    assert "in 1 of 1 experiments (hoped for: 3). Without any penalty, plain or with weight decay" in matched
    assert matched.endswith("as few as it or fewer in 0 of 1 (gain kept in 0 of these).")
    assert head.endswith(":")
    assert printed.startswith("**The papers' 35 claims**")


def test_an_endpoint_that_is_missed_is_said_to_be_missed(chosen: None) -> None:
    dear = replace(part(), rows=tuple(replace(one, nfe=one.nfe + 60) for one in ROWS))
    assert "in 0 of 1 experiments where dynamics matter" in (said := answer.equal_tolerance(dear))
    assert re.search(r"missed in\n\n\* MNIST, neural ODE: biased 0\.\d\dx, unbiased [01]\.\d\dx$", said)
    assert "MNIST" not in answer.equal_tolerance(dear, in_full=False)
    worthless = [replace(one, metrics=ROWS[-1].metrics) if one.regularizer == "none" else one for one in ROWS]
    said = answer.equal_tolerance(replace(part(), rows=tuple(worthless)))
    assert "in 0 of 0 experiments where" in said
    assert "is not sure, so that they may not matter, in: MNIST, neural ODE." in said
    assert "not sure" not in answer.equal_tolerance(dear) + answer.in_short(dear).to_string()
    assert answer.in_short(replace(part(), rows=tuple(worthless)))["experiment"].item().endswith("is not sure)")


def test_a_way_that_some_seeds_do_not_solve_fails_and_its_experiment_stays_in_the_count(chosen: None) -> None:
    def without(line: str, n: int) -> Evidence:
        short = [
            replace(one, ways=[way for way in one.ways if way["steps"] is None])
            if one.regularizer == line and one.seed < 10 + n
            else one
            for one in ROWS
        ]
        return replace(part(), rows=tuple(short))

    assert "fails" not in answer.in_short(part())["both"].item()
    assert "in 0 of 1 experiments" in answer.matched_error(without("local_biased", 7))
    assert "7 of 10 seeds not solved: fails" in answer.in_short(without("local_biased", 7))["both"].item()
    assert "1 are not solved by every seed" in objections.objections(without("local_biased", 7))[2]
    said = answer.matched_error(without("local_biased", 10))
    assert "in 0 of 1 experiments" in said
    assert "one side solves no seed of: MNIST, neural ODE." in said


def test_a_star_marks_a_way_that_did_not_keep_the_gain_on_held_out_data(
    chosen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "*)" not in answer.in_short(part()).to_string()
    of = study.chosen("mnist_ode")
    of["gains"]["none"]["held_out_gain"] = 0.9
    monkeypatch.setattr(study, "chosen", lambda name: of)
    assert answer.in_short(part())["coarser solve alone"].item().startswith("**1.00x**: 101 (tsit5 at 1e-07*), gain k")


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (-0.4, 0.1, "0.67x [0.53, 0.84]"),
        (0.001, 0.0003, "1.0010x [1.0003, 1.0017]"),
        (-0.002, 0.0005, "0.998x [0.997, 0.999]"),
        (0.0, 0.0, "1.00x [1.00, 1.00]"),
        (float("nan"), float("nan"), "not a number"),
    ],
)
def test_an_interval_beside_one_is_not_written_as_one_that_touches_it(mean: float, error: float, text: str) -> None:
    assert study_tables.ratio_text(Effect(mean, error, 9)) == text


@pytest.mark.parametrize(
    ("metric", "mean", "text"),
    [
        ("accuracy", 0.1, "error +11 %"),
        ("mse", -0.1, "error -10 %"),
        ("log_likelihood", 0.3, "0.30 nats worse"),
        ("log_likelihood", -0.3, "0.30 nats better"),
    ],
)
def test_the_change_of_an_error_is_told_in_its_own_unit(metric: str, mean: float, text: str) -> None:
    saving = study.Saving("x", "y", None, 1.0, None, (1.0, 1.0, 1.0), "kept", Effect(mean, 0.1, 9), metric, 10)
    assert answer._error(saving) == text


def test_why_an_endpoint_is_missed_is_told_from_the_ladders(chosen: None, home: Path) -> None:
    dear = replace(part(), rows=tuple(replace(one, nfe=one.nfe + 60) for one in ROWS))
    assert "any weight" not in answer.equal_tolerance(dear)  # no rows of ladders
    of_budget = {"rtol": 1e-7, "lr": 0.012}
    vanilla = [replace(row("none", seed), budget=of_budget) for seed in (0, 1, 2)]  # 101 in the mean
    other_rate = replace(row("none", 0), budget=of_budget | {"lr": 0.006}, nfe=1.0)
    rungs = [
        replace(row("local_biased", seed), budget=of_budget, settings={"weight": weight}, nfe=nfe)
        for weight, nfe in ((0.1, 80.8), (1.0, 60.6))
        for seed in (0, 1, 2)
    ]
    for stage, rows in (("rates", [*vanilla, other_rate]), ("ladders", rungs)):
        path = store.committed_path(stage, "mnist_ode")
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(json.dumps(asdict(one)) for one in rows))
    assert ladders.least("mnist_ode") == pytest.approx(0.6)
    said = answer.equal_tolerance(dear)
    assert "; of any weight 0.60x" in said
    assert "in 1 of 1 no weight" in said


def test_an_incomplete_experiment_enters_no_sentence(chosen: None) -> None:
    assert len(answer.paragraphs(part("mnist_odenone10"))) == 1
    assert answer.in_short(part("mnist_odenone10")).empty


def test_the_penalty_that_is_compared_is_the_one_that_the_held_out_data_chose(chosen: None) -> None:
    found = study.chosen_line("mnist_ode", study.PENALIZED)  # the unbiased one is cheaper and keeps too little
    assert found == "local_biased"
    [line] = answer.in_short(part()).to_dict("records")
    assert line["vanilla"] == "101"
    assert line["penalty alone (local, biased)"].startswith("**0.41x** [")
    assert line["both"].startswith("**0.02x** [")
    assert "]: local, biased, 2 (midpoint, 1 step), gain kept" in line["both"]


def test_the_objections_count_what_weighs_against_the_report(chosen: None) -> None:
    penalty, size, choice = objections.objections(part())
    assert "in 0 of 1 experiments." in penalty
    assert objections.rates_at_an_end() == ["MNIST, neural ODE"]  # 0.012 is the largest that was tried
    assert "in 1 of 8 experiments (MNIST, neural ODE)" in size
    assert "Of 2 chosen ways, vanilla's among them, 2 keep the gain on the test part, 0 lose it, 0 are" in choice
    assert "when 40 rows of the study had been made" in choice
    assert "the ratio is reached in 1 of 1;" in choice
    cheap = [
        replace(one, ways=[{**way, "nfe": min(way["nfe"], 2.0)} for way in one.ways])
        if one.regularizer == "none"
        else one
        for one in ROWS
    ]
    assert "in 1 of 1 experiments: MNIST" in objections.objections(replace(part(), rows=tuple(cheap)))[0]


# A reader's rows beside the study


def test_a_readers_verdicts_stand_beside_the_studys_and_contradictions_are_counted() -> None:
    few = tuple(one for one in ROWS if one.seed < 13)
    three = Evidence(HERE, few, {"mnist_ode": len(few)})
    ten, mine = study.ledger(part().judged()), study.ledger(three.judged())
    table = report.beside(ten, mine)
    [line] = table[(table["id"] == "C06") & (table["form"] == "ours")].to_dict("records")
    assert line["direction"] == "below 1 / below 1"
    said = report.beside_in_words(ten, mine)
    assert "the contrary in 0" in said
    dear = replace(
        part(), rows=tuple(replace(one, nfe=300.0) if one.regularizer[:5] == "local" else one for one in ROWS)
    )
    against = report.beside_in_words(study.ledger(dear.judged()), ten)
    assert not re.search("the contrary in 0,", against)
    assert "no rows of the study" in report.beside_in_words(ten, [])


def test_rows_on_a_stand_in_enter_no_verdict() -> None:
    replaced = replace(part(), rows=tuple(replace(one, data="a Stand-in") for one in ROWS))
    assert {one.direction for one in study.ledger(replaced.judged())} == {NOT_RUN}
    assert len(answer.paragraphs(replaced)) == 1


def test_an_incomplete_experiment_enters_no_verdict() -> None:
    assert {one.direction for one in study.ledger(part().judged())} > {NOT_RUN}
    assert {one.direction for one in study.ledger(part("mnist_odenone10").judged())} == {NOT_RUN}
    other = [replace(one, experiment="physionet") for one in ROWS[:5]]
    beside = replace(part(), rows=(*ROWS, *other))
    assert beside.judged() == ROWS


def test_this_machines_rows_are_those_of_the_studys_runs_alone(home: Path) -> None:
    [run] = [run for run in protocol.study("spiral_ode") if (run.regularizer, run.seed) == ("no_dynamics", 10)]
    other = replace(run, overrides={**run.overrides, "rtol": 1e-3, "atol": 1e-3})
    for one in (run, other):
        store.write(replace(ROW, experiment="spiral_ode", regularizer="no_dynamics", seed=10, key=one.key()))
    found = evidence.here("quick")
    assert [one.key for one in found.rows] == [run.key()]
    assert evidence.here("smoke").rows == ()


def test_of_this_machine_those_runs_are_wanted_that_the_profile_trains_or_that_are_there_besides(home: Path) -> None:
    usual = {(run.regularizer, run.seed) for run in needed("quick", "spiral_ode")}
    of_study = [run for run in protocol.study("spiral_ode") if (run.regularizer, run.seed) in usual]
    assert evidence.here("quick").wanted["spiral_ode"] == len(of_study) > 12
    [besides] = [run for run in protocol.study("spiral_ode") if (run.regularizer, run.seed) == ("taynode", 11)]
    store.write(replace(ROW, experiment="spiral_ode", regularizer="taynode", seed=11, key=besides.key()))
    assert evidence.here("quick").wanted["spiral_ode"] == len(of_study) + 1


def test_the_studys_evidence_is_its_committed_rows_beside_all_that_is_registered(home: Path) -> None:
    path = store.committed_path("study", "mnist_ode")
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(json.dumps(asdict(one)) for one in ROWS))
    found = evidence.study()
    assert list(found.rows) == ROWS
    assert found.wanted["mnist_ode"] == 10 * len(protocol.lines("mnist_ode"))
    assert list(found.wanted) == list(registered()["experiments"])
    assert found.complete() == []
    assert [one.name for one in evidence.parts("smoke")] == [STUDY]
    [line] = report.origins([found]).to_dict("records")
    assert line["there"].startswith("40 of ")
    assert (line["data"], line["commits"], line["machine"]) == ("ten digits", "0123456", "unknown")
    made = {"platform": "Linux x86_64", "versions": {"torch": "2.13.0"}, "more": {"preloaded": "liballocator.so.4"}}
    [other] = report.origins([replace(found, rows=(replace(ROWS[0], provenance=made),))]).to_dict("records")
    assert other["machine"] == "Linux x86_64, cpu, torch 2.13.0, with liballocator.so.4"


def test_the_rows_committed_in_this_repository_can_be_read() -> None:
    for found in (evidence.study(), evidence.published()):
        assert all(len(found.of(name)) <= n for name, n in found.wanted.items())


# Tables


def test_a_published_line_stands_above_ours_for_the_same_regularizer() -> None:
    table = papers.experiment_table("mnist_ode", [part()])
    of_biased = table[table["regularizer"] == "local, biased"]
    assert list(of_biased["from"]) == ["published, LOCAL", STUDY]
    published, ours = of_biased.to_dict("records")
    assert (published["evaluations"], published["over vanilla's"], published["faster"]) == (
        "182.849 ± 1.578",
        "0.60x",
        "2.00x",
    )
    assert (ours["seeds"], ours["test"], ours["gain kept"]) == ("10", "95.1 ± 0.082 %", "1.00 [1.00, 1.00]")
    assert ours["over vanilla's"].startswith("0.41x [")
    assert ours["faster"].startswith("2.43x [")


def test_lines_that_one_paper_quotes_from_the_other_have_no_ratio() -> None:
    line = lines(part())[("global error", "published, GLOBAL")]
    assert line["evaluations"].startswith("177")
    assert line["over vanilla's"] == line["faster"] == line["trains faster"] == ""


def test_a_line_of_one_seed_has_a_ratio_without_an_interval_and_parts_are_never_averaged() -> None:
    one = replace(part(name=HERE), rows=tuple(row for row in ROWS if row.seed == 10))
    line = lines(part(), one)[("local, biased", HERE)]
    assert (line["seeds"], line["over vanilla's"]) == ("1", "0.41x")
    assert lines(part(), one)[("local, biased", STUDY)]["seeds"] == "10"


def test_every_experiment_of_the_papers_is_in_the_report_and_what_is_missing_is_said() -> None:
    names = papers.experiments([part()])
    for expected in ("spiral_ode", "spiral_sde", "mnist_ode", "mnist_sde", "physionet", "cifar10_ode"):
        assert expected in names
    text = report.section(RULES, "physionet", [part()])
    assert "**Not complete**: the study has 0 of 130 rows" in text
    assert "D43" in text
    assert "81.301" in report.section(RULES, "cifar10_ode", [part()])
    whole = report.section(RULES, "mnist_ode", [part()])
    assert "Not complete" not in whole
    assert "Ten digits show nothing." in whole


def test_the_ledger_has_a_line_for_each_claim_and_a_column_for_each_form() -> None:
    judged = study.ledger(part().judged())
    table = study_tables.ledger(judged)
    assert list(table["id"]) == list(dict.fromkeys(one.claim.id for one in judged))
    line = table[table["id"] == "C06"].iloc[0]
    assert line["our form"].startswith("**below 1**, better than printed, gain kept: 0.41x")
    assert line["the papers' code"] == NOT_RUN
    assert table[table["id"] == "C23"].iloc[0]["the papers' code"] == ""  # no local penalty: one form


@pytest.mark.parametrize(
    "change", [{"measure": "beauty"}, {"combine": "some"}, {"published": 0.0}, {"parts": {"x": []}}]
)
def test_a_claim_that_cannot_be_judged_is_refused_by_its_id(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="claim C06"):
        replace(next(claim for claim in RULES.claims if claim.id == "C06"), **change)


def test_the_rules_are_the_registered_text() -> None:
    assert "corrected by Holm" in report.of_protocol("Endpoints and verdicts")
    with pytest.raises(ValueError, match="it has"):
        report.of_protocol("Nowhere")


def test_the_commit_that_is_named_registered_what_stands_there_now() -> None:
    shown = subprocess.run(["git", "show", f"{REGISTERED_IN}:{PATH}"], cwd=checkout.ROOT, capture_output=True)
    if shown.returncode:
        pytest.skip("git or that commit is not here")
    assert shown.stdout.decode() == (checkout.ROOT / PATH).read_text(encoding="utf-8")


# The README's block


def test_the_block_is_written_between_its_marks_and_keeps_the_times_of_other_profiles(
    home: Path, monkeypatch: pytest.MonkeyPatch, chosen: None
) -> None:
    readme = home / "README.md"
    readme.write_text(f"# Title\n\n{front.BEGIN}\n{front.END}\n\nText.\n")
    times = {"quick": front.Time(33.25, 2, "0123456", "2026-01-01"), "smoke": front.Time(5.0, 2, "abc", "2026-01-02")}
    front.note_time("quick", times["quick"])
    assert front.update()
    shutil.rmtree(home / "build")  # as `make clean` does
    front.note_time("smoke", times["smoke"])
    assert front.update()
    text = readme.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("Text.\n")
    assert "* quick: 33.2 min on 2 cores, commit 0123456, 2026-01-01" in text
    assert list(front.read_times(text)) == ["smoke", "quick"]
    assert "The study has 0 of" in text
    assert not front.update()  # nothing new

    monkeypatch.setattr(front, "study", part)
    (home / "figures").mkdir()
    (home / "figures" / f"{front.PICTURE}.json").write_text(json.dumps({"alt": "Axes.", "caption": "A caption."}))
    assert front.update()
    text = readme.read_text()
    assert "![Axes.](figures/13_gain_against_cost.png)" in text
    assert "| MNIST, neural ODE | 101 | **0.41x** [" in text
    assert "seeds that nobody" in " ".join(text.split())
    assert "smoke: 5.0 min" in text


def test_a_readme_without_marks_is_left_alone(home: Path) -> None:
    assert not front.update()
    (home / "README.md").write_text("# Title\n")
    front.note_time("quick", front.Time(1.0, 2, "a", "2026-01-01"))
    assert not front.update()
    assert (home / "README.md").read_text() == "# Title\n"


def test_keep_publishes_the_pictures_of_the_lessons_that_ran_to_their_end_and_of_no_other_profile(home: Path) -> None:
    published, made = home / "figures", store.figures_folder("quick")
    for folder, names in (
        (published, ("05_old.png", "06_fit.png", "07_before.png", "README.txt")),
        (made, ("05_new.png", "05_new.json", "07_failed.png", "08_not_finished.png")),
        (home / "build" / "quick" / "notebooks", ("05_a.ipynb", "06_b.ipynb", "07_c.failed.ipynb", "08_d.part.ipynb")),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_bytes(b"a picture")
    assert publish.pictures("quick") == "1 pictures of 1 lessons published in figures"
    assert {path.name for path in published.iterdir() if path.is_file()} == {
        "05_new.png", "05_new.json", "06_fit.png", "07_before.png", "README.txt",
    }  # fmt: skip
    assert publish.pictures("paper") == "no pictures published"


# The history


@pytest.mark.parametrize("first", history.history()["ledgers"], ids=lambda ledger: ledger["commit"])
def test_an_earlier_ledger_in_the_history_is_that_of_the_readme_of_its_commit(first: dict[str, Any]) -> None:
    shown = subprocess.run(["git", "show", f"{first['commit']}:README.md"], cwd=checkout.ROOT, capture_output=True)
    if shown.returncode:
        pytest.skip("git or that commit is not here")
    text = shown.stdout.decode()
    line = re.search(r"^\| quick, committed \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, flags=re.MULTILINE)
    assert line
    assert [int(number) for number in line.groups()] == [first["verdicts"][name] for name in history.VERDICTS]
    assert f"Reached in {first['goal_reached']} (quick, committed)" in text


def test_every_change_of_the_history_names_a_commit_after_its_ledger() -> None:
    pairs = [
        (ledger["commit"], change["commit"]) for ledger in history.history()["ledgers"] for change in ledger["changes"]
    ]
    for earlier, change in pairs:
        asked = ["git", "merge-base", "--is-ancestor", earlier, change]
        if (code := subprocess.run(asked, cwd=checkout.ROOT, capture_output=True).returncode) == 128:
            pytest.skip("git or that commit is not here")
        assert code == 0, change


def test_the_history_is_told_in_full_in_the_report_and_in_one_sentence_in_front() -> None:
    told, front_page = " ".join(history.in_full()), history.in_one_sentence()
    for ledger in ("2 holds / 11 same direction / 8 does not hold", "5 holds / 16 same direction / 0 does not hold"):
        assert f"{ledger} / 4 not run" in told
        assert f"{ledger} / 4 not run" in front_page
    assert "weights were chosen anew" in told
    assert front_page.count(". ") == 0


def test_the_block_of_this_readme_is_what_the_command_writes() -> None:
    readme = (checkout.ROOT / "README.md").read_text(encoding="utf-8")
    match = front.BLOCK.search(readme)
    assert match
    assert match[1] == front.block(front.read_times(readme))


def test_only_a_whole_run_counts_as_one_and_its_time_waits_for_keep(home: Path) -> None:
    readme = home / "README.md"
    readme.write_text(f"{front.BEGIN}\n{front.END}\n")
    options = Namespace(profile="quick", only="", parameter=[], solutions=False, jobs=2)
    outcome = Outcome("05_x", None, 1.0)
    start = 1767225600.5  # half a second after the rows were made: 2026-01-01T00:00:00Z
    asked: list[tuple[Any, ...]] = [
        (Namespace(**{**vars(options), "only": "05"}), [outcome], ROWS, start),
        (Namespace(**{**vars(options), "parameter": ["a=1"]}), [outcome], ROWS, start),
        (Namespace(**{**vars(options), "solutions": True}), [outcome], ROWS, start),
        (options, [replace(outcome, kept=True)], ROWS, start),
        (options, [outcome], [], start),
        (options, [outcome], ROWS, start + 1),  # the rows were there before
    ]
    for arguments in asked:
        assert not cli._is_whole(*arguments)
    assert cli._is_whole(options, [outcome], ROWS, start)
    cli._note_time(options, start, ("0123456789", True))
    assert front.read_times(readme.read_text()) == {}
    assert front.update()
    found = front.read_times(readme.read_text())["quick"]
    assert (found.commit, found.day) == ("0123456-dirty", "2026-01-01")


# The page


PNG = b64encode(b"\x89PNG").decode()


def notebook(*outputs: Any, prose: str = "# A title\n\nText with a [link](https://example.org).") -> Any:
    cell = v4.new_code_cell("secret_code()", outputs=list(outputs))
    return v4.new_notebook(cells=[v4.new_markdown_cell(prose), cell])


def test_the_page_holds_prose_tables_and_pictures_and_no_code() -> None:
    picture = v4.new_output("display_data", {"image/png": PNG}, metadata={"image/png": {"alt": "Axes & finding"}})
    table = v4.new_output("display_data", {"text/markdown": "| a | b |\n| --- | --- |\n| **1** | 2 |"})
    text = page.page(notebook(picture, table))
    assert "<title>A title</title>" in text
    assert f'src="data:image/png;base64,{PNG}' in text
    assert "Axes &amp; finding" in text
    assert "<strong>1</strong>" in text
    assert "secret_code" not in text
    assert not page.LOADS.search(text)


@pytest.mark.parametrize(
    "outside",
    [
        '<script src="https://cdn.example.org/x.js"></script>',
        "<script>run()</script>",
        '<img src="https://example.org/x.png">',
        "<img src='figures/x.png'>",
        '<link rel="stylesheet" href="x.css">',
        '<div style="background: url(https://example.org/x.png)"></div>',
        "<iframe src='x'></iframe>",
    ],
)
def test_an_output_that_needs_a_script_or_the_network_is_refused(outside: str) -> None:
    with pytest.raises(ValueError, match="would load or run something"):
        page.page(notebook(v4.new_output("display_data", {"text/html": outside})))


# The command


@pytest.mark.slow
@pytest.mark.xdist_group("kernels")
def test_the_report_runs_after_the_others_and_every_time_and_leaves_one_page(tmp_path: Path) -> None:
    shutil.copytree(checkout.ROOT / "data" / "reference", tmp_path / "data" / "reference")
    head = "# A title\n## What you will learn\n.\n## What you need\n.\n\nMinutes: smoke 1, quick 1, paper 1."
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    made = "from pathlib import Path\n"
    for name, source in {
        "01_first": f"{made}import time\ntime.sleep(1)\nPath('made').write_text(profile)",
        "13_report": f"{made}print('found', Path('made').read_text(), profile)",
    }.items():
        parameters = v4.new_code_cell('profile = "quick"', metadata={"tags": ["parameters"]})
        cells = [v4.new_markdown_cell(head), parameters, v4.new_code_cell(source)]
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "notebooks" / f"{name}.ipynb")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "reproduce.cli", *arguments, "--profile", "smoke"]
        environment = os.environ | {"REGNDE_HOME": str(tmp_path), "REGNDE_OFFLINE": "1"}
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    first = run("reproduce", "--jobs", "2")
    assert first.returncode == 0, first.stderr
    assert re.findall(r"(start|done)\s+(\w+)", first.stdout) == [
        ("start", "01_first"),
        ("done", "01_first"),
        ("start", "13_report"),
        ("done", "13_report"),
    ]
    html = tmp_path / "build" / "smoke" / "13_report.html"
    assert "found smoke smoke" in html.read_text()
    assert "2 of 2 finished" in first.stdout
    assert "report     build/smoke/13_report.html" in first.stdout

    html.unlink()
    second = run("reproduce", "--jobs", "2")
    assert "kept   01_first" in second.stdout
    assert "done   13_report" in second.stdout
    assert html.exists()


@pytest.mark.slow
@pytest.mark.xdist_group("kernels")
def test_the_real_report_is_one_page_that_tells_of_every_claim_and_loads_nothing(tmp_path: Path) -> None:
    shutil.copytree(checkout.ROOT / "data" / "reference", tmp_path / "data" / "reference")
    for name in ("DEVIATIONS.md", "PROTOCOL.md", "CITATION.cff", "requirements.lock"):
        shutil.copy(checkout.ROOT / name, tmp_path / name)
    (tmp_path / "notebooks").mkdir()
    shutil.copy(checkout.ROOT / "notebooks" / "13_report.ipynb", tmp_path / "notebooks")
    command = [sys.executable, "-m", "reproduce.cli", "report", "--profile", "smoke"]
    environment = os.environ | {"REGNDE_HOME": str(tmp_path), "REGNDE_OFFLINE": "1"}
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    text = (tmp_path / "build" / "smoke" / "13_report.html").read_text()
    assert not page.LOADS.search(text)
    for expected in [*(claim.id for claim in RULES.claims), *(one.id for one in report.deviations())]:
        assert expected in text
    for expected in ("not run", "303.559", "758", "81.301", "Is it the penalty?", "data:image/png;base64"):
        assert expected in text


# Figures


@pytest.mark.slow
def test_the_figures_show_what_there_is_and_say_when_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: None
) -> None:
    plots.style()
    judged, nothing = study.ledger(part().judged()), study.ledger([])
    drawn = (
        (plots_report.ratios(judged), plots_report.ratios(nothing), 2),
        (plots_report.over_training(part()), plots_report.over_training(replace(part(), rows=())), 2),
        (plots_study.gains(part()), plots_study.gains(part("mnist_odenone10")), 1),
    )
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    for fig, empty, panels in drawn:
        assert len([ax for ax in fig.axes if ax.has_data()]) == panels
        assert [text.get_text() for ax in empty.axes for text in ax.texts] == ["no rows yet"]
        plt.close(empty)
        picture = plots_report.show(fig, "13_test", alt="Axes.", caption="A caption.", profile="quick", rows=ROWS)
        assert picture.alt == "Axes."
        assert not plt.fignum_exists(fig.number)
    assert (tmp_path / "figures" / "quick" / "13_test.svg").exists()


def test_a_ratio_is_drawn_where_it_is_and_an_outlier_on_the_edge() -> None:
    def marks(rows: list[Row]) -> dict[float, str]:
        fig = plots_report.ratios(study.ledger(rows), measures=("nfe",))
        found = {
            float(line.get_xdata()[0]): str(line.get_marker())
            for line in fig.axes[0].lines
            if len(line.get_xdata()) == 1 and line.get_marker() != "D"
        }
        plt.close(fig)
        return found

    assert sorted(marks(ROWS)) == pytest.approx([0.406, 0.604], abs=0.003)
    assert set(marks(ROWS).values()) == {"o"}
    dear = [replace(one, nfe=30 * one.nfe) if one.regularizer == "local_biased" else one for one in ROWS]
    assert marks(dear)[plots_report.RANGE[1]] == ">"
