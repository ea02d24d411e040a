"""What a run leaves for its reader: the summary, the report as one page, and a list of everything that was made."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from reproduce import checkout, pdf
from reproduce.files import write_atomically
from reproduce.report import tables
from reproduce.runs import provenance, store
from reproduce.runs.store import Row

PAGE = "13_report"
"""Name of the report's notebook, and of its page."""


def shown(path: Path) -> str:
    """Return a path as it is told to readers: from the bundle's folder."""
    return os.path.relpath(path, checkout.ROOT)


def build_folder(profile: str) -> Path:
    """Return where a profile's executed notebooks and texts go."""
    return checkout.ROOT / "build" / profile


def page_path(profile: str) -> Path:
    """Return where the report is as one page."""
    return build_folder(profile) / f"{PAGE}.html"


def write_page(profile: str) -> None:
    """Write the executed report as one HTML file and as PDF; where there is none, leave none of an earlier run."""
    copy = build_folder(profile) / "notebooks" / f"{PAGE}.ipynb"
    if not copy.exists():
        page_path(profile).unlink(missing_ok=True)
        page_path(profile).with_suffix(".pdf").unlink(missing_ok=True)
        return
    import nbformat

    from reproduce.report.page import page

    here, there = (os.path.relpath(checkout.ROOT / "notebooks", path.parent) for path in (page_path(profile), copy))
    text = page(nbformat.read(copy, as_version=4)).replace(f'href="{there}/', f'href="{here}/')
    write_atomically(page_path(profile), text.encode())
    try:
        print(f"the same as PDF: {shown(pdf.printed(page_path(profile)))}")
    except ValueError as error:
        print(error)


def write_summary(profile: str) -> tuple[str, list[Row]]:
    """Store the tables of a profile's current rows with what made them; an equal one's files are left as they are.

    Returns:
        The text, and the rows that it tells of.
    """
    from reproduce.runs import run  # here, since PyTorch takes seconds

    found = run.status(run.needed(profile))
    missing, stale = [one.name for one in found.missing], [one.name for one, _ in found.stale]
    text = tables.summary(profile, found.rows, missing=missing, stale=stale).rstrip() + "\n"
    path = build_folder(profile) / "summary.md"
    is_there = path.exists() and path.with_suffix(".provenance.json").exists()
    if not is_there or path.read_text(encoding="utf-8") != text:
        keys = sorted(row.key for row in found.rows)
        record = provenance.record(profile, **provenance.behind(found.rows), rows=keys)
        path.with_suffix(".provenance.json").unlink(missing_ok=True)
        write_atomically(path, text.encode())
        provenance.beside(path, record)
    return text, found.rows


def made(profile: str, notebooks: str, *, since: float, now: float) -> str:
    """Say what a run that began at `since` (seconds since the epoch) left, and where; `notebooks` tells of these."""
    build, results, figures = build_folder(profile), store.results_folder(profile), store.figures_folder(profile)
    pictures = [path for kind in ("png", "svg", "pdf") for path in figures.glob(f"*.{kind}")]
    lines = [
        f"profile {profile}, {now - since:.0f} s:",
        f"  notebooks  {notebooks}, in {shown(build / 'notebooks')}",
        f"  figures    {_count(pictures, since)}, in {shown(figures)}",
        f"  rows       {_count(results.rglob('*.json'), since)}, in {shown(results)}",
    ]
    if (build / "summary.md").exists():
        lines.append(f"  summary    {shown(build / 'summary.md')}")
    if page_path(profile).exists():
        as_pdf = page_path(profile).with_suffix(".pdf")
        lines.append(f"  report     {shown(page_path(profile))}" + (f", {shown(as_pdf)}" if as_pdf.exists() else ""))
    return "\n".join(lines)


def _count(paths: Iterable[Path], since: float) -> str:
    times = [path.stat().st_mtime for path in paths]
    return f"{len(times)} ({sum(made >= since - 1 for made in times)} made now)"
