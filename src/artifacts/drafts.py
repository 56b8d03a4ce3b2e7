"""Folders under construction: hidden, beside the place that they are for, and locked by the process that fills them."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from src.artifacts.locks import is_abandoned, locked


@contextlib.contextmanager
def locked_draft(target: Path, lock: Path) -> Iterator[Path]:
    """A new folder beside `target`, which is to be renamed to it; removed at the end if it is still there.

    lock: an existing file or folder that all who make or clear drafts of this target hold meanwhile.
    """
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.draft")
    with contextlib.ExitStack() as cleanup:
        with locked(lock):  # whoever looks for abandoned drafts must not see this one before it is locked
            draft.mkdir()
            cleanup.callback(shutil.rmtree, draft, ignore_errors=True)
            cleanup.enter_context(locked(draft))
        yield draft


def abandoned_drafts(target: Path) -> list[Path]:
    """Drafts of a target whose process was killed."""
    return [path for path in target.parent.glob(f".{target.name}.*.draft") if is_abandoned(path)]
