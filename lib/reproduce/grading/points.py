"""Points of a graded cell: each check gives its own, and says in a sentence what is wrong with a wrong answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


class Points:
    """Adds up the points of the checks in one cell; a failed check costs its points and stops nothing.

    nbgrader takes the number that the cell ends with (`points.total()`) as the cell's score.
    """

    def __init__(self) -> None:
        self.got = 0.0
        self.most = 0.0

    def check(self, worth: float, what: str, test: Callable[[], str | None]) -> None:
        """Run one test, which returns None if the answer is right, else what is wrong; print a line about it.

        Raises:
            ValueError: the check is worth nothing.
        """
        if worth <= 0:
            raise ValueError(
                f"a check is worth points: expected a number above 0, found {worth}; leave it out otherwise"
            )
        self.most += worth
        try:
            wrong = test()
        except NotImplementedError:
            wrong = "not written yet"
        except Exception as error:
            wrong = f"it stopped with {type(error).__name__}: {str(error)[:200]}"
        self.got += 0 if wrong else worth
        print(f"{0 if wrong else worth:g}/{worth:g}  {what}" + (f": {wrong}" if wrong else ""))

    def total(self) -> float:
        """Return the points, the number that nbgrader reads."""
        return self.got


def near(
    found: Any, right: Any, *, mistakes: Mapping[str, Any] | None = None, rtol: float = 1e-8, atol: float = 1e-10
) -> str | None:
    """Compare an answer with the right one; return None if they agree, else a sentence.

    Args:
        found: the student's answer: a number, an array or a tensor.
        right: the right answer.
        mistakes: sentence -> the answer that this mistake gives; the first one that agrees is returned.
    """
    if found is None:
        return "nothing was returned: is a `return` missing?"
    found, right = _array(found), _array(right)
    if found.shape != right.shape:
        return f"the shape should be {right.shape}, and is {found.shape}"
    if np.allclose(found, right, rtol=rtol, atol=atol):
        return None
    for sentence, wrong in (mistakes or {}).items():
        if np.allclose(found, _array(wrong), rtol=rtol, atol=atol):
            return sentence
    if np.allclose(found, -right, rtol=rtol, atol=atol):
        return "the sign is wrong"
    return "the numbers differ" if np.all(np.isfinite(found)) else "it is not finite"


def _array(value: Any) -> np.ndarray:
    detached = value.detach() if hasattr(value, "detach") else value
    return np.asarray(detached, dtype=float)
