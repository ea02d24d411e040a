"""Questions of a lesson, from their file to a page: each choice has its explanation, shown once it was chosen."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml

from reproduce.live.assets import asset, scripts

FOLDER = Path(__file__).parents[1] / "course" / "quizzes"
"""One file for each lesson, named by its number."""


@dataclass(frozen=True)
class Choice:
    """One of the answers that a question offers."""

    text: str
    right: bool
    why: str
    """What a reader is told who has chosen it."""


@dataclass(frozen=True)
class Question:
    """A question with its choices, in the order in which they are shown: one that does not give the answer away."""

    ask: str
    choices: tuple[Choice, ...]

    @property
    def right(self) -> int:
        """How many choices are right."""
        return sum(choice.right for choice in self.choices)


@dataclass(frozen=True)
class Quiz:
    """The questions of one lesson; shows itself as the last line of a notebook's cell."""

    lesson: str
    questions: tuple[Question, ...]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": html(self), "text/plain": "\n".join(question.ask for question in self.questions)}


def quiz(lesson: str) -> Quiz:
    """Return the questions of a lesson, named by its number: '02'.

    Raises:
        ValueError: there is no file for it, or the file breaks a rule; the question is named.

    Where several choices are right, the file says how many, and so does the page. Text in backticks is set as code.
    """
    path = FOLDER / f"{lesson}.yaml"
    if not path.exists():
        there = ", ".join(sorted(found.stem for found in FOLDER.glob("*.yaml")))
        raise ValueError(f"lesson: expected one of {there}, found {lesson!r}")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Quiz(lesson, tuple(_question(entry, f"{path.name}, question {i}") for i, entry in enumerate(content, 1)))


def _question(entry: dict[str, Any], where: str) -> Question:
    """Return one question of a file, checked."""
    if unknown := set(entry) - {"ask", "right", "choices"}:
        raise ValueError(f"{where}: expected 'ask', 'choices' and, of several, how many are 'right'; found {unknown}")
    choices = [_choice(choice, where) for choice in entry["choices"]]
    right = sum(choice.right for choice in choices)
    texts = [" ".join(choice.text.lower().split()) for choice in choices]
    if len(choices) < 3 or right != entry.get("right", 1) or right == len(choices):
        raise ValueError(
            f"{where}: expected three choices or more, {entry.get('right', 1)} of them right and one wrong at least; "
            f"found {len(choices)} with {right} right"
        )
    if len(set(texts)) < len(texts):
        raise ValueError(f"{where}: two choices are equal: {sorted(texts)}")
    shuffled = sorted(choices, key=lambda choice: hashlib.sha256(choice.text.encode()).hexdigest())
    return Question(str(entry["ask"]), tuple(shuffled))


def _choice(entry: dict[str, str], where: str) -> Choice:
    kind = {"right", "wrong"} & set(entry)
    if len(kind) != 1 or set(entry) != {*kind, "why"} or not str(entry["why"]).strip():
        raise ValueError(f"{where}: expected a choice as 'right' or 'wrong' with its 'why', found {entry}")
    text = str(entry[kind.pop()])
    return Choice(text, "right" in entry, str(entry["why"]))


def html(questions: Quiz) -> str:
    """Return a quiz for a page: a list with folded answers, which the script turns into forms where scripts run."""
    items = "".join(
        f"<li><p>{_inline(_asked(question))}</p><ul>{''.join(f'<li>{_inline(c.text)}</li>' for c in question.choices)}"
        f"</ul><details><summary>Answer</summary><ul>{''.join(map(_explained, question.choices))}</ul></details></li>"
        for question in questions.questions
    )
    data = [
        {
            "ask": _inline(_asked(question)),
            "several": question.right > 1,
            "choices": [{"text": _inline(c.text), "right": c.right, "why": _inline(c.why)} for c in question.choices],
        }
        for question in questions.questions
    ]
    return (
        f'<div class="rg-quiz" data-lm-suppress-shortcuts="true"><style>{asset("live.css")}</style>'
        f'<div class="rg-title">Questions on lesson {escape(questions.lesson)}</div><ol>{items}</ol>'
        f"{scripts(data, 'quiz.js')}</div>"
    )


def _asked(question: Question) -> str:
    return question.ask + (f" ({question.right} answers are right.)" if question.right > 1 else "")


def _explained(choice: Choice) -> str:
    verdict = "Right" if choice.right else "Wrong"
    return f"<li><strong>{verdict}:</strong> {_inline(choice.text)} {_inline(choice.why)}</li>"


def _inline(text: str) -> str:
    """Return text for HTML, with what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
