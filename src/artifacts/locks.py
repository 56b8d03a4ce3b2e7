"""Locks on files and folders that end with the process that holds them, however it ends."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

# some network file systems have no locks: there the user has to take care
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF)


class Busy(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a lock on an existing file or folder, alone or shared with others that ask for a shared one.

    Raises Busy if it is taken and `wait` is false. On a file system without locks it does nothing.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        raise Busy from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def is_abandoned(path: Path) -> bool:
    """Whether no process holds a lock on a file or folder. False where that can't be known, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
