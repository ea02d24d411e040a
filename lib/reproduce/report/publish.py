"""KEEP=1: copy what a run left to where git tracks it: rows, pictures, and the README's generated block."""

from __future__ import annotations

from reproduce import checkout
from reproduce.files import write_atomically
from reproduce.report import evidence, front
from reproduce.report.output import shown
from reproduce.runs import device, store

PICTURES_OF = "quick"
"""The profile whose pictures are the published ones."""
CPU_ONLY = "committed rows were all made on the CPU, and no table mixes devices: KEEP=1 goes with DEVICE=cpu"


def rows(profile: str) -> str:
    """Copy this machine's rows to the committed ones; return what was done, in words.

    Raises:
        ValueError: the rows asked for are those of another device than the CPU; as `evidence.keep`.
    """
    if device.asked() != "cpu":
        raise ValueError(CPU_ONLY)
    from reproduce.runs.run import needed  # here, since PyTorch takes seconds

    kept = evidence.keep(profile, evidence.wanted(needed(profile)))
    return f"{len(kept.found())} of {len(kept.wanted)} rows kept in {shown(store.committed_folder(profile))}"


def pictures(profile: str) -> str:
    """Copy a profile's pictures to the published ones, and remove published ones that the profile has no more.

    Only the lessons that have pictures here count: those of the others stay. Profiles but PICTURES_OF publish none.
    """
    made, published = store.figures_folder(profile), checkout.ROOT / "figures"
    if profile != PICTURES_OF or not made.is_dir():
        return "no pictures published"
    names = {path.name for path in made.iterdir() if path.suffix in (".png", ".svg", ".json", ".pdf")}
    lessons = {name[:2] for name in names}
    for path in published.iterdir():
        if path.is_file() and path.name[:2] in lessons and path.name not in names:
            path.unlink()
    for name in sorted(names):
        content = (made / name).read_bytes()
        if not (published / name).exists() or (published / name).read_bytes() != content:
            write_atomically(published / name, content)
    return f"{sum(name.endswith('.png') for name in names)} pictures of {len(lessons)} lessons published in figures"


def readme() -> str:
    """Bring the README's generated block up to date; return what was done, in words."""
    return "README.md: the generated block is " + ("new" if front.update() else "as it was")
