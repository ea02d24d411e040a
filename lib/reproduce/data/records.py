"""Record files of the PhysioNet Challenge 2012: one text file a stay, parsed onto an hourly grid."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

HEADER = "Time,Parameter,Value"
HOURS = 48
N_TIMES = HOURS + 1
DESCRIPTORS = ("Age", "Gender", "Height", "ICUType")
VARIABLES = (
    *("ALP", "ALT", "AST", "Albumin", "BUN", "Bilirubin", "Cholesterol", "Creatinine", "DiasABP", "FiO2", "GCS"),
    *("Glucose", "HCO3", "HCT", "HR", "K", "Lactate", "MAP", "MechVent", "Mg", "NIDiasABP", "NIMAP", "NISysABP"),
    *("Na", "PaCO2", "PaO2", "Platelets", "RespRate", "SaO2", "SysABP", "Temp", "TroponinI", "TroponinT", "Urine"),
    *("WBC", "Weight", "pH"),
)
UNKNOWN = -1.0
_COLUMN = {name: column for column, name in enumerate(VARIABLES)}
_TIME = re.compile(r"\d\d:[0-5]\d")


@dataclass(frozen=True, eq=False)
class Records:
    """Parsed stays: sums and counts of the observations in each cell (stay, hour, variable) of the hourly grid.

    Only cells with observations are stored; ``cell`` counts through an array of shape (n, 49, 37) row by row.
    """

    ids: np.ndarray  # (n,) int64, the RecordID of each stay, ascending
    descriptors: np.ndarray  # (n, 4) float64: Age (years), Gender, Height (cm), ICUType; NaN where unknown
    n_lines: np.ndarray  # (n,) int64, without the header
    n_observations: np.ndarray  # (n,) int64: lines that are no descriptor; Weight at 00:00 counts as a descriptor
    n_repeated: np.ndarray  # (n,) int64: observations whose (time, parameter) has come before in the stay
    cell: np.ndarray  # (m,) int64, ascending
    total: np.ndarray  # (m,) float64, sum of the values in a cell, in the units of the files
    count: np.ndarray  # (m,) int64, number of values in a cell
    skipped: tuple[str, ...] = ()  # what was wrong with each record that was left out (only with strict=False)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Return hourly averages and where there are any: (n, 49, 37) float32 (0 elsewhere) and (n, 49, 37) bool."""
        shape = (len(self.ids), N_TIMES, len(VARIABLES))
        mean, observed = np.zeros(math.prod(shape), np.float32), np.zeros(math.prod(shape), bool)
        mean[self.cell], observed[self.cell] = self.total / self.count, True
        return mean.reshape(shape), observed.reshape(shape)


@dataclass
class _Stay:
    """One record file while it is read."""

    record_id: int = 0
    descriptors: dict[str, float] = field(default_factory=dict)
    cells: list[int] = field(default_factory=list)  # hour * 37 + column
    values: list[float] = field(default_factory=list)
    n_lines: int = 0
    n_observations: int = 0
    n_repeated: int = 0


def parse_records(members: Mapping[str, bytes], *, strict: bool = True) -> Records:
    """Parse record files onto the hourly grid.

    What is done with what the files hold:

    * An observation at HH:MM belongs to the nearest full hour, at half past to the later one; values of a variable
      that share an hour are averaged, also where a (time, parameter) pair is repeated within the file (it is counted).
    * Age, Gender, Height and ICUType are descriptors, by name and wherever they stand; -1 means unknown.
    * Weight is a series. At 00:00 it is the weight at admission, and counts as an observation unless it is -1.
    * Everything else is taken as recorded: zeros, outliers and negative values are no concern of the parser.
    * A record without observations is a stay like any other, with empty cells.

    Args:
        members: name of a file, ``<RecordID>.txt``, to its bytes.
        strict: refuse everything if one record is malformed; else leave that record out and list it in ``skipped``.

    Raises:
        ValueError: a malformed record; names the file, the line and what is wrong.
    """
    stays, skipped = [], []
    for name, content in members.items():
        try:
            stays.append(_parse_record(name, content))
        except ValueError as error:
            if strict:
                raise
            skipped.append(str(error))
    stays.sort(key=lambda stay: stay.record_id)
    return _gathered(stays, tuple(skipped))


def _parse_record(name: str, content: bytes) -> _Stay:
    """Parse one record file; ValueError names the file, the line and what is wrong."""
    stay, seen, number = _Stay(), set[tuple[str, str]](), 1
    try:
        header, *lines = content.decode("ascii").splitlines() or [""]
        if header != HEADER:
            raise ValueError(f"expected the header {HEADER!r}, found {header[:80]!r}")
        for line in lines:
            number += 1
            _read_line(line, stay, seen)
        if f"{stay.record_id}.txt" != name:
            found = stay.record_id if "RecordID" in stay.descriptors else "none"
            raise ValueError(f"expected a RecordID as in the name of the file, found {found} in the whole file")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{name}, line {number}: expected ASCII text, found byte {content[error.start]:#04x}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{name}, line {number}: {error}") from None
    stay.n_lines = len(lines)
    return stay


def _read_line(line: str, stay: _Stay, seen: set[tuple[str, str]]) -> None:
    """Add one line to a stay; ValueError says what is wrong with it."""
    try:
        time, name, text = line.split(",")
    except ValueError:
        raise ValueError(f"expected Time,Parameter,Value, found {line[:80]!r}") from None
    minute, value = _minute(time), _number(text)
    column = _COLUMN.get(name)
    if column is None:
        _read_descriptor(name, minute, value, stay)
        return
    if name == "Weight" and minute == 0:
        if value == UNKNOWN:
            return
    else:
        stay.n_observations += 1
        stay.n_repeated += (time, name) in seen
        seen.add((time, name))
    stay.cells.append((minute + 30) // 60 * len(VARIABLES) + column)
    stay.values.append(value)


def _read_descriptor(name: str, minute: int, value: float, stay: _Stay) -> None:
    if name != "RecordID" and name not in DESCRIPTORS:
        raise ValueError(f"unknown parameter {name[:40]!r}")
    if minute != 0:
        raise ValueError(f"expected {name} at 00:00, found it at minute {minute}")
    if name in stay.descriptors:
        raise ValueError(f"{name} comes twice")
    stay.descriptors[name] = value
    if name == "RecordID":
        stay.record_id = int(value)


@cache
def _minute(text: str) -> int:
    """Minutes since admission of a time HH:MM from 00:00 to 48:00."""
    if not _TIME.fullmatch(text) or (minute := 60 * int(text[:2]) + int(text[3:])) > 60 * HOURS:
        raise ValueError(f"expected a time HH:MM from 00:00 to {HOURS}:00, found {text[:40]!r}")
    return minute


@cache
def _number(text: str) -> float:
    """A finite decimal number, plain or with an exponent."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise ValueError(f"expected a number, found {text[:40]!r}")
    return value


def _gathered(stays: list[_Stay], skipped: tuple[str, ...]) -> Records:
    """All stays as arrays; the values of a cell are added in the order of the file."""
    size = N_TIMES * len(VARIABLES)
    cells = [np.array(stay.cells, dtype=np.int64) + i * size for i, stay in enumerate(stays)]
    values = [np.array(stay.values, dtype=np.float64) for stay in stays]
    cell, index, count = np.unique(
        np.concatenate([np.empty(0, np.int64), *cells]), return_inverse=True, return_counts=True
    )
    total = np.bincount(index, weights=np.concatenate([np.empty(0), *values]), minlength=len(cell))
    known = [[stay.descriptors.get(name, UNKNOWN) for name in DESCRIPTORS] for stay in stays]
    descriptors = np.array(known, dtype=np.float64).reshape(len(stays), len(DESCRIPTORS))
    return Records(
        ids=np.array([stay.record_id for stay in stays], dtype=np.int64),
        descriptors=np.where(descriptors == UNKNOWN, np.nan, descriptors),
        n_lines=np.array([stay.n_lines for stay in stays], dtype=np.int64),
        n_observations=np.array([stay.n_observations for stay in stays], dtype=np.int64),
        n_repeated=np.array([stay.n_repeated for stay in stays], dtype=np.int64),
        cell=cell,
        total=total,
        count=count,
        skipped=skipped,
    )
