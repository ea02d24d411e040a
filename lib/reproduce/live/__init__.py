"""Interactive elements and quizzes that need no kernel: alive in JupyterLab, in executed notebooks and on the site.

A lesson's cell calls one of these and is done: `live.one_step()`. Call it with a field, methods or tolerances of your
own, and you get the element for them.
"""

from reproduce.live.element import Element
from reproduce.live.of_draws import draws
from reproduce.live.of_latent import latent_paths
from reproduce.live.of_memory import memory
from reproduce.live.of_noise import rejections, trajectories
from reproduce.live.of_one_step import one_step
from reproduce.live.of_solves import tolerances
from reproduce.live.of_study import ways, weights
from reproduce.live.quizzes import quiz
from reproduce.report.ladders import measured

__all__ = [
    "Element",
    "draws",
    "latent_paths",
    "measured",
    "memory",
    "one_step",
    "quiz",
    "rejections",
    "tolerances",
    "trajectories",
    "ways",
    "weights",
]
