"""The course: exercises keep their rules, versions are made of masters, checks take the solution and name mistakes."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from nbformat import v4

from reproduce.course import make, slices, tasks, versions
from reproduce.course.checks import check, checked_exercises, verdict
from reproduce.course.checks.checked import Checked, Mistake
from reproduce.notebooks import runner, workbook
from reproduce.notebooks.exercises import ANSWER, CHECK, EXPECTED, INSTRUCTOR, SOLUTION, lesson_only, tags_of

ROOT = Path(__file__).resolve().parents[1]
MASTERS = {path.stem[:2]: nbformat.read(path, as_version=4) for path in runner.source_notebooks(ROOT / "notebooks")}
TASKS = [task for master in MASTERS.values() for task in tasks.tasks(master)]
CHECKED = [task for task in TASKS if task.answer is not None]
MISTAKES = [
    pytest.param(task.number, i, id=f"{task.number}-{i}")
    for task in CHECKED
    for i in range(len(checked_exercises(task.number[:2])[task.number].mistakes))
]


def number(task: tasks.Task) -> str:
    return task.number


def run(source: str, before: list[str]) -> dict[str, Any]:
    """The names after a cell was run, with no more of the cells before it than it needs."""
    namespace: dict[str, Any] = {}
    for part in [*slices.needed_by(source, before), source]:
        exec(part, namespace)
    return namespace


def answer_of(task: tasks.Task, version: Callable[[str], str] = str) -> Callable[..., Any]:
    """The function of an answer cell, run behind what it needs of its lesson."""
    cells = [cell for cell in MASTERS[task.number[:2]].cells if cell.cell_type == "code"]
    [cell] = task.tagged(ANSWER)
    before = [other.source for other in cells[: [other.id for other in cells].index(cell.id)]]
    assert task.answer is not None
    return run(version(cell.source), before)[task.answer.name]


# The masters


@pytest.mark.parametrize("lesson", sorted(MASTERS))
def test_the_exercises_of_every_lesson_keep_the_rules_of_the_course(lesson: str) -> None:
    assert list(tasks.violations(MASTERS[lesson], lesson)) == []


def test_there_are_enough_exercises_and_enough_of_them_are_checked() -> None:
    counts = {lesson: len(tasks.tasks(master)) for lesson, master in MASTERS.items()}
    assert {lesson: n for lesson, n in counts.items() if "01" <= lesson <= "09" and n < 4} == {}
    assert len(CHECKED) >= 30


@pytest.mark.parametrize("lesson", sorted(MASTERS))
def test_every_check_belongs_to_an_exercise_and_every_answer_has_a_check(lesson: str) -> None:
    of_lesson = [task.number for task in tasks.tasks(MASTERS[lesson]) if task.answer]
    assert list(checked_exercises(lesson)) == of_lesson


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda cells: cells[0].update(source="**01.2 · A** (check, 5 minutes)."), "numbered 01.2"),
        (lambda cells: cells[0].update(source="**01.1 · A** (easy, 5 minutes)."), "none of check, compute"),
        (lambda cells: cells[2].update(source="check('01.1', other)"), "its check is not check('01.1', double)"),
        (lambda cells: cells.pop(3), "does not end with a reading"),
        (lambda cells: cells[0].update(source="**01.1 · A** (explore, 5 minutes)."), "have a rubric"),
        (lambda cells: cells.pop(2), "an answer has one check"),
    ],
)
def test_a_broken_exercise_is_named(change: Callable[[Any], object], words: str) -> None:
    master = small()
    change(master.cells)
    assert any(words in text for text in tasks.violations(master, "01")), list(tasks.violations(master, "01"))


def small(body: str = "    return 2 * x") -> Any:
    """A master of one exercise."""
    answer = f'import math\n\n\ndef double(x, *, times=1):\n    """Return twice x."""\n{body}'
    cells = [
        v4.new_markdown_cell("**01.1 · A pair** (check, 5 minutes). Double it.", metadata={"tags": ["exercise"]}),
        v4.new_code_cell(answer, metadata={"tags": [ANSWER]}),
        v4.new_code_cell('check("01.1", double)', metadata={"tags": [CHECK]}),
        v4.new_markdown_cell("**Reading.** Twice.", metadata={"tags": [SOLUTION]}),
        v4.new_markdown_cell("For the instructor.", metadata={"tags": [INSTRUCTOR]}),
    ]
    return v4.new_notebook(cells=cells)


@pytest.mark.parametrize(
    "source",
    ["x = 1", "def f(x):\n    return x", 'def f(x):\n    """The x."""\n    return x', "y = 2\ndef f(x):\n    return x"],
)
def test_an_answer_cell_holds_imports_and_one_function_that_says_what_it_returns(source: str) -> None:
    with pytest.raises(ValueError, match=r"imports and one function|must begin with 'Return'"):
        tasks.function_of(source)


# Versions


@pytest.mark.parametrize("task", CHECKED, ids=number)
def test_a_stub_has_the_arguments_of_its_solution_and_its_check_says_that_it_is_not_done(task: tasks.Task) -> None:
    stub = answer_of(task, lambda source: versions.stub(source, task.number))
    assert inspect.signature(stub) == inspect.signature(answer_of(task))
    assert stub.__doc__ == answer_of(task).__doc__
    assert verdict(task.number, stub).says.startswith(f"not done yet. {task.number} is yours")


def test_a_students_version_has_no_line_of_a_solution_and_an_instructors_has_notes_on_top() -> None:
    master = small()
    made = versions.student(master)
    assert "2 * x" not in nbformat.writes(made)
    assert "Reading" not in nbformat.writes(made)
    assert "For the instructor" not in nbformat.writes(made)
    assert [cell.source for cell in made.cells if CHECK in tags_of(cell)] == ['check("01.1", double)']
    assert "2 * x" in nbformat.writes(versions.solutions(master))
    assert "For the instructor" not in nbformat.writes(versions.solutions(master))
    notes = versions.instructor(master, mistakes_of=lambda number: ["forgot to double"])
    assert "For the instructor." in notes.cells[1].source
    assert "| 01.1 | check | 5 | yes |" in notes.cells[2].source
    assert "forgot to double" in nbformat.writes(notes)
    assert len(master.cells) == 5, "the master stays as it is"


@pytest.mark.parametrize("lesson", sorted(MASTERS))
def test_no_version_for_students_holds_a_solution_or_a_note_for_instructors(lesson: str) -> None:
    made = versions.student(MASTERS[lesson])
    assert [cell.id for cell in made.cells if tags_of(cell) & {SOLUTION, INSTRUCTOR}] == []
    stubs = [cell.source for cell in made.cells if ANSWER in tags_of(cell)]
    assert all(source.count("\n    return ") == 0 and "raise NotImplementedError" in source for source in stubs)
    assert len({cell.id for cell in made.cells}) == len(made.cells)
    nbformat.validate(made)


def test_an_open_exercise_leaves_room_for_code_and_words() -> None:
    master = small()
    master.cells[0].source = "**01.1 · A pair** (explore, 5 minutes). Double it."
    del master.cells[1:3]
    made = versions.student(master)
    assert [cell.source for cell in made.cells[1:]] == ["# 01.1: your code", "*01.1, what you found:*"]


def bundle(root: Path, master: Any) -> Path:
    (root / "notebooks").mkdir()
    nbformat.write(master, root / "notebooks" / "01_small.ipynb")
    return root


def test_a_second_make_course_leaves_every_file_as_it_is_and_a_broken_master_makes_none(tmp_path: Path) -> None:
    master = small()
    master.cells += [
        v4.new_markdown_cell("**01.2 · More** (explore, 5 minutes).", metadata={"tags": ["exercise"]}),
        v4.new_code_cell("1 + 1", metadata={"tags": [SOLUTION]}),
        v4.new_markdown_cell("[a link](../README.md)", metadata={"tags": [SOLUTION]}),
        v4.new_markdown_cell("Rubric.", metadata={"tags": ["rubric"]}),
    ]
    bundle(tmp_path, master)
    said = list(make.make(tmp_path))
    assert said[0] == "01_small: 2 exercises (1 check, 1 explore), 1 checked"
    paths = sorted((tmp_path / "build").rglob("*.ipynb"))
    assert [path.parent.name for path in paths] == ["instructor", "solutions", "student"]
    [link] = [cell.source for cell in nbformat.read(paths[1], as_version=4).cells if "a link" in cell.source]
    assert (paths[1].parent / link.split("(")[1].rstrip(")")).resolve() == (tmp_path / "README.md").resolve()
    times = [path.stat().st_mtime_ns for path in paths]
    list(make.make(tmp_path))
    assert [path.stat().st_mtime_ns for path in paths] == times
    nbformat.write(v4.new_notebook(cells=master.cells[:3]), tmp_path / "notebooks" / "01_small.ipynb")
    with pytest.raises(ValueError, match="01_small: no exercise is open-ended"):
        list(make.make(tmp_path))


def test_the_readers_own_copies_are_students_versions(tmp_path: Path) -> None:
    root = bundle(tmp_path, small())
    list(workbook.update(root, version=versions.student_bytes))
    copy = root / workbook.FOLDER / "01_small.ipynb"
    assert "is yours to write" in copy.read_text()
    assert "2 * x" not in copy.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("solutions", [True, False])
def test_solutions_are_executed_when_asked_for_and_left_out_elsewhere(tmp_path: Path, solutions: bool) -> None:
    master = small()
    master.cells.insert(0, v4.new_code_cell('profile = "quick"', metadata={"tags": ["parameters"]}))
    master.cells[3].source = "print(double(21), profile)"
    bundle(tmp_path, master)
    (tmp_path / "data" / "reference").mkdir(parents=True)
    schema = Path("data", "reference", "provenance.schema.json")
    (tmp_path / schema).write_text((ROOT / schema).read_text())
    [outcome] = runner.run("smoke", solutions=solutions, jobs=1, root=tmp_path, say=lambda line: None)
    assert outcome.failure is None
    copy = (tmp_path / str(outcome.copy)).read_text()
    assert ("42 smoke" in copy) == solutions
    assert ("2 * x" in copy) == solutions
    assert '"input_path": "notebooks/01_small.ipynb"' in copy
    assert sorted(path.suffixes[0] for path in (tmp_path / str(outcome.copy)).parent.iterdir()) == [
        ".ipynb",
        ".provenance",
    ]


def test_the_site_shows_tasks_and_no_solution_and_leaves_the_notebook_as_it_is() -> None:
    from reproduce.site.lessons import prepared

    master = small()
    shown = nbformat.writes(prepared("01_small", master).notebook)
    assert "Double it." in shown
    assert "2 * x" not in shown
    assert "For the instructor" not in shown
    assert len(master.cells) == 5


def test_a_lesson_as_such_keeps_its_tasks() -> None:
    assert [cell.source[:6] for cell in lesson_only(small()).cells] == ["**01.1"]


@pytest.mark.parametrize("lesson", [lesson for lesson, master in MASTERS.items() if "expected" in str(master)])
def test_expected_pictures_are_drawn_by_their_cells_alone(lesson: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from reproduce.course.pictures import expected

    drawn = dict(expected(MASTERS[lesson]))
    assert set(drawn) == {cell.id for cell in MASTERS[lesson].cells if EXPECTED in tags_of(cell)}
    assert all(png.startswith(b"\x89PNG") and len(alt) > 40 for png, alt in drawn.values())
    made = versions.student(MASTERS[lesson], pictures=drawn)
    assert sum("attachments" in cell for cell in made.cells) == len(drawn)


# What a cell needs


def test_what_a_cell_needs_is_found_through_other_statements_and_nothing_else_is() -> None:
    cells = [
        "import numpy as np\na = 1\nb = a + np.pi",
        "def f(x):\n    return g(x) + b",
        "slow = 1 / 0\ndef g(x): return x",
    ]
    assert slices.needed_by("y = [f(i) for i in range(3)]", cells) == [
        "import numpy as np",
        "a = 1",
        "b = a + np.pi",
        "def f(x):\n    return g(x) + b",
        "def g(x): return x",
    ]


def test_a_name_that_a_statement_changes_is_needed_from_before() -> None:
    cells = ["a = []", "for i in range(2):\n    a.append(i)", "a = a + [1]", "b = 2"]
    assert slices.needed_by("print(a)", cells) == cells[:3]


# Checks


@pytest.mark.parametrize("task", CHECKED, ids=number)
def test_a_check_takes_the_solution_of_the_master(task: tasks.Task) -> None:
    found = verdict(task.number, answer_of(task))
    assert found.right, found.says


@pytest.mark.parametrize(("exercise", "i"), MISTAKES)
def test_a_typical_wrong_answer_is_rejected_with_the_sentence_meant_for_it(exercise: str, i: int) -> None:
    mistake = checked_exercises(exercise[:2])[exercise].mistakes[i]
    found = verdict(exercise, mistake.gives)
    assert not found.right
    assert found.says == mistake.says


@pytest.mark.parametrize("task", CHECKED, ids=number)
def test_each_check_knows_two_mistakes_at_least_and_calls_the_function_by_its_name(task: tasks.Task) -> None:
    checked = checked_exercises(task.number[:2])[task.number]
    assert len({mistake.says for mistake in checked.mistakes}) >= 2
    assert task.answer is not None
    arguments = [arg.arg for arg in task.answer.args.args]
    assert checked.call == f"{task.answer.name}({', '.join(arguments)})"


def raises(*arguments: Any) -> None:
    raise KeyError("nothing here")


BAD = [None, 3.0, "text", lambda: 1, lambda *a: None, lambda *a: "text", lambda *a: (), lambda *a: float("nan"), raises]


@pytest.mark.parametrize("task", CHECKED, ids=number)
@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_no_answer_makes_a_check_raise(task: tasks.Task, bad: Any, capsys: pytest.CaptureFixture[str]) -> None:
    check(task.number, bad)
    said = capsys.readouterr().out
    assert said.startswith(f"{task.number}: ")
    assert "right." not in said


TWICE = Checked(
    number="99.1",
    call="twice(x)",
    returns="a number",
    cases=lambda: [(1.0,), (3.0,)],
    right=lambda x: 2 * x,
    mistakes=(Mistake("squared.", lambda x: x**2),),
)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: 2 * x, "right."),
        (lambda x: [2 * x], "right."),
        (lambda x: -2 * x, "the sign is not"),
        (lambda x: 2.0, "right in 1 of 2 cases"),
        (lambda x: x**2, "squared."),
        (lambda x: (x, x), "found 2 values"),
        (lambda x: [x, x], "found the shape (2,)"),
        (lambda x: float("inf"), "not finite"),
        (lambda x: None, "is a return missing?"),
        (2.0, "Pass its name without calling it"),
        (lambda: 1, "could not be called: TypeError"),
        (lambda x: 7 * x, "not right yet"),
    ],
)
def test_a_judgement_says_what_is_wrong_and_what_was_expected(answer: Any, words: str) -> None:
    from reproduce.course.checks.checked import judge

    assert words in judge(TWICE, answer).says


@pytest.mark.parametrize("held", [tuple, list, torch.tensor, np.array])
def test_two_numbers_are_right_however_an_answer_holds_them(held: Any) -> None:
    from reproduce.course.checks.checked import judge

    both = replace(TWICE, returns="two numbers", right=lambda x: (x, 2 * x), mistakes=())
    assert judge(both, lambda x: held((x, 2 * x))).right
    assert not judge(both, lambda x: held((x, 3 * x))).right


def test_a_number_without_a_check_is_told_with_those_that_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    check("01.99", None)
    assert "no check with the number '01.99'; there are: 01.1, 01.2" in capsys.readouterr().out
    check("zz", None)
    assert "none in this lesson" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(
    "REGNDE_STUDENT" not in os.environ, reason="minutes: executes students' versions, REGNDE_STUDENT=01,02 or all"
)
@pytest.mark.parametrize("lesson", sorted(MASTERS))
def test_a_students_version_runs_from_top_to_bottom_with_nothing_filled_in(tmp_path: Path, lesson: str) -> None:
    import papermill

    if os.environ["REGNDE_STUDENT"] != "all" and lesson not in os.environ["REGNDE_STUDENT"].split(","):
        pytest.skip("this lesson was not asked for")
    nbformat.write(versions.student(MASTERS[lesson]), tmp_path / "in.ipynb")
    papermill.execute_notebook(
        tmp_path / "in.ipynb", tmp_path / "out.ipynb", parameters={"profile": "smoke"}, progress_bar=False
    )
    is_checked = any(task.number.startswith(f"{lesson}.") for task in CHECKED)
    assert ("not done yet" in (tmp_path / "out.ipynb").read_text()) == is_checked
