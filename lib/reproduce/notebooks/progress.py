"""What a person sees while notebooks run: two bars on a terminal, one line for each event elsewhere."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from reproduce.runs.estimate import in_words


class Watch(AbstractContextManager["Watch"]):
    """Notebooks done and running, training runs done of all that are known to be needed, and the time left.

    Args:
        notebooks: how many there are.
        jobs: training runs at a time.
        say: prints a line, in place of bars; None: bars where standard output is a terminal, else lines there.
    """

    def __init__(self, notebooks: int, jobs: int, say: Callable[[str], None] | None = None) -> None:
        self.notebooks, self.jobs = notebooks, jobs
        self.running: dict[str, float] = {}  # notebook -> when it began
        self.ended = 0
        self.expected: dict[str, float | None] = {}  # training run -> seconds, of all that are known to be needed
        self.made: dict[str, float] = {}  # training run -> seconds that it took
        self._lock = threading.Lock()
        console = Console()
        self._bars = Progress(
            TextColumn("{task.description:<13}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._live = say is None and console.is_terminal
        above = partial(console.print, markup=False, highlight=False)
        self._say = say or (above if self._live else lambda line: print(f"{line}\n", end="", flush=True))
        self._of: dict[str, TaskID] = {}

    def __enter__(self) -> Watch:
        if self._live:
            self._of = {
                "notebooks": self._bars.add_task("notebooks", total=self.notebooks, note=""),
                "runs": self._bars.add_task("training runs", total=None, note="counting what is stored"),
            }
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._bars.stop()

    def line(self, text: str) -> None:
        """Print a line (above the bars, where there are any)."""
        self._say(text)

    def started(self, notebook: str) -> None:
        """A notebook begins."""
        with self._lock:
            self.running[notebook] = time.monotonic()
        if not self._live:
            self._say(f"start  {notebook}")
        self._draw()

    def stopped(self, notebook: str, how: str, seconds: float | None = None) -> None:
        """A notebook ended: `how` is 'done', 'kept' or 'FAILED'."""
        with self._lock:
            self.running.pop(notebook, None)
            self.ended += 1
        self._say(f"{how:<6} {notebook}" + ("" if seconds is None else f"  {seconds:.1f} s"))
        self._draw()

    def needs(self, runs: Mapping[str, float | None]) -> None:
        """Training runs are needed: name -> the seconds that each will take, None where nobody knows."""
        with self._lock:
            self.expected |= {name: seconds for name, seconds in runs.items() if name not in self.made}
        self._draw()

    def told(self, what: Mapping[str, Any]) -> None:
        """A notebook told of something (see runs.events)."""
        if "to_do" in what:
            self.needs(what["to_do"])
        if "done" not in what:
            return
        name = str(what["done"])
        with self._lock:
            self.expected.setdefault(name, None)
            self.made[name] = what["seconds"]
            place = f"{len(self.made)}/{len(self.expected)}"
        if not self._live:
            self._say(f"run    {place}  {name}: NFE {what['nfe']:.1f}, {what['seconds']:.0f} s{self._rest()}")
        self._draw()

    def left(self) -> float | None:
        """Seconds until all known runs are made, None while nothing is measured.

        A run is expected to take as long as measured rows say, times how this machine compared with them so far; one
        without any such row as long as the others' median.
        """
        with self._lock:
            todo = [self.expected[name] for name in self.expected if name not in self.made]
            pairs = [(took, self.expected[name]) for name, took in self.made.items()]
        both = [(took, wanted) for took, wanted in pairs if wanted]
        pace = sum(took for took, _ in both) / sum(wanted for _, wanted in both) if both else 1.0
        known = [seconds * pace for seconds in todo if seconds] + [took for took, _ in pairs]
        if not known and todo:
            return None
        typical = statistics.median(known) if known else 0.0
        return sum(typical if seconds is None else seconds * pace for seconds in todo) / self.jobs

    def _rest(self) -> str:
        seconds = self.left()
        return f", about {in_words(seconds)} left" if seconds else ""

    def _draw(self) -> None:
        if not self._live:
            return
        with self._lock:
            running = ", ".join(self.running)
            made, expected, ended = len(self.made), len(self.expected), self.ended
            last = next(reversed(self.made), "")
        self._bars.update(self._of["notebooks"], completed=ended, note=running)
        note = f"{last}{self._rest()}".removeprefix(", ")
        self._bars.update(self._of["runs"], completed=made, total=expected or None, note=note)
