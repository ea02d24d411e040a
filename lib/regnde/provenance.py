"""What made this: commit, lock, data, seed, device, profile, time (no torch)."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from regnde import store

LIB = Path(__file__).resolve().parent
PACKAGES = ("regnde", "torch", "torchdiffeq", "torchsde", "numpy", "scipy")
"""Packages whose versions every record names; the lock hash stands for the others."""

ROOTS = ("train", "regularizers")
"""Modules that every training run uses, beside that of its experiment."""

BOOKKEEPING = ("store", "provenance", "experiments")
"""Modules that keep or find things and cannot change a number of a run: their imports are followed, they themselves
are not hashed. `experiments` is the `__init__` of that folder only, which finds experiments by name; every other
`__init__` is hashed like any module (and has no code at present)."""

UNKNOWN = "unknown"


def source_hashes(experiment: str, *, lib: Path = LIB) -> dict[str, str]:
    """Return the hash of each module that a run of an experiment uses: its name within regnde -> 16 hex digits.

    The modules are found by following import statements from `ROOTS` and the experiment's own module, so no other
    experiment is among them. A hash covers the code alone: no comment, no docstring, no formatting.

    Args:
        experiment: its name, which is that of its module.
        lib: folder of the package.

    Raises:
        ValueError: there is no module of that name, or one of the modules is not Python.
    """
    if _file(f"experiments.{experiment}", lib) is None:
        raise ValueError(f"there is no experiment {experiment!r} in {lib / 'experiments'}")
    found: dict[str, str] = {}
    queue, seen = [*ROOTS, f"experiments.{experiment}"], set[str]()
    while queue:
        name = queue.pop()
        path = _file(name, lib)
        if name in seen or path is None:
            continue
        seen.add(name)
        digest, imported = _analysis(path, name)
        queue += [*imported, *_parents(name)]
        if digest and name not in BOOKKEEPING:
            found[name or "regnde"] = digest
    return dict(sorted(found.items()))


def library_hash(*, lib: Path = LIB) -> str:
    """Return one hash of the code of all modules of the library, comments, docstrings and formatting left out."""
    return store.key_of({path.relative_to(lib).as_posix(): _analysis(path, "")[0] for path in lib.rglob("*.py")})


def _file(name: str, lib: Path) -> Path | None:
    """The file of a module ('solve', 'data.mnist') or package ('data', '' for regnde itself), or None."""
    base = lib.joinpath(*name.split(".")) if name else lib
    places = [base.with_suffix(".py"), base / "__init__.py"] if name else [base / "__init__.py"]
    return next((path for path in places if path.is_file()), None)


def _parents(name: str) -> list[str]:
    """The packages that importing a module imports: 'data.mnist' -> 'data' and ''."""
    parts = name.split(".") if name else []
    return [".".join(parts[:n]) for n in range(len(parts))]


def _analysis(path: Path, name: str) -> tuple[str, tuple[str, ...]]:
    """Hash of a file's code ('' if it has none) and the names that it may import; kept while the file is unchanged."""
    status = path.stat()
    return _analyse(path, name, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1024)
def _analyse(path: Path, name: str, mtime: int, size: int) -> tuple[str, tuple[str, ...]]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: not Python ({error.msg})") from error
    parts = name.split(".") if name else []
    package = parts if path.name == "__init__.py" else parts[:-1]
    code = _plain(tree.body)
    digest = hashlib.sha256(repr(code).encode()).hexdigest()[:16] if code else ""
    return digest, tuple(sorted(set(_imported(tree, package))))


def _plain(node: Any) -> Any:
    """The code of a syntax tree as nested tuples, the same for every version of Python; strings that are statements
    (docstrings, of attributes too) are left out, and so are fields that are empty."""
    if isinstance(node, list):
        return tuple(_plain(item) for item in node if not _is_text(item))
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, getattr(node, name, None)) for name in node._fields if name not in ("ctx", "kind"))
    kept = tuple((name, _plain(value)) for name, value in fields if value is not None and value != [])
    return (type(node).__name__, *kept)


def _is_text(node: Any) -> bool:
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant and isinstance(node.value.value, str)


def _imported(tree: ast.AST, package: list[str]) -> Iterator[str]:
    """Names within regnde that a module in `package` may import; a name that is no module is among them too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ["regnde", *package][: 2 + len(package) - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name.removeprefix("regnde").lstrip(".") for name in names if name.split(".")[0] == "regnde")


def lock_hash(root: Path | None = None) -> str:
    """Return the hash of what requirements.lock pins, comments and order left out; 'unknown' if there is no lock."""
    try:
        text = ((root or store.ROOT) / "requirements.lock").read_text(encoding="utf-8")
    except FileNotFoundError:
        return UNKNOWN
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return store.key_of({"lock": sorted(line for line in lines if line)})


def commit(root: Path | None = None) -> tuple[str, bool]:
    """Return the commit of the bundle and whether its files differ from it; ('unknown', True) if nobody can tell.

    Nobody can where git is missing, or where the bundle is not a repository of its own. Figures do not count as
    differences: the run itself makes them.
    """
    root = root or store.ROOT
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return UNKNOWN, True
        head = _git(root, "rev-parse", "HEAD")
        return head, bool(_git(root, "status", "--porcelain", "--", ".", ":(exclude)figures", ":(exclude)README.md"))
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN, True


def _git(root: Path, *arguments: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # those of a git hook
    ended = subprocess.run(
        ["git", *arguments],
        cwd=root,
        env={**own, "GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ended.stdout.strip()


def record(
    profile: str,
    *,
    data: Iterable[str] = (),
    seeds: Iterable[int] = (),
    device: str = "cpu",
    threads: int = 1,
    seconds: float | None = None,
    root: Path | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return what makes something now, as plain data that `schema` describes; no host, no user, no path is in it.

    Args:
        profile: 'smoke', 'quick' or 'paper'.
        data: names of the data sets, in words.
        seeds: those behind it.
        device: 'cpu', or the name of the accelerator.
        threads: of each process that computed.
        seconds: wall time of the making; None where nobody measured it.
        root: the bundle's folder; None: this one's.
        more: whatever else belongs to it, as plain data.
    """
    head, dirty = commit(root)
    made = {
        "commit": head,
        "dirty": dirty,
        "lock": lock_hash(root),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in PACKAGES},
        "data": sorted(set(data)),
        "seeds": sorted(set(seeds)),
        "device": device,
        "threads": threads,
        "profile": profile,
        "seconds": None if seconds is None else round(seconds, 3),
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {**made, "more": more} if more else made


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def schema() -> dict[str, Any]:
    """Return the JSON schema of records (data/reference/provenance.schema.json)."""
    text = (store.ROOT / "data" / "reference" / "provenance.schema.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def check(record: Any) -> None:
    """Raise ValueError naming every field of a record that is not as the schema asks."""
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(schema()).iter_errors(record), key=lambda error: list(error.absolute_path))
    if errors:
        said = "; ".join(f"{'.'.join(map(str, error.absolute_path)) or 'record'}: {error.message}" for error in errors)
        raise ValueError(f"not a record of provenance: {said}")


def beside(path: Path, record: dict[str, Any]) -> Path:
    """Check a record and write it atomically beside an artefact: 05_x.ipynb -> 05_x.provenance.json; return its path.

    Raises:
        ValueError: the record is not as the schema asks; nothing is written.
    """
    check(record)
    target = path.with_suffix(".provenance.json")
    store.write_atomically(target, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    return target
