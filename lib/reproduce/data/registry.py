"""One order of search for the files of every data set, and the check of each.

Order: the folder ``$REGNDE_DATA/<data set>``, then ``<repository>/data/raw/<data set>``, then a download into
the latter. A file that exists but is not the registered one is an error; it is never replaced or passed over.

Environment variables:
    REGNDE_DATA     folder that holds one folder per data set; a relative path counts from the repository
    REGNDE_OFFLINE  1 forbids downloads
    REGNDE_MIRROR   http(s) address used instead of the public ones; files lie at <mirror>/<data set>/<file>
    REGNDE_HOME     the repository, where the package is not used from its own checkout
"""

import functools
import hashlib
import os
import queue
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

from reproduce import checkout
from reproduce.data import archives
from reproduce.data.known_files import DATASETS, DataFile, folder_name

PATIENCE = 10.0  # seconds that a server may be silent, looking up its name included


def find(dataset: str) -> dict[str, Path] | None:
    """Return where each file of a data set lies, or None if the set is not available on this machine.

    Raises:
        ValueError: as ``require`` does; a set that is merely absent is no error here.
    """
    try:
        return require(dataset)
    except FileNotFoundError:
        return None


def require(dataset: str) -> dict[str, Path]:
    """Return where each file of a data set lies: name -> checked path.

    Raises:
        ValueError: an unknown data set, a setting that cannot be meant, a file that is not the registered
            one, or a server that hands out other bytes.
        FileNotFoundError: the set is not here and cannot be downloaded; says where it was looked for.
    """
    if dataset not in DATASETS:
        raise ValueError(f"unknown data set {dataset!r}: expected one of {', '.join(sorted(DATASETS))}")
    offline, mirror, folders = is_offline(), _mirror(), search_folders(dataset)
    folder = folder_name(dataset)

    paths = present(dataset)
    for file in DATASETS[dataset]:  # all that is here is checked before anything is downloaded
        if file.name in paths:
            check(paths[file.name], file)
    missing = [file for file in DATASETS[dataset] if file.name not in paths]
    looked = [str(folder) for folder in folders]
    try:
        for file in missing:
            urls = (f"{mirror}/{folder}/{file.name}",) if mirror else file.urls
            paths[file.name] = _download(file, urls=() if offline else urls, folder=folders[-1])
    except FileNotFoundError as error:
        why = str(error) or "nobody publishes it: there is no address"
        looked.append("downloads are switched off by REGNDE_OFFLINE=1" if offline else why)
        found = [file.name for file in DATASETS[dataset] if file.name in paths]
        if found:
            warnings.warn(f"{dataset} is incomplete: {', '.join(found)} found, but not the rest", stacklevel=2)
        lacking = ", ".join(file.name for file in missing if file.name not in paths)
        where = "".join(f"\n  {place}" for place in looked)
        raise FileNotFoundError(
            f"{dataset}: {lacking} not found. Looked in:{where}\n"
            f"Put the official files into a folder {folder}/ and set REGNDE_DATA to the folder above it."
        ) from None
    return paths


def present(dataset: str) -> dict[str, Path]:
    """Return where the files of a data set lie that are on this machine, unchecked: name -> path. No download.

    Raises:
        ValueError: as ``search_folders`` does.
    """
    folders = search_folders(dataset)
    places = {
        file.name: [folder / name for folder in folders for name in (file.name, file.folder) if name]
        for file in DATASETS[dataset]
    }
    return {
        name: found[0]
        for name, paths in places.items()
        if (found := [path for path in paths if path.exists() or path.is_symlink()])
    }


def search_folders(dataset: str) -> list[Path]:
    """The folders in which the files of a data set may lie, in order; downloads go to the last one.

    Raises:
        ValueError: REGNDE_DATA is set but is no folder, or something else lies where one of the folders belongs: a link
            to a disk that is not there, a file (a slip there must not end in a stand-in).
    """
    folders = [checkout.ROOT / "data" / "raw" / folder_name(dataset)]
    if given := os.environ.get("REGNDE_DATA"):
        folder = checkout.ROOT / Path(given).expanduser()  # an absolute path stays as it is
        if not folder.is_dir():
            raise ValueError(f"REGNDE_DATA={given!r}: expected a folder, found none at {folder}; correct or unset it")
        folders.insert(0, folder / folder_name(dataset))
    for place in folders:
        there = next(path for path in (place, *place.parents) if path.exists() or path.is_symlink())
        if not there.is_dir() and (there == place or there.is_symlink()):
            what = f"a link that leads nowhere ({os.readlink(there)})" if there.is_symlink() else "a file"
            raise ValueError(f"{there}: expected a folder, found {what}; mount or put what it is for, or move it away")
    return folders


def is_offline() -> bool:
    """Whether downloads are forbidden; ValueError if REGNDE_OFFLINE is neither 0 nor 1."""
    value = os.environ.get("REGNDE_OFFLINE", "")
    if value not in ("", "0", "1"):
        raise ValueError(f"REGNDE_OFFLINE: expected 1 (no downloads) or 0, found {value!r}")
    return value == "1"


def _mirror() -> str:
    value = os.environ.get("REGNDE_MIRROR", "")
    if value and not value.startswith(("http://", "https://")):
        raise ValueError(f"REGNDE_MIRROR: expected an http:// or https:// address, found {value!r}")
    return value.rstrip("/")


def check(path: Path, file: DataFile) -> None:
    """Raise ValueError unless what lies at ``path`` is the registered file byte for byte, or holds its contents."""
    if fault := _fault(path, file):
        raise ValueError(
            f"{path}: {fault}. It was left untouched: put the official file in its place, or move it away."
        )


def _fault(path: Path, file: DataFile) -> str:
    """In what the file at ``path``, or else its contents, differ from the registered ones, or ""."""
    fault = _file_fault(path, file)
    if not fault or not file.contents:
        return fault
    try:
        members = archives.read_members(path)
    except ValueError as error:
        return f"{error}; {fault}"
    if (found := archives.content_hash(members)) == file.contents:
        return ""
    return f"wrong contents, expected {file.contents}, found {len(members):,} record files with {found}; {fault}"


def _file_fault(path: Path, file: DataFile) -> str:
    if path.is_symlink() and not path.exists():
        return f"a link that leads nowhere ({os.readlink(path)})"
    if not path.is_file():
        return "expected a file, found something else (a folder?)"
    if (size := path.stat().st_size) != file.size:
        return f"wrong length, expected {file.size:,} bytes, found {size:,}"
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return "" if digest == file.sha256 else f"wrong checksum, expected sha256 {file.sha256}, found {digest}"


def _download(file: DataFile, *, urls: tuple[str, ...], folder: Path) -> Path:
    """Download one file from the first address that has it; it appears whole and checked, or not at all.

    Raises:
        ValueError: a server handed out other bytes than the registered ones.
        FileNotFoundError: no address worked; its text says why, one address after the other.
    """
    failures = []
    for url in urls:
        if silence := _silence("{0.scheme}://{0.netloc}/".format(urlsplit(url))):
            failures.append(f"{url}: {silence}")
            continue
        try:
            known = None if file.contents else f"sha256:{file.sha256}"
            pooch.retrieve(url, known, fname=file.name, path=folder, downloader=_Checked(file))
        except OSError as error:  # what requests raises is one, and so is a disk that is full or read-only
            failures.append(f"{url}: {error}")
        except ValueError as error:  # pooch has deleted what came
            raise ValueError(
                f"{url} handed out wrong bytes: {error} Nothing was kept. Put the official {file.name} into "
                f"{folder} by hand, or set REGNDE_OFFLINE=1 to do without."
            ) from error
        else:
            return folder / file.name
    raise FileNotFoundError("; ".join(failures))


@dataclass(frozen=True)
class _Checked:
    """A downloader for pooch that checks what came, before pooch gives it its name."""

    file: DataFile

    def __call__(self, url: str, output_file: str, hub: pooch.Pooch | None) -> None:
        pooch.HTTPDownloader(timeout=PATIENCE, chunk_size=2**16)(url, output_file, hub)
        if fault := _fault(Path(output_file), self.file):
            raise ValueError(f"{fault}.")


@functools.cache  # a silent server is asked once per process, not once per file
def _silence(server: str) -> str:
    """Why a server cannot be used, or "" if it answers.

    Asked in a thread: a time limit on the request covers neither the look-up of the name nor the sum over the
    server's addresses, each of which is tried for that long.
    """
    outcome: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask() -> None:
        try:
            requests.head(server, timeout=PATIENCE)  # any status will do
            outcome.put("")
        except OSError as error:
            outcome.put(f"no connection ({type(error).__name__}: {error})")

    threading.Thread(target=ask, daemon=True).start()
    try:
        return outcome.get(timeout=PATIENCE)
    except queue.Empty:
        return f"no answer within {PATIENCE:g} s"
