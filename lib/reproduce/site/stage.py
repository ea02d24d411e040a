"""`make site`: the sources of all pages in build/site-source, which Sphinx then turns into build/site."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat

from reproduce import checkout
from reproduce.notebooks.runner import source_notebooks
from reproduce.report import front
from reproduce.report.captions import page_captioned
from reproduce.runs.store import PROFILES
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


def stage(profile: str, *, only: str = "", root: Path | None = None) -> Path:
    """Write the sources of all pages into build/site-source, from the executed notebooks of a profile; return it.

    Nothing is executed. What is not a page, and is linked to, is copied. With `only` ("05" or "05,06"), for those who
    write a lesson, the others are shown as they are in notebooks/, without outputs.

    Raises:
        ValueError: the profile is unknown, a notebook of it was not executed, or a link leads nowhere; before anything
            of an earlier site is removed where a notebook is missing.
    """
    root = root or checkout.ROOT
    executed = _executed(profile, only, root)
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
        text = led((root / origin).read_text(encoding="utf-8"), origin)
        text = FROM_README.sub(lambda match: led(_of_readme(readme, match[1]), "README.md"), text)
        _write(folder / pages[origin], page_captioned(text).encode())
    for name, path in executed.items():
        lesson = prepared(name, nbformat.read(path, as_version=4))
        origin, up = f"notebooks/{name}.ipynb", "../" * len(path.relative_to(root).parent.parts) + "notebooks/"
        for cell in lesson.notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = led(cell.source.replace(f"]({up}", "]("), origin)
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


def _executed(profile: str, only: str, root: Path) -> dict[str, Path]:
    """Return the executed notebooks of a profile by name, in their order; the master of one that is not asked for."""
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; choose one of: {', '.join(PROFILES)}")
    folder = root / "build" / profile / "notebooks"
    masters = {path.stem: path for path in source_notebooks(root / "notebooks")}
    found = {path.stem: folder / path.name for path in source_notebooks(root / "notebooks", only)}
    if missing := [name for name, path in found.items() if not path.exists()]:
        raise ValueError(
            f"the site shows the executed notebooks of profile {profile}, and these were not executed: "
            f"{', '.join(missing)}; run `make reproduce PROFILE={profile}` first, which keeps what is done already"
        )
    return {**masters, **found}


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
