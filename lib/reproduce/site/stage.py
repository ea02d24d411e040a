"""`make site`: the sources of all pages in build/site-source, which Sphinx then turns into build/site."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import nbformat

from reproduce import checkout
from reproduce.notebooks.runner import source_notebooks
from reproduce.report import front
from reproduce.report.captions import page_captioned
from reproduce.runs.store import PROFILES
from reproduce.site import launch
from reproduce.site.kept import with_outputs, without_outputs
from reproduce.site.lessons import prepared
from reproduce.site.links import FILES, relinked

PAGES = {
    "README.md": "index.md",
    "PROTOCOL.md": "protocol.md",
    "DEVIATIONS.md": "deviations.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/RESULTS.md": "performance.md",
    "data/README.md": "data.md",
}
"""File of the repository outside of docs/ and notebooks/ -> the page that it is on the site."""
LESSONS, EXTRA = "lessons", "extra"
FROM_README = re.compile(r"<!-- README: (.+?) -->")
"""Where a page of docs/ wants what stands in the README: a section by its title, or its generated block, `results`."""


def stage(profile: str | None, *, only: str = "", root: Path | None = None) -> Path:
    """Write the sources of all pages into build/site-source, from executed lessons; return it.

    Nothing is executed. What is not a page, and is linked to, is copied.

    Args:
        profile: whose executed notebooks; None: the outputs that git tracks (`kept`).
        only: "05" or "05,06", for those who write a lesson: the others are shown as they are in notebooks/, without
            outputs.
        root: the bundle's folder; None: this one's.

    Raises:
        ValueError: the profile is unknown, a lesson of it was not executed, or a link leads nowhere; before anything
            of an earlier site is removed where a lesson is missing. A lesson without kept outputs is shown without.
    """
    root = root or checkout.ROOT
    executed, of = _executed(profile, only, root), launch.repository(root)
    pages = {**PAGES, **{f"notebooks/{name}.ipynb": f"{LESSONS}/{name}.ipynb" for name in executed}}
    written = sorted(path.relative_to(root / "docs").as_posix() for path in (root / "docs").rglob("*.md"))
    pages |= {f"docs/{name}": name for name in written}
    folder, wanted = root / "build" / "site-source", set[str]()
    for old in (folder, root / "build" / "site"):
        shutil.rmtree(old, ignore_errors=True)

    def led(text: str, origin: str, page: str = "") -> str:
        return relinked(text, origin=origin, page=page or pages[origin], pages=pages, root=root, wanted=wanted)

    readme = (root / "README.md").read_text(encoding="utf-8")
    for origin in [*(name for name in PAGES if name != "README.md"), *(f"docs/{name}" for name in written)]:
        text = led(launch.filled((root / origin).read_text(encoding="utf-8"), executed, of), origin)
        text = FROM_README.sub(lambda match: led(_of_readme(readme, match[1]), "README.md"), text)
        _write(folder / pages[origin], page_captioned(text).encode())
    for name, notebook in executed.items():
        lesson, origin = prepared(name, notebook), f"notebooks/{name}.ipynb"
        lesson.notebook.cells[0].source = launch.headed(lesson.notebook.cells[0].source, name, of)
        for cell in lesson.notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = led(cell.source, origin)
            for data in (output.get("data", {}) for output in cell.get("outputs", ())):
                if "text/markdown" in data:  # what the report says is for the README, too: links from the top
                    data["text/markdown"] = led("".join(data["text/markdown"]), "README.md", pages[origin])
        _write(folder / pages[origin], nbformat.writes(lesson.notebook).encode())
        for picture, content in lesson.pictures.items():
            _write(folder / EXTRA / LESSONS / "pictures" / picture, content)
    (folder / EXTRA).mkdir(exist_ok=True)
    for path in (root / "docs").rglob("*.json"):  # which pages include
        _write(folder / path.relative_to(root / "docs"), path.read_bytes())
    for name in wanted:
        (folder / FILES / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, folder / FILES / name)
    return folder


def _executed(profile: str | None, only: str, root: Path) -> dict[str, Any]:
    """Return the lessons with outputs by name, in their order; the master of one that is not asked for."""
    if profile not in (None, *PROFILES):
        raise ValueError(f"unknown profile {profile!r}; choose one of: {', '.join(PROFILES)}")
    masters = source_notebooks(root / "notebooks")
    wanted = {path.name for path in source_notebooks(root / "notebooks", only)}
    if profile is None:
        wanted -= {path.name for path in without_outputs(root)}
        return {path.stem: with_outputs(path, root=root) if path.name in wanted else _read(path) for path in masters}
    folder = root / "build" / profile / "notebooks"
    if missing := [path.stem for path in masters if path.name in wanted and not (folder / path.name).exists()]:
        raise ValueError(
            f"the site shows the executed notebooks of profile {profile}, and these were not executed: "
            f"{', '.join(missing)}; run `make reproduce PROFILE={profile}` first, which keeps what is done already"
        )
    up = "../" * len(folder.relative_to(root).parts) + "notebooks/"  # how links of an executed copy begin
    return {path.stem: _read(folder / path.name, up) if path.name in wanted else _read(path) for path in masters}


def _read(path: Path, up: str = "") -> Any:
    """Read a notebook; with `up`, its links lead from the folder of the masters again."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if up and cell.cell_type == "markdown":
            cell.source = cell.source.replace(f"]({up}", "](")
    return notebook


def _of_readme(readme: str, title: str) -> str:
    """Return a section of the README, or its generated block."""
    match = front.BLOCK.search(readme)
    if title != "results":
        match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", readme, re.DOTALL | re.MULTILINE)
    if match is None:
        raise ValueError(f"a page wants {title!r} of README.md, which has no such section; restore it")
    return match[1]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
