"""The report: tables that say what is missing, committed rows, the README's block, one page, figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from base64 import b64encode
from dataclasses import replace
from functools import partial
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
from reproduce.report import caveats, claims, evidence, front, page, papers, publish, report, tables
from reproduce.report.evidence import KEPT, OWN, Evidence, Wanted
from reproduce.runs import store
from reproduce.runs.store import Row

RULES = claims.book()
NAMES = {"none": 100.0, "local_biased": 50.0, "no_dynamics": 0.0}
MADE = {"commit": "0123456789", "made": "2026-01-01T00:00:00Z"}


def row(name: str, seed: int) -> Row:
    accuracy = (0.85 if name == "no_dynamics" else 0.95) + 1e-3 * seed
    return replace(
        ROW,
        key=f"{name}{seed}",
        budget={"rtol": 1e-7},
        provenance=MADE,
        regularizer=name,
        seed=seed,
        metrics={"accuracy": accuracy, "train_accuracy": accuracy},
        nfe=NAMES[name] + (seed if NAMES[name] else 0),
        seconds={"train": 10.0 + seed, "predict": 1e-3 * (NAMES[name] + 1 + seed)},
    )


ROWS = [row(name, seed) for name in NAMES for seed in range(3)]
WANTED = tuple(Wanted(one.experiment, one.regularizer, one.seed, one.tolerance, "", one.key) for one in ROWS)


def part(*gone: str, place: str = OWN, profile: str = "quick") -> Evidence:
    """The evidence without the rows of these keys."""
    return Evidence(profile, place, WANTED, tuple(None if one.key in gone else one for one in ROWS))


def lines(*parts: Evidence) -> dict[tuple[str, str], dict[str, str]]:
    """The lines of the MNIST table by regularizer and origin."""
    table = papers.experiment_table("mnist_ode", parts)
    return {(line["regularizer"], line["from"]): line for line in table.to_dict("records")}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder with the reference data, and this machine's ROWS."""
    shutil.copytree(
        checkout.ROOT / "data" / "reference", tmp_path / "data" / "reference", ignore=lambda *_: {"measured"}
    )
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    for one in ROWS:
        store.write(one)
    return tmp_path


# Tables


def test_a_published_line_stands_above_ours_for_the_same_regularizer() -> None:
    table = papers.experiment_table("mnist_ode", [part()])
    of_biased = table[table["regularizer"] == "local, biased"]
    assert list(of_biased["from"]) == ["published, LOCAL", "quick, this machine"]
    published, ours = of_biased.to_dict("records")
    assert (published["NFE"], published["NFE ratio"], published["faster"]) == ("182.849 ± 1.578", "0.60x", "2.00x")
    assert (ours["seeds"], ours["test"], ours["gain kept"]) == ("3", "95.1 ± 0.1 %", "1.00")
    assert re.fullmatch(r"0\.50x \[0\.\d\d, 0\.\d\d\]", ours["NFE ratio"])


def test_in_short_the_published_ratios_of_a_local_penalty_stand_beside_ours_and_missing_seeds_are_said() -> None:
    [line] = report.in_short(RULES, part()).to_dict("records")  # the rows have one of the two local penalties
    assert (line["experiment"], line["penalty"]) == ("MNIST, neural ODE", "local, biased")
    assert (line["NFE ratio, published"], line["faster, published"]) == ("0.60x", "2.00x")
    assert line["NFE ratio, ours"] == lines(part())[("local, biased", "quick, this machine")]["NFE ratio"]
    assert (line["gain kept"], line["seeds"], line["tolerance"]) == ("1.00", "3", "1e-07")
    [line] = report.in_short(RULES, part("local_biased1")).to_dict("records")
    assert line["seeds"] == "2 of 3"
    assert papers.SHORT in line["NFE ratio, ours"]
    [line] = report.in_short(RULES, part(*(f"local_biased{seed}" for seed in range(3)))).to_dict("records")
    assert (line["NFE ratio, published"], line["NFE ratio, ours"]) == ("0.60x", "not run")


def test_in_short_takes_an_experiment_that_no_paper_has() -> None:
    own = replace(part(), wanted=tuple(replace(run, experiment="mine") for run in WANTED))
    [line] = report.in_short(RULES, own).to_dict("records")
    assert (line["experiment"], line["NFE ratio, published"], line["tolerance"]) == ("mine", "", "1e-07")
    assert line["NFE ratio, ours"].startswith("0.50x")


def test_lines_that_one_paper_quotes_from_the_other_have_no_ratio() -> None:
    line = lines(part())[("global error", "published, GLOBAL")]
    assert line["NFE"].startswith("177")
    assert line["NFE ratio"] == line["faster"] == line["trains faster"] == ""


def test_the_variant_of_a_regularizer_has_a_line_of_its_own() -> None:
    closed = [replace(run, variant="closed box torchsde", key="") for run in WANTED if run.regularizer == "none"]
    both = Evidence("quick", OWN, (*WANTED, *closed), (*ROWS, *[None] * 3))
    found = lines(both)
    assert found[("vanilla", "quick, this machine")]["NFE"].startswith("101")
    assert found[("vanilla (closed box torchsde)", "quick, this machine")]["NFE"] == "not run"


def test_a_deleted_row_is_said_in_every_cell_that_needs_it_and_in_no_other() -> None:
    whole, short = lines(part())[("local, biased", "quick, this machine")], lines(part("local_biased1"))
    line = short[("local, biased", "quick, this machine")]
    assert line["seeds"] == "2 of 3"
    averages = ("test", "gain kept", "NFE", "NFE ratio", "predict", "faster", "train", "trains faster")
    assert all(papers.SHORT in line[name] for name in averages)
    assert not any(papers.SHORT in cell for cell in whole.values())
    assert not any(papers.SHORT in cell for cell in short[("vanilla", "quick, this machine")].values())

    line = lines(part("none0"))[("local, biased", "quick, this machine")]
    assert line["seeds"] == "vanilla 2 of 3"
    marked = {name for name in line if papers.SHORT in line[name]}
    assert marked == {"gain kept", "NFE ratio", "faster", "trains faster"}

    line = lines(part("no_dynamics0"))[("local, biased", "quick, this machine")]
    assert {name for name in line if papers.SHORT in line[name]} == {"gain kept"}


def test_a_line_without_any_row_says_not_run_in_every_cell() -> None:
    gone = [one.key for one in ROWS if one.regularizer == "local_biased"]
    line = lines(part(*gone))[("local, biased", "quick, this machine")]
    assert {line[name] for name in line} == {"local, biased", "quick, this machine", "1e-07", "not run"}
    gone = [one.key for one in ROWS if one.regularizer == "none"]
    line = lines(part(*gone))[("local, biased", "quick, this machine")]
    assert line["NFE"].startswith("51")
    assert line["NFE ratio"] == line["faster"] == line["gain kept"] == "not run"


def test_profiles_stand_in_lines_of_their_own_and_are_never_averaged() -> None:
    other = Evidence("paper", OWN, WANTED, tuple(replace(one, profile="paper", nfe=7 * one.nfe) for one in ROWS))
    found = lines(part(), other)
    assert found[("vanilla", "quick, this machine")]["NFE"].startswith("101")
    assert found[("vanilla", "paper, this machine")]["NFE"].startswith("707")


def test_every_experiment_of_the_papers_is_in_the_report_and_those_not_run_say_so() -> None:
    names = papers.experiments([part()])
    for expected in ("spiral_ode", "spiral_sde", "mnist_ode", "mnist_sde", "physionet", "cifar10_ode"):
        assert expected in names
    text = report.section(RULES, "cifar10_ode", [part()])
    assert "Not run yet" in text
    assert "81.301" in text
    assert "D40" in text
    assert "**Not run**: paper" in report.section(
        RULES, "mnist_ode", [part(), Evidence("paper", OWN, WANTED, (None,) * 9)]
    )
    assert "Ten digits show nothing." in report.section(RULES, "mnist_ode", [part()])


def test_the_ledger_has_a_line_for_each_claim_and_a_column_for_each_profile() -> None:
    table = report.ledger(RULES, [part(), part("none0", place=KEPT)])
    assert list(table["id"]) == [claim.id for claim in RULES.claims]
    line = table[table["id"] == "C06"].iloc[0]
    assert line["quick, this machine"].startswith("**holds** 0.50x")
    assert line["quick, committed"].startswith("**same direction** 0.50x")
    assert "vanilla 2 of 3" in line["quick, committed"]
    assert table[table["id"] == "C19"].iloc[0]["quick, this machine"].startswith("not run: cifar10_ode")
    counts = report.head(RULES, [part()]).iloc[0]
    assert sum(counts[verdict] for verdict in claims.VERDICTS) == len(RULES.claims)


def test_what_follows_names_every_claim_once_for_each_profile() -> None:
    line = report.conclusions(RULES, [part()])[0]
    without_aside = re.sub(r"\(in C[^)]*\)", "", line)
    assert sorted(re.findall(r"C\d\d", without_aside)) == [claim.id for claim in RULES.claims]
    assert "Reached in 1 (quick, this machine; 4 not run)" in report.conclusions(RULES, [part()])[1]


# Committed rows


def test_kept_rows_are_this_machines_rows_and_can_be_read_again(home: Path) -> None:
    kept = evidence.keep("quick", WANTED)
    assert [one.key for one in kept.found()] == [one.key for one in ROWS]
    assert kept == evidence.kept("quick")
    assert kept.place == KEPT
    assert (home / "data/reference/measured/quick/mnist_ode/none-seed0-none0.json").exists()


def test_a_run_without_a_row_here_keeps_its_committed_one_and_is_replaced_when_made_anew(home: Path) -> None:
    evidence.keep("quick", WANTED)
    store.path_of(ROWS[0]).unlink()
    changed = [replace(run, key="none1new") if run.key == "none1" else run for run in WANTED]
    store.write(replace(ROWS[1], key="none1new", nfe=1.0))
    kept = evidence.keep("quick", changed)
    assert [one.key for one in kept.found()][:3] == ["none0", "none1new", "none2"]
    names = {path.name for path in (home / "data/reference/measured/quick/mnist_ode").iterdir()}
    assert "none-seed1-none1.json" not in names
    fewer = evidence.keep("quick", [run for run in changed if run.regularizer != "no_dynamics"])
    assert len(fewer.found()) == 6


def test_nothing_is_kept_of_smoke_or_of_nothing(home: Path) -> None:
    with pytest.raises(ValueError, match="smoke profile show nothing"):
        evidence.keep("smoke", WANTED)
    with pytest.raises(ValueError, match="no row of profile paper"):
        evidence.keep("paper", WANTED)
    assert not store.committed_folder("paper").exists()
    assert evidence.kept("paper").found() == []


def test_a_committed_row_that_no_list_names_is_an_error_and_not_an_extra_seed(home: Path) -> None:
    evidence.keep("quick", WANTED)
    path = store.committed_folder("quick") / "mnist_ode" / "none-seed7-x.json"
    shutil.copy(store.committed_folder("quick") / "mnist_ode" / "none-seed0-none0.json", path)
    path.write_text(path.read_text().replace('"none0"', '"x"'))
    with pytest.raises(ValueError, match=r"does not list: \['x'\]"):
        evidence.kept("quick")


def test_committed_rows_stand_beside_own_rows_and_never_for_them(home: Path) -> None:
    evidence.keep("quick", WANTED)
    store.path_of(ROWS[0]).unlink()
    own, kept = report.evidence({"quick": WANTED})
    assert (own.place, len(own.found()), kept.place, len(kept.found())) == (OWN, 8, KEPT, 9)
    store.write(ROWS[0])
    assert [one.place for one in report.evidence({"quick": WANTED})] == [OWN]  # the same rows are not shown twice
    assert [one.name for one in report.evidence({"smoke": ()})] == ["smoke, this machine", "quick, committed"]


def test_the_rows_committed_in_this_repository_can_be_read() -> None:
    for profile in ("quick", "paper"):
        assert len(evidence.kept(profile).rows) == len(evidence.kept(profile).wanted)


# The README's block


def test_the_block_is_written_between_its_marks_and_keeps_the_times_of_other_profiles(home: Path) -> None:
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
    assert "no rows are committed yet" in text
    assert not front.update()  # nothing new

    evidence.keep("quick", WANTED)
    (home / "figures").mkdir()
    (home / "figures" / f"{front.PICTURE}.json").write_text(json.dumps({"alt": "Axes.", "caption": "A caption."}))
    assert front.update()
    text = readme.read_text()
    assert "![Axes.](figures/13_gain_against_nfe.png)" in text
    assert "| quick, committed | " in text
    assert "smoke: 5.0 min" in text


def test_a_readme_without_marks_is_left_alone(home: Path) -> None:
    assert not front.update()
    (home / "README.md").write_text("# Title\n")
    front.note_time("quick", front.Time(1.0, 2, "a", "2026-01-01"))
    assert not front.update()
    assert (home / "README.md").read_text() == "# Title\n"


def test_keep_publishes_the_pictures_of_the_lessons_that_were_run_and_of_no_other_profile(home: Path) -> None:
    published, made = home / "figures", store.figures_folder("quick")
    for folder, names in (
        (published, ("05_old.png", "06_fit.png", "README.txt")),
        (made, ("05_new.png", "05_new.json")),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_bytes(b"a picture")
    assert publish.pictures("quick") == "1 pictures of 1 lessons published in figures"
    assert {path.name for path in published.iterdir() if path.is_file()} == {
        "05_new.png", "05_new.json", "06_fit.png", "README.txt",
    }  # fmt: skip
    assert publish.pictures("paper") == "no pictures published"


# What a reader must know before


@pytest.mark.parametrize("first", caveats.history()["ledgers"], ids=lambda ledger: ledger["commit"])
def test_an_earlier_ledger_in_the_history_is_that_of_the_readme_of_its_commit(first: dict[str, Any]) -> None:
    shown = subprocess.run(["git", "show", f"{first['commit']}:README.md"], cwd=checkout.ROOT, capture_output=True)
    if shown.returncode:
        pytest.skip("git or that commit is not here")
    text = shown.stdout.decode()
    line = re.search(r"^\| quick, committed \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, flags=re.MULTILINE)
    assert line
    assert [int(number) for number in line.groups()] == [first["verdicts"][name] for name in claims.VERDICTS]
    assert f"Reached in {first['goal_reached']} (quick, committed)" in text


def test_every_change_of_the_history_names_a_commit_after_its_ledger() -> None:
    pairs = [
        (ledger["commit"], change["commit"]) for ledger in caveats.history()["ledgers"] for change in ledger["changes"]
    ]
    for earlier, change in pairs:
        asked = ["git", "merge-base", "--is-ancestor", earlier, change]
        if (code := subprocess.run(asked, cwd=checkout.ROOT, capture_output=True).returncode) == 128:
            pytest.skip("git or that commit is not here")
        assert code == 0, change


def test_the_caveats_tell_all_ledgers_whose_form_is_judged_and_what_a_looser_tolerance_gives() -> None:
    kept = evidence.kept("quick")
    told = " ".join(caveats.caveats(RULES, kept))
    for ledger in ("2 holds / 11 same direction / 8 does not hold", "5 holds / 16 same direction / 0 does not hold"):
        assert f"{ledger} / 4 not run" in told
    assert caveats._counts({name: len([1 for one in claims.ledger(RULES, kept) if one.verdict == name])
                            for name in claims.VERDICTS}) in told  # fmt: skip
    assert "about our form of the penalty" in told
    assert "code that holds the first stage constant" in told
    table = caveats.loosened(kept)
    assert set(table["experiment"]) == {"MNIST, neural ODE", "PhysioNet 2012, latent ODE"}
    assert set(table.groupby("experiment")["seeds"].nunique()) == {1}, "equal seeds within an experiment"
    tight = table[table["trained and solved with"] == "vanilla, at 1e-07"]
    assert set(tight["against the tight vanilla"]) == {"1.00x"}
    assert "loosening alone 0.47x" in caveats.loosened_in_words(kept)


def test_a_claim_whose_means_are_as_good_as_published_is_told_apart_by_what_keeps_it_from_holding() -> None:
    judged = claims.ledger(RULES, evidence.kept("quick"))
    blocked = [one.claim.id for one in judged if claims.blocked_by_gain(one)]
    assert blocked == ["C01", "C03", "C09", "C14", "C15"]
    assert {one.claim.id for one in judged if claims.met_by_means(one)} - set(blocked) == {"C05", "C06", "C13", "C16"}


def test_the_block_of_this_readme_is_what_the_command_writes() -> None:
    readme = (checkout.ROOT / "README.md").read_text(encoding="utf-8")
    match = front.BLOCK.search(readme)
    assert match
    assert match[1] == front.block(front.read_times(readme))


def test_only_a_whole_run_counts_as_one_and_its_time_waits_for_keep(home: Path) -> None:
    readme = home / "README.md"
    readme.write_text(f"{front.BEGIN}\n{front.END}\n")
    options = Namespace(profile="quick", only="", parameter=[], jobs=2)
    outcome = Outcome("05_x", None, 1.0)
    start = 1767225600.5  # half a second after the rows were made: 2026-01-01T00:00:00Z
    asked: list[tuple[Any, ...]] = [
        (Namespace(**{**vars(options), "only": "05"}), [outcome], ROWS, start),
        (Namespace(**{**vars(options), "parameter": ["a=1"]}), [outcome], ROWS, start),
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
    for name in ("DEVIATIONS.md", "requirements.lock"):
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
    for expected in ("does not hold", "303.559", "758", "81.301", "What follows", "data:image/png;base64"):
        assert expected in text


# Figures


@pytest.mark.slow
def test_the_figures_show_what_there_is_and_say_when_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "published", lambda: {"mnist_ode": {"source": "LOCAL, a table", "rows": {}}})
    plots.style()
    for draw, panels in (
        (plots_report.gain_against_nfe, 1),
        (plots_report.speedups, 2),
        (partial(plots_report.over_training, rules=RULES), 2),
    ):
        fig = draw(part())
        assert len([ax for ax in fig.axes if ax.has_data()]) == panels
        nothing = draw(Evidence("quick", OWN, WANTED, (None,) * 9))
        assert [text.get_text() for ax in nothing.axes for text in ax.texts] == ["no rows yet: run `make reproduce`"]
        plt.close(nothing)
        picture = plots_report.show(fig, "13_test", alt="Axes.", caption="A caption.", profile="quick", rows=ROWS)
        assert picture.alt == "Axes."
        assert not plt.fignum_exists(fig.number)
    assert (tmp_path / "figures" / "quick" / "13_test.svg").exists()


def test_a_ratio_and_a_gain_are_drawn_where_they_are_and_an_outlier_on_the_edge() -> None:
    def marks(evidence: Evidence) -> list[tuple[float, float, str]]:
        fig = plots_report.gain_against_nfe(evidence)
        ax = fig.axes[0]
        found = [
            (float(line.get_xdata()[0]), float(line.get_ydata()[0]), str(line.get_marker()))
            for line in ax.lines
            if line.get_markeredgecolor() == "black" and len(line.get_xdata()) == 1
        ]
        plt.close(fig)
        return found

    look = plots.look("local_biased").marker
    assert marks(part()) == [(pytest.approx(51 / 101), pytest.approx(1.0), look)]
    dear = replace(
        part(), rows=tuple(replace(one, nfe=9 * one.nfe) if one.regularizer == "local_biased" else one for one in ROWS)
    )
    assert marks(dear) == [(plots_report.HIGHEST, pytest.approx(1.0), ">")]
