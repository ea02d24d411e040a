"""A deck: which cells and pictures of which lesson stand on which slide, read from YAML and checked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import yaml

KEYS = frozenset({"title", "minutes", "points", "figure", "code", "text", "table", "notes", "say"})
HEADING = re.compile(r"\A\s*#+ [^\n]*\n+")


@dataclass(frozen=True)
class Slide:
    """One slide, with everything looked up."""

    title: str
    minutes: float
    points: tuple[str, ...] = ()
    """Short lines of Markdown, without results."""
    figure: str = ""
    """Name of a picture in figures/."""
    code: str = ""
    """Source of a cell of a lesson."""
    text: str = ""
    """Markdown of a cell of a lesson."""
    table: bool = False
    """The generated table of the front page."""
    notes: tuple[str, ...] = ()
    """What the speaker reads: Markdown of the deck and of lessons."""


@dataclass(frozen=True)
class Deck:
    """A talk."""

    name: str
    title: str
    subtitle: str
    slides: tuple[Slide, ...] = field(default=())

    @property
    def minutes(self) -> float:
        """Length of the talk."""
        return sum(slide.minutes for slide in self.slides)


def read(path: Path, root: Path) -> Deck:
    """Read a deck and look up all that it names.

    Raises:
        ValueError: an unknown key, a cell or picture that is not there, or minutes that do not add up.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    slides = tuple(_slide(entry, root, f"{path.name}, slide {i}") for i, entry in enumerate(content["slides"], 1))
    deck = Deck(path.stem, content["title"], content["subtitle"], slides)
    if deck.minutes != content["minutes"]:
        raise ValueError(f"{path.name}: its slides take {deck.minutes:g} minutes, and it promises {content['minutes']}")
    return deck


def _slide(entry: dict[str, Any], root: Path, where: str) -> Slide:
    if unknown := set(entry) - KEYS:
        raise ValueError(f"{where}: unknown {', '.join(sorted(unknown))}; expected some of {', '.join(sorted(KEYS))}")
    figure = entry.get("figure", "")
    if figure and not (root / "figures" / f"{figure}.json").is_file():
        raise ValueError(f"{where}: there is no figures/{figure}.json; name a picture that a lesson saves")
    said = [entry["say"]] if "say" in entry else []
    return Slide(
        title=entry["title"],
        minutes=entry["minutes"],
        points=tuple(entry.get("points", ())),
        figure=figure,
        code=cell(root, entry["code"], where) if "code" in entry else "",
        text=HEADING.sub("", cell(root, entry["text"], where)) if "text" in entry else "",
        table=entry.get("table", False),
        notes=(*said, *(HEADING.sub("", cell(root, name, where)) for name in entry.get("notes", ()))),
    )


def cell(root: Path, name: str, where: str) -> str:
    """Return the source of a cell, named lesson/id as in `01_one_step/estimate`."""
    lesson, _, identity = name.partition("/")
    cells = _cells(root, lesson)
    if identity not in cells:
        raise ValueError(
            f"{where}: lesson {lesson!r} has no cell {identity!r}; it has: {', '.join(cells)[:300] or 'none'}"
        )
    return cells[identity]


@cache
def _cells(root: Path, lesson: str) -> dict[str, str]:
    path = root / "notebooks" / f"{lesson}.ipynb"
    if not path.is_file():
        return {}
    return {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}


def picture(root: Path, figure: str, profile: str) -> tuple[Path, dict[str, Any]]:
    """Return a picture's file and what is said of it: the reader's own of a profile, else the published one."""
    own = root / "figures" / profile
    folder = own if profile and (own / f"{figure}.png").is_file() else root / "figures"
    return folder / f"{figure}.png", json.loads((folder / f"{figure}.json").read_text(encoding="utf-8"))


def published_table(root: Path) -> str:
    """Return the front page's generated table of the experiments, Markdown."""
    front = (root / "README.md").read_text(encoding="utf-8").partition("<!-- generated: make report -->")[2]
    lines = iter(front.splitlines())
    first = next(line for line in lines if line.startswith("| experiment |"))
    rows = [first]
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(line)
    return "\n".join(rows)
