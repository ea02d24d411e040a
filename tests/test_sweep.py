"""Sweeps: nothing is made twice, nothing is lost, whatever dies in between."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from resuming import assert_resumes_bitwise, without_clock

from reproduce import checkout, experiments
from reproduce.experiments import Budget, Problem
from reproduce.report import tables
from reproduce.runs import checkpoint, estimate, protocol, source, store, sweep, train
from reproduce.runs import key as keys
from reproduce.runs.run import Run, find_run, keys_of, needed, slot_of, status, why
from reproduce.runs.store import Row

TINY = {"steps": 12, "history_every": 3, "checkpoint_every": 4}
SWEEP = """
import os
import sys
from reproduce.runs import sweep
from reproduce.runs.run import Run

tiny = {"steps": 12, "history_every": 3, "checkpoint_every": 4}
names = ["none", "local_biased", "local_unbiased", "no_dynamics"]

if __name__ == "__main__":
    sweep.SHORT = 0
    for _ in sys.stdin:  # a sweep for each line, in a process that has imported what takes seconds
        if (pid := os.fork()) == 0:
            os.dup2(2, 1)
            runs = [Run("spiral_ode", name, seed, "smoke", overrides=tiny) for name in names for seed in range(3)]
            sweep.sweep(runs, jobs=2)
            os._exit(0)
        print(pid, flush=True)
        os.waitpid(pid, 0)
"""


def furnish(folder: Path) -> None:
    """Give a folder of its own the project's lock, and the choices that this process has read already."""
    (folder / "data" / "reference").mkdir(parents=True)
    for name in ("requirements.lock", "data/reference/chosen.json"):
        (folder / name).symlink_to(checkout.ROOT / name)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for rows, in this process and in those that it starts."""
    furnish(tmp_path)
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    monkeypatch.setenv("REGNDE_HOME", str(tmp_path))
    return tmp_path


def tiny_runs() -> list[Run]:
    names = ["none", "local_biased", "local_unbiased", store.CONTROL]
    return [Run("spiral_ode", name, seed, "smoke", overrides=TINY) for name in names for seed in range(3)]


def count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by a name whenever this process trains."""
    trained: list[str] = []
    original = train.train

    def counting(experiment: object, regularizer: object, seed: int, *rest: object, **more: object) -> object:
        trained.append(f"{getattr(regularizer, 'name', store.CONTROL)}{seed}")
        return original(experiment, regularizer, seed, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "train", counting)
    return trained


@pytest.mark.slow
def test_a_sweep_trains_only_what_is_missing_once_and_keeps_the_order(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, tiny = count(monkeypatch), tiny_runs()
    first = sweep.sweep([tiny[0], tiny[3], tiny[0]], jobs=1)
    more = sweep.sweep([tiny[3], tiny[9], tiny[0]], jobs=1)
    assert trained == ["none0", "local_biased0", f"{store.CONTROL}0"]
    assert [row.regularizer for row in first] == ["none", "local_biased", "none"]
    assert [row.regularizer for row in more] == ["local_biased", store.CONTROL, "none"]
    assert more[2] == first[0]


@pytest.mark.slow
def test_worker_processes_make_the_same_rows_as_this_process(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "SHORT", 0)
    in_workers = sweep.sweep(tiny_runs()[:4], jobs=2)
    for path in store.results_folder("smoke").rglob("*.json"):
        path.unlink()
    here = [run.make() for run in tiny_runs()[:4]]
    assert [without_clock(row) for row in in_workers] == [without_clock(row) for row in here]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of the tiny sweep, made in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    furnish(folder)
    environment = os.environ | {"REGNDE_HOME": str(folder)}
    subprocess.run([sys.executable, "-c", SWEEP], env=environment, input="go\n", text=True, check=True)
    return folder


def rows_in(folder: Path) -> dict[str, dict[str, object]]:
    found = {}
    for path in sorted((folder / "data" / "results").rglob("*.json")):
        row = json.loads(path.read_text())
        row["ways"] = [{name: entry[name] for name in entry if name != "seconds"} for entry in row["ways"]]
        found[path.name] = {name: row[name] for name in row if name not in ("seconds", "provenance")}
    return found


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def next_sweep(process: subprocess.Popen[str], home: Path) -> int:
    """Have a process begin a sweep; return the pid once its workers have written something, or it has ended."""

    def written() -> dict[Path, int]:
        found = {}
        for path in (home / "data" / "results").rglob("*"):
            with suppress(FileNotFoundError):  # a checkpoint that is not needed any more
                found[path] = path.stat().st_mtime_ns
        return found

    before = written()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    pid = int(process.stdout.readline())
    while written() == before and not ended(pid):
        time.sleep(0.02)
    return pid


@pytest.mark.slow
def test_a_sweep_killed_at_twenty_random_moments_loses_and_repeats_nothing(undisturbed: Path, home: Path) -> None:
    """SIGKILL to the sweep's process alone, while its workers train; they must notice and end by themselves."""
    expected, chance, seen, killed = rows_in(undisturbed), random.Random(0), {}, 0
    assert len(expected) == 12
    stored = sorted(path.stat().st_mtime for path in undisturbed.rglob("*seed*.json"))
    between = (stored[-1] - stored[0]) / 11  # seconds from one row to the next
    script, said = home / "sweep_script.py", home / "said"  # spawned workers import the main module from its file
    script.write_text(SWEEP)
    with said.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    for _ in range(20):
        pid = next_sweep(process, home)
        time.sleep(chance.uniform(0.0, 2.0 * between))
        killed += not ended(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        rows = rows_in(home)
        assert {name: expected[name] for name in rows} == rows  # none wrong, none half-written
        times = {path.name: path.stat().st_mtime_ns for path in home.rglob("*seed*.json")}
        assert {name: times.get(name) for name in seen} == seen  # none lost, none made again
        seen = times
    assert killed >= 10  # while there was something to lose
    assert seen
    before = len(said.read_text())
    while not ended(next_sweep(process, home)):
        time.sleep(0.1)
    process.communicate()
    assert rows_in(home) == expected
    made = [line for line in said.read_text()[before:].splitlines() if "NFE" in line]
    assert len(made) <= 12 - len(seen)  # only missing ones; a worker may have finished its row after the last look
    assert {path.name: path.stat().st_mtime_ns for path in home.rglob("*seed*.json") if path.name in seen} == seen
    assert not list(home.rglob("*.checkpoint"))
    assert not [path for path in home.rglob("*.tmp") if path.suffix == ".json"]


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("experiment", experiments.names())
@pytest.mark.parametrize("name", ["local_unbiased", "global_error"])
def test_a_resumed_run_ends_in_exactly_the_numbers_of_an_uninterrupted_one(
    experiment: str, name: str, request: pytest.FixtureRequest
) -> None:
    """The weight's schedule, the cosine of the learning rate and every generator go on where they stopped."""
    if name != "local_unbiased":
        request.getfixturevalue("no_ways")
    growing = {"weight": 0.01, "weight_end": 0.5}
    tiny = {"steps": 10, "history_every": 2, "checkpoint_every": 3, "schedule": "cosine"}
    assert_resumes_bitwise(Run(experiment, name, 0, "smoke", settings=growing, overrides=tiny), at=[3, 6])


def test_a_checkpoint_of_another_run_is_not_used_and_a_damaged_one_is_named(home: Path) -> None:
    path = home / "run.checkpoint"
    checkpoint.save(path, "abc", {"step": 3})
    assert checkpoint.load(path, "abc") == {"step": 3}
    assert checkpoint.load(path, "other") is None
    assert checkpoint.load(home / "nothing", "abc") is None
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole[:200] + b"x" + whole[201:], b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run.checkpoint is a damaged checkpoint; delete it"):
            checkpoint.load(path, "abc")
        assert path.read_bytes() == damaged


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_its_run_made_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "SHORT", 0)
    monkeypatch.setattr(sweep, "_make_in_slot", _die_once)
    rows = sweep.sweep(tiny_runs()[:3], jobs=2)
    assert [row.seed for row in rows] == [0, 1, 2]
    assert "a worker process was lost" in capsys.readouterr().err


def _die_once(run: Run, jobs: int) -> Row:
    sign = checkout.ROOT / "died"
    if run.seed == 1 and not sign.exists():
        sign.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return run.make()


@pytest.mark.slow
def test_a_training_that_breaks_off_is_a_row_without_numbers_and_a_sweep_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    astray = Run("spiral_ode", "none", 0, "smoke", overrides={**TINY, "checkpoint_every": 1, "lr": 1e30})
    trained = count(monkeypatch)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # another test's import would have a bar shown
    row, other = sweep.sweep([astray, tiny_runs()[0]], jobs=1)
    assert ": broke off after step 1 of 12" in capsys.readouterr().out
    assert row.broke_off.startswith("after step 1 of 12, by its checkpoints: ")
    assert math.isnan(row.nfe)
    assert all(map(math.isnan, [*row.metrics.values(), *row.seconds.values()]))
    assert (other.broke_off, other.nfe > 0) == ("", True)
    assert slot_of(row) == astray.slot()
    assert not list(home.rglob("*.checkpoint"))
    assert (row.key, row.broke_off) == (astray.key(), sweep.sweep([astray], jobs=1)[0].broke_off)
    with pytest.raises(ValueError, match=r"spiral_ode/none/0@1e-06 has no model: its training broke off after step 1"):
        astray.trained()
    assert trained == ["none0", "none0"]  # each once: what broke off is not tried again
    assert estimate.seconds_each([astray])[0] == estimate.seconds_each([tiny_runs()[0]])[0]  # by the other row alone
    assert "broke off" in tables.readable(tables.compare([row]), metric="mse")["seeds"][0]


def test_an_error_that_is_none_of_a_training_is_no_result(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*given: object, **more: object) -> None:
        raise ValueError("rtol: expected a positive number")

    monkeypatch.setattr(train, "_fit", wrong)
    with pytest.raises(ValueError, match="rtol: expected"):
        tiny_runs()[0].make()
    assert not list(home.rglob("*seed*.json"))


def test_a_full_disk_is_told_with_file_and_advice_and_no_other_row_is_touched(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tiny_runs()[:2]
    row = first.make()
    before = store.path_of(row).read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not be written: No space left on device \(free some space"):
        second.make()
    assert store.path_of(row).read_bytes() == before
    assert not list(home.rglob("*.tmp"))


def test_a_results_folder_that_cannot_be_written_is_told_with_its_name(home: Path) -> None:
    store.results_folder("smoke").parent.mkdir(parents=True)
    store.results_folder("smoke").write_text("a file where a folder should be")
    with pytest.raises(OSError, match=r"results.smoke.*could not be written"):
        tiny_runs()[0].make()


@pytest.mark.slow
def test_one_damaged_row_is_named_and_the_others_stay(home: Path) -> None:
    rows = [run.make() for run in tiny_runs()[:2]]
    store.path_of(rows[0]).write_text("{")
    with pytest.raises(ValueError, match="delete it to have the run made again"):
        tiny_runs()[0].make()
    assert tiny_runs()[1].make() == rows[1]


def edited_copy(home: Path, module: str, old: str, new: str) -> None:
    """Edit one module in a copy of the code (see the fixture `copied_code`)."""
    path = home / "lib" / module
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def copied_code(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the keys look at a copy of the library's source, which a test may edit."""
    shutil.copytree(source.LIB, home / "lib")
    of_copy = partial(source.source_hashes, lib=home / "lib")
    monkeypatch.setattr(source, "source_hashes", of_copy)


def edit_comment(home: Path) -> None:
    edited_copy(home, "regnde/solvers/solve.py", "def _solve(", "# a remark\n\n\ndef _solve(")


def edit_docstring(home: Path) -> None:
    edited_copy(home, "regnde/solvers/solve.py", "The open box", "The box that is open")


def edit_notebook(home: Path) -> None:
    (home / "notebooks").mkdir()
    (home / "notebooks" / "05_spiral_ode.ipynb").write_text("{}")


def edit_solver(home: Path) -> None:
    edited_copy(home, "regnde/solvers/control.py", "safety: float = 0.9", "safety: float = 0.8")


def edit_one_data_module(home: Path) -> None:
    edited_copy(home, "reproduce/data/spiral.py", "TOLERANCE = 1e-12", "TOLERANCE = 1e-11")


def edit_lock(home: Path) -> None:
    lock = (home / "requirements.lock").read_text().replace("numpy==", "numpy==9")
    (home / "requirements.lock").unlink()
    (home / "requirements.lock").write_text(lock)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "stale", "reason"),
    [
        (edit_comment, set(), ""),
        (edit_docstring, set(), ""),
        (edit_notebook, set(), ""),
        (edit_solver, {"spiral_ode", "mnist_ode"}, "source.regnde.solvers.control"),
        (edit_one_data_module, {"spiral_ode"}, "source.reproduce.data.spiral"),
        (edit_lock, {"spiral_ode", "mnist_ode"}, "lock"),
    ],
)
def test_a_change_makes_exactly_the_rows_stale_that_depend_on_it(
    edit: object, stale: set[str], reason: str, home: Path, copied_code: None
) -> None:
    needs = [Run(name, "none", 0, "smoke") for name in ("spiral_ode", "mnist_ode")]
    rows = {run.experiment: run.make() for run in needs}
    assert status(needs).missing == []
    edit(home)  # type: ignore[operator]
    found = status(needs)
    assert {run.experiment for run in found.missing} == stale
    assert {run.experiment for run, _ in found.stale} == stale
    for run in needs:
        lines = why(run, rows[run.experiment])
        assert bool(lines) == (run.experiment in stale)
        assert all(line.startswith(reason) for line in lines)


@pytest.mark.parametrize("experiment", experiments.names())
def test_keys_of_many_runs_are_those_of_each_and_its_data_are_made_once(
    experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [replace(run, seed=seed) for run in needed("smoke", experiment)[:3] for seed in (0, 1)]
    runs.append(replace(runs[0], part="validation"))
    expected = [run.key() for run in runs]
    one, asked = experiments.get(experiment), list[tuple[str, int]]()

    def problem(budget: Budget, part: str, seed: int) -> Problem:
        asked.append((part, seed))
        return one.problem(budget, part, seed=seed)

    monkeypatch.setattr(experiments, "get", lambda name: replace(one, problem=problem))
    monkeypatch.setattr(protocol, "_files", {})
    protocol._key.cache_clear()
    assert keys_of(runs) == expected
    assert asked == [("test", 0), ("test", 1), ("validation", 0)]
    monkeypatch.setattr(store, "find", lambda profile, experiment, key: key)
    assert [protocol.stored(run) for run in runs] == expected
    assert asked[3:] == [("test", 0), ("test", 1), ("validation", 0)], "one by one, as the study asks: once, too"


def test_a_changed_setting_or_data_file_is_named_as_the_reason(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("spiral_ode", "local_biased", 0, "smoke")
    row = run.make()
    heavier = replace(run, settings={"weight": 0.5})
    assert why(heavier, row) == [f"settings.weight: {row.settings['weight']} -> 0.5"]
    longer = replace(run, overrides={"steps": 7})
    assert why(longer, row) == ["budget.steps: 6 -> 7"]
    assert status([longer, heavier]).stale == [], "studies of their own, not newer versions of the main run"
    assert status([longer]).missing == [longer]
    assert status([longer, run]).missing == status([run, longer]).missing == [longer], "of one name, not the same run"
    said = sweep.plan([run, longer, heavier, heavier], 1)
    assert said[-1].startswith("1 of 3 runs are stored, 2 to train"), "and equal runs are made once"
    ingredients = keys.ingredients
    monkeypatch.setattr(keys, "ingredients", lambda *a: {**ingredients(*a), "files": [["train-images", "0123"]]})
    assert any(line.startswith("files.") for line in why(run, row))
    assert status([run]).missing == [run]
    [(stale, old)] = status([run]).stale
    assert (stale, old) == (run, row)


def test_a_process_that_imported_older_source_refuses_to_train(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "IMPORTED", (source.LIB / "regnde/solvers/solve.py").stat().st_mtime - 1)
    with pytest.raises(RuntimeError, match=r"solve.py.*changed on disk after this process started: restart it"):
        tiny_runs()[0].make()


def test_a_run_is_found_by_name_and_an_ambiguous_name_lists_the_choices() -> None:
    assert find_run("spiral_ode/none/10", "quick") == Run("spiral_ode", "none", 10, "quick")
    assert find_run("mnist_ode/none/10@1e-07", "quick").overrides == {"rtol": 1e-7, "atol": 1e-7}
    with pytest.raises(ValueError, match=r"several runs.*mnist_ode/none/10@1e-05.*mnist_ode/none/10@1e-07"):
        find_run("mnist_ode/none/10", "quick")
    with pytest.raises(ValueError, match="names no run of profile quick"):
        find_run("mnist_ode/none/77", "quick")


def test_the_needed_runs_of_a_profile_are_its_entries_times_their_seeds() -> None:
    quick = needed("quick")
    assert len({run.name for run in quick}) == len(quick)
    assert {run.seed for run in quick if run.slot()[:2] == ("mnist_ode", "local_biased")} == {10, 11, 12}
    assert {run.budget().rtol for run in quick if run.experiment == "mnist_ode"} == {1e-5, 1e-7}
    assert {run.experiment for run in quick} == set(experiments.names())


@pytest.mark.slow
def test_the_plan_says_what_would_run_and_learns_how_long_from_stored_rows(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/liballocator.so.4:other.so")
    tiny = tiny_runs()
    assert sweep.plan(tiny, 2)[-1] == "0 of 12 runs are stored, 12 to train: no idea how long yet"
    tiny[0].make()
    lines = sweep.plan(tiny, 2)
    assert lines[-1].startswith("1 of 12 runs are stored, 11 to train: about ")
    assert lines[0] == "  train  spiral_ode/none/1@1e-06"
    [row] = store.rows("smoke")
    seconds = row.provenance["more"]["seconds_in_all"]
    assert seconds > row.seconds["train"] > 0, "it is solved in every way besides"
    assert row.provenance["more"]["preloaded"] == "liballocator.so.4 other.so"
    assert estimate.total(tiny[1:3], 2) == pytest.approx(seconds)
    doubled = replace(tiny[1], overrides={**TINY, "steps": 24})
    assert estimate.total([doubled], 1) == pytest.approx(2 * seconds)
    committed = store.committed_path("ladders", "mnist_ode")
    committed.parent.mkdir(parents=True)
    before = {"more": {"instead": row.provenance["more"]["instead"]}}  # rows of before this was noted
    other = replace(row, experiment="mnist_ode", seconds={"train": 6.0, "predict": 1.0}, provenance=before)
    committed.write_text(json.dumps(asdict(other)) + "\n")
    size = row.budget["steps"] * row.budget["batch"]
    run = Run("mnist_ode", "none", 0, "smoke", overrides={"steps": size, "batch": 1})
    assert estimate.seconds_each([run]) == [pytest.approx(6.0)], "before anything is stored here: the committed rows"
    assert [estimate.in_words(s) for s in (5, 600, 7200)] == ["5 s", "10 min", "2.0 h"]


def test_a_run_is_taken_to_last_as_long_as_those_with_its_host_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    through = {"host": "torchdiffeq", "gradient": "adjoint"}
    runs = [Run("mnist_ode", "none", 0, "smoke", overrides={"steps": 10, "batch": 1} | how) for how in ({}, through)]
    rows = [
        SimpleNamespace(regularizer="none", tolerance=run.budget().rtol, budget=run.budget().of_one_run(), made_of={},
                        seconds={"train": seconds}, provenance={}, broke_off="")
        for run, seconds in zip(runs, (1.0, 9.0), strict=True)
    ]  # fmt: skip
    monkeypatch.setattr(estimate, "_rows", lambda experiment: iter(rows))
    assert estimate.seconds_each(runs) == [pytest.approx(1.0), pytest.approx(9.0)]


@pytest.fixture
def cluster(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A Dask scheduler and two workers in processes of their own on loopback; yields scheduler and workers."""
    pytest.importorskip("distributed")
    address_file = home / "scheduler.json"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    processes = [subprocess.Popen([*dask, "--no-dashboard", "--scheduler-file", str(address_file)])]
    while not address_file.exists() or not address_file.read_text().strip():
        time.sleep(0.1)
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(address_file)]
    quiet = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(home / "dask")]
    processes += [subprocess.Popen([*worker, *quiet, "--no-nanny"]) for _ in range(2)]
    monkeypatch.setenv("DASK_SCHEDULER", json.loads(address_file.read_text())["address"])
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_dask_cluster_makes_the_same_rows_and_survives_the_loss_of_a_worker(
    cluster: list[subprocess.Popen[bytes]], undisturbed: Path, home: Path
) -> None:
    expected, progress = rows_in(undisturbed), []
    for key, row in sweep._make({run.key(): run for run in tiny_runs()}, jobs=2):
        progress.append(key)
        if len(progress) == 3:
            cluster[1].send_signal(signal.SIGKILL)
        assert row.key == key
    assert len(progress) == len(set(progress)) == 12
    assert rows_in(home) == expected


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_refused_by_one_sentence(home: Path) -> None:
    script = home / "script.py"
    runs = '[Run("spiral_ode", "none", seed, "smoke", overrides={"steps": 500}) for seed in range(3)]'
    imports = "from reproduce.runs.run import Run\nfrom reproduce.runs.sweep import sweep\n"
    script.write_text(f"{imports}sweep({runs}, jobs=2)\n")
    refused = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert refused.returncode == 1
    assert refused.stderr.count("script.py has no main guard") == 1
    assert "below `if __name__ == '__main__':`" in refused.stderr
    assert len(refused.stderr.splitlines()) < 20


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ('if __name__ == "__main__":\n    main()', ""),
        ('"__main__" == __name__ and main()', ""),
        ("# -*- coding: latin-1 -*-\n# caf\xe9\nif __name__ == '__main__':\n    main()", ""),
        ("if logging.getLogger(__name__).handlers:\n    main()", "script.py has no main guard"),
        ('if __name__ != "__main__":\n    raise SystemExit\nmain()', "script.py has no main guard"),
        (None, "script.py is no file: write it to one"),  # as <stdin> is none
    ],
)
def test_every_way_to_write_a_main_guard_is_known(
    ends: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    if ends is not None:
        script.write_text(ends, encoding="latin-1")
    with pytest.raises(ValueError, match=said) if said else nullcontext():
        sweep._check_guard()


@pytest.mark.parametrize("value", ["no", "0", "-1", "2.5"])
def test_a_number_of_jobs_that_cannot_be_is_named_and_an_empty_one_is_not_set(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGNDE_JOBS", value)
    with pytest.raises(ValueError, match=f"REGNDE_JOBS.*found '{value}'"):
        sweep.jobs_here()
    monkeypatch.setenv("REGNDE_JOBS", "")
    assert sweep.jobs_here() == os.cpu_count()


@pytest.mark.slow
def test_a_run_that_fails_on_a_cluster_is_named_and_the_others_are_made(
    cluster: list[subprocess.Popen[bytes]], home: Path
) -> None:
    good, bad = tiny_runs()[:2]
    with pytest.raises(RuntimeError, match=r"1 of 2 runs failed on the cluster, the others are stored:\n.*@1e-06: "):
        list(sweep._on_dask({good.key(): good, "another key": bad}, os.environ["DASK_SCHEDULER"]))
    assert good.stored() is not None
    assert bad.stored() is None
