"""The doctor: one line for each question, every FAIL and NOTE provoked, and what to do said."""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reproduce import checkout, cli, doctor
from reproduce.data import registry
from reproduce.doctor import FAIL, NOTE, OK, Finding
from reproduce.runs import provenance

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty bundle without data, and one registered data set of one small file."""
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    for name in ("REGNDE_DATA", "REGNDE_OFFLINE", "REGNDE_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REGNDE_HOME", str(tmp_path))
    file = registry.DataFile("one.gz", 3, hashlib.sha256(b"abc").hexdigest(), ("https://nowhere.invalid/one.gz",))
    more = dataclasses.replace(file, name="two.gz")
    monkeypatch.setattr(registry, "DATASETS", {"digits": (file, more)})
    return tmp_path


def only(question: Callable[[], Iterator[Finding]], level: str, *words: str) -> None:
    """The question has one answer, of this level, with these words, and says what to do unless it is OK."""
    [finding] = question()
    assert finding.level == level, finding
    assert all(word in str(finding) for word in words), finding
    assert bool(finding.advice or "put the official file" in finding.found) == (level != OK)
    assert "\n" not in str(finding)


@pytest.mark.parametrize(
    ("version", "level", "words"),
    [
        ((3, 10, 2), FAIL, "3.10.2; the lock is for 3.11 to 3.14"),
        ((3, 12, 1), OK, "3.12.1"),
        ((3, 99, 0), NOTE, "3.99"),
    ],
)
def test_python_too_old_fails_and_too_new_is_noted(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], level: str, words: str
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    only(doctor.python, level, words)


def test_packages_that_are_missing_or_differ_from_the_lock_fail_by_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(doctor.packages, FAIL, "requirements.lock is missing", "git checkout")
    installed = {"a": "1.0+cpu", "b": "2.0"}

    def version(name: str) -> str:
        if name not in installed:
            raise doctor.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(doctor, "version", version)
    lock = home / "requirements.lock"
    lock.write_text("# comment\na==1.0\nb==2.0\n")
    only(doctor.packages, OK, "2 as in requirements.lock", provenance.lock_hash(home))
    lock.write_text("a==1.0\nb==2.1\n" + "".join(f"c{i}==1\n" for i in range(7)))
    only(
        doctor.packages, FAIL, "7 missing: c0, c1, c2, c3, c4, ...; 1 other: b 2.0 instead of 2.1", "make distclean env"
    )


def test_a_torch_that_cannot_be_imported_fails_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    only(doctor.torch, OK, "device cpu, ")
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "torch":
            raise OSError("libtorch.so: cannot open shared object file")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    only(doctor.torch, FAIL, "OSError: libtorch.so", "install it again")


def test_an_accelerator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Wonder 9000")
    only(doctor.torch, OK, "device cuda, Wonder 9000 (what DEVICE=auto takes)")


def test_a_full_disk_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free=1.9e9))
    only(doctor.disk, FAIL, "1.9 GB free", "2 GB are needed")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free=2e9))
    only(doctor.disk, OK, "2.0 GB free")


def test_folders_that_cannot_be_written_fail_one_by_one_and_missing_ones_do_not(home: Path) -> None:
    (home / "figures").write_text("a file in the place of the folder")
    data, build, figures = doctor.write_access()
    assert [finding.level for finding in (data, build, figures)] == [OK, OK, FAIL]
    assert "write access: figures/" in str(figures)
    assert f"make {home / 'figures'} a folder that you may write" in str(figures)
    assert [path.name for path in home.iterdir()] == ["figures"], "looking leaves nothing behind"


def test_a_read_only_folder_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> Any:  # the user of the tests may be root, who may write anywhere
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    assert [str(finding).split(";")[0] for finding in doctor.write_access()] == [
        f"FAIL  write access: {name}/: Permission denied" for name in ("data", "build", "figures")
    ]


def test_data_are_found_noted_or_refused_without_any_download(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("the doctor must not use the network")

    monkeypatch.setattr(registry, "_download", refuse)
    monkeypatch.setattr(registry, "_silence", refuse)
    only(doctor.data, NOTE, "data digits: not on this machine", "the first use downloads it")
    monkeypatch.setenv("REGNDE_OFFLINE", "1")
    only(doctor.data, NOTE, "REGNDE_OFFLINE=1 forbids the download")

    folder = home / "data" / "raw" / "digits"
    folder.mkdir(parents=True)
    (folder / "one.gz").write_bytes(b"abc")
    only(doctor.data, NOTE, "incomplete in data/raw/digits, without two.gz")
    (folder / "two.gz").write_bytes(b"abc")
    only(doctor.data, OK, "2 files, checked, in data/raw/digits")
    (folder / "two.gz").write_bytes(b"abd")
    only(doctor.data, FAIL, str(folder / "two.gz"), "wrong checksum")

    elsewhere = home / "elsewhere"
    shutil.copytree(folder, elsewhere / "digits")
    (elsewhere / "digits" / "two.gz").write_bytes(b"abc")
    monkeypatch.setenv("REGNDE_DATA", str(elsewhere))
    only(doctor.data, OK, "in elsewhere/digits")


def test_settings_that_cannot_be_meant_fail(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGNDE_OFFLINE", "yes")
    assert "REGNDE_OFFLINE" in str(next(doctor.data()))
    monkeypatch.setenv("REGNDE_DATA", "no/such/folder")
    [finding] = doctor.data()
    assert finding.level == FAIL
    assert "no/such/folder" in str(finding)


def test_data_without_the_package_that_fetches_them_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    only(doctor.data, FAIL, "pooch is missing", "make distclean env")


def test_ports_that_are_all_taken_fail_and_the_first_free_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [taken.getsockname()[1], other.getsockname()[1]]
        monkeypatch.setattr(doctor, "PORTS", ports)
        loopback, port = doctor.ports()
        assert loopback.level == OK
        assert (port.level, port.found) == (FAIL, f"{ports[0]} to {ports[1]} are taken")
        assert f"--port {ports[1] + 1}" in port.advice
        other.close()
        assert [finding.level for finding in doctor.ports()] == [OK, OK]
        assert [*doctor.ports()][1].found == str(ports[1])


def test_a_machine_without_loopback_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "create_server", refuse)
    only(doctor.ports, FAIL, "loopback", "Cannot assign", "127.0.0.1")


def test_missing_git_and_a_folder_without_repository_are_noted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(doctor.git, NOTE, "no repository of its own", "'unknown' instead of their commit")
    monkeypatch.setenv("PATH", str(home))
    only(doctor.git, NOTE, "git: missing", "install it")


def test_a_question_that_breaks_is_a_fail_and_the_others_are_still_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Finding]:
        raise RuntimeError("bad")
        yield

    monkeypatch.setattr(doctor, "QUESTIONS", (broken, doctor.disk))
    said: list[str] = []
    assert doctor.main(said.append) == 1
    assert said[0] == "FAIL  broken: RuntimeError: bad; please report this"
    assert len(said) == 2


@pytest.mark.parametrize(("level", "code"), [(OK, 0), (NOTE, 0), (FAIL, 1)])
def test_the_command_exits_1_for_a_fail_only(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], level: str, code: int
) -> None:
    monkeypatch.setattr(doctor, "QUESTIONS", (lambda: iter([Finding(level, "x", "y")]),))
    assert cli.main(["doctor"]) == code
    assert capfd.readouterr().out == f"{level:<4}  x: y\n"


def test_the_doctor_answers_where_nothing_is_installed(tmp_path: Path) -> None:
    """As `make doctor` does without an environment: a bare Python, and the library's folder."""
    command = [sys.executable, "-S", "-E", "-c", "import sys; sys.path.insert(0, sys.argv[1]);"]
    command[-1] += "from reproduce import doctor; sys.exit(doctor.main())"
    ended = subprocess.run([*command, str(ROOT / "lib")], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr == ""
    levels = {line[6:].partition(":")[0]: line[:4].strip() for line in ended.stdout.splitlines()}
    assert {levels["packages"], levels["torch"], levels["data"]} == {FAIL}
    assert levels["Python"] == OK


def test_git_s_own_words_are_told_where_it_refuses_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "fatal: detected dubious ownership in repository at '/x'\nTo add an exception ..."

    def refuses(root: Path, *arguments: str) -> str:
        raise subprocess.CalledProcessError(128, ["git"], stderr=said)

    monkeypatch.setattr(provenance, "_git", refuses)
    assert provenance.commit(tmp_path) == ("unknown", True)
    assert provenance.why_no_commit(tmp_path) == said.splitlines()[0]
    [finding] = doctor.git()
    assert "dubious ownership" in finding.found
