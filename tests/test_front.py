"""The README's generated block, the times of whole runs, and the history before the study."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_rows import ROWS, part

from reproduce import checkout, cli
from reproduce.notebooks.outcome import Outcome
from reproduce.report import (
    front,
    history,
    publish,
)
from reproduce.runs import store


def test_the_block_is_written_between_its_marks_and_keeps_the_times_of_other_profiles(
    rowless: Path, monkeypatch: pytest.MonkeyPatch, chosen: None
) -> None:
    readme = rowless / "README.md"
    readme.write_text(f"# Title\n\n{front.BEGIN}\n{front.END}\n\nText.\n")
    times = {"quick": front.Time(33.25, 2, "0123456", "2026-01-01"), "smoke": front.Time(5.0, 2, "abc", "2026-01-02")}
    front.note_time("quick", times["quick"])
    assert front.update()
    shutil.rmtree(rowless / "build")  # as `make clean` does
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
    (rowless / "figures").mkdir()
    (rowless / "figures" / f"{front.PICTURE}.json").write_text(json.dumps({"alt": "Axes.", "caption": "A caption."}))
    assert front.update()
    text = readme.read_text()
    assert "![Axes.](figures/13_in_a_minute.png)" in text
    folded = re.findall(r"^<details>\n<summary>(.+?)</summary>\n\n(.+?)\n\n</details>$", text, re.DOTALL | re.MULTILINE)
    assert folded[0][0] == "Experiment by experiment"
    assert "| MNIST, neural ODE | 101 | **0.41x** [" in folded[0][1]
    assert text.count("<details>") == text.count("</details>") == len(folded)
    assert "seeds that nobody" in " ".join(text.split())
    assert "smoke: 5.0 min" in text


def test_a_readme_without_marks_is_left_alone(rowless: Path) -> None:
    assert not front.update()
    (rowless / "README.md").write_text("# Title\n")
    front.note_time("quick", front.Time(1.0, 2, "a", "2026-01-01"))
    assert not front.update()
    assert (rowless / "README.md").read_text() == "# Title\n"


def test_keep_publishes_the_pictures_of_the_lessons_that_ran_to_their_end_and_of_no_other_profile(
    rowless: Path,
) -> None:
    published, made = rowless / "figures", store.figures_folder("quick")
    for folder, names in (
        (published, ("05_old.png", "06_fit.png", "07_before.png", "README.txt")),
        (made, ("05_new.png", "05_new.json", "07_failed.png", "08_not_finished.png")),
        (
            rowless / "build" / "quick" / "notebooks",
            ("05_a.ipynb", "06_b.ipynb", "07_c.failed.ipynb", "08_d.part.ipynb"),
        ),
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


def test_only_a_whole_run_counts_as_one_and_its_time_waits_for_keep(rowless: Path) -> None:
    readme = rowless / "README.md"
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
