"""CIFAR-10: archives and their traps, what the official subset holds, the stand-in."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from reproduce import doctor
from reproduce.data import registry
from reproduce.data.cifar10 import CLASSES, TEST, TRAIN, coloured, load_cifar10, read_records
from reproduce.data.images import validation_split
from reproduce.data.registry import DataFile

OFFICIAL = registry.search_folders("cifar10")[0] if os.environ.get("REGNDE_DATA") else None
FULL, SUBSET = (registry.DATASETS[name][0].name for name in ("cifar10", "cifar10:subset"))


def batch(labels: list[int], *, first: int = 0) -> bytes:
    """Records written by hand: each label, then pixels that count up from a number of the record's own."""
    images = [((first + i + np.arange(3072)) % 251).astype(np.uint8).tobytes() for i in range(len(labels))]
    return b"".join(bytes([label]) + image for label, image in zip(labels, images, strict=True))


MEMBERS = {name: batch([i, 9 - i], first=10 * i) for i, name in enumerate(TRAIN)} | {TEST[0]: batch([3, 0, 9], first=7)}


def packed(members: dict[str, bytes]) -> bytes:
    """A gzipped tar archive in the official layout, with the text file that lies beside the batches there."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in {"batches.meta.txt": b"airplane\n", **members}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


GOOD = packed(MEMBERS)


def register(monkeypatch: pytest.MonkeyPatch, dataset: str, name: str, content: bytes) -> None:
    urls = () if "subset" in dataset else (f"https://nowhere.invalid/{name}",)
    file = DataFile(name, len(content), hashlib.sha256(content).hexdigest(), urls)
    monkeypatch.setitem(registry.DATASETS, dataset, (file,))


@pytest.fixture(autouse=True)
def home(empty_repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, no network, and a registry in which CIFAR-10 and its subset have thirteen images."""
    register(monkeypatch, "cifar10", FULL, GOOD)
    register(monkeypatch, "cifar10:subset", SUBSET, GOOD)
    return empty_repository


def lay(home: Path, name: str, content: bytes) -> Path:
    path = home / "data" / "raw" / "cifar10" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- where it is taken from


def test_the_official_set_comes_before_the_subset_and_that_before_the_stand_in(home: Path) -> None:
    assert load_cifar10().key == "cifar10-standin"
    lay(home, SUBSET, GOOD)
    subset = load_cifar10()
    assert (subset.name, subset.is_full) == ("CIFAR-10 subset (10 + 3 images)", False)
    lay(home, FULL, GOOD)
    full = load_cifar10()
    assert (full.name, full.is_full) == ("CIFAR-10 (10 + 3 images)", True)
    assert full.files == ((FULL, hashlib.sha256(GOOD).hexdigest()),)


@pytest.mark.parametrize(("source", "name"), [("full", FULL), ("subset", SUBSET)])
def test_a_set_that_is_asked_for_and_absent_is_an_error_that_says_where_it_was_sought(
    home: Path, source: str, name: str
) -> None:
    with pytest.raises(FileNotFoundError, match=name) as caught:
        load_cifar10(source=source)
    assert str(home / "data" / "raw" / "cifar10") in str(caught.value)
    assert "into a folder cifar10/" in str(caught.value)


def test_a_subset_that_nobody_publishes_is_not_sought_on_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGNDE_OFFLINE", "0")
    with pytest.raises(FileNotFoundError, match="nobody publishes it"):
        load_cifar10(source="subset")


def test_nothing_is_unpacked_to_disk(home: Path) -> None:
    lay(home, FULL, GOOD)
    load_cifar10()
    assert [path.name for path in home.rglob("*") if path.is_file()] == [FULL]


def test_the_doctor_names_the_subset_where_it_stands_in_and_is_silent_where_it_is_not(home: Path) -> None:
    def told() -> list[str]:
        return [str(finding) for finding in doctor.data() if finding.what.startswith("data cifar10")]

    [line] = told()
    assert line.startswith("NOTE  data cifar10: not on this machine")
    lay(home, SUBSET, GOOD)
    full, subset = told()
    assert "cifar10:subset takes its place" in full
    assert subset.startswith("OK    data cifar10:subset: 1 files, checked")


# --- the format


def test_records_written_by_hand_are_read_back_exactly(home: Path) -> None:
    lay(home, FULL, GOOD)
    images = load_cifar10(source="full")
    assert images.y_train.tolist() == [label for i in range(5) for label in (i, 9 - i)]
    assert images.y_test.tolist() == [3, 0, 9]
    assert (images.x_train.shape, images.x_train.dtype) == ((10, 3, 32, 32), torch.uint8)
    assert images.x_test[1, 2, 5, 4] == (7 + 1 + 2 * 1024 + 5 * 32 + 4) % 251  # blue, row 5, column 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD[: len(GOOD) // 2], "cannot be read as a gzipped tar archive"),
        (b"not gzip", "cannot be read as a gzipped tar archive"),
        (packed({name: MEMBERS[name] for name in TRAIN}), "found no test_batch.bin"),
        (packed({**MEMBERS, TRAIN[2]: MEMBERS[TRAIN[2]][:-1]}), "data_batch_3.bin: expected records of 3,073 bytes"),
        (packed({**MEMBERS, TRAIN[0]: b""}), "data_batch_1.bin: expected records of 3,073 bytes each, found 0"),
        (packed({**MEMBERS, TEST[0]: batch([3, 10])}), "test_batch.bin: expected labels from 0 to 9, found 10"),
        (packed({**MEMBERS, "../data_batch_1.bin": b""}), "leaves the folder of the archive"),
    ],
    ids=["cut short", "not gzip", "no test batch", "half a record", "no record", "label", "path"],
)
def test_a_malformed_archive_is_named_refused_and_left_untouched(
    home: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    register(monkeypatch, "cifar10", FULL, content)  # as it is, so that only its contents can give it away
    bad = lay(home, FULL, content)
    with pytest.raises(ValueError, match=message) as caught:
        load_cifar10()
    assert str(bad) in str(caught.value)
    assert bad.read_bytes() == content


@pytest.mark.parametrize("name", [FULL, SUBSET])
@pytest.mark.parametrize(
    ("content", "message"),
    [(GOOD[:-9], "wrong length"), (GOOD[:-1] + b"!", "wrong checksum")],
    ids=["truncated", "one byte changed"],
)
def test_a_file_that_is_not_the_registered_one_is_refused_and_never_passed_over_for_another_set(
    home: Path, name: str, content: bytes, message: str
) -> None:
    bad = lay(home, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        load_cifar10()
    assert str(bad) in str(caught.value)
    assert bad.read_bytes() == content


def test_an_unknown_source_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown source 'half': expected one of auto, full, subset, standin"):
        load_cifar10(source="half")


def test_the_number_of_records_follows_from_the_length() -> None:
    assert [len(read_records(batch([0] * n), "a batch")[0]) for n in (1, 7)] == [1, 7]


# --- the stand-in


def test_the_stand_in_is_called_one_and_is_the_same_everywhere() -> None:
    images = load_cifar10(source="standin")
    assert "stand-in" in images.name
    assert images.note.startswith("A stand-in")
    assert not images.is_full
    assert (images.x_train.shape, images.x_test.shape) == ((4_000, 3, 32, 32), (1_000, 3, 32, 32))
    assert images.y_test.bincount().tolist() == [100] * len(CLASSES)
    assert [sha256[:16] for _, sha256 in images.files] == [
        "d06a2ac7af12881f",
        "d0ff9a7f0016d0ce",
        "4c5a2f0466454db1",
        "abbc512c3acb0f8c",
    ]


def test_ink_and_paper_of_the_stand_in_are_drawn_alike_whatever_is_written() -> None:
    ink, paper = torch.full((2, 28, 28), 255, dtype=torch.uint8), torch.zeros(2, 28, 28, dtype=torch.uint8)
    written, empty = coloured(ink, seed=3), coloured(paper, seed=3)
    torch.testing.assert_close(written[..., :2, :], empty[..., :2, :])  # the margin shows the same paper
    flat = written[..., 2:-2, 2:-2].flatten(2).long()
    assert (flat == flat[..., :1]).all()  # one ink
    assert ((flat[..., 0] - empty.long().flatten(2).float().mean(2)).abs() > 48).all()


def test_the_mean_colour_of_the_stand_in_does_not_tell_the_class() -> None:
    images = load_cifar10(source="standin")
    means, tests = (x.float().mean((2, 3)) for x in (images.x_train, images.x_test))
    nearest = torch.cdist(tests, means).topk(15, largest=False).indices
    guess = images.y_train[nearest].mode(dim=1).values
    right = (guess == images.y_test).float().mean().item()
    assert abs(right - 0.1) < 3 * (0.1 * 0.9 / len(guess)) ** 0.5


def test_a_validation_part_of_the_stand_in_is_called_a_stand_in_too() -> None:
    split = validation_split(load_cifar10(source="standin"), 500, seed=0)
    assert "stand-in" in split.name
    assert len(split.x_test) == 500


# --- the real subset


@pytest.mark.skipif(
    OFFICIAL is None or not (OFFICIAL / SUBSET).is_file(), reason="needs the official subset in $REGNDE_DATA/cifar10"
)
def test_the_official_subset_holds_what_is_known_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    images = load_cifar10(source="subset")
    assert images.name == "CIFAR-10 subset (12,000 + 860 images)"
    assert images.y_train.bincount().tolist() == [1_200] * 10
    assert images.y_test.bincount().tolist() == [86] * 10
    assert images.y_train[:5].tolist() == [6, 9, 9, 4, 1]  # frog, truck, truck, deer, automobile
    records = torch.cat([images.y_test[:, None].byte(), images.x_test.flatten(1)], dim=1)
    known = "dcedfc264823017374772bb62d5cdde670f482a1e3e17dc992d7ff0c1bb7429c"  # of its test_batch.bin
    assert hashlib.sha256(records.numpy().tobytes()).hexdigest() == known
