"""Coefficients as data, which check themselves: Tsit5, Dormand-Prince 5, Bogacki-Shampine 3; Euler, midpoint, RK4."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regnde.solvers.order_conditions import order_defect

TOLERANCE = 1e-12


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method, embedded in a pair; its last stage may be the first of the next step (FSAL).

    Raises ValueError when the numbers do not belong together: row sums, order conditions of the solution
    and of the embedded solution, dense output that does not end at the solution.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, section II.4; each pair names its own.
    """

    name: str
    order: int
    """Order of the solution that is carried on."""
    embedded_order: int
    """Order of the solution that it is compared with; the error of one step is O(dt^(embedded_order + 1))."""
    c: tuple[float, ...]
    """Times of the stages as fractions of the step, (stages,)."""
    a: tuple[tuple[float, ...], ...]
    """Row i holds the weights of the stages before stage i + 1, so that it has i + 1 entries."""
    b_error: tuple[float, ...]
    """Weights of the solution minus weights of the embedded solution: error = dt * sum_i b_error_i k_i."""
    dense: tuple[tuple[float, ...], ...]
    """dense[i][j] is the coefficient of theta^(j+1) in the weight of stage i at t + theta * dt."""
    dense_order: int
    stiffness_pair: tuple[int, int] | None
    """Two stages at the same time, whose quotient of differences estimates the stiffness; None: no such pair."""
    final: tuple[float, ...] | None = None
    """Weights of the solution, (stages,), of a method that is not FSAL."""

    @property
    def fsal(self) -> bool:
        """Whether the last stage is the derivative at the end of the step: the first stage of the next one."""
        return self.final is None

    @property
    def estimates(self) -> bool:
        """Whether there is another solution to compare with, so that a step knows of its error."""
        return any(self.b_error)

    @property
    def b(self) -> tuple[float, ...]:
        """Weights of the solution, (stages,): `final`, or the last row of `a` (FSAL)."""
        return (*self.a[-1], 0.0) if self.final is None else self.final

    def weights(self, theta: np.ndarray) -> np.ndarray:
        """Return the weights of the stages at t + theta * dt: (times,) -> (times, stages)."""
        powers = theta[:, None] ** np.arange(1, len(self.dense[0]) + 1)
        return powers @ np.array(self.dense).T

    def __post_init__(self) -> None:
        stages = len(self.c)
        lengths = [len(row) for row in self.a]
        if lengths != list(range(1, stages)) or len(self.b_error) != stages or len(self.dense) != stages:
            raise ValueError(f"{self.name}: {stages} stage times do not fit rows of {lengths} weights")
        a = np.zeros((stages, stages))
        for i, row in enumerate(self.a, start=1):
            a[i, : len(row)] = row
        b, b_error = np.array(self.b), np.array(self.b_error)
        defects = {
            "row sums of a against c": float(np.abs(a.sum(1) - self.c).max()),
            f"order {self.order} of b": order_defect(a, b, self.order),
            f"order {self.embedded_order} of b - b_error": order_defect(a, b - b_error, self.embedded_order),
            "dense output at theta = 1 against b": float(np.abs(self.weights(np.ones(1))[0] - b).max()),
        }
        if self.stiffness_pair is not None:
            i, j = self.stiffness_pair
            defects["times of the stiffness pair"] = abs(self.c[i] - self.c[j])
        wrong = {name: defect for name, defect in defects.items() if not defect < TOLERANCE}
        if wrong:
            raise ValueError(f"{self.name}: wrong coefficients, {wrong} should be below {TOLERANCE}")


@dataclass(frozen=True)
class AdamsWeights:
    """Coefficients of one Adams-Bashforth step of order 3, which depend on the two steps before it.

    The derivative is replaced by its interpolation polynomial p through the last three points and integrated. In
    Newton's form, with theta = (t - t_n) / dt and divided differences d1 and d2 of the derivatives in theta,
    p = f_n + theta d1 + theta (theta + back1) d2. Without d2 it is the method of order 2: the difference is the error.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, section III.5.
    """

    back1: float
    """(t_n - t_{n-1}) / dt, positive."""
    back2: float
    """(t_n - t_{n-2}) / dt, greater than back1."""
    name: str = "vcab3"
    stiffness_pair: None = None

    @property
    def b(self) -> tuple[float, ...]:
        """Weights of f_n, f_{n-1}, f_{n-2}: 23/12, -16/12, 5/12 for equal steps."""
        return tuple(sum(row) for row in self.dense)

    @property
    def b_error(self) -> tuple[float, ...]:
        """Weights of order 3 minus weights of order 2: the integral of theta (theta + back1) d2 over the step."""
        return tuple((1 / 3 + self.back1 / 2) * d2 for _, _, d2 in self._differences)

    @property
    def dense(self) -> tuple[tuple[float, ...], ...]:
        """dense[i][j] is the coefficient of theta^(j+1) in the weight of derivative i at t + theta * dt."""
        return tuple((f, d1 / 2 + self.back1 / 2 * d2, d2 / 3) for f, d1, d2 in self._differences)

    @property
    def _differences(self) -> tuple[tuple[float, float, float], ...]:
        """Row i: what derivative i contributes to f_n, d1 and d2."""
        a, b = self.back1, self.back2
        return (1.0, 1 / a, 1 / (a * b)), (0.0, -1 / a, -1 / (a * (b - a))), (0.0, 0.0, 1 / (b * (b - a)))

    def weights(self, theta: np.ndarray) -> np.ndarray:
        """Return the weights of the derivatives at t + theta * dt: (times,) -> (times, 3)."""
        return theta[:, None] ** np.arange(1, 4) @ np.array(self.dense).T


def _polynomial(scale: float, *factors: tuple[float, ...]) -> tuple[float, ...]:
    """Expand scale * theta * product of factors (lowest power first) to the powers theta^1, theta^2, ..."""
    product = np.array([scale])
    for factor in factors:
        product = np.convolve(product, factor)
    return tuple(float(x) for x in product)


TSIT5 = Tableau(
    # Tsitouras, Comput. Math. Appl. 62 (2011) 770-775.
    name="tsit5",
    order=5,
    embedded_order=4,
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    a=(
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (
            *(5.86145544294642, -12.92096931784711, 8.159367898576159),
            *(-0.071584973281401, -0.028269050394068383),
        ),
        (
            *(0.09646076681806523, 0.01, 0.4798896504144996),
            *(1.379008574103742, -3.290069515436081, 2.324710524099774),
        ),
    ),
    b_error=(
        *(0.0017800110522257773, 0.0008164344596567463, -0.007880878010261994, 0.1447110071732629),
        *(-0.5823571654525552, 0.45808210592918686, -0.015151515151515152),
    ),
    dense=(
        _polynomial(-1.0530884977290216, (-1.3299890189751412, 1), (0.7139816917074209, -1.4364028541716351, 1)),
        _polynomial(0.1017, (0, 1), (1.2949852507374631, -2.1966568338249754, 1)),
        _polynomial(2.490627285651252793, (0, 1), (1.57803468208092486, -2.38535645472061657, 1)),
        _polynomial(-16.54810288924490272, (0, 1), (-1.21712927295533244, 1), (-0.61620406037800089, 1)),
        _polynomial(47.37952196281928122, (0, 1), (-1.203071208372362603, 1), (-0.658047292653547382, 1)),
        _polynomial(-34.87065786149660974, (0, 1), (-1.2, 1), (-0.666666666666666667, 1)),
        _polynomial(2.5, (0, 1), (-1, 1), (-0.6, 1)),
    ),
    dense_order=4,
    stiffness_pair=(5, 6),
)
"""Order 5(4), seven stages, FSAL. Source: Tsitouras, Comput. Math. Appl. 62 (2011) 770-775."""

DOPRI5 = Tableau(
    # Dormand, Prince, J. Comput. Appl. Math. 6 (1980) 19-26; dense: Shampine, Math. Comp. 46 (1986) 135-150.
    name="dopri5",
    order=5,
    embedded_order=4,
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    a=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b_error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    dense=(
        (1.0, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432),
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799),
        (0.0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072),
        (0.0, 127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632),
        (0.0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844),
        (0.0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423),
    ),
    dense_order=4,
    stiffness_pair=(5, 6),
)
"""Order 5(4), seven stages, FSAL. Source: Dormand, Prince, J. Comput. Appl. Math. 6 (1980) 19-26."""

BOSH3 = Tableau(
    # Bogacki, Shampine, Appl. Math. Lett. 2 (1989) 321-325; dense output: the cubic Hermite polynomial.
    name="bosh3",
    order=3,
    embedded_order=2,
    c=(0.0, 1 / 2, 3 / 4, 1.0),
    a=((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    b_error=(-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    dense=((1.0, -4 / 3, 5 / 9), (0.0, 1.0, -2 / 3), (0.0, 4 / 3, -8 / 9), (0.0, -1.0, 1.0)),
    dense_order=3,
    stiffness_pair=None,
)
"""Order 3(2), four stages, FSAL. Source: Bogacki, Shampine, Appl. Math. Lett. 2 (1989) 321-325."""

TABLEAUS = {tableau.name: tableau for tableau in (TSIT5, DOPRI5, BOSH3)}
"""The embedded pairs by name. Source: each names its own."""

# The methods of few fixed steps (Hairer, Norsett, Wanner, Solving ODEs I, sections II.1 and II.6). Dense output is of
# their own order, of RK4 of order 3, without a further evaluation. The errors: midpoint against Euler, RK4 against
# midpoint, both of which lie inside.
EULER = Tableau(
    name="euler",
    order=1,
    embedded_order=1,
    c=(0.0,),
    a=(),
    b_error=(0.0,),
    dense=((1.0,),),
    dense_order=1,
    stiffness_pair=None,
    final=(1.0,),
)

MIDPOINT = Tableau(
    name="midpoint",
    order=2,
    embedded_order=1,
    c=(0.0, 1 / 2),
    a=((1 / 2,),),
    b_error=(-1.0, 1.0),
    dense=((1.0, -1.0), (0.0, 1.0)),
    dense_order=2,
    stiffness_pair=None,
    final=(0.0, 1.0),
)

RK4 = Tableau(
    name="rk4",
    order=4,
    embedded_order=2,
    c=(0.0, 1 / 2, 1 / 2, 1.0),
    a=((1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b_error=(1 / 6, -2 / 3, 1 / 3, 1 / 6),
    dense=((1.0, -3 / 2, 2 / 3), (0.0, 1.0, -2 / 3), (0.0, 1.0, -2 / 3), (0.0, -1 / 2, 2 / 3)),
    dense_order=3,
    stiffness_pair=None,
    final=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
)

CLASSICAL = {tableau.name: tableau for tableau in (EULER, MIDPOINT, RK4)}
