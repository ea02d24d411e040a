"""What an experiment is: data, model, loss, metric, and a budget for each profile, as one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

Batch = Any
Setting = bool | int | float | str
CPU = torch.device("cpu")
QUICK_SEEDS, PAPER_SEEDS, ONE_SEED = (10, 11, 12), (10, 11, 12, 13, 14), (10,)
"""Of rows that are reported: nothing was chosen on them. Ladders have the seeds 0 to 2."""
HOST_METHODS = {"torchsde": ("milstein", "srk", "euler"), "torchdiffeq": ("dopri5", "bosh3")}
"""Host -> its methods that a budget may train with; the first is taken where a budget names none."""


class Entry(BaseModel):
    """Some regularizers (or the control) with some seeds at one tolerance: a block of a profile's runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    regularizers: tuple[str, ...]
    seeds: tuple[int, ...] | None = None
    """None: the seeds of the budget."""
    tolerance: PositiveFloat | None = None
    """Used as rtol and atol; None: those of the budget."""
    but: dict[str, Any] = {}
    """Further entries of the budget that are other for these runs, for example {"host": "torchsde"}."""

    def overrides(self) -> dict[str, Any]:
        """Return the entries of the budget that these runs replace."""
        tolerances = {} if self.tolerance is None else {"rtol": self.tolerance, "atol": self.tolerance}
        return {**tolerances, **self.but}


PAPERS_FORMS = ("local_unbiased:released", "local_biased:released", "local_unbiased:text", "local_biased:text")
"""Local penalties as the papers have them: see `papers_forms`."""
ONE_OF_EACH = ("local_biased:released", "local_biased:text")
"""Those of them that quick profiles run, on one seed."""


STABILITY = {"tsit5": 3.5068, "sosri2": 10.6}
"""Size of each method's region of stability, by which the released scripts divide its stiffness estimate."""


def papers_forms(**weight: float) -> dict[str, dict[str, Setting]]:
    """Return the settings of PAPERS_FORMS with a weight: one initial step, its error ratio times |dt|.

    ':released' holds the first stage constant, as the released code does; ':text' differentiates it (see D07).
    """
    form: dict[str, Setting] = {**weight, "step": "initial", "times_dt": True}
    return {name: form | ({"detach_k1": True} if name.endswith(":released") else {}) for name in PAPERS_FORMS}


class Budget(BaseModel):
    """Everything that a profile fixes for an experiment; checked, and part of a row's key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: PositiveInt
    batch: PositiveInt
    optimizer: Literal["Adam", "AdamW", "Adamax"] = "Adam"
    weight_decay: NonNegativeFloat = 0.0
    """Of all weights, each step by so many learning rates of them: for AdamW alone."""
    lr: PositiveFloat
    schedule: Literal["constant", "cosine", "inverse"] = "constant"
    """Learning rate over training: as it is, falling to lr_end along half a cosine, or lr / (1 + lr_decay * step)."""
    lr_decay: NonNegativeFloat = 1e-5
    lr_end: NonNegativeFloat = 0.0
    method: Literal["tsit5", "dopri5", "bosh3", "vcab3", "euler", "midpoint", "rk4", "sosri", "sosri2"] = "tsit5"
    fixed_steps: PositiveInt | None = None
    """So many equal steps over the interval of each solve; None: steps that the tolerance controls."""
    controller: Literal["integral", "pi", "sde", "sde_reference"] = "integral"
    estimate: Literal["embedded", "reference"] = "embedded"
    """Error estimate of an SDE's step; see sri_steps.ERROR_ESTIMATES."""
    gradient: Literal["backprop", "checkpoint", "adjoint"] = "backprop"
    """How a training step's solve is differentiated: the own solver by 'backprop' or 'checkpoint', torchdiffeq by
    'backprop' or 'adjoint' (the continuous adjoint), torchsde by 'backprop'."""
    host: Literal["own", "torchsde", "torchdiffeq"] = "own"
    """What solves while training: the own adaptive solver (open box), or, as a closed box, torchsde with fixed steps or
    torchdiffeq with adaptive ones."""
    host_method: str | None = None
    """The host's method; None: the first of HOST_METHODS."""
    host_dt: PositiveFloat = 0.1
    """torchsde's fixed step, which is that of the local penalty, too."""
    rtol: NonNegativeFloat
    atol: NonNegativeFloat
    also_at: tuple[PositiveFloat, ...] = ()
    """Tolerances at which the NFE of the trained model is measured, too, with our solver and with the hosts' (see
    evaluation.nfe_elsewhere)."""
    reference: PositiveFloat | None = None
    """Tolerance of the adaptive solve that the metric is measured with, in float64, where the output is a solution
    itself (see evaluation.against_reference); None: the metric is that of the solve in use."""
    curve: PositiveInt | None = None
    """Examples, at most, on which a trained model is measured in every way to solve (see ways.measured); None: none."""
    seeds: tuple[int, ...] = QUICK_SEEDS
    runs: tuple[Entry, ...] = ()
    """Everything that the profile trains."""
    history_every: PositiveInt = 25
    checkpoint_every: PositiveInt = 100
    """Training steps after which the state of a run is stored: what a killed run can lose at most."""
    data: dict[str, Setting] = {}
    """Arguments of the experiment's data."""
    model: dict[str, Setting] = {}
    """Arguments of the experiment's model."""
    regularizers: dict[str, dict[str, Setting]] = {}
    """Settings for regularizers of the menu, by name; the others run with their defaults. A name may have a variant
    after a colon, for one regularizer with several settings: "local_biased:initial"."""

    @model_validator(mode="after")
    def _check_host(self) -> Budget:
        """Refuse what the optimizer, or what solves, does not have."""
        known = {"own": ("backprop", "checkpoint"), "torchsde": ("backprop",), "torchdiffeq": ("backprop", "adjoint")}
        if self.gradient not in known[self.host]:
            raise ValueError(f"host {self.host!r} has gradient {known[self.host]}, found {self.gradient!r}")
        if self.weight_decay and self.optimizer != "AdamW":
            raise ValueError(f"weight_decay is for optimizer 'AdamW', found {self.optimizer!r}")
        if self.fixed_steps is not None and (self.host != "own" or self.method.startswith("sosri")):
            raise ValueError("fixed_steps is for the own solver of ODEs: a host's steps are host_dt")
        methods = HOST_METHODS.get(self.host, ())
        if self.host_method is not None and self.host_method not in methods:
            raise ValueError(f"host {self.host!r} has host_method {methods}, found {self.host_method!r}")
        return self

    def but(self, **changes: Any) -> Budget:
        """Return a checked copy with entries replaced; pydantic's ValidationError (a ValueError) for a wrong one."""
        return Budget.model_validate({**self.model_dump(), **changes})

    @property
    def method_of_host(self) -> str:
        """The host's method; KeyError for the own solver."""
        return self.host_method or HOST_METHODS[self.host][0]

    def of_one_run(self) -> dict[str, Any]:
        """Return the entries that one run depends on, as plain data: part of its key."""
        return self.model_dump(mode="json", exclude={"seeds", "regularizers", "runs", "checkpoint_every"})


@dataclass(frozen=True)
class Problem:
    """An experiment with its data at hand: what the training loop needs."""

    data: str
    """Name of the data set, in words."""
    note: str
    """What it can and cannot show, in words; empty when there is nothing to say."""
    files: tuple[tuple[str, str], ...]
    """(name, sha256) of what the data consist of, or (name, recipe) where they are made; part of a row's key."""
    n_train: int
    """Number of training examples that batches are drawn from."""
    train_batch: Callable[[Tensor], Batch]
    """Indices (batch,) to a batch of training data."""
    test_batches: Callable[[str], list[Batch]]
    """Part of the data ('test', 'validation' or 'train') to its batches, of the training's batch size."""
    model: Callable[[], nn.Module]
    """A freshly initialized model: forward(inputs, solve, noise) -> (output, Solution)."""
    inputs: Callable[[Batch], Any]
    """The part of a batch that the model sees."""
    loss: Callable[[Any, Batch, int], Tensor]
    """(output, batch, training steps done so far) to the loss, 0-d."""
    metric: Callable[[Any, Batch], float]
    device: torch.device = CPU
    """Where the batches are, but for times, which are kept on the CPU."""


class MakeProblem(Protocol):
    """Makes the problem of a budget and a run's seed, its data on a device."""

    def __call__(self, budget: Budget, part: str, device: torch.device = CPU, seed: int = 0) -> Problem:
        """Return the problem; with part 'validation' a part of the training data is held out.

        Data without a split of their own are split, or made, by the run's seed, as the papers do.
        """


@dataclass(frozen=True)
class Experiment:
    """Data, model, loss and metric of one experiment, and its budget for each profile."""

    name: str
    title: str
    metric: str
    higher_is_better: bool
    budgets: Mapping[str, Budget]
    problem: MakeProblem

    def budget(self, profile: str, **overrides: Any) -> Budget:
        """Return the budget of a profile, with overrides; ValueError for an unknown profile or a wrong override."""
        if profile not in self.budgets:
            raise ValueError(f"{self.name} has no profile {profile!r}; choose one of {sorted(self.budgets)}")
        return self.budgets[profile].but(**overrides)
