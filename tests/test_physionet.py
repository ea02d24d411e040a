"""PhysioNet 2012: record files and their traps, archives, the hourly grid, splits and scales, the stand-in."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from reproduce import checkout
from reproduce.data import archives, icu_standin, physionet, records, registry
from reproduce.data.physionet import Stays, in_units, load_physionet, validation_split
from reproduce.data.records import VARIABLES, Records, parse_records
from reproduce.data.registry import DataFile

OFFICIAL = registry.search_folders("physionet2012")[0] if os.environ.get("REGNDE_DATA") else None
URL = "https://nowhere.invalid/"


def text(record_id: int, *lines: str, height: str = "-1", weight: str = "-1") -> bytes:
    """A record file written by hand; lines at 00:00 are put among the descriptors, as in the real files."""
    given = ("Age,54", "Gender,0", f"Height,{height}", "ICUType,4", f"Weight,{weight}")
    early = sorted([f"00:00,{line}" for line in given] + [line for line in lines if line.startswith("00:00")])
    late = [line for line in lines if not line.startswith("00:00")]
    return "\n".join(["Time,Parameter,Value", f"00:00,RecordID,{record_id}", *early, *late, ""]).encode()


def parsed(*lines: str, **descriptors: str) -> Records:
    return parse_records({"7.txt": text(7, *lines, **descriptors)})


def cells(found: Records) -> dict[tuple[int, str], float]:
    """(hour, variable) to hourly mean, of the only stay."""
    mean, observed = found.grid()
    return {(int(h), VARIABLES[v]): float(mean[0, h, v]) for _, h, v in np.argwhere(observed)}


def packed(members: dict[str, bytes], *, prefix: str = "set/", mtime: int = 0) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(prefix + name)
            info.size, info.mtime = len(content), mtime
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def entry(part: str, members: dict[str, bytes]) -> DataFile:
    content, name = packed(members), f"{part}.tar.gz"
    return DataFile(
        name,
        len(content),
        hashlib.sha256(content).hexdigest(),
        (URL + name,),
        contents=archives.content_hash(members),
        folder=part,
    )


def stay(i: int) -> bytes:
    """A stay that its heart rate names: 60 + i at 00:10, and one more at another hour."""
    return text(100 + i, f"00:10,HR,{60 + i}", f"{1 + i:02d}:00,HR,{60 + i}", f"05:00,Temp,{36 + i / 10}")


TINY = {"set-a": {f"{100 + i}.txt": stay(i) for i in range(6)}, "set-b": {f"{100 + i}.txt": stay(i) for i in (6, 7)}}
TINY["set-b"]["200.txt"] = text(200, weight="70")  # a record without observations
TAR = {f"{part}.tar.gz": packed(members) for part, members in TINY.items()}


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def home(empty_repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, no network, and a registry in which the sets have nine stays, one of them empty."""
    files = tuple(entry(part, members) for part, members in TINY.items())
    monkeypatch.setitem(registry.DATASETS, "physionet2012", files)
    return empty_repository


@pytest.fixture
def raw(home: Path) -> Path:
    return lay(home / "data/raw/physionet2012", TAR)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, bytes]], None]]:
    """serve(files) starts a mirror on loopback that hands them out."""
    running = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    def serve(files: dict[str, bytes]) -> None:
        lay(tmp_path / "served/physionet2012", files)
        handler = partial(Quiet, directory=str(tmp_path / "served"))
        running.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=running[-1].serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("REGNDE_MIRROR", f"http://127.0.0.1:{running[-1].server_port}")
        monkeypatch.setenv("REGNDE_OFFLINE", "0")

    yield serve
    for each in running:
        each.shutdown()
        each.server_close()


# --- the traps of the record files


def test_descriptors_are_found_by_name_among_readings_made_at_the_same_minute():
    found = parsed("00:00,DiasABP,83", "00:00,HR,81", "00:00,MAP,104", height="162.6", weight="87")
    assert found.descriptors.tolist() == [[54.0, 0.0, 162.6, 4.0]]
    assert cells(found) == {(0, "DiasABP"): 83.0, (0, "HR"): 81.0, (0, "MAP"): 104.0, (0, "Weight"): 87.0}


def test_minus_one_is_unknown_in_a_descriptor_and_a_value_anywhere_else():
    found = parsed("03:00,Temp,-1", "04:00,Weight,-1")
    assert np.isnan(found.descriptors[0, 2])
    assert cells(found) == {(3, "Temp"): -1.0, (4, "Weight"): -1.0}


def test_the_weight_at_admission_begins_the_series_of_weights_and_is_averaged_where_it_comes_twice():
    found = parsed("00:00,Weight,70.4", "02:00,Weight,71", weight="70.8")
    assert cells(found) == {(0, "Weight"): pytest.approx(70.6), (2, "Weight"): 71.0}
    assert (found.n_lines.item(), found.n_observations.item(), found.n_repeated.item()) == (8, 1, 0)


def test_a_record_without_observations_is_parsed_as_a_stay_with_empty_cells():
    found = parsed(weight="-1")
    assert found.ids.tolist() == [7]
    assert (found.n_lines.item(), found.n_observations.item()) == (6, 0)
    assert cells(found) == {}


def test_a_repeated_pair_is_averaged_and_counted():
    found = parsed("01:00,MAP,70", "01:00,MAP,80", "01:00,HR,90", "01:20,MAP,60")
    assert cells(found) == {(1, "MAP"): 70.0, (1, "HR"): 90.0}
    assert found.n_repeated.tolist() == [1]
    assert found.n_observations.tolist() == [4]


def test_exponents_zeros_and_outliers_are_read_as_recorded():
    found = parsed("01:00,ALT,1.422e+04", "01:00,SysABP,0", "01:00,Temp,-17.8", "01:00,pH,735")
    expected = {(1, "ALT"): 14220.0, (1, "SysABP"): 0.0, (1, "Temp"): -17.8, (1, "pH"): 735.0}
    assert cells(found) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("time", "hour"),
    [("00:00", 0), ("00:29", 0), ("00:30", 1), ("01:29", 1), ("01:30", 2), ("47:29", 47), ("47:30", 48), ("48:00", 48)],
)
def test_a_reading_belongs_to_the_nearest_hour_at_half_past_to_the_later_one(time, hour):
    assert cells(parsed(f"{time},HR,80")) == {(hour, "HR"): 80.0}


def test_line_ends_of_windows_change_nothing():
    content = text(7, "01:00,HR,80")
    assert cells(parse_records({"7.txt": content.replace(b"\n", b"\r\n")})) == {(1, "HR"): 80.0}


BAD = {
    "48:01,HR,80": r"7\.txt, line 9: expected a time HH:MM from 00:00 to 48:00, found '48:01'",
    "1:00,HR,80": r"7\.txt, line 9: expected a time HH:MM",
    "01:60,HR,80": r"7\.txt, line 9: expected a time HH:MM",
    "-1:00,HR,80": r"7\.txt, line 9: expected a time HH:MM",
    "01:00,HR": r"7\.txt, line 9: expected Time,Parameter,Value, found '01:00,HR'",
    "01:00,HR,80,": r"7\.txt, line 9: expected Time,Parameter,Value",
    "": r"7\.txt, line 9: expected Time,Parameter,Value, found ''",
    "01:00,HR,": r"7\.txt, line 9: expected a number, found ''",
    "01:00,HR,8O": r"7\.txt, line 9: expected a number, found '8O'",
    "01:00,HR,nan": r"7\.txt, line 9: expected a number, found 'nan'",
    "01:00,HR,1e999": r"7\.txt, line 9: expected a number, found '1e999'",
    "01:00,HR,8_0": r"7\.txt, line 9: expected a number, found '8_0'",
    "01:00,Hr,80": r"7\.txt, line 9: unknown parameter 'Hr'",
    "01:00,Age,54": r"7\.txt, line 9: expected Age at 00:00, found it at minute 60",
    "01:00,HR,8\u00df": r"7\.txt, line 9: expected ASCII text, found byte 0xc3",
}


@pytest.mark.parametrize(("line", "message"), BAD.items(), ids=ascii)
def test_a_malformed_line_is_refused_with_its_file_its_number_and_what_is_wrong(line, message):
    content = text(7, "00:30,HR,79").decode() + f"{line}\n02:00,HR,81\n"
    with pytest.raises(ValueError, match=message):
        parse_records({"7.txt": content.encode()})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: expected the header 'Time,Parameter,Value', found ''"),
        (b"time,parameter,value\n", "line 1: expected the header"),
        (b"Time,Parameter,Value\n00:00,Age,54\n", r"line 2: expected a RecordID as in the name .* found none"),
        (text(8), "expected a RecordID as in the name of the file, found 8"),
        (text(7) + b"00:00,Age,55\n", "line 8: Age comes twice"),
    ],
    ids=["empty file", "other header", "no RecordID", "RecordID of another file", "a descriptor twice"],
)
def test_a_malformed_record_is_refused(content, message):
    with pytest.raises(ValueError, match=rf"7\.txt, .*{message}"):
        parse_records({"7.txt": content})


def test_one_bad_record_costs_the_others_nothing_and_is_listed():
    good = {"1.txt": text(1, "01:00,HR,80"), "3.txt": text(3, "02:00,HR,90", weight="60")}
    bad = {"2.txt": text(2, "01:00,HR,x")}
    whole, rest = parse_records(good), parse_records(good | bad, strict=False)
    for name in physionet.ARRAYS:
        np.testing.assert_array_equal(getattr(rest, name), getattr(whole, name))
    assert whole.skipped == ()
    assert rest.skipped == ("2.txt, line 8: expected a number, found 'x'",)


# --- archives, and where they are found


def test_a_packing_is_known_by_its_contents_alone(home):
    members = TINY["set-a"]
    shuffled = dict(reversed(members.items())) | {"._100.txt": b"of macOS", "README": b"more"}
    lay(home, {"other.tar.gz": packed(shuffled, prefix="./deep/set-a/", mtime=9)})
    again = archives.read_members(home / "other.tar.gz")
    assert again == members
    assert archives.content_hash(dict(reversed(members.items()))) == archives.content_hash(members)
    for changed in (members | {"100.txt": stay(1)}, members | {"9.txt": b""}, {"x.txt": members["100.txt"]}):
        assert archives.content_hash(changed) != archives.content_hash(members)


@pytest.mark.parametrize("where", ["own/physionet2012", "data/raw/physionet2012"])
@pytest.mark.parametrize("how", ["registered packing", "other packing", "unpacked"])
def test_the_sets_are_read_from_any_packing_and_from_folders_alike(home, monkeypatch, where, how):
    expected = load_official(home / "expected", monkeypatch)
    (home / "own").mkdir()
    monkeypatch.setattr(checkout, "ROOT", home)
    monkeypatch.setenv("REGNDE_DATA", "own")
    for part, members in TINY.items():
        if how == "unpacked":
            lay(home / where / part, members)
        else:
            content = TAR[f"{part}.tar.gz"] if how == "registered packing" else packed(members, prefix="x/")
            lay(home / where, {f"{part}.tar.gz": content})
    assert_same(load_physionet(), expected)


def load_official(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stays:
    lay(folder / "data/raw/physionet2012", TAR)
    monkeypatch.setattr(checkout, "ROOT", folder)
    return load_physionet(source="official")


def assert_same(found: Stays, expected: Stays) -> None:
    for entry in dataclasses.fields(Stays):
        a, b = getattr(found, entry.name), getattr(expected, entry.name)
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, entry.name


def special(kind: bytes, name: str = "set/x.txt", target: str = "../../etc/passwd") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info)
    return stream.getvalue()


def cut(content: bytes) -> bytes:
    """The archive with its tar cut short, packed whole again."""
    return gzip.compress(gzip.decompress(content)[:-11_000])


EVIL = {
    "truncated": (TAR["set-a.tar.gz"][:-50], "cannot be read as a gzipped tar archive"),
    "tar cut short": (cut(TAR["set-a.tar.gz"]), "wrong contents|cannot be read"),
    "no archive": (b"<html>please log in</html>", "cannot be read as a gzipped tar archive"),
    "one byte changed": (packed(TINY["set-a"] | {"100.txt": stay(0)[:-2] + b"7\n"}), "wrong contents"),
    "a record too few": (packed(dict(list(TINY["set-a"].items())[1:])), "found 5 record files"),
    "path upwards": (packed(TINY["set-a"], prefix="set/../../"), "leaves the folder"),
    "absolute path": (packed(TINY["set-a"], prefix="/tmp/"), "leaves the folder"),
    "path of Windows": (packed(TINY["set-a"], prefix="..\\..\\"), "leaves the folder"),
    "drive of Windows": (packed(TINY["set-a"], prefix="C:"), "leaves the folder"),
    "symbolic link": (special(tarfile.SYMTYPE), "found a link or device"),
    "hard link": (special(tarfile.LNKTYPE), "found a link or device"),
    "pipe": (special(tarfile.FIFOTYPE), "found a link or device"),
    "a name twice": (packed(TINY["set-a"] | {"other/100.txt": stay(0)}), r"100\.txt comes twice"),
}


@pytest.mark.parametrize(("content", "message"), EVIL.values(), ids=EVIL)
def test_a_damaged_or_dangerous_archive_is_named_refused_and_nothing_is_written(home, raw, content, message):
    lay(raw, {"set-a.tar.gz": content})
    before = everything(home)
    for source in ("auto", "official"):
        with pytest.raises(ValueError, match=message) as caught:
            load_physionet(source=source)
        assert str(raw / "set-a.tar.gz") in str(caught.value)
        assert "left untouched" in str(caught.value)
    assert everything(home) == before


@pytest.mark.parametrize("content", [case[0] for case in EVIL.values()], ids=EVIL)
def test_a_server_that_hands_out_something_else_is_refused_and_nothing_is_kept(home, server, content):
    server(TAR | {"set-a.tar.gz": content})
    with pytest.raises(ValueError, match=r"set-a\.tar\.gz handed out wrong bytes.*Nothing was kept"):
        load_physionet()
    assert list((home / "data/raw/physionet2012").iterdir()) == []
    assert everything(home / "data") == {}


def test_a_download_of_another_packing_is_kept_as_it_came(home, server):
    other = {f"{part}.tar.gz": packed(members, prefix="z/") for part, members in TINY.items()}
    server(other)
    assert load_physionet().name == "PhysioNet 2012, sets a and b (6 + 2 stays)"
    assert everything(home / "data/raw/physionet2012") == other


def test_a_malformed_record_in_a_known_archive_is_named_with_its_archive(home, monkeypatch):
    members = TINY["set-a"] | {"100.txt": text(100, "01:00,HR,x")}
    files = (entry("set-a", members), registry.DATASETS["physionet2012"][1])
    monkeypatch.setitem(registry.DATASETS, "physionet2012", files)
    raw = lay(home / "data/raw/physionet2012", TAR | {"set-a.tar.gz": packed(members)})
    with pytest.raises(ValueError, match=r"set-a\.tar\.gz: 100\.txt, line 8: expected a number, found 'x'"):
        load_physionet()
    assert everything(home / "data") == {f"raw/physionet2012/{path.name}": path.read_bytes() for path in raw.iterdir()}


@pytest.mark.slow
def test_sets_that_are_nowhere_give_the_stand_in_and_official_says_where_it_looked(home):
    with pytest.raises(FileNotFoundError, match="REGNDE_OFFLINE=1"):
        load_physionet(source="official")
    assert "stand-in" in load_physionet(limit=20).name
    lay(home / "data/raw/physionet2012", {"set-b.tar.gz": TAR["set-b.tar.gz"]})
    with pytest.warns(UserWarning, match=r"set-b\.tar\.gz found, but not the rest"):
        assert "stand-in" in load_physionet(limit=20).name


# --- the cache


@pytest.fixture
def cached(home: Path, raw: Path) -> Path:
    load_physionet()
    return home / "data/cache/physionet2012"


def forbid_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("parsed again")

    monkeypatch.setattr(records, "parse_records", refuse)


def test_the_second_load_parses_nothing_and_finds_the_same(cached, monkeypatch):
    first = load_physionet()
    forbid_parsing(monkeypatch)
    assert_same(load_physionet(), first)
    assert sorted(path.name for path in cached.iterdir()) == ["set-a.npz", "set-b.npz"]


def test_the_cache_does_not_outlive_other_records_or_another_parser(cached, home, monkeypatch, tmp_path):
    source = lay(tmp_path / "parser", {"records.py": b"# another parser"}) / "records.py"
    with monkeypatch.context() as other:
        forbid_parsing(other)
        other.setattr(records, "__file__", str(source))
        with pytest.raises(AssertionError, match="parsed again"):
            load_physionet()
    members = TINY["set-a"] | {"100.txt": stay(0) + b"47:00,HR,60\n"}
    files = (entry("set-a", members), registry.DATASETS["physionet2012"][1])
    monkeypatch.setitem(registry.DATASETS, "physionet2012", files)
    lay(home / "data/raw/physionet2012", {"set-a.tar.gz": packed(members)})
    found = load_physionet()
    assert (found.mask_train.sum() + found.mask_test.sum()).item() == 8 * 3 + 1


def test_a_damaged_cache_is_made_again_and_never_believed(cached):
    expected, path = load_physionet(), cached / "set-a.npz"
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert_same(load_physionet(), expected)
    for content in (b"", whole[:-1], whole[: len(whole) // 2], b"no zip file"):
        path.write_bytes(content)
        assert_same(load_physionet(), expected)
        assert len(path.read_bytes()) == len(whole)


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(home, raw):
    (home / "data/cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="could not be written"):
        load_physionet()


# --- split and scale


def names(part_values: Tensor, stays: Stays) -> list[int]:
    """The number of each tiny stay, from its heart rate at 00:10."""
    return [round(v) - 60 for v in in_units(stays, part_values)[:, 0, VARIABLES.index("HR")].tolist()]


def test_the_parts_are_disjoint_complete_and_without_the_empty_record(raw):
    for seed in range(5):
        stays = load_physionet(split_seed=seed)
        train, test = names(stays.values_train, stays), names(stays.values_test, stays)
        assert (len(train), len(test)) == (6, 2)  # 80:20 of 8; the ninth record is empty but for its weight
        assert sorted(train + test) == list(range(8))


def test_the_split_depends_on_its_seed_alone(raw):
    first, again, other = (load_physionet(split_seed=seed) for seed in (0, 0, 1))
    assert_same(first, again)
    assert set(names(first.values_test, first)) != set(names(other.values_test, other))


def test_a_limit_takes_some_stays_of_the_whole(raw):
    stays = load_physionet(limit=4)
    assert (len(stays.values_train), len(stays.values_test)) == (3, 1)
    assert len(set(names(stays.values_train, stays) + names(stays.values_test, stays))) == 4


def test_every_setting_of_the_preparation_is_among_the_files(raw):
    variants = [{}, {"split_seed": 1}, {"test_fraction": 0.3}, {"limit": 4}]
    found = [load_physionet(**variant) for variant in variants]
    found.append(validation_split(found[0], 1, seed=0))
    found.append(validation_split(found[0], 1, seed=1))
    found.append(validation_split(found[0], 2, seed=1))
    assert len({stays.files for stays in found}) == len(found)
    assert found[0].files[:2] == tuple((part, archives.content_hash(members)) for part, members in TINY.items())


def test_shapes_types_and_times_are_those_promised(raw):
    stays = load_physionet()
    assert stays.variables == VARIABLES
    assert len(VARIABLES) == len(set(VARIABLES)) == 37
    assert stays.t.dtype == torch.float64
    assert (stays.t * 48).tolist() == pytest.approx(range(49), abs=1e-12)
    assert (stays.t[0].item(), stays.t[-1].item()) == (0.0, 1.0)
    for part in ("train", "test"):
        values, mask = getattr(stays, f"values_{part}"), getattr(stays, f"mask_{part}")
        assert values.shape == mask.shape == (len(values), 49, 37)
        assert values.dtype == mask.dtype == torch.float32
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        assert (values[mask == 0] == 0).all()


def scaled(train: Tensor, test: Tensor) -> Stays:
    """Parts of one variable (HR) at 00:00, NaN where it is missing."""
    grids = []
    for values in (train, test):
        grid = torch.full((len(values), 49, 37), torch.nan)
        grid[:, 0, VARIABLES.index("HR")] = values
        grids += [grid.nan_to_num(), ~grid.isnan()]
    return physionet._scaled(*grids, name="", note="", files=())


def test_the_scale_is_learned_on_the_training_part_alone():
    hr = VARIABLES.index("HR")
    stays = scaled(torch.tensor([60.0, 80.0, 100.0]), torch.tensor([50.0, 90.0, 1000.0]))
    assert (stays.low[hr].item(), stays.high[hr].item()) == (60.0, 100.0)
    assert stays.values_train[:, 0, hr].tolist() == [0.0, 0.5, 1.0]
    assert stays.values_test[:, 0, hr].tolist() == [-0.25, 0.75, 23.5]
    assert in_units(stays, stays.values_test)[:, 0, hr].tolist() == [50.0, 90.0, 1000.0]


def test_a_variable_that_never_changes_in_training_is_zero_there_and_can_be_turned_back():
    hr = VARIABLES.index("HR")
    stays = scaled(torch.tensor([80.0, 80.0]), torch.tensor([80.0, 100.0]))
    assert stays.values_train[:, 0, hr].tolist() == [0.0, 0.0]
    assert stays.values_test[:, 0, hr].tolist() == [0.0, 0.25]
    assert in_units(stays, stays.values_test)[:, 0, hr].tolist() == [80.0, 100.0]


def test_a_variable_that_training_never_shows_is_masked_in_the_test_part_too():
    stays = scaled(torch.tensor([torch.nan, torch.nan]), torch.tensor([80.0, 100.0]))
    assert stays.mask_test.sum() == stays.values_test.abs().sum() == 0
    assert stays.low.tolist() == stays.high.tolist() == [0.0] * 37


def test_the_validation_part_is_cut_from_the_training_stays_and_the_scale_learned_anew(raw):
    stays = load_physionet(split_seed=3)
    hr, before, chosen = VARIABLES.index("HR"), names(stays.values_train, stays), set()
    for seed in range(4):
        split = validation_split(stays, 2, seed=seed)
        train, held_out = names(split.values_train, split), names(split.values_test, split)
        assert (len(train), len(held_out)) == (4, 2)
        assert sorted(train + held_out) == sorted(before)
        chosen.add(tuple(sorted(held_out)))
        assert (split.low[hr].item(), split.high[hr].item()) == pytest.approx((60 + min(train), 60 + max(train)))
    assert len(chosen) > 1
    assert "validation on 2 of its training stays" in split.name
    assert "choosing settings only" in split.note


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "offical"}, "unknown source 'offical': expected one of auto, official, standin"),
        ({"split_seed": 0.5}, "split_seed: expected a whole number, found 0.5"),
        ({"test_fraction": 1.0}, "test_fraction: expected a share above 0 and below 1, found 1.0"),
        ({"test_fraction": float("nan")}, "test_fraction"),
        ({"limit": 1}, "limit: expected a whole number of at least 2, or None, found 1"),
    ],
)
def test_an_argument_out_of_its_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_physionet(**arguments)


def test_a_validation_part_that_leaves_nothing_is_refused(raw):
    stays = load_physionet()
    for n in (0, 6, -1, 2.0):
        with pytest.raises(ValueError, match="n: expected a whole number from 1 to 5 to hold out, found"):
            validation_split(stays, n, seed=0)
    with pytest.raises(ValueError, match="seed"):
        validation_split(stays, 1, seed=None)


# --- the stand-in


@pytest.fixture(scope="module")
def simulated() -> dict[str, bytes]:
    return icu_standin.simulate(physionet.N_STANDIN, seed=physionet.STANDIN_SEED)


@pytest.mark.slow
def test_the_stand_in_is_called_one_and_is_the_same_each_time(home):
    stays = load_physionet(source="standin")
    assert "stand-in" in stays.name
    assert "no patient" in stays.note
    assert_same(load_physionet(), stays)
    assert "stand-in" in validation_split(stays, 10, seed=0).note


def test_a_simulated_stay_depends_on_the_seed_and_not_on_the_number_of_stays():
    three, five, other = (icu_standin.simulate(n, seed=seed) for n, seed in ((3, 1), (5, 1), (3, 2)))
    assert list(five.items())[:3] == list(three.items())
    assert all(three[name] != other[name] for name in three)
    with pytest.raises(ValueError, match="n: expected a whole number of at least 1, found 0"):
        icu_standin.simulate(0, seed=0)


def test_the_stand_in_has_the_traps_of_the_real_files(simulated):
    found, everything = parse_records(simulated), b"".join(simulated.values())
    lines = everything.decode().splitlines()
    assert (found.n_observations == 0).any()
    assert (found.n_repeated > 0).mean() == pytest.approx(0.3, abs=0.08)
    assert np.isnan(found.descriptors[:, 2]).mean() == pytest.approx(0.47, abs=0.06)
    assert "00:00,Weight,-1" in lines
    assert any(line.startswith("48:00") for line in lines)
    assert any(line.startswith("00:00,HR") for line in lines)
    assert any("e+" in line for line in lines)
    assert any(line.endswith("ABP,0") for line in lines)


def test_the_stand_in_looks_like_intensive_care(simulated):
    found = parse_records(simulated)
    mean, observed = found.grid()
    typical = {VARIABLES[v]: float(np.median(mean[..., v][observed[..., v]])) for v in range(37)}
    ranges = {"HR": (75, 100), "Temp": (36.5, 37.5), "MAP": (70, 95), "SysABP": (105, 135), "RespRate": (15, 23)}
    ranges |= {"SaO2": (95, 99), "pH": (7.3, 7.45), "K": (3.7, 4.6), "Na": (135, 142), "GCS": (8, 15)}
    assert {name for name, (low, high) in ranges.items() if not low < typical[name] < high} == set()
    per_stay = observed.sum(1)  # (n, 37) hours with a reading
    often, rarely = (np.median(per_stay[:, VARIABLES.index(name)]) for name in ("HR", "Creatinine"))
    assert often > 40
    assert 2 <= rarely <= 4
    assert 0.15 < observed.mean() < 0.25  # 0.20 in the real sets
    assert not set(found.ids) & set(range(132_539, 152_865))  # the real RecordIDs


# --- the real sets


needs_the_real_sets = pytest.mark.skipif(
    OFFICIAL is None or not OFFICIAL.is_dir(), reason="needs the official records in $REGNDE_DATA/physionet2012"
)
CHECKED = (132539, 133628, 139060, 140501, 142665, 142675, 147514, 149509, 150649, 152864)


@pytest.fixture(scope="module")
def official() -> dict[str, dict[str, bytes]]:
    assert OFFICIAL is not None
    places = {part: (OFFICIAL / f"{part}.tar.gz", OFFICIAL / part) for part in ("set-a", "set-b")}
    return {part: archives.read_members(next(filter(Path.exists, paths))) for part, paths in places.items()}


@needs_the_real_sets
def test_the_counts_of_the_real_sets_are_those_that_are_known(official):
    a, b = (parse_records(official[part]) for part in ("set-a", "set-b"))
    assert [len(part.ids) for part in (a, b)] == [4_000, 4_000]
    assert [(part.ids[0], part.ids[-1]) for part in (a, b)] == [(132_539, 142_673), (142_675, 152_864)]
    assert [part.n_lines.sum() for part in (a, b)] == [1_757_980, 1_762_535]
    assert [(part.n_lines.min(), part.n_lines.max()) for part in (a, b)] == [(6, 1_502), (6, 1_160)]
    assert [part.n_observations.sum() for part in (a, b)] == [1_733_980, 1_738_534]
    assert a.ids[a.n_observations == 0].tolist() == [140501, 140936, 141264]
    assert b.ids[b.n_observations == 0].tolist() == [142731, 142998, 143656, 145611, 147514, 150309, 150649]
    assert [part.n_repeated.sum() for part in (a, b)] == [3_744, 3_960]
    assert [(part.n_repeated > 0).sum() for part in (a, b)] == [1_167, 1_194]
    assert [np.isnan(part.descriptors).sum(0).tolist() for part in (a, b)] == [[0, 3, 1894, 0], [0, 5, 1930, 0]]


@needs_the_real_sets
def test_ten_real_records_agree_with_pandas_from_their_text_to_the_loaded_set(official, tmp_path, monkeypatch):
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    stays = load_physionet(source="official")
    assert (stays.name, stays.note) == ("PhysioNet 2012, sets a and b (6,392 + 1,598 stays)", "")
    values = in_units(stays, torch.cat([stays.values_train, stays.values_test]))
    mask = torch.cat([stays.mask_train, stays.mask_test]) > 0
    width = torch.where(stays.high > stays.low, stays.high - stays.low, 1.0)
    for record_id in CHECKED:
        expected, seen = by_pandas((official["set-a"] | official["set-b"])[f"{record_id}.txt"])
        alike = torch.nonzero((mask == seen).all(-1).all(-1)).flatten().tolist()
        alike = [i for i in alike if ((values[i] - expected).abs() / width)[seen].max() < 1e-6]
        assert len(alike) == (0 if record_id in (140501, 147514, 150649) else 1), record_id  # those three are empty


def by_pandas(content: bytes) -> tuple[Tensor, Tensor]:
    """The hourly means (49, 37) of a record and where there are any, without the project's parser."""
    table = pd.read_csv(io.BytesIO(content))
    minutes = pd.to_timedelta(table["Time"] + ":00") // pd.Timedelta(minutes=1)
    table["Hour"] = np.floor(minutes / 60 + 0.5).astype(int)
    unknown = (minutes == 0) & (table["Parameter"] == "Weight") & (table["Value"] == -1)
    means = table[~unknown].pivot_table(index="Hour", columns="Parameter", values="Value", aggfunc="mean")
    grid = torch.tensor(means.reindex(index=range(49), columns=list(VARIABLES)).to_numpy(float))
    return grid.nan_to_num().float(), ~grid.isnan()
