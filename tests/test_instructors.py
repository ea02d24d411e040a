"""The instructor's pack: its commands exist, its links lead somewhere, what it says of limits is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reproduce import checkout
from reproduce.grading.classroom import LIMITS, SETS
from reproduce.grading.sandbox import Limits

FOLDER = checkout.ROOT / "docs" / "instructors"
WATCH = checkout.ROOT / "course" / "measure_run.py"
HOLD = "import time; held = b'x' * 200_000_000; time.sleep(3)"
PAGES = sorted(FOLDER.glob("*.md"))
OURS = ("index", "first_assignment", "routes", "teaching", "sandbox", "serving", "contributing")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_make_target_of_the_pack_exists(path: Path) -> None:
    makefile = (checkout.ROOT / "Makefile").read_text(encoding="utf-8")
    code = re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = {target for block in code for target in re.findall(r"^(?:\w+=\S+ )*make ([a-z-]+)", block, re.MULTILINE)}
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


@pytest.mark.parametrize("name", OURS)
def test_links_between_pages_of_the_pack_lead_somewhere(name: str) -> None:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([\w./]+?)(?:#[\w-]+)?\)", text)
    inside = [link for link in links if not link.startswith("../")]
    assert [link for link in inside if not (FOLDER / link).is_file()] == []


def test_the_limits_on_the_page_are_those_of_the_sandbox() -> None:
    page = (FOLDER / "sandbox.md").read_text(encoding="utf-8")
    usual, project = Limits(), LIMITS["set3_project"]
    said = (
        f"{usual.seconds:g} s on the wall, {usual.processor_seconds} s of the processor",
        f"(set 3: {project.seconds:g} and {project.processor_seconds})",
        f"{usual.memory_mb / 1024:g} GB resident",
        f"{usual.address_mb / 1024:g} GB of address space",
        f"{usual.output_mb:g} MB, counted",
        f"{usual.disk_mb} MB in its folder",
        f"| processes | {usual.processes} |",
    )
    assert [text for text in said if text not in page] == []


def test_both_licences_are_named_in_the_licence_and_on_the_page() -> None:
    for path in (checkout.ROOT / "LICENSE", FOLDER / "contributing.md"):
        text = path.read_text(encoding="utf-8")
        assert "creativecommons.org/licenses/by/4.0" in text
        assert "MIT" in text


def test_the_page_names_every_set() -> None:
    page = (FOLDER / "first_assignment.md").read_text(encoding="utf-8")
    assert all(f"| {name.removeprefix('set').replace('_', ' ')} |" in page for name in SETS)


def test_what_a_run_needs_is_watched_until_it_ends(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "made").write_bytes(b"x" * 3_000_000)
    held = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
    with subprocess.Popen([sys.executable, "-c", held], cwd=tmp_path) as command:
        script = [sys.executable, WATCH, str(command.pid)]
        found = json.loads(subprocess.run(script, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert found["at_most"]["processes"] == 2
    assert 200 <= found["at_most"]["mb_of_one"] <= found["at_most"]["mb_in_all"] <= 400
    assert found["mb_on_disk"]["build"] == 3
    assert found["mb_on_disk"][".venv"] == 0
    assert found["minutes"] >= 3 / 60 - 0.05


def test_watching_what_does_not_run_is_refused() -> None:
    for wrong in ([], ["x"], ["999999999"]):
        told = subprocess.run([sys.executable, WATCH, *wrong], capture_output=True, text=True, timeout=60)
        assert told.returncode != 0
        assert "usage: measure_run.py PID" in told.stderr
