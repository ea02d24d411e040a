"""Make benchmarks/RESULTS.md, the committed page, of what the benchmarks wrote to build/bench; `make bench KEEP=1`.

The numbers of each benchmark are kept beside it (results/<name>.json), so that the page can be checked against them.
Benchmarks that have not run again keep what they had.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from _timing import OUT, measured_on

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "peers"))
KEPT, PAGE = HERE / "results", HERE / "RESULTS.md"
ORDER = ("peers", "solve", "compiled", "growth", "memory", "penalty", "dropin", "rates", "sde", "latent", "sweep")
ABOUT = """# What the benchmarks measured

Made by `make bench KEEP=1` and `make bench-peers KEEP=1` from the numbers in [`results/`](results); do not edit.
Each part says where, when and on which commit it was measured. A load above the number of cores says that other work
ran beside it: trust processor times, and ratios, which compare neighbours in time, before times on the wall."""


def page(numbers: dict[str, dict[str, Any]]) -> str:
    """Return the page for the benchmarks' numbers, each by its name."""
    names = sorted(numbers, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    parts = [f"{text(name, numbers[name])}\n\n{measured_on(numbers[name]['machine'])}" for name in names]
    return "\n\n".join([ABOUT, *parts]) + "\n"


def text(name: str, numbers: dict[str, Any]) -> str:
    """Return a benchmark's report: by its own `text_of`, where it has one, else as it was when it ran."""
    module = importlib.import_module(f"bench_{name}")
    return str(module.text_of(numbers) if hasattr(module, "text_of") else numbers["text"])


def kept() -> dict[str, dict[str, Any]]:
    """Return the numbers that are kept."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(KEPT.glob("*.json"))}


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    KEPT.mkdir(exist_ok=True)
    for path in OUT.glob("*.json"):
        shutil.copy(path, KEPT)
    PAGE.write_text(page(kept()), encoding="utf-8")
    print(f"{PAGE.relative_to(HERE.parent)}: {', '.join(kept())}")


if __name__ == "__main__":
    main()
