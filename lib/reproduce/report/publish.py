"""KEEP=1: copy what a run left to where git tracks it: its pictures, and the README's generated block."""

from __future__ import annotations

from reproduce import checkout
from reproduce.files import write_atomically
from reproduce.report import front
from reproduce.runs import device, store

PICTURES_OF = "quick"
"""The profile whose pictures are the published ones."""
CPU_ONLY = "published pictures were all drawn from rows of the CPU: KEEP=1 goes with DEVICE=cpu"


def pictures(profile: str) -> str:
    """Copy a profile's pictures to the published ones, and remove published ones that the profile has no more.

    Only the lessons that were executed here to their end count: pictures of the others stay. Profiles but PICTURES_OF
    publish none.

    Raises:
        ValueError: the rows asked for are those of another device than the CPU.
    """
    if device.asked() != "cpu":
        raise ValueError(CPU_ONLY)
    made, published = store.figures_folder(profile), checkout.ROOT / "figures"
    if profile != PICTURES_OF or not made.is_dir():
        return "no pictures published"
    copies = (checkout.ROOT / "build" / profile / "notebooks").glob("??_*.ipynb")
    lessons = {path.name[:2] for path in copies if path.suffixes == [".ipynb"]}  # not '.part', not '.failed'
    endings = (".png", ".svg", ".json", ".pdf")
    names = {path.name for path in made.iterdir() if path.suffix in endings and path.name[:2] in lessons}
    lessons &= {name[:2] for name in names}
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
