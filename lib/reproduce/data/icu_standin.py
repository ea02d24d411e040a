"""Simulated records of intensive-care stays in the file format of PhysioNet 2012: the stand-in for the real ones.

Each stay follows a small system of ODEs (infection, shock and the body's answer to it, lungs, kidneys, sedation,
chill). Every variable reads some of these states with a noise of its own, at the rates at which wards measure it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from reproduce.data.records import HEADER, HOURS

FIRST_ID = 900_001  # far from the RecordIDs of the real sets, 132539 to 152864
STEPS_PER_HOUR = 6
STATES = ("infection", "shock", "answer", "lungs", "kidneys", "sedation", "chill")
CONSTANTS = ("tone", "frailty", "size")  # of a stay: standard normal numbers
SHARES_OF_UNITS = (0.15, 0.22, 0.37, 0.26)  # ICUType 1 coronary, 2 cardiac surgery, 3 medical, 4 surgical


@dataclass(frozen=True)
class Signal:
    """How a variable reads the state of a stay: base + personal offset + gains * states + noise, then rounded."""

    base: float  # of a typical stay, in the unit of the records
    spread: float  # standard deviation of the personal offset
    noise: float  # standard deviation of one reading
    low: float
    high: float
    decimals: int = 0
    gains: Mapping[str, float] = field(default_factory=dict)  # name of a state, a constant or "clock" to its gain
    log: bool = False  # everything but the limits is about the logarithm of the variable


@dataclass(frozen=True)
class Panel:
    """Variables that are measured together."""

    variables: tuple[str, ...]
    share: float  # of the stays in which they are measured at all
    gap: float  # hours between two measurements
    kept: float = 1.0  # share of the planned measurements that happen
    on_the_hour: bool = False  # planned at every `gap` hours after the first, else at irregular times
    ventilated: bool = False  # only while the stay is ventilated


SIGNALS = {
    "HR": Signal(85, 15, 3.5, 20, 200, 0, {"answer": 30, "infection": 18, "sedation": -6, "clock": 3}),
    "SysABP": Signal(122, 5, 7, 45, 230, 0, {"tone": 19, "shock": -40, "sedation": -8, "clock": 3}),
    "DiasABP": Signal(60, 5, 3, 20, 130, 0, {"tone": 8, "shock": -18, "sedation": -3, "clock": 2}),
    "MAP": Signal(81, 4, 4, 30, 160, 0, {"tone": 11, "shock": -25, "sedation": -4, "clock": 2}),
    "NISysABP": Signal(121, 6, 8, 45, 230, 0, {"tone": 19, "shock": -38, "sedation": -8, "clock": 3}),
    "NIDiasABP": Signal(59, 6, 4, 20, 130, 0, {"tone": 8, "shock": -17, "sedation": -3, "clock": 2}),
    "NIMAP": Signal(79, 5, 5, 30, 160, 2, {"tone": 11, "shock": -24, "sedation": -4, "clock": 2}),
    "RespRate": Signal(18, 2.5, 2.5, 4, 60, 0, {"lungs": 9, "infection": 4, "sedation": -3}),
    "Temp": Signal(36.9, 0.3, 0.15, 31, 41.5, 1, {"infection": 1.6, "chill": -1.8, "clock": 0.15}),
    "Urine": Signal(4.4, 0.4, 0.6, 0, 2500, 0, {"kidneys": -1.6, "shock": -0.8}, log=True),
    "Weight": Signal(80, 3, 0, 35, 200, 1, {"size": 18, "kidneys": 4}),
    "GCS": Signal(15, 0.8, 0.4, 3, 15, 0, {"sedation": -10, "infection": -2, "shock": -1}),
    "FiO2": Signal(0.4, 0.05, 0.04, 0.3, 1, 1, {"lungs": 0.45, "sedation": 0.08}),
    "MechVent": Signal(1, 0, 0, 1, 1),
    "pH": Signal(7.4, 0.02, 0.015, 6.8, 7.7, 2, {"shock": -0.14, "lungs": -0.04, "kidneys": -0.05}),
    "PaCO2": Signal(39, 5, 2, 15, 95, 0, {"lungs": 7, "shock": -3}),
    "PaO2": Signal(4.85, 0.2, 0.2, 35, 500, 0, {"lungs": -0.8, "sedation": 0.15}, log=True),
    "SaO2": Signal(97.5, 0.7, 0.6, 60, 100, 0, {"lungs": -6, "shock": -1}),
    "Lactate": Signal(0.4, 0.3, 0.12, 0.3, 25, 1, {"shock": 1.5, "infection": 0.3}, log=True),
    "BUN": Signal(2.9, 0.4, 0.04, 2, 180, 0, {"kidneys": 0.9, "frailty": 0.35}, log=True),
    "Creatinine": Signal(-0.15, 0.35, 0.05, 0.2, 20, 1, {"kidneys": 1.1, "frailty": 0.35}, log=True),
    "HCO3": Signal(24.5, 2, 0.8, 5, 45, 0, {"shock": -7, "kidneys": -4}),
    "K": Signal(4, 0.3, 0.2, 2, 8, 1, {"kidneys": 0.7, "shock": 0.2}),
    "Mg": Signal(1.95, 0.2, 0.12, 0.8, 5, 1, {"kidneys": 0.3}),
    "Na": Signal(139, 3, 1.2, 115, 165, 0, {"frailty": -1, "kidneys": -1.5}),
    "Glucose": Signal(4.75, 0.22, 0.18, 30, 900, 0, {"infection": 0.3, "answer": 0.25}, log=True),
    "HCT": Signal(32, 3, 0.8, 14, 58, 1, {"frailty": -2, "shock": -4}),
    "Platelets": Signal(5.3, 0.45, 0.05, 8, 1000, 0, {"infection": -0.5, "shock": -0.2}, log=True),
    "WBC": Signal(2.35, 0.35, 0.08, 0.3, 90, 1, {"infection": 0.8}, log=True),
    "ALT": Signal(3.5, 1.1, 0.1, 4, 15_000, 0, {"shock": 3.5}, log=True),
    "AST": Signal(3.8, 1.1, 0.1, 6, 20_000, 0, {"shock": 3.5}, log=True),
    "ALP": Signal(4.4, 0.4, 0.05, 15, 2000, 0, {"infection": 0.2}, log=True),
    "Bilirubin": Signal(-0.3, 0.7, 0.08, 0.1, 50, 1, {"infection": 0.5, "shock": 0.5}, log=True),
    "Albumin": Signal(3.1, 0.4, 0.1, 1, 5, 1, {"frailty": -0.3, "infection": -0.3}),
    "Cholesterol": Signal(5, 0.25, 0.03, 40, 350, 0, {"frailty": -0.1}, log=True),
    "TroponinI": Signal(0.5, 1.1, 0.15, 0.3, 50, 1, {"shock": 1}, log=True),
    "TroponinT": Signal(-2.5, 1.2, 0.15, 0.01, 25, 2, {"shock": 1, "frailty": 0.3}, log=True),
}

PANELS = (
    Panel(("HR",), 1.0, 1, 0.97, on_the_hour=True),
    Panel(("SysABP", "DiasABP", "MAP"), 0.70, 1, 0.95, on_the_hour=True),
    Panel(("NISysABP", "NIDiasABP", "NIMAP"), 0.87, 1, 0.55, on_the_hour=True),
    Panel(("RespRate",), 0.28, 1, 0.95, on_the_hour=True),
    Panel(("Temp",), 1.0, 2, 0.65, on_the_hour=True),
    Panel(("Urine",), 0.97, 1, 0.78, on_the_hour=True),
    Panel(("Weight",), 0.66, 1, 0.95, on_the_hour=True),
    Panel(("GCS",), 1.0, 3.7),
    Panel(("MechVent", "FiO2"), 1.0, 3, ventilated=True),
    Panel(("pH", "PaCO2", "PaO2"), 0.76, 6.5),
    Panel(("SaO2",), 0.45, 9),
    Panel(("Lactate",), 0.55, 16),
    Panel(("BUN", "Creatinine", "HCO3", "K", "Mg", "Na", "Glucose"), 0.98, 15),
    Panel(("HCT", "Platelets", "WBC"), 0.98, 15),
    Panel(("HCT",), 0.6, 20),
    Panel(("ALT", "AST", "ALP", "Bilirubin"), 0.43, 24),
    Panel(("Albumin",), 0.40, 36),
    Panel(("Cholesterol",), 0.08, 40),
    Panel(("TroponinT",), 0.22, 18),
    Panel(("TroponinI",), 0.05, 18),
)


def simulate(n: int, *, seed: int) -> dict[str, bytes]:
    """Simulate the record files of ``n`` stays: name of a file to its bytes; the same for the same seed.

    A stay does not depend on how many there are. Sampling rates, gaps, typical values and spreads resemble those of
    the real sets, and so do their pitfalls: unknown descriptors (-1), readings sorted among the descriptors, rows at
    48:00, a (time, parameter) pair twice, exponents, flushed pressure lines (0), slips of the pen, empty records.

    Raises:
        ValueError: ``n`` is no whole number of at least 1.
    """
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n: expected a whole number of at least 1, found {n!r}")
    generators = [np.random.default_rng((seed, i)) for i in range(n)]
    patients = [_patient(rng) for rng in generators]
    courses = _courses({name: np.array([patient[name] for patient in patients]) for name in patients[0]})
    return {
        f"{FIRST_ID + i}.txt": _record(FIRST_ID + i, patient, course, rng)
        for i, (patient, course, rng) in enumerate(zip(patients, courses, generators, strict=True))
    }


def _patient(rng: Generator) -> dict[str, float]:
    """What sets one stay apart, times in hours."""
    unit = 1 + rng.choice(4, p=SHARES_OF_UNITS)
    surgery = unit == 2
    ventilated = rng.random() < (0.95 if surgery else 0.5)
    wakes = rng.gamma(4, 3) if surgery else rng.gamma(2, 24)
    return {
        "unit": unit,
        "infection": rng.uniform(0.05, 0.6) * (rng.random() < (0.15 if surgery else 0.5)),
        "virulence": rng.uniform(0.05, 0.4),
        "drug": rng.uniform(0.1, 0.6),
        "t_drug": rng.uniform(0, 24),
        "bleed": rng.exponential(0.7) * (rng.random() < 0.4),
        "t_bleed": rng.uniform(-2, 40),
        "shock": 0.5 * rng.exponential(0.4),
        "lungs": rng.uniform(0, 0.6) * (rng.random() < 0.5),
        "kidneys": 0.5 * rng.exponential(0.5),
        "chill": max(rng.normal(0.9 if surgery else 0.1, 0.3), 0.0),
        "wakes": wakes if ventilated else -9.0,
        "noon": rng.uniform(0, 24),
        **{name: rng.normal() for name in CONSTANTS},
    }


def _courses(patient: Mapping[str, np.ndarray]) -> np.ndarray:
    """Solve the ODEs of all stays by the classical Runge-Kutta method: (n, 289, 7) states every ten minutes.

    Infection grows logistically until the drug works; infection and bleeding cause shock, to which the body answers
    with a delay (the two swing); lungs and kidneys follow slowly; sedation ends when the stay wakes; chill fades.
    """

    def f(t: float, y: np.ndarray) -> np.ndarray:
        infection, shock, answer, lungs, kidneys, sedation, chill = y
        drug = patient["drug"] * _step(t - patient["t_drug"], 2.0)
        bleeding = patient["bleed"] * np.exp(-(((t - patient["t_bleed"]) / 2.0) ** 2))
        asleep = _step(patient["wakes"] - t, 0.5)
        return np.stack(
            [
                patient["virulence"] * infection * (1 - infection) - drug * infection,
                (0.7 * infection + 2.5 * bleeding - shock - 0.8 * answer) / 2.0,
                (1.2 * shock - answer) / 4.0,
                (0.8 * infection - lungs) / 10.0,
                (shock - kidneys) / 16.0,
                (asleep - sedation) / 1.0,
                -chill / 4.0,
            ]
        )

    asleep = (patient["wakes"] > 0).astype(float)
    zero = np.zeros_like(asleep)
    starts = {"answer": zero, "sedation": asleep, **patient}
    y, dt = np.stack([starts[name] for name in STATES]), 1.0 / STEPS_PER_HOUR
    course = [y]
    for step in range(HOURS * STEPS_PER_HOUR):
        t = step * dt
        k1 = f(t, y)
        k2 = f(t + dt / 2, y + dt / 2 * k1)
        k3 = f(t + dt / 2, y + dt / 2 * k2)
        k4 = f(t + dt, y + dt * k3)
        y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        course.append(y)
    return np.stack(course).transpose(2, 0, 1)


def _step(t: np.ndarray, width: float) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(t / width, -40.0, 40.0)))


def _record(record_id: int, patient: Mapping[str, float], course: np.ndarray, rng: Generator) -> bytes:
    """The text of one record file; ``course`` is (289, 7)."""
    rows = _descriptors(record_id, patient, rng)
    if rng.random() > 0.005:  # else a record without observations
        offset = int(rng.integers(60))  # minute of the hour at which the ward writes its chart
        states = {name: course[:, i] for i, name in enumerate(STATES)}
        states["clock"] = np.cos((np.arange(len(course)) / STEPS_PER_HOUR - patient["noon"]) * np.pi / 12)
        personal = {name: signal.spread * rng.normal() for name, signal in SIGNALS.items()}
        for panel in PANELS:
            if rng.random() < panel.share:
                minutes = _minutes(panel, offset, patient["wakes"], rng)
                for name in panel.variables:
                    values = _read(name, minutes, states, patient, personal[name], rng)
                    rows += zip(minutes.tolist(), [name] * len(minutes), values, strict=True)
        rows += _repeats(rows, rng)
    rows.sort(key=lambda row: (row[0], row[1] != "RecordID", row[1]))  # stable: a repeated pair stays in its order
    lines = [f"{minute // 60:02d}:{minute % 60:02d},{name},{value:.4g}" for minute, name, value in rows[1:]]
    return "\n".join([HEADER, f"00:00,RecordID,{record_id}", *lines, ""]).encode("ascii")


def _descriptors(record_id: int, patient: Mapping[str, float], rng: Generator) -> list[tuple[int, str, float]]:
    weight = SIGNALS["Weight"].base + SIGNALS["Weight"].gains["size"] * patient["size"]
    known = {
        "RecordID": record_id,
        "Age": round(float(np.clip(65 + 16 * rng.normal(), 16, 90))),
        "Gender": -1 if rng.random() < 0.001 else int(rng.integers(2)),
        "Height": -1 if rng.random() < 0.47 else round(170 + 6 * patient["size"] + 7 * rng.normal(), 1),
        "ICUType": int(patient["unit"]),
        "Weight": -1 if rng.random() < 0.08 else round(max(weight, 35.0), 1),
    }
    return [(0, name, value) for name, value in known.items()]


def _minutes(panel: Panel, offset: int, wakes: float, rng: Generator) -> np.ndarray:
    """The minutes from 0 to 2,880 at which a panel is measured."""
    end = 60 * HOURS
    if panel.on_the_hour:
        minutes = np.arange(offset, end + 1, round(60 * panel.gap))
    else:
        gaps = rng.gamma(3.0, panel.gap / 3.0, size=2 + int(3 * HOURS / panel.gap))
        minutes = np.round(60 * gaps.cumsum() - 60 * gaps[0] * rng.random()).astype(int)
    kept = (rng.random(len(minutes)) < panel.kept) & (minutes >= 0) & (minutes <= end)
    if panel.ventilated:
        kept &= minutes < 60 * wakes
    if panel.on_the_hour and rng.random() < 0.15:  # away for an examination or an operation
        start = rng.integers(end)
        kept &= (minutes < start) | (minutes > start + 60 * rng.uniform(2, 8))
    return np.unique(minutes[kept])


def _read(
    name: str,
    minutes: np.ndarray,
    states: Mapping[str, np.ndarray],
    patient: Mapping[str, float],
    personal: float,
    rng: Generator,
) -> list[float]:
    """Values of a variable at some minutes, rounded as in the records."""
    signal, at = SIGNALS[name], minutes * STEPS_PER_HOUR // 60
    values = signal.base + personal + signal.noise * rng.normal(size=len(minutes))
    for source, gain in signal.gains.items():
        values = values + gain * (patient[source] if source in CONSTANTS else states[source][at])
    values = np.round(np.clip(np.exp(values) if signal.log else values, signal.low, signal.high), signal.decimals)
    slips = rng.random(len(minutes))
    if name in ("SysABP", "DiasABP", "MAP"):
        values[slips < 2e-4] = 0.0  # the line is flushed
    elif name == "Temp":
        values[slips < 5e-4] = -17.8  # 0 Fahrenheit
    elif name == "pH":
        values[slips < 5e-4] *= 100  # the point forgotten
    return list(values.tolist())


def _repeats(rows: Iterable[tuple[int, str, float]], rng: Generator) -> list[tuple[int, str, float]]:
    """In three stays of ten some readings written down a second time, with another value."""
    if rng.random() > 0.3:
        return []
    often = [row for row in rows if row[1] in ("MAP", "Urine", "Temp")]
    chosen = rng.random(len(often)) < 0.03
    return [(t, name, round(1.02 * value + 0.1, 1)) for (t, name, value), yes in zip(often, chosen, strict=True) if yes]
