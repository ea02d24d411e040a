"""A page as PDF, printed by a browser where there is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
"""Programs that print a page; the first that is on the path is used."""
PATIENCE = (20_000, 60_000, 180_000)
"""Milliseconds of the page's own clock for its layout: more each time, since a busy machine may print too early."""


def browser() -> str | None:
    """Return the path of a program that prints pages, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def printed(page: Path, *, query: str = "", pages: int = 1) -> Path:
    """Print an HTML file to a PDF beside it, and return that; one of an earlier page is never left.

    Args:
        page: the file.
        query: of its address, as '?print-pdf'.
        pages: how many the PDF has at least; with fewer it was printed before it was laid out.

    Raises:
        ValueError: there is no browser, or it did not print all pages.
    """
    target, program = page.with_suffix(".pdf"), browser()
    target.unlink(missing_ok=True)
    if program is None:
        raise ValueError(f"no PDF of {page.name}: none of {', '.join(BROWSERS)} is here to print it")
    loose = ["--no-sandbox"] if os.getuid() == 0 else []  # Chromium refuses its own sandbox to root, and only there
    for patience in PATIENCE:
        with tempfile.TemporaryDirectory() as folder:  # a profile of its own, so that an open browser does not matter
            options = ["--headless=new", *loose, "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={folder}"]
            asked = [f"--virtual-time-budget={patience}", f"--print-to-pdf={target}", page.resolve().as_uri() + query]
            try:
                subprocess.run([program, *options, *asked], check=False, capture_output=True, timeout=600)
            except (subprocess.SubprocessError, OSError) as error:
                raise ValueError(f"no PDF of {page.name}: {Path(program).name}: {type(error).__name__}") from error
        if target.is_file() and len(re.findall(rb"/Type\s*/Page\b", target.read_bytes())) >= pages:
            return target
    target.unlink(missing_ok=True)
    raise ValueError(f"no PDF of {page.name}: {Path(program).name} printed fewer than {pages} pages; print it yourself")
