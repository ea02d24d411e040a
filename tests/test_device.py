"""Devices: what is asked for, what is refused, keys and rows of each; and the whole library on a GPU that is not there.

The last of these are in on_fake_gpu.py and run in a process of their own, which they leave no use for anything else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from regnde import make_regularizer
from reproduce import checkout, cli, experiments
from reproduce.notebooks import runner, stamps
from reproduce.report import publish, tables
from reproduce.runs import checkpoint, device, estimate, run, store, train
from reproduce.runs import key as keys
from reproduce.runs.run import Run, needed, slot_of


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(device.PLACE, raising=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """PyTorch says that there is a GPU; nothing computes on it."""
    waits: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Wonder 9000")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append("waited"))
    return waits


def tiny(**more: Any) -> Run:
    return Run("spiral_ode", "none", 0, "smoke", overrides={"steps": 2}, **more)


@pytest.mark.slow
def test_the_library_the_models_and_the_training_run_on_a_gpu_that_is_not_there() -> None:
    """What they make meets the device of the state, an attempted step is one copy there and one reading back."""
    here = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"]
    command += ["-o", "addopts=", "tests/on_fake_gpu.py"]
    told = subprocess.run(command, cwd=here.parent, capture_output=True, text=True, timeout=1200, check=False)
    assert told.returncode == 0, told.stdout[-4000:]
    assert re.search(r"\d{2,} passed", told.stdout)


# What is asked for


def test_auto_takes_the_best_that_there_is(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.class_of("auto") == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device.class_of("auto") == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.class_of("auto") == "cuda"


def test_the_environment_asks_for_notebooks_and_processes_and_without_it_it_is_the_cpu(
    a_gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert device.asked() == tiny().device == "cpu"
    monkeypatch.setenv(device.PLACE, "auto")
    assert device.asked() == tiny().device == "cuda"
    assert {one.device for one in needed("smoke")} == {"cuda"}
    with device.asking("cpu"):
        assert os.environ[device.PLACE] == device.asked() == "cpu"
    assert os.environ[device.PLACE] == "auto"


@pytest.mark.parametrize("command", ["reproduce", "report", "plan"])
def test_an_unknown_device_is_named_with_the_choices(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--device", "gpu"]) == cli.BAD_USAGE
    assert "unknown device 'gpu'; choose one of: auto, cpu, cuda, mps" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        tiny(device="gpu")
    assert device.PLACE not in os.environ


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_before_any_work(
    kind: str, no_gpu: None, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "source_notebooks", lambda *a: pytest.fail("work has begun"))
    assert cli.main(["reproduce", "--profile", "smoke", "--device", kind]) == cli.BAD_USAGE
    assert re.search(rf"regnde: DEVICE={kind}: .*; choose DEVICE=cpu, or DEVICE=auto", capsys.readouterr().err)
    monkeypatch.setattr(train, "_fit", lambda *a, **k: pytest.fail("the training has begun"))
    with pytest.raises(ValueError, match=f"DEVICE={kind}: "):
        tiny(device=kind).make()
    assert not list(home.rglob("*.json"))


def test_metal_is_refused_for_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ValueError, match="DEVICE=mps: Metal has no float64"):
            device.ready("mps")
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_command_hands_the_device_on(a_gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(cli, "COMMANDS", {"plan": lambda options: seen.append(device.asked()) or 0})
    assert cli.main(["plan", "--device", "auto"]) == 0
    assert cli.main(["plan"]) == 0
    assert seen == ["cuda", "cpu"]


def test_a_notebook_that_another_device_ran_is_not_kept(tmp_path: Path) -> None:
    source = tmp_path / "05_x.ipynb"
    source.write_text("{}")
    on_cpu = stamps.inputs(source, {}, tmp_path)
    with device.asking("cuda"):
        assert stamps.inputs(source, {}, tmp_path) == on_cpu | {"device": "cuda"}


# Keys and rows


def test_keys_differ_by_the_class_of_device_alone(a_gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    on = {kind: tiny(device=kind) for kind in ("cpu", "cuda", "mps")}
    key = {kind: one.key() for kind, one in on.items()}
    assert len(set(key.values())) == 3
    assert on["cpu"].ingredients() == on["cuda"].ingredients() | {"device": "cpu"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Other 1")
    assert {kind: one.key() for kind, one in on.items()} == key
    assert len({one.slot() for one in on.values()}) == len({one.name for one in on.values()}) == 3
    assert on["cpu"].name == "spiral_ode/none/0@1e-06"
    assert on["cuda"].name == "spiral_ode/none/0@1e-06/cuda"


def test_the_key_of_a_cpu_row_is_what_it_was_before_there_were_devices() -> None:
    assert "device" not in tiny().budget().of_one_run()
    problem = experiments.get("spiral_ode").problem(tiny().budget(), "test")
    assert keys.ingredients("spiral_ode", problem)["device"] == "cpu"
    assert set(tiny().ingredients()) == {"files", "source", "lock", "device", "dtype"}


def test_a_row_names_its_device_and_its_timer(home: Path) -> None:
    row = tiny().make()
    assert row.made_of["device"] == row.provenance["device"] == "cpu"
    assert row.provenance["more"]["timer"] == "processor time of one thread"
    assert slot_of(row) == tiny().slot()
    assert run.status([tiny(device="cuda")]).stale == [], "a row of the CPU is no older version of one of a GPU"
    assert run.status([tiny(device="cuda")]).missing


def test_the_clock_of_an_accelerator_is_the_wall_when_its_work_is_done(a_gpu: list[str]) -> None:
    gpu = torch.device("cuda")
    clock = device.clock(gpu)
    assert abs(clock() - time.perf_counter()) < 1
    assert a_gpu == ["waited"]
    assert device.clock(torch.device("cpu")) is time.thread_time
    assert (device.title(gpu), device.title(torch.device("mps"))) == ("Wonder 9000", "mps")
    assert "wall" in device.timer(gpu)


def test_peak_memory_is_told_of_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    assert device.peak(torch.device("cuda")) == {"peak_bytes": 7}
    assert device.peak(torch.device("cpu")) == {}


def test_times_of_one_device_say_nothing_of_another(home: Path) -> None:
    tiny().make()
    assert estimate.seconds_each([tiny()])[0] is not None
    assert estimate.seconds_each([tiny(device="cuda")]) == [None]


def test_committed_rows_stay_those_of_the_cpu(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with device.asking("cuda"), pytest.raises(ValueError, match="KEEP=1 goes with DEVICE=cpu"):
        publish.pictures("quick")
    assert cli.main(["reproduce", "--device", "cuda", "--keep"]) == cli.BAD_USAGE
    assert "KEEP=1 goes with DEVICE=cpu" in capsys.readouterr().err


def test_a_report_shows_the_rows_of_the_device_that_was_asked_for(home: Path) -> None:
    row = tiny().make()
    other = tiny(device="cuda")
    made_of, provenance = row.made_of | {"device": "cuda"}, row.provenance | {"device": "Wonder 9000"}
    store.write(replace(row, key=other.key(), made_of=made_of, provenance=provenance))
    for one, name in ((tiny(), None), (other, "Wonder 9000")):
        found = one.stored()
        assert found is not None
        assert found.made_of["device"] == one.device
        assert ("computed on Wonder 9000" in tables.caption([found])) == (name is not None)


# A model trained on one device is measured on another


@pytest.mark.filterwarnings("ignore:for dynamics")
def test_what_a_run_stored_is_read_to_the_cpu_and_goes_to_any_device(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = tiny().make()
    places: list[Any] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: places.append(k["map_location"]) or load(*a, **k))
    trained = tiny().trained(on="cpu")
    assert places == ["cpu"]
    assert trained.problem.device == torch.device("cpu")
    path = home / "x.checkpoint"
    checkpoint.save(path, "k", {"model": trained.model.state_dict()})
    assert checkpoint.load(path, "k") is not None
    assert places == ["cpu", "cpu"]
    monkeypatch.setattr(train.devices, "ready", lambda name: torch.device("meta"))
    weights = trained.model.state_dict()
    elsewhere = train.restore(experiments.get("spiral_ode"), row, weights, "cuda")
    assert {p.device.type for p in elsewhere.model.parameters()} == {"meta"}
    y0, t, target = elsewhere.problem.train_batch(torch.arange(1))
    assert (y0.device.type, t.device.type, target.device.type) == ("meta", "cpu", "meta")


def test_training_somewhere_else_draws_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Initial parameters, batches and the draws of regularizer and model are those of the CPU's generators."""
    asked: list[Any] = []
    for name in ("rand", "randn", "randperm", "randint"):
        draw = getattr(torch, name)

        def spy(*a: Any, draw: Callable[..., Any] = draw, **k: Any) -> Any:
            asked.append(torch.device(k.get("device") or "cpu").type)
            return draw(*a, **k)

        monkeypatch.setattr(torch, name, spy)
    for name, penalty in (("physionet", "local_unbiased"), ("mnist_ode", "kinetic_jacobian"), ("spiral_ode", "steer")):
        train.train(experiments.get(name), make_regularizer(penalty), 0, "smoke", steps=2)
    assert set(asked) == {"cpu"}
    assert len(asked) > 6
