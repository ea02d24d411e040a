"""Coefficients as data of stochastic Runge-Kutta methods: SOSRI, SOSRI2; each checks itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

TOLERANCE = 1e-11
"""The published coefficients of SOSRI2 are good to 1.3e-13 in the worst condition."""
Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class SRITableau:
    """A stochastic Runge-Kutta method of Roessler's SRI form, for Ito SDEs with diagonal noise.

    Names are those of the source: index 0 for the stages of the drift, 1 for those of the diffusion; row i of a
    matrix holds the weights of the stages before stage i + 1. Raises ValueError when the numbers do not belong
    together: row sums, conditions of strong order 1.5.

    Source: Roessler, SIAM J. Numer. Anal. 48 (2010) 922-952, eq. 6.1 and theorem 6.1 (with beta in place of his B).
    """

    name: str
    order: float
    """Strong order, with component-wise noise g_i(t, y_i); noise that couples components has order 1/2."""
    a0: Rows
    b0: Rows
    a1: Rows
    b1: Rows
    alpha: tuple[float, ...]
    beta1: tuple[float, ...]
    beta2: tuple[float, ...]
    beta3: tuple[float, ...]
    beta4: tuple[float, ...]
    c0: tuple[float, ...]
    """Times of the drift's stages as fractions of the step."""
    c1: tuple[float, ...]
    """Times of the diffusion's stages."""
    stiffness_pair: tuple[int, int] | None
    """Two drift stages at the same time, whose quotient of differences estimates the stiffness; None: no such pair."""

    def __post_init__(self) -> None:
        defects = self.defects()
        if self.stiffness_pair is not None:
            i, j = self.stiffness_pair
            defects["times of the stiffness pair"] = abs(self.c0[i] - self.c0[j])
        wrong = {name: defect for name, defect in defects.items() if not defect < TOLERANCE}
        if wrong:
            raise ValueError(f"{self.name}: wrong coefficients, {wrong} should be below {TOLERANCE}")

    def defects(self) -> dict[str, float]:
        """Return the violation of each condition of strong order 1.5."""
        a0, b0, a1, b1 = (_square(rows, len(self.alpha)) for rows in (self.a0, self.b0, self.a1, self.b1))
        alpha = np.array(self.alpha)
        betas = np.array([self.beta1, self.beta2, self.beta3, self.beta4])  # (4, stages)
        e = np.ones(len(alpha))
        conditions: dict[str, tuple[Any, Any]] = {
            "c0": (a0 @ e, self.c0),
            "c1": (a1 @ e, self.c1),
            "alpha e": (alpha @ e, 1.0),
            "alpha A0 e": (alpha @ a0 @ e, 0.5),
            "alpha B0 e": (alpha @ b0 @ e, 1.0),
            "alpha (B0 e)^2": (alpha @ (b0 @ e) ** 2, 1.5),
            "beta e": (betas @ e, (1, 0, 0, 0)),
            "beta B1 e": (betas @ b1 @ e, (0, 1, 0, 0)),
            "beta A1 e": (betas @ a1 @ e, (1, 0, -1, 0)),
            "beta (B1 e)^2": (betas @ (b1 @ e) ** 2, (1, 0, -1, 2)),
            "beta B1 B1 e": (betas @ b1 @ b1 @ e, (0, 0, 0, 1)),
            "(beta1 / 2 + beta3 / 3) A1 B0 e": ((betas[0] / 2 + betas[2] / 3) @ a1 @ b0 @ e, 0.0),
        }
        return {name: float(np.abs(np.subtract(*pair)).max()) for name, pair in conditions.items()}


def _square(rows: Rows, stages: int) -> np.ndarray:
    """Return rows of 1, 2, ... weights as a strictly lower triangular matrix; ValueError for other lengths."""
    if [len(row) for row in rows] != list(range(1, stages)):
        raise ValueError(f"{stages} stages need rows of 1 to {stages - 1} weights, found {[len(row) for row in rows]}")
    matrix = np.zeros((stages, stages))
    for i, row in enumerate(rows, start=1):
        matrix[i, :i] = row
    return matrix


SOSRI = SRITableau(
    # Rackauckas, Nie, IEEE HPEC 2020, arXiv:1804.04344.
    name="sosri",
    order=1.5,
    a0=(
        (-0.04199224421316468,),
        (2.842612915017106, -2.0527723684000727),
        (4.338237071435815, -2.8895936137439793, 2.3017575594644466),
    ),
    b0=(
        (-0.21641093549612528,),
        (1.5336352863679572, 0.26066223492647056),
        (-1.0536037558179159, 1.7015284721089472, -0.20725685784180017),
    ),
    a1=(
        (0.26204282091330466,),
        (0.20903646383505375, -0.1502377115150361),
        (0.05836595312746999, 0.6149440396332373, 0.08535117634046772),
    ),
    b1=(
        (-0.5119011827621657,),
        (2.67767339866713, -4.9395031322250995),
        (0.15580956238299215, 3.2361551006624674, -1.4223118283355949),
    ),
    alpha=(1.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714),
    beta1=(-1.8453464565104432, 2.688764531100726, -0.2523866501071323, 0.40896857551684956),
    beta2=(0.4969658141589478, -0.5771202869753592, -0.12919702470322217, 0.2093514975196336),
    beta3=(2.8453464565104425, -2.688764531100725, 0.2523866501071322, -0.40896857551684945),
    beta4=(0.11522663875443433, -0.57877086147738, 0.2857851028163886, 0.17775911990655704),
    c0=(0.0, -0.04199224421316468, 0.7898405466170333, 3.7504010171562823),
    c1=(0.0, 0.26204282091330466, 0.05879875232001766, 0.758661169101175),
    stiffness_pair=None,
)
"""Strong order 1.5, four stages of drift and of diffusion. Source: Rackauckas, Nie 2020, arXiv:1804.04344."""

SOSRI2 = SRITableau(
    # Rackauckas, Nie, IEEE HPEC 2020, arXiv:1804.04344.
    name="sosri2",
    order=1.5,
    a0=(
        (0.13804532298278663,),
        (0.5818361298250374, 0.4181638701749618),
        (0.4670018408674211, 0.8046204792187386, -0.27162232008616016),
    ),
    b0=(
        (0.08852381537667678,),
        (1.0317752458971061, 0.4563552922077882),
        (1.73078280444124, -0.46089678470929774, -0.9637509618944188),
    ),
    a1=(
        (0.45605532163856893,),
        (0.7555807846451692, 0.24441921535482677),
        (0.6981181143266059, 0.3453277086024727, -0.04344582292908241),
    ),
    b1=(
        (0.6753186815412179,),
        (-0.07452812525785148, -0.49783736486149366),
        (-0.5591906709928903, 0.022696571806569924, -0.8984927888368557),
    ),
    alpha=(-0.15036858140642623, 0.7545275856696072, 0.686995463807979, -0.2911544680711602),
    beta1=(-0.45315689727309133, 0.8330937231303951, 0.3792843195533544, 0.24077885458934192),
    beta2=(-0.4994383733810986, 0.9181786186154077, -0.25613778661003145, -0.16260245862427797),
    beta3=(1.4531568972730915, -0.8330937231303933, -0.3792843195533583, -0.24077885458934023),
    beta4=(-0.4976090683622265, 0.9148155835648892, -1.4102107084476505, 0.9930041932449877),
    c0=(0.0, 0.13804532298278663, 0.9999999999999992, 0.9999999999999994),
    c1=(0.0, 0.45605532163856893, 0.999999999999996, 0.9999999999999962),
    stiffness_pair=(2, 3),
)
"""As SOSRI, with two drift stages at one time. Source: Rackauckas, Nie 2020, arXiv:1804.04344."""

SRI_TABLEAUS = {tableau.name: tableau for tableau in (SOSRI, SOSRI2)}
"""The methods for SDEs by name. Source: each names its own."""
