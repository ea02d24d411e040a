"""Grading: points with reasons, a sandbox that nothing leaves or outlasts, and a class graded through nbgrader."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from forty import SET, forty, hand_in, wrong
from nbformat.v4 import new_code_cell, new_notebook

from reproduce import checkout
from reproduce.grading import landlock, pages, sandbox
from reproduce.grading.classroom import SETS, completed, grade_id, handed_in, readable, set_named
from reproduce.grading.outputs import scored
from reproduce.grading.points import Points, near
from reproduce.grading.sandbox import Limits, Verdict, run

"""One at a time: a test looks at what others would have running."""
COURSE = checkout.ROOT / ".venv-course" / "bin" / "python"
PROJECT = checkout.ROOT / ".venv" / "bin" / "python"
MASTERS = [checkout.ROOT / "course" / name / f"{name}.ipynb" for name in SETS]


def notebook(*sources: str) -> nbformat.NotebookNode:
    return new_notebook(cells=[new_code_cell(source) for source in sources])


def test_a_failed_check_costs_its_points_and_says_why_without_stopping_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    points = Points()
    points.check(2, "right", lambda: near(1.0, 1.0))
    points.check(3, "wrong", lambda: near(-2.0, 1.0, mistakes={"twice, and the sign": -2.0}))
    points.check(1, "raises", lambda: near(1 / 0, 1.0))
    points.check(1, "stub", _stub)
    assert points.total() == 2
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "2/2  right"
    assert said[1] == "0/3  wrong: twice, and the sign"
    assert "ZeroDivisionError" in said[2]
    assert said[3] == "0/1  stub: not written yet"


def _stub() -> str | None:
    raise NotImplementedError


def test_a_check_worth_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="worth points"):
        Points().check(0, "nothing", lambda: None)


@pytest.mark.parametrize(
    ("found", "said"),
    [(None, "return"), ([1.0, 2.0], "shape"), (-1.0, "sign"), (float("nan"), "finite"), (5.0, "differ"), (1.0, None)],
)
def test_near_says_what_is_wrong_with_an_answer(found: object, said: str | None) -> None:
    answer = near(found, np.float64(1.0))
    assert answer is None if said is None else said in str(answer)


@pytest.mark.parametrize("path", MASTERS, ids=lambda path: path.stem)
def test_a_problem_set_has_twenty_points_and_every_graded_code_cell_ends_with_them(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    graded = [cell for cell in cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert sum(cell.metadata.nbgrader.points for cell in graded) == 20
    checks = [cell for cell in graded if cell.cell_type == "code"]
    assert all(cell.source.endswith("points.total()") for cell in checks)
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.parametrize("path", MASTERS, ids=lambda path: path.stem)
def test_a_problem_set_has_hidden_checks_and_no_solution_outside_of_its_marks(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    solutions = [c for c in cells if c.metadata.get("nbgrader", {}).get("solution") and c.cell_type == "code"]
    assert solutions
    assert all("### BEGIN SOLUTION" in cell.source for cell in solutions)
    assert any("### BEGIN HIDDEN TESTS" in cell.source for cell in cells)


def test_removed_cells_stand_again_in_their_places_and_own_cells_stay() -> None:
    release = nbformat.read(MASTERS[0], as_version=4)
    names = [grade_id(cell) for cell in release.cells]
    mine = new_notebook(cells=[release.cells[0], new_code_cell("1 + 1"), *release.cells[4:6]])
    whole = completed(mine, release)
    assert [grade_id(cell) for cell in whole.cells if grade_id(cell)] == names
    assert "1 + 1" in [cell.source for cell in whole.cells]


def test_submissions_are_files_or_folders_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "ada.ipynb").write_text("{}")
    (tmp_path / "ben" / "deep").mkdir(parents=True)
    (tmp_path / "ben" / "deep" / "x.ipynb").write_text("{}")
    (tmp_path / "cleo").mkdir()
    (tmp_path / "eve.ipynb").symlink_to(MASTERS[0])
    found = handed_in(tmp_path, SETS[0])
    assert found == {"ada": tmp_path / "ada.ipynb", "ben": tmp_path / "ben" / "deep" / "x.ipynb", "cleo": None}
    assert readable(found["ada"]) is None
    assert readable(None) is None


def test_a_wrong_folder_set_or_name_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder with one notebook"):
        handed_in(tmp_path / "none", SETS[0])
    with pytest.raises(ValueError, match="no submission"):
        handed_in(tmp_path, SETS[0])
    (tmp_path / "a b.ipynb").write_text("{}")
    with pytest.raises(ValueError, match="letters, digits"):
        handed_in(tmp_path, SETS[0])
    with pytest.raises(ValueError, match="no problem set '4'"):
        set_named("4")
    assert set_named("2") == "set2_penalties"


def graded_cell(*outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return new_notebook(
        cells=[new_code_cell("points.total()", metadata={"nbgrader": {"grade": True}}, outputs=list(outputs))]
    )


def test_checks_without_points_fail_and_warnings_cost_nothing() -> None:
    warning = nbformat.v4.new_output("stream", name="stderr", text="careful")
    number = nbformat.v4.new_output("execute_result", data={"text/plain": "2.0"})
    bare = graded_cell()
    ran = scored(bare, Verdict("ok", "", graded_cell(warning, number), 1.0, 1.0, 0.0))
    assert [out.output_type for out in ran.cells[0].outputs] == ["execute_result"]
    silent = scored(bare, Verdict("ok", "", graded_cell(), 1.0, 1.0, 0.0))
    assert silent.cells[0].outputs[0].output_type == "error"
    stopped = scored(bare, Verdict("time", "it ran too long", None, 1.0, 1.0, 0.0))
    assert stopped.cells[0].outputs[0].evalue == "it ran too long"


def test_only_outputs_are_taken_from_the_sandbox_and_none_of_a_cell_that_came_back_changed() -> None:
    number = nbformat.v4.new_output("execute_result", data={"text/plain": "2.0"})
    forged = graded_cell(number)
    forged.cells[0].source = "2.0"
    found = scored(graded_cell(), Verdict("ok", "", forged, 1.0, 1.0, 0.0))
    assert found.cells[0].source == "points.total()"
    assert found.cells[0].outputs[0].output_type == "error"


def test_a_name_or_reason_is_no_formula_in_the_table_and_no_markup_on_a_page() -> None:
    part = {"name": "step", "points": 1.0, "most": 2.0, "open": False, "comment": "<b>"}
    result = {
        "set": "s",
        "student": "x",
        "reason": "=1+1",
        "status": "time",
        "points": 1.0,
        "most": 2.0,
        "parts": [part],
    }
    result |= {"seconds": 1, "memory_mb": 1, "disk_mb": 0, "graded": "now"}
    assert ",'=1+1," in pages.table([result])
    assert "<b>" not in pages.feedback(result, None)


def test_an_environment_that_cannot_run_notebooks_is_no_students_fault(tmp_path: Path) -> None:
    with pytest.raises(sandbox.SandboxError, match="make env"):
        run(notebook("1"), python=str(tmp_path / "no-python"))


@pytest.mark.slow
def test_an_error_in_one_cell_leaves_the_next_ones_their_outputs() -> None:
    verdict = run(notebook("1 / 0", "6 * 7"))
    assert verdict.status == "ok"
    assert verdict.notebook is not None
    error, result = (cell.outputs[0] for cell in verdict.notebook.cells)
    assert error.ename == "ZeroDivisionError"
    assert result.data["text/plain"] == "42"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("while True: pass", {"time"}),
        ("hoard = []\nwhile True: hoard.append('x' * 10**7)", {"memory"}),
        ("while True: print('x' * 1000)", {"output", "memory"}),  # messages wait in memory on a busy machine
        ("print('x' * 10**9)", {"output", "memory"}),
        ("import os; os._exit(0)", {"crashed"}),
        ("import os; [os.remove(p) for p in os.listdir() if os.path.isfile(p)]", {"input"}),
        ("import os\nwhile True:\n    os.fork()", {"processes", "crashed", "memory"}),
        ("for i in range(9): open(str(i), 'wb').write(b'x' * 50 * 2**20)", {"disk"}),
    ],
)
def test_a_submission_that_goes_too_far_is_ended_with_a_reason(source: str, status: set[str]) -> None:
    limits = Limits(seconds=900, processor_seconds=20, memory_mb=700, processes=20, disk_mb=100)
    verdict = run(notebook(source), limits=limits)
    assert verdict.status in status, verdict.reason
    assert verdict.reason
    assert verdict.notebook is None


@pytest.mark.slow
@pytest.mark.skipif(landlock.version() < 4, reason="this kernel has no Landlock that can close what is tried here")
def test_nothing_outside_can_be_written_removed_listed_called_or_signalled(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("alive")
    tries = (
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"open({str(canary)!r}, 'a')",
        f"import os; os.remove({str(canary)!r})",
        f"import os; os.listdir({str(tmp_path)!r})",
        f"open({str(canary)!r}).read()",
        "import socket; socket.create_connection(('127.0.0.1', 9), timeout=5)",
        f"import os; os.kill({os.getpid()}, 9)",
    )
    verdict = run(notebook(*tries))
    assert verdict.notebook is not None
    assert [cell.outputs[0].output_type for cell in verdict.notebook.cells] == ["error"] * len(tries)
    assert [path.name for path in tmp_path.iterdir()] == ["canary"]
    assert canary.read_text() == "alive"


@pytest.mark.slow
def test_what_a_submission_leaves_running_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "PREFIX", "regnde-leaves-running-")  # of no other test that runs now
    child = "    os.setsid()\n    if os.fork() == 0:\n        time.sleep(987)\n    os._exit(0)"
    daemon = f"import os, time\nif os.fork() == 0:\n{child}"
    before = {process.pid for process in psutil.process_iter()}
    assert run(notebook(daemon, "1")).status == "ok"
    new = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before]
    assert [p for p in new if sandbox.PREFIX in str(p.info["cmdline"])] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", MASTERS[:1], ids=lambda path: path.stem)
def test_the_solution_of_set_one_gets_all_points_in_the_students_environment(path: Path) -> None:
    verdict = run(nbformat.read(path, as_version=4))
    assert verdict.notebook is not None
    graded = [cell for cell in verdict.notebook.cells if cell.metadata.nbgrader.grade]
    found = [float(cell.outputs[-1].data["text/plain"]) for cell in graded]
    assert found == [cell.metadata.nbgrader.points for cell in graded]


@pytest.mark.slow
@pytest.mark.skipif(not COURSE.exists() or not PROJECT.exists(), reason="`make assignments` makes .venv-course")
def test_a_small_class_is_graded_as_expected_and_graded_ones_are_kept(tmp_path: Path) -> None:
    few = {"perfect00", "half01", "typical01", "empty03", "remover00"}
    class_ = [wanted for wanted in forty(str(tmp_path / "outside")) if wanted.student in few]
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "canary").write_text("alive")
    home, folder = tmp_path / "class", tmp_path / "handed_in"
    folder.mkdir()
    command = [str(COURSE), "-m", "reproduce.grading.cli", "--home", str(home)]
    subprocess.run([*command, "release"], check=True)
    release = home / "release" / SET / f"{SET}.ipynb"
    assert "SOLUTION" not in release.read_text()
    assert "HIDDEN" not in release.read_text()
    for wanted in class_:
        hand_in(wanted, master=MASTERS[0], release=release, folder=folder)
    for _ in range(2):
        said = subprocess.run([*command, "grade", str(folder)], check=True, capture_output=True, text=True).stdout
    assert "5 submissions, 5 kept" in said
    assert list(wrong(class_, home / f"{SET}.csv")) == []
    assert (tmp_path / "outside" / "canary").read_text() == "alive"
    page = (home / "feedback" / SET / "typical01.html").read_text()
    assert "b_hat - b instead of b - b_hat" in page
    assert json.loads((home / "results" / SET / "remover00.json").read_text())["status"] == "input"
    assert sandbox.protection()
