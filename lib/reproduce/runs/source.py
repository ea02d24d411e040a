"""Which code a run depends on: a hash for each module that it may use (no torch)."""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduce.runs import store

LIB = Path(__file__).resolve().parents[2]
"""The folder of both packages."""

PACKAGES = ("regnde", "reproduce")

ROOTS = ("reproduce.runs.train", "regnde.penalties.menu")
"""Modules that every training run uses, beside that of its experiment."""

BOOKKEEPING = (
    "reproduce.checkout",
    "reproduce.files",
    "reproduce.experiments",
    "reproduce.left_out",
    "reproduce.runs.events",
    "reproduce.runs.key",
    "reproduce.runs.provenance",
    "reproduce.runs.source",
    "reproduce.runs.store",
)
"""Modules that keep or find things and cannot change a number of a run: their imports are followed, they themselves
are not hashed. `reproduce.experiments` is the `__init__` of that folder only, which finds experiments by name."""


def source_hashes(experiment: str, *, lib: Path = LIB) -> dict[str, str]:
    """Return the hash of each module that a run of an experiment uses: its full name -> 16 hex digits.

    The modules are found by following import statements from `ROOTS` and the experiment's own module, so no other
    experiment is among them. A name that a package only passes on (`from regnde import solve_ode`) leads to the module
    that it comes from, and not to all that the package passes on. A hash covers the code alone: no comment, no
    docstring, no formatting, nor the arguments `runs` and `seeds`, which list runs and change none.

    Args:
        experiment: its name, which is that of its module.
        lib: folder of the packages.

    Raises:
        ValueError: there is no module of that name, or one of the modules is not Python.
    """
    return dict(_source_hashes(experiment, lib, _state(lib)))


def _state(lib: Path) -> tuple[tuple[str, int, int], ...]:
    """What tells whether a file of the packages has changed, came, or went."""
    found = []
    for package in PACKAGES:
        for folder, _, names in os.walk(lib / package):
            found += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return tuple((path, (status := os.stat(path)).st_mtime_ns, status.st_size) for path in sorted(found))


@functools.lru_cache(maxsize=64)
def _source_hashes(experiment: str, lib: Path, state: object) -> dict[str, str]:
    own = f"reproduce.experiments.{experiment}"
    if _file(own, lib) is None:
        raise ValueError(f"there is no experiment {experiment!r} in {lib / 'reproduce' / 'experiments'}")
    found: dict[str, str] = {}
    queue, seen = [*ROOTS, own], set[str]()
    while queue:
        name = queue.pop()
        path = _file(name, lib)
        if name in seen or path is None:
            continue
        seen.add(name)
        code = _analysis(path, name)
        if not code.passes_on:
            queue += [module for wanted in code.imports for module in _resolved(wanted, lib)]
        queue += _parents(name)
        if code.digest and not code.passes_on and name not in BOOKKEEPING:
            found[name] = code.digest
    return dict(sorted(found.items()))


def library_hash(*, lib: Path = LIB) -> str:
    """Return one hash of the code of all modules of both packages, comments, docstrings and formatting left out."""
    paths = [path for package in PACKAGES for path in (lib / package).rglob("*.py")]
    return store.key_of({path.relative_to(lib).as_posix(): _analysis(path, "").digest for path in paths})


def _file(name: str, lib: Path) -> Path | None:
    """The file of a module ('regnde.solvers.solve') or package ('reproduce.data'), or None."""
    base = lib.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _parents(name: str) -> list[str]:
    """The packages that importing a module imports: 'regnde.solvers.solve' -> 'regnde', 'regnde.solvers'."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _resolved(name: str, lib: Path) -> list[str]:
    """The modules that an imported name leads to: itself, or where a package that passes it on has it from."""
    package, _, leaf = name.rpartition(".")
    path = _file(package, lib) if package else None
    if _file(name, lib) is not None or path is None or path.name != "__init__.py":
        return [name]
    found = [wanted for wanted in _analysis(path, package).imports if wanted.rpartition(".")[2] == leaf]
    return [wanted if _file(wanted, lib) else wanted.rpartition(".")[0] for wanted in found] or [name]


@dataclass(frozen=True)
class _Code:
    """What is known of a file of source."""

    digest: str
    """Hash of its code; empty if it has none."""
    imports: tuple[str, ...]
    """Full names within the packages that it may import; a name that is no module is among them too."""
    passes_on: bool
    """Whether it is a package that only passes names on."""


def _analysis(path: Path, name: str) -> _Code:
    """What is known of a file; kept while it is unchanged."""
    status = path.stat()
    return _analyse(path, name, status.st_mtime_ns, status.st_size)


_PARSING = threading.Lock()


def parse(code: str | bytes) -> ast.Module:
    """Return what `ast.parse` does, one thread at a time: CPython 3.11 counts the depth of all threads together."""
    with _PARSING:
        return ast.parse(code)


@functools.lru_cache(maxsize=1024)
def _analyse(path: Path, name: str, mtime: int, size: int) -> _Code:
    try:
        tree = parse(path.read_bytes())
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: not Python ({error.msg})") from error
    is_package = path.name == "__init__.py"
    package = name.split(".") if is_package else name.split(".")[:-1]
    code = _plain(tree.body)
    digest = hashlib.sha256(repr(code).encode()).hexdigest()[:16] if code else ""
    return _Code(digest, tuple(sorted(set(_imported(tree, package)))), is_package and _only_passes_on(tree))


def _only_passes_on(tree: ast.Module) -> bool:
    """Whether a module consists of a docstring, `from ... import ...` and `__all__`."""

    def is_all(node: ast.stmt) -> bool:
        return isinstance(node, ast.Assign) and [getattr(at, "id", "") for at in node.targets] == ["__all__"]

    return all(isinstance(node, ast.ImportFrom) or _is_text(node) or is_all(node) for node in tree.body)


def _plain(node: Any) -> Any:
    """The code of a syntax tree as nested tuples, the same for every version of Python; strings that are statements
    (docstrings, of attributes too) are left out, and so are fields that are empty."""
    if isinstance(node, list):
        return tuple(_plain(item) for item in node if not (_is_text(item) or _is_list_of_runs(item)))
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.JoinedStr):  # Python 3.12 ends some formats with an empty text
        return ("JoinedStr", *(_plain(part) for part in node.values if getattr(part, "value", None) != ""))
    fields = ((name, getattr(node, name, None)) for name in node._fields if name not in ("ctx", "kind"))
    kept = tuple((name, _plain(value)) for name, value in fields if value is not None and value != [])
    return (type(node).__name__, *kept)


def _is_list_of_runs(node: Any) -> bool:
    """Whether this is an argument that says which runs a profile lists: it changes none of them."""
    return isinstance(node, ast.keyword) and node.arg in ("runs", "seeds")


def _is_text(node: Any) -> bool:
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant and isinstance(node.value.value, str)


def _imported(tree: ast.AST, package: list[str]) -> Iterator[str]:
    """Full names within the packages that a module in `package` may import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: 1 + len(package) - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)
