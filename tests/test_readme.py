"""What the README and the pages of docs/ tell people to type works when it is typed; each text stands once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from torchdiffeq import odeint

from regnde import REGULARIZERS, make_regularizer, solve_ode
from reproduce import checkout
from reproduce.models.fields import TimeMLP
from reproduce.report import front

README = (checkout.ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (checkout.ROOT / "docs").rglob("*.md")}


def code(text: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


PENALTY, FIRST_STEP, WAYS = code(PAGES["use"])
[REGULARIZER] = code(PAGES["extend"])


def test_the_local_penalty_of_the_readme_trains_a_field_through_the_adjoint() -> None:
    f = TimeMLP((2, 8, 2))
    given = {
        "f": f,
        "y0": torch.ones(4, 2),
        "t": torch.tensor([0.0, 1.0]),
        "task_loss": lambda y: y[-1].square().mean(),
    }
    exec(PENALTY, given)
    assert all(parameter.grad is not None for parameter in f.parameters())
    assert given["local"].cost.nfe > 0  # type: ignore[attr-defined]


def test_the_code_of_the_readme_is_that_of_the_pages_it_leads_to() -> None:
    assert code(README) == [PENALTY]
    assert code(README, "sh") == code(PAGES["reproduce"], "sh")


def test_a_first_step_is_taken_by_both_solvers_and_saves_evaluations() -> None:
    def f(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.append(float(t))
        return -y

    seen: list[float] = []
    given = {"f": f, "y0": torch.ones(4, 2), "t": torch.tensor([0.0, 1.0]), "solve_ode": solve_ode, "odeint": odeint}
    lines = FIRST_STEP.splitlines()
    for line in lines:
        seen.clear()
        exec(line, given)
        handed = len(seen)
        seen.clear()
        exec(re.sub(r", (options=\{|first_step=).*$", ")", line), given)
        assert handed < len(seen), line
    assert torch.allclose(given["solution"].y, given["y"], atol=1e-4)  # type: ignore[attr-defined]


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


def test_the_readme_sells_in_120_lines_beside_what_is_generated() -> None:
    assert len(front.BLOCK.sub("", README).splitlines()) <= 120


@pytest.mark.parametrize("path", [checkout.ROOT / "README.md", *(checkout.ROOT / "docs").rglob("*.md")], ids=str)
def test_every_file_that_the_readme_or_a_page_links_to_exists(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    inner = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in inner if not (path.parent / link).exists()] == []


def test_every_file_that_a_page_names_in_code_exists() -> None:
    """A name with NN, NAME or name in it stands for others; parts of the laboratory are named from its folder on."""
    pages = [*checkout.ROOT.glob("*.md"), *(checkout.ROOT / "docs").rglob("*.md")]
    folders = "lib|tests|docs|notebooks|benchmarks|course|data|figures|report|runs|plots|live|penalties|solvers"
    for page in pages:
        text = page.read_text(encoding="utf-8")
        code = " ".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL))
        named = set(re.findall(rf"(?<![\w/.~<>-])((?:{folders})/[\w./]+\.(?:py|ipynb|md|yaml|json))\b", code))
        known = [name for name in named if not re.search(r"NN|NAME|name|build/|results/", name)]
        roots = [checkout.ROOT, checkout.ROOT / "lib" / "reproduce", checkout.ROOT / "lib" / "regnde"]
        assert [name for name in known if not any((root / name).exists() for root in roots)] == [], page.name


def test_every_notebook_is_on_the_map_of_the_readme_and_of_the_page_for_learners() -> None:
    names = {path.name for path in (checkout.ROOT / "notebooks").glob("*.ipynb")}
    for text in (README, PAGES["learn"]):
        assert names <= set(re.findall(r"notebooks/(\w+\.ipynb)\)", text))


def test_no_paragraph_stands_twice_in_readme_and_pages() -> None:
    """But the two commands and the three lines, which are held equal above."""
    found = Counter(
        paragraph.strip()
        for text in (README, *PAGES.values())
        for paragraph in re.sub(r"```.*?```", "", text, flags=re.DOTALL).split("\n\n")
        if len(paragraph) > 120
    )
    assert [paragraph for paragraph, times in found.items() if times > 1] == []
