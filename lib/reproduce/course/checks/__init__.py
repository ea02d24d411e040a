"""`check("02.3", answer)`: right, or what is wrong in words that leave the answer to the student."""

from __future__ import annotations

import re
from importlib import import_module, util
from typing import Any

from reproduce.course.checks.checked import Checked, Verdict, judge


def check(number: str, answer: Any) -> None:
    """Print whether an answer is right, or what is wrong with it; never raises for an answer.

    Args:
        number: of the exercise, '02.3'.
        answer: the function that the exercise asks for, itself, not a call of it.
    """
    print(f"{number}: {verdict(number, answer).says}")


def verdict(number: str, answer: Any) -> Verdict:
    """Return what `check` would say about an answer; an unknown number is a verdict, too."""
    checked = checked_exercises(str(number)[:2])
    if number not in checked:
        known = ", ".join(checked) or "none in this lesson"
        return Verdict(False, f"there is no check with the number {number!r}; there are: {known}")
    return judge(checked[number], answer)


def checked_exercises(lesson: str) -> dict[str, Checked]:
    """Return the checks of a lesson ('02') by number; none for a lesson that has none, or is none."""
    name = f"{__name__}.lesson_{lesson}"
    if not re.fullmatch(r"\d\d", lesson) or util.find_spec(name) is None:
        return {}
    return {checked.number: checked for checked in import_module(name).CHECKS}


def mistakes_of(number: str) -> list[str]:
    """Return what the check of an exercise says about each typical mistake that it knows, for the instructor."""
    checked = checked_exercises(number[:2]).get(number)
    return [mistake.says for mistake in checked.mistakes] if checked else []
