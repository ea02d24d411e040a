"""Folders of record files and their tar archives: read in memory, and known by their contents, not by their packing."""

import hashlib
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath


def read_members(path: Path, *, ending: str = ".txt") -> dict[str, bytes]:
    """Read all record files of a gzipped tar archive or of a folder: name -> bytes, sorted by name.

    Nothing is written: an archive is never unpacked to disk. Its folders do not count, only the names of the files;
    other files (a README, say) are left out.

    Args:
        path: the archive, or the folder that it unpacks to.
        ending: how the names of record files end.

    Raises:
        ValueError: an archive that is damaged or cut short, a member whose path leaves the folder, a link or other
            special member, a name that comes twice. The message says what, not which file: that is for the caller.
    """
    found = _of_folder(path, ending) if path.is_dir() else _of_archive(path, ending)
    return dict(sorted(found.items()))


def content_hash(members: Mapping[str, bytes]) -> str:
    """Return the sha256 of the contents of record files: over lines 'name sha256', sorted by name.

    It does not depend on how the files are packed: on their order, dates, owners, folder or compression.
    """
    lines = [f"{name} {hashlib.sha256(content).hexdigest()}\n" for name, content in sorted(members.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _of_folder(folder: Path, ending: str) -> dict[str, bytes]:
    files = (file for file in folder.iterdir() if file.is_file() and _is_record(file.name, ending))
    return {file.name: file.read_bytes() for file in files}


def _is_record(name: str, ending: str) -> bool:
    return name.endswith(ending) and not name.startswith(".")  # "._name": what macOS writes beside a file


def _of_archive(path: Path, ending: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = _safe(member)
                if not member.isfile() or not _is_record(name, ending):
                    continue
                if name in found:
                    raise ValueError(f"{name} comes twice")
                stream = archive.extractfile(member)
                found[name] = stream.read() if stream else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot be read as a gzipped tar archive ({error})") from error
    return found


def _safe(member: tarfile.TarInfo) -> str:
    """The name of a member without its folders; ValueError if unpacking it could write anywhere else."""
    if not (member.isfile() or member.isdir()):
        raise ValueError(f"expected files and folders, found a link or device, {member.name!r}")
    path = PureWindowsPath(member.name)  # knows both kinds of slashes, and drives
    if path.drive or path.root or ".." in path.parts:
        raise ValueError(f"the path {member.name!r} leaves the folder of the archive")
    return path.name
