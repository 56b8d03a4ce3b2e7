"""Where a training run goes on after it was killed: its last checkpoint, until what it makes is finished."""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from src.artifacts import Plan, disk_errors, write_json
from src.artifacts.files import changed_files, checksums, fsync, fsync_tree, make_folder, relative_files
from src.artifacts.locks import Busy, locked
from src.errors import StrataError

FOLDER = ".checkpoints"
_STATE = "checkpoint.json"


class Training(Protocol):
    """What is trained step by step, and can be written down and taken up again."""

    step: int

    def save_state(self, folder: Path) -> None:
        """Write all that it goes on from."""
        ...

    def load_state(self, folder: Path, step: int) -> None:
        """Go on from what `save_state` wrote at a step."""
        ...


class Checkpoints:
    """The checkpoints of one run, in a hidden folder beside the artifacts; the last whole one is kept."""

    def __init__(self, plan: Plan, what: str) -> None:
        """plan: of the artifact; another fingerprint is another run. what: is trained, in a message."""
        self._what = what
        self.folder = plan.root / FOLDER / f"{plan.kind}-{plan.fingerprint[:16]}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes off. Raises StrataError if one trains the same now."""
        make_folder(self.folder)
        try:
            with locked(self.folder, wait=False):
                yield
        except Busy:
            raise StrataError(
                f"another process trains {self._what} now ({self.folder} is locked): wait for it"
            ) from None

    def save(self, training: Training, curve: list[dict[str, Any]]) -> None:
        """Write a checkpoint, and remove the one before; curve: what was found so far. StrataError on a full disk."""
        draft = self.folder / f"draft-{uuid.uuid4().hex[:12]}"
        with disk_errors(self.folder):
            try:
                draft.mkdir()
                training.save_state(draft)
                files = checksums(draft, relative_files(draft))
                write_json(draft / _STATE, {"step": training.step, "curve": curve, "files": files})
                fsync_tree(draft)
                place = self.folder / f"step-{training.step:012d}"
                shutil.rmtree(place, ignore_errors=True)
                draft.rename(place)
                fsync(self.folder)
            except RuntimeError as error:  # what torch.save makes of a full disk
                raise StrataError(f"{self.folder} can't be written ({error}): free space there") from error
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        for other in self.folder.iterdir():
            if other != place:
                shutil.rmtree(other, ignore_errors=True)

    def load(self, training: Training) -> list[dict[str, Any]] | None:
        """Go on from the last whole checkpoint: what was found until then. None if there is none."""
        for place in sorted(self.folder.glob("step-*"), reverse=True):
            try:
                state = json.loads((place / _STATE).read_text(encoding="utf-8"))
                if changed_files(place, state["files"]):
                    continue
                step, curve = int(state["step"]), list(state["curve"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # cut off or damaged: an older one, or from the beginning
            training.load_state(place, step)
            return curve
        return None

    def clear(self) -> None:
        """Remove them: what they are of is finished, or is to be made anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
