"""Where a training run goes on after it was killed: its last checkpoint, until the SAEs are finished."""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from src.artifacts import Plan, disk_errors, write_json
from src.artifacts.files import changed_files, checksums, fsync, fsync_tree, make_folder, relative_files
from src.artifacts.locks import Busy, locked
from src.errors import StrataError
from src.features.training.trainer import SaeTraining

FOLDER = ".checkpoints"
_STATE = "checkpoint.json"


class Checkpoints:
    """The checkpoints of one run, in a hidden folder beside the artifacts; the last whole one is kept."""

    def __init__(self, plan: Plan) -> None:
        """plan: of the artifact; another fingerprint is another run."""
        self.folder = plan.root / FOLDER / f"{plan.kind}-{plan.fingerprint[:16]}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes off. Raises StrataError if one trains the same SAEs now."""
        make_folder(self.folder)
        try:
            with locked(self.folder, wait=False):
                yield
        except Busy:
            raise StrataError(f"another process trains these SAEs now ({self.folder} is locked): wait for it") from None

    def save(self, training: SaeTraining, curve: list[dict[str, Any]]) -> None:
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

    def load(self, training: SaeTraining) -> list[dict[str, Any]] | None:
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
        """Remove them: the SAEs are finished, or are to be made anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
