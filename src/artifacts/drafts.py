"""Folders under construction: hidden, beside the place that they are for, and locked by the process that fills them."""

import contextlib
import re
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


def abandoned_drafts(target: Path, ending: str = "draft") -> list[Path]:
    """Drafts of a target (or what a replacement has put aside: `replaced`) whose process was killed."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{12}}\.{ending}")
    found = target.parent.glob(f".*.{ending}")
    return [path for path in found if pattern.fullmatch(path.name) and is_abandoned(path)]
