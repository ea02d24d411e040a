"""Links between files of the repository, turned into links between pages of the site."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Set
from pathlib import Path, PurePosixPath

LINK = re.compile(r"(?:(?<=\]\()|(?<=:::\{figure\} ))([^)\s#]*)(#[^)\s]*)?")
"""The address and the anchor of a Markdown link, or of a figure."""
ELSEWHERE = re.compile(r"[a-z]+:")
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
FILES = "files"
"""Folder of the site's source for files of the repository that are no page, and that a page links to."""


def relinked(text: str, *, origin: str, page: str, pages: Mapping[str, str], root: Path, wanted: Set[str]) -> str:
    """Return a page's Markdown with links that lead to the same things on the site.

    Args:
        text: Markdown; code in it is left alone.
        origin: file of the repository that the text is from: its links count from there.
        page: file of the site's source that the text goes to.
        pages: file of the repository -> file of the site's source.
        root: the repository's folder.
        wanted: a set to which files are added that are linked to and are no page.

    Raises:
        ValueError: a link leads nowhere; it names the file and the link.
    """

    def led(match: re.Match[str]) -> str:
        address, anchor = match[1], match[2] or ""
        if not address or ELSEWHERE.match(address):
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), address))
        if (root / target).is_dir():
            target = _listing(root, target)
        if target in pages:
            return _between(page, pages[target]) + anchor
        if not (root / target).exists():
            raise ValueError(f"{origin}: the link to {match[0]!r} leads nowhere; correct it")
        wanted.add(target)  # type: ignore[attr-defined]
        return _between(page, f"{FILES}/{target}")

    parts = CODE.split(text)
    return "".join(part if i % 2 else LINK.sub(led, part) for i, part in enumerate(parts))


def _between(page: str, target: str) -> str:
    return os.path.relpath(PurePosixPath(target), PurePosixPath(page).parent).replace(os.sep, "/")


def _listing(root: Path, folder: str) -> str:
    """Return the file of a folder that says what is in it: a README, an `__init__.py`, else its first file."""
    for name in ("README.md", "index.md", "__init__.py"):
        if (root / folder / name).is_file():
            return f"{folder}/{name}"
    return f"{folder}/{min(path.name for path in (root / folder).iterdir() if path.is_file())}"
