"""The lock, the environments made from it, the Makefile and the citation agree with each other."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import TOGETHER, group_of

ROOT = Path(__file__).resolve().parents[1]
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAPERS = {"2303.02262": ("202", "26809", "26819"), "2105.03918": ("139", "8325", "8335")}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_holds_only_exact_versions_each_package_once() -> None:
    wrong = [line for line in LOCK if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.]*", line)]
    assert not wrong, "no URL, no range, no local version such as +cpu"
    names = [canonical(line.partition("==")[0]) for line in LOCK]
    assert sorted(set(names)) == sorted(names)


def test_the_lock_holds_no_package_of_one_platform_only() -> None:
    assert not [line for line in LOCK if re.match(r"nvidia|cuda|triton|appnope|colorama|pywin", line)]


def test_the_lock_covers_every_package_that_the_project_asks_for() -> None:
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *extras["notebooks"], *extras["dev"], "setuptools"]
    locked = {canonical(line.partition("==")[0]) for line in LOCK}
    assert not [name for name in asked if canonical(re.split(r"[<>=!~ ;\[]", name)[0]) not in locked]


def test_conda_and_binder_install_the_same_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "regnde"
    [by_pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert by_pip == ["-r requirements.lock", "-e ."]


@pytest.mark.slow
def test_the_wheel_holds_the_library_alone_and_asks_for_nothing_that_only_the_laboratory_needs(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = [name for name in content.namelist() if ".dist-info/" not in name]
        [metadata] = [content.read(name).decode() for name in content.namelist() if name.endswith("/METADATA")]
    expected = {str(path.relative_to(ROOT / "lib")) for path in (ROOT / "lib" / "regnde").rglob("*.py")}
    assert set(names) == expected | {"regnde/py.typed"}
    asked = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, flags=re.MULTILINE)
    assert sorted(asked) == ["numpy", "torch", "torchdiffeq", "torchsde"]


def test_the_library_imports_nothing_but_what_it_asks_for() -> None:
    found = set()
    for path in (ROOT / "lib" / "regnde").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module).partition(".")[0])
    assert found - set(sys.stdlib_module_names) <= {"regnde", "torch", "torchdiffeq", "torchsde", "numpy"}


def test_the_laboratory_outside_of_a_checkout_says_so_and_what_to_do(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "lib" / "reproduce", tmp_path / "lib" / "reproduce")
    environment = {name: value for name, value in os.environ.items() if name != "REGNDE_HOME"}
    environment |= {"PYTHONPATH": str(tmp_path / "lib"), "REGNDE_HOME": ""}  # empty is not set
    command = [sys.executable, "-m", "reproduce.cli", "plan"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "works inside a checkout of the project" in ended.stderr
    assert "in your own code use the package `regnde`" in ended.stderr
    environment["REGNDE_HOME"] = str(tmp_path / "typo")
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert f"typo': expected a folder, found none at {tmp_path / 'typo'}" in ended.stderr


def test_make_help_lists_every_target_with_one_line() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert targets >= {"help", "reproduce", "test", "lint", "lab", "bench", "clean", "distclean"}
    listed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^  make ([a-z-]+) +\S", listed.stdout, flags=re.MULTILINE)) == targets


def test_a_python_that_is_too_old_is_refused_by_a_sentence_and_leaves_no_stamp(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\ntest "$1" = --version && echo Python 3.8.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    ended = subprocess.run(["make", "env", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "Python 3.11 or newer is needed" in ended.stderr
    assert "Python 3.8.1" in ended.stderr
    assert not (tmp_path / ".venv").exists()


def test_an_install_that_dies_in_the_middle_is_taken_up_by_the_next_call(tmp_path: Path) -> None:
    """A stand-in for Python fails at its first install; its next succeed; then nothing is left to do."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    stand_in = tmp_path / "python"
    stand_in.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        '*venv*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;;\n'
        '*"install"*) echo install >> log; test -e may-install;;\n'
        "esac\n"
    )
    stand_in.chmod(0o755)

    def make() -> tuple[int, int, int]:
        command = ["make", "env", f"PYTHON={stand_in}"]
        code = subprocess.run(command, cwd=tmp_path, capture_output=True).returncode
        log = tmp_path / "log"
        return code, len(list(tmp_path.glob(".venv/.stamp*"))), log.read_text().count("install")

    assert make() == (2, 0, 1)
    (tmp_path / "may-install").touch()
    assert make() == (0, 1, 3)
    assert make() == (0, 1, 3)
    (tmp_path / "requirements.lock").write_text("torch==1.0\n")
    assert make() == (0, 1, 5)


def make_env(folder: Path, stand_in: str) -> subprocess.Popen[str]:
    """`make env` in a copy of the files that it needs, with a stand-in for Python that locks, and installs as told."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (folder / name).write_text((ROOT / name).read_text())
    python = folder / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in\n*fcntl*) exec {sys.executable} "$@";;\n'
        f'*venv*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;;\n*install*) {stand_in};;\nesac\n'
    )
    python.chmod(0o755)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return subprocess.Popen(["make", "env", f"PYTHON={python}"], cwd=folder, **options)


def test_of_two_makes_at_once_one_installs_and_the_other_waits_for_it(tmp_path: Path) -> None:
    both = [make_env(tmp_path, "echo begin >> log; sleep 1; echo end >> log") for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert (tmp_path / "log").read_text().split() == ["begin", "end"] * 2, "the two installs of one make"
    assert sum("waiting" in text for text in said) == 1
    assert len(list(tmp_path.glob(".venv/.stamp*"))) == 1


def test_a_make_that_was_killed_while_it_installed_does_not_block_the_next(tmp_path: Path) -> None:
    install = "echo begin >> log; test -e go || exec sleep 60; echo end >> log"
    killed = make_env(tmp_path, install)
    while not (tmp_path / "log").exists():
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    (tmp_path / "go").touch()
    after = make_env(tmp_path, install)
    said = after.communicate(timeout=30)[0]
    assert after.returncode == 0, said
    assert "waiting" not in said
    assert (tmp_path / "log").read_text().split() == ["begin", "begin", "end", "begin", "end"]


@pytest.mark.slow
def test_doctor_needs_no_environment(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "lib").symlink_to(ROOT / "lib")
    command = ["make", "--no-print-directory", "doctor", f"PYTHON={sys.executable}"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "Python: " in ended.stdout
    assert "disk: " in ended.stdout
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("identifier", PAPERS)
def test_the_citation_names_the_bundle_and_both_papers(identifier: str) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    papers = {paper["identifiers"][0]["value"].removeprefix("arXiv:"): paper for paper in citation["references"]}
    assert tuple(str(papers[identifier][field]) for field in ("volume", "start", "end")) == PAPERS[identifier]


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "\nmake test\n" in script.read_text()


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_nothing_but_targets_of_the_makefile(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    workflow = yaml.safe_load(path.read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    for run in (step["run"] for step in steps if "run" in step):
        words = run.split()
        assert words[0] == "make"
        assert {word for word in words[1:] if "=" not in word} <= targets


def test_tests_run_on_two_systems_and_the_oldest_and_a_new_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert matrix == {"os": ["ubuntu-latest", "macos-latest"], "python": ["3.11", "3.13"]}
    assert PROJECT["requires-python"] == f">={matrix['python'][0]}"


def test_binder_and_codespaces_install_the_lock_and_bring_committed_rows() -> None:
    script = ROOT / ".binder" / "postBuild"
    assert script.stat().st_mode & 0o111
    assert "-r requirements.lock" in script.read_text()
    assert "reproduce.cli restore" in script.read_text()
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make env restore"


def test_the_lock_of_the_site_holds_only_exact_versions() -> None:
    lines = [line for line in (ROOT / "docs" / "requirements.lock").read_text().splitlines() if line[:1] != "#"]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_tests_that_one_process_has_to_take_are_there_and_in_one_group() -> None:
    for group, begins in TOGETHER.items():
        for begin in begins:
            file, _, name = begin.partition("::")
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert not name or f"def {name}" in text, begin
            assert group_of(f"tests/{begin}_and_more[1]") == group
    assert group_of("tests/test_steps.py::test_a_step") is None
