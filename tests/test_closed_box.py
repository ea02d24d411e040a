"""Training through torchdiffeq as it is: the adjoint's gradient, local penalties on it, rows that resume bitwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from resuming import assert_resumes_bitwise
from torch import Tensor, nn

from regnde import Regularizer, make_regularizer
from reproduce import checkout, experiments
from reproduce.experiments import Budget
from reproduce.models.classifiers import ODEClassifier
from reproduce.models.fields import TimeMLP
from reproduce.runs.evaluation import generator, solver
from reproduce.runs.run import Run, needed

HOSTED: dict[str, Any] = {"host": "torchdiffeq"}
ADJOINT: dict[str, Any] = {"host": "torchdiffeq", "gradient": "adjoint"}
LOCAL = ("none", "local_unbiased", "local_biased")


@pytest.fixture(autouse=True)
def own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements.lock").symlink_to(checkout.ROOT / "requirements.lock")
    monkeypatch.setattr(checkout, "ROOT", tmp_path)


def budget(**changes: Any) -> Budget:
    return experiments.get("mnist_ode").budget("smoke", **changes)


def gradient(regularizer: Regularizer, of: Budget) -> Tensor:
    """The gradient of a loss and a penalty of weight one for all parameters, in float64."""
    torch.manual_seed(0)
    model = ODEClassifier(TimeMLP((6, 8, 6)), d=6, n_classes=3).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    logits, solution = model(x, solver(of, regularizer, generator(0, "draws"), training=True))
    total = nn.functional.cross_entropy(logits, torch.arange(5) % 3)
    if regularizer.penalty is not None:
        total = total + regularizer.penalty(solution, generator(0, "which step"))
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(total, list(model.parameters()))])


@pytest.mark.parametrize("name", LOCAL)
def test_the_adjoints_gradient_is_that_of_backpropagation_at_a_tight_tolerance(name: str) -> None:
    tight = {"rtol": 1e-9, "atol": 1e-9}
    by_adjoint, by_backprop = (gradient(make_regularizer(name), budget(**tight, **host)) for host in (ADJOINT, HOSTED))
    loose = gradient(make_regularizer(name), budget(rtol=1e-2, atol=1e-2, **ADJOINT))
    torch.testing.assert_close(by_adjoint, by_backprop, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(loose, by_backprop, rtol=1e-5, atol=1e-7), "the tolerance decides how well they agree"


def test_a_global_penalty_is_refused_on_the_adjoint_and_a_rate_on_torchdiffeq() -> None:
    with pytest.raises(ValueError, match="which the continuous adjoint does not give"):
        gradient(make_regularizer("global_error"), budget(**ADJOINT))
    with pytest.raises(ValueError, match="unknown argument 'rate'"):
        gradient(make_regularizer("taynode"), budget(**HOSTED))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient": "adjoint"}, "host 'own' has gradient .'backprop', 'checkpoint'., found 'adjoint'"),
        ({"host": "torchdiffeq", "gradient": "checkpoint"}, "host 'torchdiffeq' has gradient"),
        ({"host": "torchsde", "gradient": "adjoint"}, "host 'torchsde' has gradient"),
        ({"host": "torchdiffeq", "host_method": "milstein"}, "has host_method .'dopri5', 'bosh3'., found 'milstein'"),
        ({"host_method": "dopri5"}, "host 'own' has host_method"),
    ],
)
def test_a_budget_refuses_what_its_host_has_not(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        budget(**changes)


@pytest.mark.usefixtures("no_ways")
@pytest.mark.parametrize("name", ["none", "local_biased"])
def test_a_row_trained_by_the_adjoint_resumes_bitwise(name: str) -> None:
    changes = {**ADJOINT, "steps": 7, "history_every": 2, "checkpoint_every": 3}
    assert_resumes_bitwise(Run("mnist_ode", name, 0, "smoke", overrides=changes), at=[3])


def test_training_through_a_host_is_another_run_and_is_measured_with_our_solver() -> None:
    own, hosted, adjoint = (Run("mnist_ode", "none", 0, "smoke", overrides=of) for of in ({}, HOSTED, ADJOINT))
    assert len({own.key(), hosted.key(), adjoint.key()}) == 3
    rows = [run.make() for run in (own, hosted, adjoint)]
    assert [row.host for row in rows] == ["own", "torchdiffeq", "torchdiffeq, adjoint"]
    assert len({row.train_nfe for row in rows}) > 1, "dopri5 and tsit5 take different steps"
    model = Run("mnist_ode", "none", 0, "smoke", overrides=ADJOINT).trained()
    with torch.no_grad():
        solution = model.model.eval()(model.problem.test_batches("test")[0][0], model.solve)[1]
    assert solution.tableau.name == "tsit5"


def test_the_closed_box_is_among_the_rows_of_quick() -> None:
    boxes = {(run.budget().host, run.budget().gradient, run.regularizer) for run in needed("quick", "mnist_ode")}
    for gradient_of in ("backprop", "adjoint"):
        assert {("torchdiffeq", gradient_of, name) for name in ("none", "local_biased", "no_dynamics")} <= boxes
