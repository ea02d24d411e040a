"""The report: a reader's rows beside the study, tables that say what is missing, one page, figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbformat import v4
from rows import ROW
from study_rows import ROWS, broken, part

from reproduce import checkout, cli, plots
from reproduce.notebooks import runner
from reproduce.plots import report as plots_report
from reproduce.plots import study as plots_study
from reproduce.report import (
    answer,
    claims,
    evidence,
    page,
    papers,
    report,
    study,
    study_tables,
)
from reproduce.report.evidence import HERE, STUDY, Evidence
from reproduce.report.verdicts import NOT_RUN
from reproduce.runs import protocol, store
from reproduce.runs.registered import PATH, REGISTERED_IN, registered
from reproduce.runs.run import needed
from reproduce.runs.store import Row

RULES = claims.book()


def lines(*parts: Evidence) -> dict[tuple[str, str], dict[str, str]]:
    """The lines of the MNIST table by regularizer and origin."""
    table = papers.experiment_table("mnist_ode", parts)
    return {(line["regularizer"], line["from"]): line for line in table.to_dict("records")}


def test_of_a_training_that_broke_off_the_report_says_so_and_nothing_else_changes() -> None:
    whole = part()
    rows = tuple(broken(one) if (one.regularizer, one.seed) == ("local_unbiased", 14) else one for one in whole.rows)
    gone = replace(whole, rows=rows)
    of, before = lines(gone), lines(whole)
    assert of["local, unbiased", STUDY]["seeds"] == "10 (1 broke off)"
    assert "nan" not in str(of)
    assert {name for name in of if of[name] != before[name]} == {("local, unbiased", STUDY)}
    assert "Of its trainings 1 broke off" in " ".join(answer.paragraphs(gone))
    assert "broke off" not in " ".join(answer.paragraphs(whole))
    none = replace(whole, rows=tuple(broken(one) if one.regularizer == "local_unbiased" else one for one in whole.rows))
    left = lines(none)["local, unbiased", STUDY]
    assert {name: cell for name, cell in left.items() if cell} == {
        "regularizer": "local, unbiased", "from": STUDY, "seeds": "10 (10 broke off)",
    }  # fmt: skip
    for figure in (plots_report.ratios(study.ledger(rows)), plots_report.over_training(gone), plots_study.gains(gone)):
        assert figure.axes
        plt.close(figure)


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


def test_this_machines_rows_are_those_of_the_studys_runs_alone(rowless: Path) -> None:
    [run] = [run for run in protocol.study("spiral_ode") if (run.regularizer, run.seed) == ("no_dynamics", 10)]
    other = replace(run, overrides={**run.overrides, "rtol": 1e-3, "atol": 1e-3})
    for one in (run, other):
        store.write(replace(ROW, experiment="spiral_ode", regularizer="no_dynamics", seed=10, key=one.key()))
    found = evidence.here("quick")
    assert [one.key for one in found.rows] == [run.key()]
    assert evidence.here("smoke").rows == ()


def test_of_this_machine_those_runs_are_wanted_that_the_profile_trains_or_that_are_there_besides(
    rowless: Path,
) -> None:
    usual = {(run.regularizer, run.seed) for run in needed("quick", "spiral_ode")}
    of_study = [run for run in protocol.study("spiral_ode") if (run.regularizer, run.seed) in usual]
    assert evidence.here("quick").wanted["spiral_ode"] == len(of_study) > 12
    [besides] = [run for run in protocol.study("spiral_ode") if (run.regularizer, run.seed) == ("taynode", 11)]
    store.write(replace(ROW, experiment="spiral_ode", regularizer="taynode", seed=11, key=besides.key()))
    assert evidence.here("quick").wanted["spiral_ode"] == len(of_study) + 1


def test_the_studys_evidence_is_its_committed_rows_beside_all_that_is_registered(rowless: Path) -> None:
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
    commit = REGISTERED_IN[registered()["version"]]
    shown = subprocess.run(["git", "show", f"{commit}:{PATH}"], cwd=checkout.ROOT, capture_output=True)
    if shown.returncode:
        pytest.skip("git or that commit is not here")
    assert shown.stdout.decode() == (checkout.ROOT / PATH).read_text(encoding="utf-8")


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
def test_the_report_runs_after_the_others_and_every_time_and_leaves_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkout.ROOT / "data" / "reference", tmp_path / "data" / "reference")
    head = "# A title\n## What you will learn\n.\n## What you need\n[a](../docs/use.md)\n\n"
    head += "Minutes: smoke 1, quick 1, paper 1."
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

    command = [sys.executable, "-m", "reproduce.cli", "reproduce", "--jobs", "2", "--profile", "smoke"]
    environment = os.environ | {"REGNDE_HOME": str(tmp_path), "REGNDE_OFFLINE": "1"}
    first = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    assert re.findall(r"(start|done)\s+(\w+)", first.stdout) == [
        ("start", "01_first"),
        ("done", "01_first"),
        ("start", "13_report"),
        ("done", "13_report"),
    ]
    html = tmp_path / "build" / "smoke" / "13_report.html"
    assert "found smoke smoke" in html.read_text()
    assert 'href="../../notebooks/../docs/use.md"' in html.read_text()
    assert "2 of 2 finished" in first.stdout
    assert "report     build/smoke/13_report.html" in first.stdout

    said: list[str] = []
    runner.run("smoke", jobs=2, root=tmp_path, say=said.append)
    assert [tuple(line.split()[:2]) for line in said if line.split()[0] != "start"] == [
        ("kept", "01_first"),
        ("done", "13_report"),
    ]

    html.unlink()
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    monkeypatch.setenv("REGNDE_HOME", str(tmp_path))
    assert cli.main(["report", "--profile", "smoke"]) == cli.OK
    assert "found smoke smoke" in html.read_text()


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


def test_what_is_quoted_from_other_files_has_no_link_that_leads_nowhere_from_the_report() -> None:
    quoted = [*report.deviations_table()["what"], report.of_protocol("Corrections"), report.of_protocol("Versions")]
    assert not [found for text in quoted for found in re.findall(r"\]\((?!https?:|#)[^)]*\)", text)]
    assert report.unlinked("[a](../b.md), [c](#d), [e](https://f)") == "a, [c](#d), [e](https://f)"
