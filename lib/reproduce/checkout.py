"""Where the bundle lies: README.md, notebooks/, data/ and figures/, which the laboratory works on."""

from __future__ import annotations

import os
from pathlib import Path


def _root() -> Path:
    """Return the bundle's folder: $REGNDE_HOME where it is set and not empty, else the checkout around this file.

    Raises:
        RuntimeError: $REGNDE_HOME is no folder, or this file lies in no checkout, for example in site-packages.
    """
    if given := os.environ.get("REGNDE_HOME"):
        home = Path(given).expanduser().resolve()
        if not home.is_dir():
            raise RuntimeError(f"REGNDE_HOME={given!r}: expected a folder, found none at {home}; correct or unset it")
        return home
    around = Path(__file__).resolve().parents[2]
    if not (around / "requirements.lock").is_file() or not (around / "notebooks").is_dir():
        raise RuntimeError(
            f"the package `reproduce` works inside a checkout of the project, with its notebooks and data; {around} is "
            "none. Clone the repository and run `make reproduce` there, or name a checkout in REGNDE_HOME; in your own "
            "code use the package `regnde`, which needs no checkout"
        )
    return around


ROOT = _root()
"""The bundle's folder."""
