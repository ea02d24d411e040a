"""What the README tells people to type works when it is typed."""

from __future__ import annotations

import re

import pytest
import torch

from regnde import REGULARIZERS, make_regularizer, solve_ode
from reproduce import checkout
from reproduce.models.fields import TimeMLP

README = (checkout.ROOT / "README.md").read_text(encoding="utf-8")
PENALTY, WAYS, REGULARIZER = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_local_penalty_of_the_readme_trains_a_field_through_the_adjoint(capsys: pytest.CaptureFixture[str]) -> None:
    f = TimeMLP((2, 8, 2))
    given = {
        "f": f,
        "y0": torch.ones(4, 2),
        "t": torch.tensor([0.0, 1.0]),
        "task_loss": lambda y: y[-1].square().mean(),
    }
    exec(PENALTY, given)
    assert all(parameter.grad is not None for parameter in f.parameters())
    assert "evaluations" in capsys.readouterr().out


def test_the_ways_of_the_readme_are_a_table_and_the_cheapest_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    given = {
        "f": TimeMLP((2, 8, 2)),
        "t": torch.tensor([0.0, 1.0]),
        "readout": lambda y: y,
        "held_out": [(torch.randn(8, 2), torch.randint(2, (8,))) for _ in range(2)],
        "is_right": lambda prediction, batch: prediction.argmax(1) == batch[1],
    }
    exec(WAYS, given)
    printed = capsys.readouterr().out
    assert "dopri5 at 1e-07" in printed
    assert "needs" in printed


def test_the_regularizer_of_the_readme_joins_the_menu_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGULARIZERS, "arc_length", None)  # so that it is gone afterwards
    exec(REGULARIZER, {})
    regularizer = make_regularizer("arc_length", weight=0.2)
    f = TimeMLP((2, 8, 2))
    solution = solve_ode(f, torch.ones(4, 2), torch.tensor([0.0, 1.0]), rtol=1e-3, atol=1e-3)
    assert regularizer.penalty is not None
    regularizer.penalty(solution, torch.Generator()).backward()
    assert f.layers[0].linear.weight.grad is not None  # type: ignore[union-attr]


def test_every_file_that_the_readme_links_to_exists_and_every_notebook_is_on_its_map() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert [link for link in links if not (checkout.ROOT / link).exists()] == []
    assert {path.name for path in (checkout.ROOT / "notebooks").glob("*.ipynb")} <= {
        link.split("/")[-1] for link in links
    }
