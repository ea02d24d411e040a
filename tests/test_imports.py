"""The arrows between modules: who may import whom, checked in the source and in fresh interpreters."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import regnde

LIB = Path(regnde.__file__).parent
ALLOWED = {
    "tableaus": set(),
    "sri_tableaus": set(),
    "fused": set(),
    "steps": {"fused", "sri_tableaus", "tableaus"},
    "control": {"steps"},
    "checks": {"steps"},
    "methods": {"control", "sri_tableaus", "steps", "tableaus"},
    "solution": {"methods", "sri_tableaus", "steps", "tableaus"},
    "loop": {"checks", "control", "methods", "solution", "steps"},
    "replay": {"loop", "methods", "solution", "steps"},
    "solve": {"checks", "control", "loop", "methods", "replay", "solution", "sri_tableaus", "steps", "tableaus"},
    "hosts": {"checks", "methods", "solution", "sri_tableaus", "steps", "tableaus"},
    "jets": set(),
    "taylor": {"jets"},
    "rates": {"checks", "steps", "taylor"},
    "weights": set(),
    "local": {"checks", "solution", "solve", "steps"},
    "regularizers": {"checks", "local", "rates", "solution", "solve", "steps", "weights"},
    "models": {"methods", "solution", "steps", "tableaus"},
    "latent": {"models", "solution"},
    "dropin": {"checks", "hosts", "steps", "tableaus"},
    "dropin_sde": {"checks", "dropin", "sri_tableaus", "steps"},
    "memory": set(),
    "losses": set(),
    "store": set(),
    "tables": {"store"},
    "plots": {"store", "tables"},
    "plots_lessons": {"plots"},
    "plots_physionet": {"plots", "tables"},
    "plots_sde": {"plots", "store", "tables"},
    "evidence": {"store", "tables"},
    "ratios": {"evidence", "tables"},
    "claims": {"evidence", "ratios", "store"},
    "papers": {"evidence", "ratios", "tables"},
    "page": set(),
    "report": {"claims", "evidence", "papers", "store", "tables"},
    "front": {"claims", "evidence", "report", "store", "tables"},
    "plots_report": {"evidence", "papers", "plots", "ratios", "store", "tables"},
    "experiments": {"data", "experiments", "latent", "losses", "models"},
    "data": {"data"},
    "checkpoint": {"store"},
    "evaluation": {"experiments", "hosts", "models", "solution", "solve", "steps"},
    "train": {"checkpoint", "evaluation", "experiments", "models", "provenance", "solve", "store"},
    "runs": {"experiments", "regularizers", "solve", "store", "train"},
    "sweep": {"runs", "store"},
    "provenance": {"store"},
    "doctor": {"data", "provenance", "store"},
    "alone": set(),
    "stamps": {"data", "provenance", "store"},
    "contract": {"store"},
    "notebooks": {"alone", "contract", "provenance", "stamps", "store"},
    "cli": {
        "doctor",
        "evidence",
        "front",
        "notebooks",
        "page",
        "provenance",
        "runs",
        "stamps",
        "store",
        "sweep",
        "tables",
    },
}


def imported(path: Path) -> set[str]:
    """Names of the project's modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "regnde":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("regnde."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("regnde.")}
    return found


@pytest.mark.parametrize("path", sorted(LIB.rglob("*.py")), ids=lambda path: str(path.relative_to(LIB)))
def test_imports_go_one_way(path: Path) -> None:
    module = path.relative_to(LIB).parts[0].removesuffix(".py")
    if module == "__init__":
        assert not imported(path)
    else:
        assert imported(path) <= ALLOWED[module]


def test_every_module_has_its_arrows_stated() -> None:
    modules = {path.relative_to(LIB).parts[0].removesuffix(".py") for path in LIB.rglob("*.py")}
    assert modules - {"__init__"} == set(ALLOWED)


READERS = "store tables plots provenance stamps doctor cli evidence ratios claims papers report front page plots_report"


@pytest.mark.parametrize("module", READERS.split())
def test_results_can_be_read_without_torch(module: str) -> None:
    code = f"import sys, regnde.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_file_says_in_one_line_at_its_top_what_it_is() -> None:
    for path in sorted(LIB.rglob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert doc, path
        assert doc.splitlines()[0].endswith("."), path


def test_no_file_of_the_library_outgrows_its_idea() -> None:
    longest = {str(path.relative_to(LIB)): len(path.read_text().splitlines()) for path in LIB.rglob("*.py")}
    assert {name: n for name, n in longest.items() if n > 350} == {}
