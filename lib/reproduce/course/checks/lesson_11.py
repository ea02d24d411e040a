"""Checks of lesson 11: what a saving cost, and with which weight to begin."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reproduce.course.checks.checked import Checked, Mistake


def _mean(losses: Sequence[float]) -> float:
    return sum(losses) / len(losses)


CHECKS = (
    Checked(
        number="11.1",
        call="paid_per_efold(nfe_before, nfe_after, loss_before, loss_after)",
        returns="a loss, a number",
        cases=lambda: [(50.0, 35.0, 0.038, 0.057), (100.0, 20.0, 1.5, 1.4), (80.0, 60.0, 0.2, 0.5)],
        right=lambda nb, na, lb, la: (la - lb) / math.log(nb / na),
        mistakes=(
            Mistake(
                "the sign: is a model that got worse one that paid, or one that earned?",
                lambda nb, na, lb, la: (lb - la) / math.log(nb / na),
            ),
            Mistake(
                "that is for a factor of ten: factors of e are counted by the natural logarithm.",
                lambda nb, na, lb, la: (la - lb) / math.log10(nb / na),
            ),
            Mistake("that is for one evaluation, not for a factor e.", lambda nb, na, lb, la: (la - lb) / (nb - na)),
            Mistake("divided by the factor, not by how often e is in it.", lambda nb, na, lb, la: (la - lb) * na / nb),
        ),
    ),
    Checked(
        number="11.2",
        call="first_weight(losses)",
        returns="a weight, a number",
        cases=lambda: [([0.7, 0.72, 0.65],), ([2.3, 2.1],)],
        right=lambda losses: 0.03 * _mean(losses),
        mistakes=(
            Mistake("ten times too much: the table of this lesson has what that costs.", lambda x: 0.3 * _mean(x)),
            Mistake("that is one batch only; all of them were given.", lambda losses: 0.03 * losses[0]),
            Mistake("one batch only, and the last: all of them were given.", lambda losses: 0.03 * losses[-1]),
            Mistake("the weight is in units of the loss: a share of it is asked for.", lambda losses: 0.03),
        ),
    ),
)
