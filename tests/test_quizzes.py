"""Quizzes: enough questions, as many right answers as said, every choice explained, each in its lesson."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import yaml

from reproduce import checkout
from reproduce.live import quizzes

LESSONS = sorted(path.name[:2] for path in (checkout.ROOT / "notebooks").glob("*.ipynb"))
FILES = sorted(quizzes.FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_lesson_has_its_questions(lesson: str) -> None:
    assert len(quizzes.quiz(lesson).questions) >= (2 if lesson == "13" else 5)


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_choice_is_explained_and_as_many_are_right_as_is_said(lesson: str) -> None:
    for question in quizzes.quiz(lesson).questions:
        said = re.search(r"\((\d) answers are right\.\)$", quizzes._asked(question))
        assert question.right == (int(said[1]) if said else 1), question.ask
        assert 0 < question.right < len(question.choices) >= 3, question.ask
        assert all(len(choice.why.split()) >= 5 for choice in question.choices), question.ask
        texts = [re.sub(r"\W+", " ", choice.text.lower()).strip() for choice in question.choices]
        assert len(set(texts)) == len(texts), question.ask


def test_no_place_among_the_choices_is_a_good_guess() -> None:
    places = [[choice.right for choice in question.choices].index(True)
              for path in FILES for question in quizzes.quiz(path.stem).questions if question.right == 1]  # fmt: skip
    assert all(places.count(place) < len(places) / 2 for place in range(3))


def test_no_question_is_asked_twice() -> None:
    asked = [question.ask for path in FILES for question in quizzes.quiz(path.stem).questions]
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_lesson_shows_its_own_quiz_once(lesson: str) -> None:
    (path,) = (checkout.ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
    shown = [cell.source for cell in nbformat.read(path, as_version=4).cells if "live.quiz(" in cell.source]
    assert shown == [f'live.quiz("{lesson}")']


def entry(**more) -> dict:
    choices = [{"right": "a", "why": "x"}, {"wrong": "b", "why": "y"}, {"wrong": "c", "why": "z"}]
    return {"ask": "q", "choices": choices} | more


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (entry(right=2), "2 of them right"),
        (entry(choices=[{"right": "a", "why": "x"}, {"wrong": "b", "why": "y"}]), "three choices or more"),
        (entry(choices=[*entry()["choices"], {"wrong": " A ", "why": "y"}]), "two choices are equal"),
        (entry(choices=[{"right": "a", "why": "x"}, {"wrong": "b", "why": " "}]), "with its 'why'"),
        (entry(choices=[{"right": "a", "wrong": "b", "why": "x"}]), "as 'right' or 'wrong'"),
        (entry(hint="h"), "found {'hint'}"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_with_its_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: dict, words: str
) -> None:
    (tmp_path / "99.yaml").write_text(yaml.safe_dump([entry(), broken]))
    monkeypatch.setattr(quizzes, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="question 2") as error:
        quizzes.quiz("99")
    assert words in str(error.value)


def test_a_lesson_without_a_file_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(ValueError, match=r"expected one of 00, .*, found '77'"):
        quizzes.quiz("77")


def test_a_quiz_without_scripts_is_a_list_with_folded_answers() -> None:
    content = re.sub(r"<script.*?</script>", "", quizzes.html(quizzes.quiz("11")), flags=re.DOTALL)
    assert content.count("<details>") == len(quizzes.quiz("11").questions)
    assert "<code>cheapest_way</code>" in content
    assert "<strong>Right:</strong>" in content
