"""Links that open a lesson in a browser without installing anything, where the address of the repository is known."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from reproduce.notebooks import workbook

NAME = re.compile(r"[\w.-]+/[\w.-]+")
REMOTE = re.compile(rf"github\.com[:/]({NAME.pattern}?)(?:\.git)?/?$")
HERE = "<!-- launch: lessons -->"
"""Where a page wants all lessons with their links."""
ADDRESS = re.compile(r"\bADDRESS(?:_OF_THIS_REPOSITORY)?\b")
"""What pages have in place of the address."""


def repository(root: Path, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return owner/name on GitHub: $GITHUB_REPOSITORY, which its workflows set, else that of the remote `origin`.

    Raises:
        ValueError: $GITHUB_REPOSITORY is set and is no owner/name.
    """
    if given := environ.get("GITHUB_REPOSITORY"):
        if not NAME.fullmatch(given):
            raise ValueError(f"GITHUB_REPOSITORY: expected owner/name, found {given!r}")
        return given
    asked = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return None
    match = REMOTE.search(answer)
    return match[1] if match else None


def badges(lesson: str, of: str) -> str:
    """Return a line of badges that open a lesson: a student's version on Binder, the master on Colab, an editor."""
    places = {
        "Binder": f"https://mybinder.org/v2/gh/{of}/HEAD?urlpath=lab/tree/{workbook.FOLDER}/{lesson}.ipynb",
        "Colab": f"https://colab.research.google.com/github/{of}/blob/HEAD/notebooks/{lesson}.ipynb",
        "Codespaces": f"https://codespaces.new/{of}",
    }
    return " ".join(f"{{bdg-link-primary-line}}`{name} <{address}>`" for name, address in places.items())


def headed(source: str, lesson: str, of: str | None) -> str:
    """Return the first cell of a lesson with its badges below the title."""
    title, line, rest = source.partition("\n")
    return source if of is None else f"{title}\n\n{badges(lesson, of)}{line}{rest}"


def filled(text: str, lessons: Iterable[str], of: str | None) -> str:
    """Return a page's Markdown with the address and the list of lessons; without an address, as it is without them."""
    if of is None:
        return text.replace(HERE, "")
    listed = "\n".join(f"* {badges(lesson, of)} {lesson.replace('_', ' ')}" for lesson in lessons)
    text = text.replace(HERE, listed)
    return ADDRESS.sub(f"https://github.com/{of}", text)
