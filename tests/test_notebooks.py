"""The rules of source notebooks, the strict runner, what it keeps, and every notebook in the smoke profile."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4

from reproduce import checkout, cli
from reproduce.notebooks import runner, stamps, workbook
from reproduce.notebooks.contract import (
    ParameterError,
    accepted_parameters,
    check_parameters,
    contract,
    experiments_named,
)
from reproduce.notebooks.outcome import Failure, Outcome, explain
from reproduce.notebooks.progress import Watch
from reproduce.notebooks.worker import joined
from reproduce.report import claims, page, report, tables
from reproduce.runs import provenance
from reproduce.runs import run as runs

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = Path("data", "reference", "provenance.schema.json")
SOURCES = runner.source_notebooks(ROOT / "notebooks")

HEAD = """# A title
## What you will learn
One thing.
## What you need
Nothing.

Minutes: smoke 0.1, quick 1, paper 10."""
PARAMETERS = 'profile = "quick"\nseeds = 3'
READS = "print(profile, 2 * seeds)"


def code(source: str, *, tags: list[str] | None = None) -> Any:
    return v4.new_code_cell(source, metadata={"tags": tags or []})


def write(path: Path, *cells: str, head: str = HEAD, parameters: str = PARAMETERS, kernel: str = "python3") -> Path:
    """A notebook of a head, a parameters cell and code cells."""
    kernelspec = {"name": kernel, "display_name": "Python 3", "language": "python"}
    content = [
        v4.new_markdown_cell(head),
        code(parameters, tags=["parameters"]),
        *map(code, cells or (READS,)),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(v4.new_notebook(cells=content, metadata={"kernelspec": kernelspec}), path)
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A root folder with one good notebook, and the schema of provenance."""
    write(tmp_path / "notebooks" / "01_good.ipynb")
    add_schema(tmp_path)
    return tmp_path


def add_schema(root: Path) -> None:
    (root / SCHEMA).parent.mkdir(parents=True)
    shutil.copy(ROOT / SCHEMA, root / SCHEMA)


def command(*arguments: str) -> list[str]:
    """`python -m reproduce.cli reproduce` in the smoke profile unless told otherwise, one notebook at a time."""
    return [sys.executable, "-m", "reproduce.cli", "reproduce", "--profile", "smoke", "--jobs", "1", *arguments]


def reproduce(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m reproduce.cli reproduce` on another root folder."""
    environment = os.environ | {"REGNDE_HOME": str(bundle), "REGNDE_OFFLINE": "1"}
    return subprocess.run(command(*arguments), env=environment, cwd=bundle, capture_output=True, text=True, timeout=300)


# The contract of source notebooks


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_source_notebook_keeps_the_contract(path: Path) -> None:
    assert contract(path) == []


def test_a_good_notebook_has_no_violations(tmp_path: Path) -> None:
    cells = (
        "%matplotlib inline\nif seeds:\n    !ls\n    print(f'x:\\n', profile)",
        "# and/or a/b, https://x.org/home/y",
    )
    assert contract(write(tmp_path / "01_good.ipynb", *cells)) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"head": HEAD.removeprefix("# A title")}, "title"),
        ({"head": HEAD.replace("What you will learn", "Hello")}, "What you will learn"),
        ({"head": HEAD.replace("What you need", "Hello")}, "What you need"),
        ({"head": HEAD.replace("paper", "other")}, "minutes per profile"),
        ({"head": HEAD.replace("Minutes", "Time")}, "minutes per profile"),
        ({"kernel": "julia"}, "kernelspec"),
        ({"parameters": "seeds = 3"}, "`profile` is missing"),
        ({"parameters": PARAMETERS + "\nunused = 1"}, "`unused` is never read"),
        ({"parameters": PARAMETERS + "\nimport os"}, "literal values: `import os`"),
        ({"parameters": PARAMETERS + "\ntwice = 2 * seeds"}, "literal"),
        ({"parameters": "profile ="}, "literal"),
    ],
)
def test_a_broken_head_or_parameters_cell_is_named(tmp_path: Path, arguments: dict[str, str], words: str) -> None:
    violations = contract(write(tmp_path / "01_bad.ipynb", **arguments))
    assert any(words in violation for violation in violations), violations


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("seeds = 4", "cell 4 re-assigns the parameter `seeds`"),
        ("seeds += 1", "re-assigns the parameter `seeds`"),
        ("for seeds in range(3):\n    pass", "re-assigns the parameter `seeds`"),
        ("import numpy as seeds", "re-assigns the parameter `seeds`"),
        ("def seeds():\n    return 1", "re-assigns the parameter `seeds`"),
        ("\n".join(["1"] * 26), "cell 4 has 26 lines"),
        ("!pip install torch", "calls pip"),
        ("if seeds:\n    %pip install torch", "calls pip"),
        ("open('/home/me/x')", "absolute path"),
        ("open('/Users/me/x')", "absolute path"),
        ("open('/home/x')", "absolute path"),
        ("open(r'C:\\x')", "absolute path"),
        ("x = = 1", "cell 4 does not parse"),
    ],
)
def test_a_broken_cell_is_named(tmp_path: Path, cell: str, words: str) -> None:
    violations = contract(write(tmp_path / "01_bad.ipynb", READS, cell))
    assert len(violations) == 1
    assert words in violations[0]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda cells: cells[2].update(execution_count=1), "outputs or an execution count"),
        (
            lambda cells: cells[2].outputs.append(v4.new_output("stream", text="3")),
            "outputs or an execution count",
        ),
        (lambda cells: cells[1].metadata.update(tags=[]), "0 cells are tagged"),
        (lambda cells: cells.append(code("x = 1", tags=["parameters"])), "2 cells are tagged"),
        (lambda cells: cells.pop(0), "title"),
        (lambda cells: cells.append(v4.new_markdown_cell(cells[0].source)), "repeats the text of cell 1"),
    ],
)
def test_outputs_and_misplaced_cells_are_named(tmp_path: Path, edit: Callable[[Any], object], words: str) -> None:
    path = write(tmp_path / "01_bad.ipynb")
    notebook = nbformat.read(path, as_version=4)
    edit(notebook.cells)
    nbformat.write(notebook, path)
    violations = contract(path)
    assert any(words in violation for violation in violations), violations


def test_a_file_that_is_no_notebook_violates_the_contract(tmp_path: Path) -> None:
    (tmp_path / "01_bad.ipynb").write_text("not json")
    assert "not a readable notebook" in contract(tmp_path / "01_bad.ipynb")[0]


# Choice of notebooks and parameters


def test_only_selects_by_number_and_an_unknown_number_lists_what_exists(tmp_path: Path) -> None:
    for name in ("06_c", "01_a", "05_b"):
        write(tmp_path / f"{name}.ipynb")
    (tmp_path / "draft.ipynb").write_text("{}")
    stems = [path.stem for path in runner.source_notebooks(tmp_path)]
    assert stems == ["01_a", "05_b", "06_c"]
    assert [path.stem for path in runner.source_notebooks(tmp_path, "06, 1")] == ["01_a", "06_c"]
    with pytest.raises(ValueError, match=r"'07'; there are: 01_a, 05_b, 06_c"):
        runner.source_notebooks(tmp_path, "05,07")


def test_a_parameter_without_a_value_is_missing_until_given(tmp_path: Path) -> None:
    path = write(tmp_path / "01_a.ipynb", parameters="profile: str\nseeds: int = 3")
    assert accepted_parameters(path) == {"profile": False, "seeds": True}
    with pytest.raises(ParameterError, match=r"01_a: no value for the parameter 'profile'"):
        check_parameters(path, {"seeds": 1})
    check_parameters(path, {"profile": "smoke"})


@pytest.mark.parametrize(
    ("value", "wanted"),
    [({"n": 0}, "n .* from 1 on"), ({"seed": -1}, "seed .* from 0 on"), ({"mu": math.inf}, "mu .* finite number"),
     ({"seed": 10**30}, r"seed .* below 2\*\*63")],
)  # fmt: skip
def test_a_number_that_cannot_be_meant_is_refused_before_anything_runs(
    tmp_path: Path, value: dict[str, float], wanted: str
) -> None:
    path = write(tmp_path / "01_a.ipynb", parameters="n = 3\nseed = 0\nmu = 20.0")
    with pytest.raises(ParameterError, match=wanted):
        check_parameters(path, value)
    check_parameters(path, {"n": 1, "seed": 7, "mu": -3})


def test_a_notebook_without_a_profile_parameter_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "notebooks" / "01_a.ipynb", parameters="seeds = 3")
    with pytest.raises(ParameterError, match=r"01_a: unknown parameter 'profile'; it accepts: seeds"):
        runner.run("smoke", root=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--parameter", "sedes=3"], "01_good: unknown parameter 'sedes'; it accepts: profile, seeds"),
        (["--parameter", "seeds"], "NAME=VALUE"),
        (["--parameter", "profile=paper"], "its own option"),
        (["--profile", "fast"], "unknown profile 'fast'; choose one of: smoke, quick, paper"),
        (["--only", "09"], "no notebook has the number '09'; there are: 01_good"),
        (["--jobs", "0"], "at least one job"),
        (["--timeout", "-1"], "a time limit is a positive number of seconds, not -1"),
        (["--timeout", "inf"], "a time limit is a positive number of seconds, not inf"),
        (["--parameter", "seeds=abc"], "01_good: seeds must be of the kind of 3 (int), found 'abc'"),
        (["--parameter", "seeds=0"], "01_good: seeds must be a number from 1 on that is below 2**63, found 0"),
    ],
)
def test_bad_usage_exits_2_with_one_sentence_and_runs_nothing(bundle: Path, arguments: list[str], words: str) -> None:
    ended = reproduce(bundle, *arguments)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (bundle / "build").exists()


# Execution


@pytest.mark.slow
def test_a_good_notebook_runs_and_its_copy_holds_the_output_and_no_path_of_this_machine(bundle: Path) -> None:
    reads = "import os\nprint(profile, 2 * seeds, os.environ['REGNDE_JOBS'], os.path.isdir('notebooks'))"
    write(bundle / "notebooks" / "01_good.ipynb", reads)
    said: list[str] = []
    [outcome] = runner.run("smoke", jobs=1, parameters={"seeds": 21}, root=bundle, say=said.append)
    assert outcome.failure is None
    assert [line.split()[:2] for line in said] == [["start", "01_good"], ["done", "01_good"]]
    copy = bundle / str(outcome.copy)
    assert sorted(path.name for path in copy.parent.iterdir()) == ["01_good.ipynb", "01_good.provenance.json"]
    assert nbformat.read(copy, as_version=4).cells[-1].outputs[0].text == "smoke 42 1 True\n"
    assert str(bundle) not in copy.read_text()
    recorded = json.loads(copy.read_text())["metadata"]["papermill"]
    assert recorded["output_path"] == "build/smoke/notebooks/01_good.ipynb"
    assert contract(bundle / "notebooks" / "01_good.ipynb") == []


@pytest.mark.slow
def test_a_backend_in_the_environment_leaves_the_pictures_where_they_are(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do settings of IPython, a matplotlibrc, a startup file."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    profile = bundle / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    for name in ("ipython_config.py", "ipython_kernel_config.py"):
        (profile / name).write_text('c.IPKernelApp.matplotlib = c.InteractiveShellApp.matplotlib = "agg"\n')
    (bundle / "startup.py").write_text("raise SystemExit\n")
    monkeypatch.setenv("IPYTHONDIR", str(profile.parent))
    monkeypatch.setenv("PYTHONSTARTUP", str(bundle / "startup.py"))
    draws = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    write(bundle / "notebooks" / "01_good.ipynb", READS, draws)
    [outcome] = runner.run("smoke", jobs=1, root=bundle, say=lambda line: None)
    outputs = nbformat.read(bundle / str(outcome.copy), as_version=4).cells[-1].outputs
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_a_failing_cell_exits_1_and_is_named_and_the_other_notebooks_still_run(bundle: Path) -> None:
    failing = "x = 1\nraise ValueError('\\x1b[31mno such key')"
    write(bundle / "notebooks" / "00_bad.ipynb", READS, failing, "print('never')")
    ended = reproduce(bundle)
    assert ended.returncode == 1, ended.stderr
    assert "FAILED 00_bad, cell 4: ValueError: no such key\n    | x = 1\n    | raise ValueError" in ended.stderr
    assert "\x1b" not in ended.stderr
    assert "1 of 2 finished" in ended.stdout
    made = sorted(path.name for path in (bundle / "build" / "smoke" / "notebooks").iterdir())
    assert made == ["00_bad.failed.ipynb", "01_good.ipynb", "01_good.provenance.json"]
    assert "never\\n" not in (bundle / "build" / "smoke" / "notebooks" / "00_bad.failed.ipynb").read_text()


@pytest.mark.slow
def test_a_cell_over_its_time_and_a_dead_kernel_are_failures_with_their_cell(tmp_path: Path) -> None:
    write(tmp_path / "notebooks" / "00_slow.ipynb", READS, "import time\ntime.sleep(60)", "print('never')")
    write(tmp_path / "notebooks" / "01_dead.ipynb", READS, "import os\nos._exit(3)")
    slow, dead = runner.run("smoke", jobs=2, root=tmp_path, timeout=4.5, say=lambda line: None)
    assert "00_slow, cell 4: CellTimeoutError" in explain(slow)
    assert "01_dead, cell 4: DeadKernelError" in explain(dead)
    assert "os._exit(3)" in explain(dead)


@pytest.mark.slow
def test_a_failed_run_leaves_no_copy_of_an_earlier_one(bundle: Path) -> None:
    folder = bundle / "build" / "smoke" / "notebooks"
    folder.mkdir(parents=True)
    (folder / "01_good.ipynb").write_text("of an earlier run")
    write(bundle / "notebooks" / "01_good.ipynb", READS, "1 / 0")
    [outcome] = runner.run("smoke", jobs=1, root=bundle, say=lambda line: None)
    assert "cell 4: ZeroDivisionError" in explain(outcome)
    assert [path.name for path in folder.iterdir()] == ["01_good.failed.ipynb"]


def test_reproduce_shows_the_summary_and_what_was_made_and_where_and_the_failures_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    good, bad = Path("build/quick/notebooks/01_good.ipynb"), Path("build/quick/notebooks/00_bad.failed.ipynb")
    outcomes = [
        Outcome("00_bad", bad, 1.0, Failure("ValueError", "no", 4, "f()")),
        Outcome("01_good", good, 1.0),
    ]
    add_schema(tmp_path)
    monkeypatch.setattr(runs, "status", lambda needed: runs.Status([], [], [], []))
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "summary", lambda profile, rows, **options: f"# Results, {profile}")
    monkeypatch.setattr(runner, "run", lambda profile, **options: outcomes)
    for made in ("figures/quick/one.png", "data/results/quick/spiral_ode/none-seed0-1.json"):
        (tmp_path / made).parent.mkdir(parents=True)
        (tmp_path / made).touch()

    assert cli.main(["reproduce"]) == 1
    told = capfd.readouterr()
    assert (tmp_path / "build" / "quick" / "summary.md").read_text() == "# Results, quick\n"
    assert "# Results, quick" in told.out
    assert "1 of 2 finished, in build/quick/notebooks" in told.out
    assert "figures    1 (1 made now), in figures/quick" in told.out
    assert "rows       1 (1 made now), in data/results/quick" in told.out
    assert told.err.splitlines()[1:3] == ["FAILED 00_bad, cell 4: ValueError: no", "    | f()"]
    del outcomes[0]
    assert cli.main(["reproduce"]) == 0
    assert capfd.readouterr().err == ""


# What is kept, and what is executed again


FIGURE = """from reproduce import checkout, files
from reproduce.runs import events
path = checkout.ROOT / "figures" / profile / "picture.png"
files.write_atomically(path, b"picture")
events.file(path)"""
ROW = """from reproduce.runs.store import Row, write
none = dict.fromkeys(("nfe", "accepted", "rejected", "train_nfe"), 1.0)
none |= dict.fromkeys(("key", "experiment", "regularizer", "part", "note", "metric"), "x")
none |= {"settings": {}, "budget": {}, "metrics": {}, "seconds": {}, "n_test": 1, "higher_is_better": True}
row = Row(seed=seeds, profile=profile, data="Some data", **none)
print(write(row).name)"""


def everything(bundle: Path) -> dict[str, bytes]:
    """All files that runs leave, but for the lock."""
    paths = [path for name in ("build", "data", "figures") for path in (bundle / name).rglob("*")]
    return {str(path): path.read_bytes() for path in paths if path.is_file() and path.suffix != ".lock"}


@pytest.fixture(scope="module")
def two_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("two")
    add_schema(bundle)
    write(bundle / "notebooks" / "01_good.ipynb", FIGURE, READS)
    write(bundle / "notebooks" / "02_row.ipynb", ROW, READS)
    (bundle / "requirements.lock").write_text("a==1\n")
    assert executed(bundle) == {"01_good", "02_row"}
    return bundle


@pytest.fixture
def two(two_once: Path, tmp_path: Path) -> Path:
    """A bundle whose notebook 01 makes a figure and whose notebook 02 makes a row; both were executed."""
    return Path(shutil.copytree(two_once, tmp_path / "bundle"))


def executed(bundle: Path, **options: Any) -> set[str]:
    """Run the notebooks and return the names of those that were executed, not kept; none may fail."""
    said: list[str] = []
    outcomes = runner.run("smoke", jobs=2, root=bundle, say=said.append, **options)
    assert not [explain(outcome) for outcome in outcomes if outcome.failure]
    names = {outcome.name for outcome in outcomes if not outcome.kept}
    assert {line.split()[1] for line in said if line.startswith("start")} == names
    kept = {outcome.name for outcome in outcomes if outcome.kept}
    assert {line.split()[1] for line in said if line.startswith("kept")} == kept
    return names


@pytest.mark.slow
def test_a_notebook_is_executed_again_only_if_something_of_it_changed(two: Path) -> None:
    """One change after the other; each makes exactly the affected notebooks run, and their files whole again."""
    first = everything(two)
    assert executed(two) == set()
    assert everything(two) == first

    source = two / "notebooks" / "01_good.ipynb"
    source.write_text(source.read_text().replace("One thing.", "Another thing."))  # prose
    assert executed(two) == {"01_good"}
    assert "Another thing." in (two / "build" / "smoke" / "notebooks" / "01_good.ipynb").read_text()

    (two / "figures" / "smoke" / "picture.png").unlink()
    assert executed(two) == {"01_good"}
    (two / "figures" / "smoke" / "picture.png").write_bytes(b"edited")
    assert executed(two) == {"01_good"}
    assert (two / "figures" / "smoke" / "picture.png").read_bytes() == b"picture"

    [row] = (two / "data" / "results").rglob("*.json")
    row.unlink()
    assert executed(two) == {"02_row"}
    assert row.exists()

    (two / "build" / "smoke" / "notebooks" / "02_row.ipynb").unlink()
    assert executed(two) == {"02_row"}
    assert executed(two, parameters={"seeds": 4}, only="02") == {"02_row"}
    assert executed(two, parameters={"seeds": 4}, only="02") == set()
    assert executed(two, only="02", force=True) == {"02_row"}

    (two / "requirements.lock").write_text("# a comment\na==1\n")
    assert executed(two) == set()
    (two / "requirements.lock").write_text("a==2\n")
    assert executed(two) == {"01_good", "02_row"}
    assert executed(two) == set()


@pytest.mark.slow
def test_changed_code_and_changed_data_files_make_every_notebook_run_again(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = [two / "build" / "smoke" / "notebooks" / f"{name}.ipynb" for name in ("01_good", "02_row")]

    def good() -> list[bool]:
        given = {"profile": "smoke"}
        sources = [two / "notebooks" / copy.name for copy in copies]
        pairs = zip(copies, sources, strict=True)
        return [stamps.holds(copy, stamps.inputs(source, given, two), two) for copy, source in pairs]

    assert good() == [True, True]
    with monkeypatch.context() as changed:
        changed.setattr(stamps, "library_hash", lambda: "other")
        assert good() == [False, False]
    with monkeypatch.context() as changed:
        changed.setattr(stamps, "data_found", lambda: {"mnist": {"t10k-labels-idx1-ubyte.gz": "other"}})
        assert good() == [False, False]
    stamp = copies[0].with_suffix(".provenance.json")
    stamp.write_text(stamp.read_text()[:100])  # as a full disk might leave it
    assert good() == [False, True]
    shutil.copy(copies[1].with_suffix(".provenance.json"), stamp)  # of another copy
    assert good() == [False, True]


def test_provenance_lies_beside_a_copy_and_in_it_and_tells_of_its_rows(two: Path) -> None:
    copy = two / "build" / "smoke" / "notebooks" / "02_row.ipynb"
    record = json.loads(copy.with_suffix(".provenance.json").read_text())
    provenance.check(record)
    assert json.loads(copy.read_text())["metadata"]["regnde"] == record
    assert (record["profile"], record["data"], record["seeds"]) == ("smoke", ["Some data"], [3])
    assert record["seconds"] > 0
    assert (record["commit"], record["lock"]) == ("unknown", provenance.lock_hash(two))
    assert list(record["more"]["stamp"]["files"]) == ["data/results/smoke/x/x-seed3-x.json"]
    assert str(two) not in json.dumps(record)


def test_a_second_reproduce_leaves_every_file_as_it_is_the_summary_and_its_provenance_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    add_schema(tmp_path)
    text = ["# one"]
    monkeypatch.setattr(tables, "summary", lambda profile, rows, **options: text[0])
    monkeypatch.setattr(runs, "status", lambda needed: runs.Status([], [], [], []))
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "run", lambda profile, **options: [])
    assert cli.main(["reproduce"]) == 0
    first = everything(tmp_path)
    record = json.loads((tmp_path / "build" / "quick" / "summary.provenance.json").read_text())
    provenance.check(record)
    time.sleep(1.1)  # the time in a new record would differ
    assert cli.main(["reproduce"]) == 0
    assert everything(tmp_path) == first
    text[0] = "# two"
    assert cli.main(["reproduce"]) == 0
    changed = {Path(name).name for name, content in everything(tmp_path).items() if first[name] != content}
    assert changed == {"summary.md", "summary.provenance.json"}


@pytest.mark.slow
def test_a_copy_that_cannot_be_written_is_a_failure_of_its_notebook_alone(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, f"{path} could not be written: No space left on device")

    monkeypatch.setattr(runner, "write_atomically", full)
    [outcome] = runner.run("smoke", jobs=1, root=bundle, say=lambda line: None)
    assert "01_good, outside its cells: OSError" in explain(outcome)
    assert "No space left" in explain(outcome)


# Two at once


WAITS = "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)"


def start(bundle: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"REGNDE_HOME": str(bundle), "REGNDE_OFFLINE": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*arguments), env=environment, cwd=bundle, **pipes)


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    assert any(words in line for line in process.stdout), words


@pytest.mark.slow
def test_a_second_reproduce_is_refused_or_waits_and_a_killed_first_blocks_nobody(bundle: Path) -> None:
    write(bundle / "notebooks" / "00_slow.ipynb", READS, WAITS)  # first by number, so executed last
    first = start(bundle)
    read_until(first, "start  00_slow")
    refused = reproduce(bundle, "--profile", "quick")
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert f"process {first.pid} executes notebooks in this clone" in line
    assert "--wait" in line
    assert not (bundle / "build" / "quick").exists()

    waiting = start(bundle, "--wait")
    read_until(waiting, f"waiting: process {first.pid}")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    read_until(waiting, "kept   01_good")
    (bundle / "go").touch()
    said, failed = waiting.communicate(timeout=300)
    assert waiting.returncode == 0, failed
    assert "2 of 2 finished (1 kept)" in said

    again = reproduce(bundle)
    assert again.returncode == 0
    assert "2 of 2 finished (2 kept)" in again.stdout


@pytest.fixture(scope="module")
def smoke() -> list[Outcome]:
    """All notebooks, executed in the smoke profile with the solutions of their exercises."""
    return runner.run("smoke", jobs=2, force=True, solutions=True, wait=True)


@pytest.mark.slow
def test_every_notebook_runs_in_the_smoke_profile_with_the_solutions_of_its_exercises(smoke: list[Outcome]) -> None:
    assert len(smoke) == len(SOURCES) > 0
    failures = [explain(outcome) for outcome in smoke if outcome.failure]
    assert not failures, "\n\n".join(failures)
    copies = [nbformat.read(ROOT / str(outcome.copy), as_version=4) for outcome in smoke]
    said = [cell.outputs[0].text for copy in copies for cell in copy.cells if cell.source.startswith("check(")]
    assert said, "solutions are executed"
    assert [text for text in said if not text.endswith(": right.\n")] == []


@pytest.mark.slow
def test_the_real_report_is_one_page_that_tells_of_every_claim_and_loads_nothing(smoke: list[Outcome]) -> None:
    [told] = [outcome for outcome in smoke if outcome.name == runner.REPORT]
    text = page.page(nbformat.read(ROOT / str(told.copy), as_version=4))
    assert not page.LOADS.search(text)
    for expected in [*(claim.id for claim in claims.book().claims), *(one.id for one in report.deviations())]:
        assert expected in text
    for expected in ("not run", "303.559", "758", "81.301", "Is it the penalty?", "data:image/png;base64"):
        assert expected in text


def test_what_a_kernel_sent_in_pieces_is_one_output_and_pictures_keep_their_place() -> None:
    def said(text: str, name: str = "stdout") -> Any:
        return v4.new_output("stream", name=name, text=text)

    picture = v4.new_output("display_data", data={"text/plain": "a picture"})
    sent = [said("right."), said("\n"), said("beware", "stderr"), said("a"), picture, said("b"), said("c")]
    parts = [part.get("text", "a picture") for part in joined(sent)]
    assert parts == ["right.\n", "beware", "a", "a picture", "bc"]
    assert sent[0].text == "right.", "what was given is as it was"
    assert joined([]) == []


# What a person sees meanwhile


def watch_of(*told: dict[str, Any], jobs: int = 1) -> tuple[Watch, list[str]]:
    said: list[str] = []
    watch = Watch(2, jobs, said.append)
    for what in told:
        watch.told(what)
    return watch, said


def test_each_finished_training_run_is_one_line_with_how_many_are_done_and_the_time_left() -> None:
    to_do = {"to_do": {"a": 10.0, "b": 10.0, "c": None}}
    watch, said = watch_of(to_do, {"done": "a", "nfe": 20.0, "seconds": 20.0}, {"done": "b", "nfe": 8.0, "seconds": 20})
    assert said == [
        "run    1/3  a: NFE 20.0, 20 s, about 40 s left",  # b at this machine's pace, c like the others
        "run    2/3  b: NFE 8.0, 20 s, about 20 s left",
    ]
    watch.told({"done": "c", "nfe": 8.0, "seconds": 20})
    assert said[-1] == "run    3/3  c: NFE 8.0, 20 s"
    watch.needs({"a": 10.0, "d": None})
    assert watch.left() == 20.0, "a run that was made is not needed again"


def test_without_any_measured_row_no_time_is_promised_and_jobs_share_it() -> None:
    watch, _ = watch_of({"to_do": {"a": None}})
    assert watch.left() is None
    assert watch_of({"to_do": {"a": 10.0, "b": 20.0}}, jobs=2)[0].left() == 15.0


def test_on_a_terminal_two_bars_tell_of_notebooks_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    import rich.console

    from reproduce.notebooks import progress

    screen = io.StringIO()
    terminal = partial(rich.console.Console, file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(progress, "Console", terminal)
    with Watch(2, 1) as watch:
        watch.started("05_spiral")
        watch.needs({"spiral/none/0": 60.0, "spiral/none/1": 60.0})
        watch.told({"done": "spiral/none/0", "nfe": 20.0, "seconds": 60.0})
        watch.stopped("05_spiral", "done", 61.0)
    shown = screen.getvalue()
    for expected in (
        "notebooks",
        "1/2",
        "training runs",
        "spiral/none/0",
        "about 60 s left",
        "done   05_spiral  61.0 s",
    ):
        assert expected in shown, expected


@pytest.mark.slow
def test_a_notebook_tells_the_runner_of_the_runs_that_it_makes(bundle: Path) -> None:
    to_do, done = "events.to_do({'x/none/0': 3.0})", "events.done('x/none/0', nfe=8, seconds=2.0)"
    tells = f"from reproduce.runs import events\n{to_do}\n{done}"
    write(bundle / "notebooks" / "01_good.ipynb", READS, tells)
    said: list[str] = []
    runner.run("smoke", jobs=1, root=bundle, say=said.append)
    assert "run    1/1  x/none/0: NFE 8.0, 2 s" in said


@pytest.mark.slow
def test_the_last_notebook_is_executed_first_the_report_at_the_end_and_outcomes_come_by_number(bundle: Path) -> None:
    for name in ("02_trains", runner.REPORT, "14_trains"):
        write(bundle / "notebooks" / f"{name}.ipynb", READS)
    said: list[str] = []
    outcomes = runner.run("smoke", jobs=1, root=bundle, say=said.append)
    started = [line.split()[1] for line in said if line.startswith("start")]
    assert started == ["14_trains", "02_trains", "01_good", runner.REPORT]
    assert [outcome.name for outcome in outcomes] == ["01_good", "02_trains", "14_trains", runner.REPORT]


def test_the_experiments_that_a_notebook_names_are_those_whose_runs_it_needs() -> None:
    named = {path.stem: experiments_named(path) for path in SOURCES}
    assert named["05_spiral_ode"] == {"spiral_ode"}
    assert named["09_mnist_sde"] == {"mnist_sde"}
    assert named["01_one_step"] == set()
    from reproduce import experiments

    assert set().union(*named.values()) == set(experiments.names()), "each experiment has its lesson"


# The reader's own copies


def test_the_readers_copies_are_made_renewed_while_untouched_and_never_overwritten(tmp_path: Path) -> None:
    for name in ("01_a", "02_b"):
        write(tmp_path / "notebooks" / f"{name}.ipynb")
    assert list(workbook.update(tmp_path)) == ["new    my_lessons/01_a.ipynb", "new    my_lessons/02_b.ipynb"]
    assert list(workbook.update(tmp_path)) == []
    mine = tmp_path / "my_lessons" / "02_b.ipynb"
    mine.write_text("my answers")
    assert list(workbook.update(tmp_path)) == []
    for name in ("01_a", "02_b"):
        write(tmp_path / "notebooks" / f"{name}.ipynb", "print('newer')", READS)
    newer, yours = workbook.update(tmp_path)
    assert newer == "newer  my_lessons/01_a.ipynb"
    assert yours.startswith("yours  my_lessons/02_b.ipynb: the lesson has changed since; rename your copy")
    assert mine.read_text() == "my answers"
    mine.rename(tmp_path / "my_lessons" / "02_mine.ipynb")
    assert list(workbook.update(tmp_path)) == ["new    my_lessons/02_b.ipynb"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_master_that_jupyter_executed_is_saved_as_git_has_it(path: Path) -> None:
    notebook = json.loads(path.read_text())
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = (
                [{"output_type": "stream", "name": "stdout", "text": "1"}],
                number,
            )
            cell["metadata"]["execution"] = {"iopub.status.busy": "now"}
    notebook["metadata"]["language_info"] = {"name": "python", "version": "3.13.0", "file_extension": ".py"}
    notebook["metadata"]["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
    workbook.save_masters_without_outputs({"type": "notebook", "content": notebook}, f"notebooks/{path.name}")
    assert nbformat.writes(nbformat.from_dict(notebook)).rstrip() == path.read_text().rstrip()
    elsewhere = {"cells": [{"cell_type": "code", "outputs": [1], "execution_count": 1, "metadata": {}}], "metadata": {}}
    workbook.save_masters_without_outputs({"type": "notebook", "content": elsewhere}, f"my_lessons/{path.name}")
    assert elsewhere["cells"][0]["outputs"] == [1]  # type: ignore[index]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_link_of_a_lesson_leads_to_a_file_of_the_repository_also_from_the_readers_folder(path: Path) -> None:
    prose = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((?!https?://|#|mailto:|attachment:)([^)\s#]+)", prose)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    for link in links:
        target = os.path.relpath((path.parent / link).resolve(), ROOT)
        assert target in tracked or (ROOT / target).is_dir(), link
        is_lesson = Path(target).parent == Path("notebooks")  # which has a copy there
        assert is_lesson or (ROOT / workbook.FOLDER / link).resolve() == ROOT / target, link
        executed = Path("build/quick/notebooks")
        [there] = re.findall(r"\]\((.*)\)", runner.relinked(f"]({link})", executed))
        assert is_lesson or Path(os.path.normpath(ROOT / executed / there)) == ROOT / target, there


@pytest.mark.parametrize("name", ["07_physionet_latent_ode", "08_spiral_sde", "12_density_estimation"])
def test_where_each_seed_has_its_own_data_a_lesson_names_the_seed_whose_models_it_looks_into(name: str) -> None:
    """With the data of another seed, test examples would be those that the model was trained on."""
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    trees = [ast.parse(cell.source.replace("%", "#")) for cell in cells if cell.cell_type == "code"]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    asked = [call for call in calls if ast.unparse(call.func) in ("experiment.problem", "stays_of", "digits_of")]
    assert asked
    for call in asked:
        given = [ast.unparse(value) for value in [*call.args, *(keyword.value for keyword in call.keywords)]]
        assert {"seed", "budget.seeds[0]"} & set(given), ast.unparse(call)
