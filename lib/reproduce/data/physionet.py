"""PhysioNet 2012: 48 hours of 8,000 intensive-care stays on an hourly grid, else simulated records as a stand-in."""

import hashlib
import io
import os
import tempfile
import warnings
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reproduce import checkout
from reproduce.data import archives, icu_standin, records
from reproduce.data.records import HOURS, N_TIMES, VARIABLES, Records
from reproduce.data.registry import DATASETS, DataFile, find, require
from reproduce.data.splits import hold_out

DATASET = "physionet2012"
SOURCES = ("auto", "official", "standin")
N_STANDIN, STANDIN_SEED = 600, 2012
PREPROCESSING = (
    "hourly means of 37 variables at the nearest of 49 hours, no value removed, min-max of the training part"
)
STANDIN_NOTE = (
    "A stand-in: simulated records in the file format of PhysioNet 2012, no patient among them. It shows how the "
    "method and the notebook work; its errors and numbers of evaluations say nothing about PhysioNet."
)


@dataclass(frozen=True, eq=False)
class Stays:
    """Hourly observations of intensive-care stays, scaled, in a training and a test part."""

    name: str  # in words, for tables and captions; a stand-in is called a stand-in
    note: str  # what this set can and cannot show; "" for the real one
    files: tuple[tuple[str, str], ...]  # (name, sha256 of the contents), and what was done with them, in words
    variables: tuple[str, ...]  # the 37 names
    t: Tensor  # (49,) float64, hours / 48
    values_train: Tensor  # (n_train, 49, 37) float32, scaled as `low` and `high` say; 0 where nothing was observed
    mask_train: Tensor  # (n_train, 49, 37) float32, 1 where something was observed, else 0
    values_test: Tensor  # (n_test, 49, 37) float32; may leave [0, 1], as the scale is learned on the training part
    mask_test: Tensor  # (n_test, 49, 37) float32
    low: Tensor  # (37,) float32, smallest hourly mean of each variable in the training part, in its units
    high: Tensor  # (37,) float32, the largest


def load_physionet(
    *, source: str = "auto", split_seed: int = 0, test_fraction: float = 0.2, limit: int | None = None
) -> Stays:
    """Load the stays of sets a and b (Silva et al. 2012), prepared as in Rubanova et al. 2019 and Kelly et al. 2020.

    37 time-varying variables (Weight among them), averaged within each of 49 hours, with a mask; time in [0, 1].
    As in the papers no outlier is removed. Other than in the papers, which scale by the smallest and largest value
    of all stays, the scale is learned on the training part only. Stays without a single observation are left out: there
    is nothing to encode and nothing to predict (10 of the 8,000; a weight at admission is no observation).

    Args:
        source: "official" for the real records, "standin" for simulated ones (no file or network needed), "auto" for
            the real ones if available and else the stand-in.
        split_seed: of the permutation of the stays whose end is the test part.
        test_fraction: share of the stays in the test part.
        limit: use only so many stays, drawn by the same permutation (for short trials).

    Raises:
        ValueError: an argument out of its range, or a file that is not what it should be (named, left untouched).
        FileNotFoundError: "official", but the files are not on this machine and cannot be downloaded.
    """
    if source not in SOURCES:
        raise ValueError(f"unknown source {source!r}: expected one of {', '.join(SOURCES)}")
    if not isinstance(split_seed, int):
        raise ValueError(f"split_seed: expected a whole number, found {split_seed!r}")
    if not 0.0 < test_fraction < 1.0:
        raise ValueError(f"test_fraction: expected a share above 0 and below 1, found {test_fraction!r}")
    if limit is not None and (not isinstance(limit, int) or limit < 2):
        raise ValueError(f"limit: expected a whole number of at least 2, or None, found {limit!r}")
    paths = None if source == "standin" else require(DATASET) if source == "official" else find(DATASET)
    parts, files = _official(paths) if paths else _standin()
    mean, observed = (np.concatenate(arrays) for arrays in zip(*(part.grid() for part in parts), strict=True))
    order = np.flatnonzero(np.concatenate([part.n_observations for part in parts]) > 0)
    order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(split_seed)).numpy()][:limit]
    n_test = min(max(round(test_fraction * len(order)), 1), len(order) - 1)
    if n_test < 1:
        raise ValueError(f"expected at least 2 stays with observations, found {len(order)}")
    train, test = order[:-n_test], order[-n_test:]
    title = "PhysioNet 2012, sets a and b" if paths else "ICU-like stand-in, simulated"
    settings = f"{PREPROCESSING}; split_seed {split_seed}, test_fraction {test_fraction}, limit {limit}"
    return _scaled(
        *(torch.from_numpy(array[rows]) for rows in (train, test) for array in (mean, observed)),
        name=f"{title} ({len(train):,} + {len(test):,} stays)",
        note="" if paths else STANDIN_NOTE,
        files=(*files, ("preprocessing", settings)),
    )


def validation_split(stays: Stays, n: int, *, seed: int) -> Stays:
    """Hold out ``n`` training stays in the place of the test stays, to choose settings on; the scale is learned anew.

    The test stays are left out altogether: a setting chosen on them would flatter itself.

    Args:
        stays: the set to split.
        n, seed: number of training stays to hold out, and of which permutation; see `hold_out`.

    Raises:
        ValueError: as `hold_out`.
    """
    split = hold_out(len(stays.values_train), n, seed=seed)
    values, observed = in_units(stays, stays.values_train), stays.mask_train > 0
    note = f"For choosing settings only, without any test stay. {stays.note}".strip()
    return _scaled(
        *(array[rows] for rows in split for array in (values, observed)),
        name=f"{stays.name}, validation on {n:,} of its training stays",
        note=note,
        files=(*stays.files, ("validation", f"{n} of the training stays, seed {seed}")),
    )


def in_units(stays: Stays, values: Tensor) -> Tensor:
    """Turn scaled values (..., 37) back into the units of the records."""
    return (values.double() * _width(stays.low, stays.high).double() + stays.low.double()).to(values.dtype)


def _width(low: Tensor, high: Tensor) -> Tensor:
    """What a variable is divided by: its range, or its own size where it never changes (MechVent is always 1)."""
    return torch.where(high > low, high - low, low.abs().clamp(min=1.0))


def _scaled(
    train: Tensor,
    seen_train: Tensor,
    test: Tensor,
    seen_test: Tensor,
    *,
    name: str,
    note: str,
    files: tuple[tuple[str, str], ...],
) -> Stays:
    """Scale both parts by the training part's smallest and largest values.

    A variable that the training part never shows has no scale, and is masked in the test part too; its `low` and
    `high` are 0.

    Args:
        train, test: hourly means in units, (n, 49, 37) float32.
        seen_train, seen_test: where there are any, (n, 49, 37) bool.
    """
    ever = seen_train.flatten(0, 1).any(0)  # (37,)
    low = torch.where(seen_train, train, torch.inf).amin((0, 1)).where(ever, torch.tensor(0.0))
    high = torch.where(seen_train, train, -torch.inf).amax((0, 1)).where(ever, torch.tensor(0.0))
    seen_test = seen_test & ever
    width = _width(low, high)
    return Stays(
        name=name,
        note=note,
        files=files,
        variables=VARIABLES,
        t=torch.arange(N_TIMES, dtype=torch.float64) / HOURS,
        values_train=torch.where(seen_train, (train - low) / width, 0.0),
        mask_train=seen_train.float(),
        values_test=torch.where(seen_test, (test - low) / width, 0.0),
        mask_test=seen_test.float(),
        low=low,
        high=high,
    )


def _standin() -> tuple[list[Records], tuple[tuple[str, str], ...]]:
    members = icu_standin.simulate(N_STANDIN, seed=STANDIN_SEED)
    return [records.parse_records(members)], (("icu_standin", archives.content_hash(members)),)


def _official(paths: dict[str, Path]) -> tuple[list[Records], tuple[tuple[str, str], ...]]:
    registered = DATASETS[DATASET]
    parts = [_parsed(paths[file.name], file) for file in registered]
    return parts, tuple((file.folder, file.contents) for file in registered)


def _parsed(path: Path, file: DataFile) -> Records:
    """The records of a checked archive or folder: from data/cache/, else parsed and put there.

    The cache is known by the contents of the records and by the source of the parser. One that is damaged, of other
    records or of another parser is made again.
    """
    source = Path(records.__file__).read_bytes()
    key = hashlib.sha256(file.contents.encode() + source).hexdigest()
    cache = checkout.ROOT / "data" / "cache" / DATASET / f"{file.folder}.npz"
    cached = _read_cache(cache, key)
    if cached is not None:
        return cached
    try:
        parsed = records.parse_records(archives.read_members(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    try:
        _write_cache(cache, key, parsed)
    except OSError as error:
        warnings.warn(f"{cache} could not be written ({error}): the records are parsed each time", stacklevel=2)
    return parsed


ARRAYS = tuple(entry.name for entry in fields(Records) if entry.name != "skipped")


def _read_cache(path: Path, key: str) -> Records | None:
    try:
        with path.open("rb") as file, np.load(file) as content:
            return Records(**{name: content[name] for name in ARRAYS}) if content["key"] == key else None
    except Exception:  # there is none, or it is damaged in one of many ways: it is made again
        return None


def _write_cache(path: Path, key: str, parsed: Records) -> None:
    """Write the arrays so that a reader sees the old file or the new one, never a part of it."""
    stream = io.BytesIO()
    np.savez(stream, key=np.array(key), **{name: getattr(parsed, name) for name in ARRAYS})
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(stream.getbuffer())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
