"""Files as artifacts need them: checksums, atomic JSON, durable folders, and disk errors that name the place."""

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from src.errors import StrataError


def changed_files(folder: Path, expected: Mapping[str, Sequence[Any]]) -> list[str]:
    """One line for each file that is truncated or changed against its [bytes, sha256]."""
    problems = []
    for name, found in checksums(folder, list(expected)).items():
        size, digest = expected[name]
        if found[0] != size:
            problems.append(f"{name}: has {found[0]} bytes instead of {size}")
        elif found[1] != digest:
            problems.append(f"{name}: its content has changed (checksum)")
    return problems


def checksums(folder: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """[bytes, sha256 hex] of each file, hashed in threads."""
    if not names:
        return {}
    with ThreadPoolExecutor(max_workers=min(4, len(names))) as pool:
        return dict(zip(names, pool.map(lambda name: _checksum(folder / name), names), strict=True))


def _checksum(path: Path) -> list[Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [file.tell(), digest]


def content_digest(paths: Iterable[Path]) -> str:
    """sha256 over the names and whole contents of input files, whatever their order."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        size, content = _checksum(path)
        digest.update(f"{path.name}\0{size}\0{content}".encode())
    return digest.hexdigest()


def relative_files(folder: Path) -> list[str]:
    """All files below a folder as sorted relative POSIX paths, but for hidden ones (drafts, the system's litter)."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))


def write_json(path: Path, values: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part of it."""
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM)
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what a disk says when it can't be written (full, read-only, no folder, ...) into a StrataError."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            reason = f"the disk that holds {path} is full: free space there or set artifacts_dir=..."
        elif error.errno == errno.EFBIG:
            reason = f"{path} takes no file so large (ulimit -f, or its file system): set artifacts_dir=... elsewhere"
        elif error.errno in _NOT_OURS:
            reason = f"{path} can't be written ({error.strerror}): set artifacts_dir=... to a folder of yours"
        elif error.errno in _NO_FOLDER:
            reason = f"{error.filename or path} can't be a folder ({error.strerror}): set artifacts_dir=... elsewhere"
        else:
            raise
        raise StrataError(reason) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it; StrataError, with the remedy, where that can't be."""
    with disk_errors(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # what /proc says
            raise StrataError(f"{path} can't be made ({error.strerror}): set artifacts_dir=... elsewhere") from None


def fsync_tree(folder: Path) -> None:
    """Force a folder's files and directories to the disk."""
    for path in [*folder.rglob("*"), folder]:
        fsync(path)


def fsync(path: Path) -> None:
    """Force one file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
