"""Regularized neural differential equations: make them cheap with what their solver knows of its own error.

Solve with the open box (`solve_ode`, `solve_sde`) or through an untouched host (`odeint_solve`, `sdeint_solve`); either
returns a `Solution` with its `Trace`. A `Regularizer` from the menu (`local_biased`, `global_error`, ...) reads it.
`LocalPenalty` brings the local penalty into a program that calls torchdiffeq or torchsde itself; `cheapest_way` finds
how coarsely a trained model may be solved.
"""

from regnde.dropin.draw_step import Cost
from regnde.dropin.local_penalty import LocalPenalty
from regnde.dropin.solve_ways import Way
from regnde.dropin.ways import Ways, cheapest_way, standard_ways
from regnde.hosts.with_torchdiffeq import odeint_solve
from regnde.hosts.with_torchsde import sdeint_solve
from regnde.penalties.local import STEP_SIZES, local_error, local_step
from regnde.penalties.menu import (
    REGULARIZERS,
    global_error,
    global_stiffness,
    kinetic_jacobian,
    local_biased,
    local_stiffness,
    local_unbiased,
    make_regularizer,
    none,
    steer,
    taynode,
)
from regnde.penalties.regularizer import Regularizer
from regnde.penalties.weights import Weight
from regnde.solvers.adams import AdamsBashforth
from regnde.solvers.checks import SolverError
from regnde.solvers.control import CONTROLLERS, Controller
from regnde.solvers.error_ratio import error_ratio, stiffness_ratio
from regnde.solvers.first_step import initial_step
from regnde.solvers.methods import RungeKutta, StochasticRungeKutta
from regnde.solvers.path import BrownianPath
from regnde.solvers.solution import Solution, Trace
from regnde.solvers.solve import Rate, solve_ode, solve_sde
from regnde.solvers.sri_steps import SRIStep, sri_step
from regnde.solvers.sri_tableaus import SOSRI, SOSRI2, SRI_TABLEAUS, SRITableau
from regnde.solvers.steps import Field, Step, rk_step
from regnde.solvers.tableaus import BOSH3, DOPRI5, TABLEAUS, TSIT5, Tableau

__all__ = [
    "BOSH3",
    "CONTROLLERS",
    "DOPRI5",
    "REGULARIZERS",
    "SOSRI",
    "SOSRI2",
    "SRI_TABLEAUS",
    "STEP_SIZES",
    "TABLEAUS",
    "TSIT5",
    "AdamsBashforth",
    "BrownianPath",
    "Controller",
    "Cost",
    "Field",
    "LocalPenalty",
    "Rate",
    "Regularizer",
    "RungeKutta",
    "SRIStep",
    "SRITableau",
    "Solution",
    "SolverError",
    "Step",
    "StochasticRungeKutta",
    "Tableau",
    "Trace",
    "Way",
    "Ways",
    "Weight",
    "cheapest_way",
    "error_ratio",
    "global_error",
    "global_stiffness",
    "initial_step",
    "kinetic_jacobian",
    "local_biased",
    "local_error",
    "local_step",
    "local_stiffness",
    "local_unbiased",
    "make_regularizer",
    "none",
    "odeint_solve",
    "rk_step",
    "sdeint_solve",
    "solve_ode",
    "solve_sde",
    "sri_step",
    "standard_ways",
    "steer",
    "stiffness_ratio",
    "taynode",
]
