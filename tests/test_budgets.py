"""Profile paper has the settings that are printed; the forms of a local penalty are what their names say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from regnde import make_regularizer
from reproduce import experiments
from reproduce.experiments import PAPERS_FORMS
from reproduce.report import tables
from reproduce.runs.run import needed

OURS = ("local_biased", "local_unbiased")
NUMBER = r"(\d+(?:\.\d+)?(?:e-?\d+)?)"
PAPERS = {name: experiments.get(name).budget("paper") for name in experiments.names()}
SETTINGS: dict[str, dict[str, Any]] = {
    name: tables.published()[name]["settings"] for name in PAPERS if "settings" in tables.published().get(name, {})
}


def printed(experiment: str, entry: str, pattern: str) -> list[float]:
    """The numbers of a pattern in a printed setting; the pattern must be there."""
    found = re.search(pattern.replace("N", NUMBER), str(SETTINGS[experiment][entry]))
    assert found is not None, (experiment, entry, SETTINGS[experiment][entry])
    return [float(number) for number in found.groups()]


@pytest.mark.parametrize("experiment", sorted(SETTINGS))
@pytest.mark.parametrize("entry", ["batch", "steps"])
def test_batch_and_steps_are_the_printed_ones(experiment: str, entry: str) -> None:
    if entry in SETTINGS[experiment]:
        assert getattr(PAPERS[experiment], entry) == SETTINGS[experiment][entry]


@pytest.mark.parametrize("experiment", sorted(name for name in SETTINGS if "solver" in SETTINGS[name]))
def test_method_and_tolerance_are_the_printed_ones(experiment: str) -> None:
    budget, text = PAPERS[experiment], str(SETTINGS[experiment]["solver"])
    assert text.lower().startswith(budget.method)
    (tolerance,) = printed(experiment, "solver", "toleranceN?".replace("N?", " N"))
    assert budget.rtol == budget.atol == tolerance


@pytest.mark.parametrize("experiment", sorted(name for name in SETTINGS if "optimizer" in SETTINGS[name]))
def test_optimizer_and_learning_rate_are_the_printed_ones(experiment: str) -> None:
    budget, text = PAPERS[experiment], str(SETTINGS[experiment]["optimizer"])
    name = text.split()[0].strip(",")
    assert name in (budget.optimizer, "AdaBelief")  # which PyTorch has not: D26
    assert budget.lr == printed(experiment, "optimizer", r"(?:Adam|Adamax|AdaBelief)[^\d]*N")[0]
    schedules = {"inverse decay": "inverse", "cosine": "cosine"}
    assert budget.schedule == next((name for word, name in schedules.items() if word in text), "constant")
    if budget.schedule == "inverse":
        assert [budget.lr_decay] == printed(experiment, "optimizer", "decay N per step")
    if budget.schedule == "cosine":
        assert [budget.lr, budget.lr_end] == printed(experiment, "optimizer", "N -> N")


@pytest.mark.parametrize("experiment", sorted(name for name in SETTINGS if "weight" in SETTINGS[name]))
@pytest.mark.parametrize("form", PAPERS_FORMS)
def test_the_papers_forms_have_the_printed_weights(experiment: str, form: str) -> None:
    numbers = [float(number) for number in re.findall(NUMBER, str(SETTINGS[experiment]["weight"]))]
    settings = PAPERS[experiment].regularizers[form]
    assert [settings["weight"], *([settings["weight_end"]] if "weight_end" in settings else [])] == numbers


@pytest.mark.parametrize(
    ("experiment", "entry", "pattern", "numbers"),
    [
        ("mnist_ode", "model", "785-N tanh", ["hidden"]),
        ("cifar10_ode", "model", "conv 9-N, bn", ["hidden"]),
        ("mnist_sde", "model", "784-N -> .* drift MLP 32-N tanh-32", ["d", "hidden"]),
        ("mnist_sde", "model", "logits of N trajectories", ["trajectories"]),
        ("physionet", "model", "hidden N, latent N .* -> N-d initial", ["hidden", "recognition", "state"]),
        ("spiral_sde", "model", "2-N tanh-2", ["hidden"]),
        ("spiral_sde", "loss", "over N trajectories", ["train_trajectories"]),
    ],
)
def test_sizes_of_the_models_are_the_printed_ones(
    experiment: str, entry: str, pattern: str, numbers: list[str]
) -> None:
    assert [PAPERS[experiment].model[name] for name in numbers] == printed(experiment, entry, pattern)


def test_the_spirals_data_are_those_printed() -> None:
    budget = PAPERS["spiral_sde"]
    (n,) = printed("spiral_sde", "data", r"at N uniform times")
    assert budget.data["n_times"] == n
    assert f"{budget.data['trajectories']:,} trajectories" in SETTINGS["spiral_sde"]["data"]
    assert [budget.steps] == printed("spiral_sde", "optimizer", "N iterations")


@pytest.mark.parametrize("experiment", sorted(PAPERS))
def test_every_local_row_of_profile_paper_stands_beside_both_forms_of_the_papers(experiment: str) -> None:
    names = {run.regularizer for run in needed("paper", experiment)}
    assert {"local_unbiased", "local_biased", *PAPERS_FORMS} <= names


@pytest.mark.parametrize("experiment", sorted(PAPERS))
def test_profile_quick_has_each_form_of_the_papers_once_at_least(experiment: str) -> None:
    names = {run.regularizer for run in needed("quick", experiment)}
    assert "local_biased:text" in names
    assert ("local_biased:released" in names) == (experiment != "mnist_sde"), "there it takes minutes; the study has it"


@pytest.mark.parametrize("profile", ["quick", "paper"])
@pytest.mark.parametrize("experiment", sorted(PAPERS))
def test_the_forms_differ_in_what_they_hold_constant_and_ours_in_step_and_factor(experiment: str, profile: str) -> None:
    of = experiments.get(experiment).budget(profile).regularizers
    made = {name: make_regularizer(name, **of[name]).settings for name in (*OURS, *PAPERS_FORMS) if name in of}
    for base in OURS if profile == "paper" else OURS[:1]:
        ours, released, text = made[base], made[f"{base}:released"], made[f"{base}:text"]
        assert (ours["step"], ours["times_dt"], "detach_k1" in ours) == ("solver", False, False)
        assert released == text | {"detach_k1": True}
        assert (text["step"], text["times_dt"]) == ("initial", True)


def test_every_setting_for_a_regularizer_is_of_one_that_is_run() -> None:
    for name, budget in PAPERS.items():
        run = {run.regularizer for run in needed("paper", name)}
        assert set(budget.regularizers) - run == set(), name
