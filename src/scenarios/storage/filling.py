"""A captured scenario under construction: items (the references, each conversation) that are committed one by one.

An item is written into a hidden folder beside its place (.NAME.HEX.draft), sealed with item.json (its checksums),
forced to the disk and renamed. So a killed run loses the item under way at most; what is there whole stays.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.artifacts import Draft, Meta, Plan, Provenance, disk_errors, write_json
from src.artifacts.drafts import locked_draft
from src.artifacts.files import changed_files, checksums, fsync, fsync_tree, relative_files
from src.artifacts.folder import open_shared_folder, seal_in_place
from src.artifacts.locks import Busy, locked
from src.artifacts.meta import PLAN
from src.errors import StrataError
from src.scenarios.scenario import Scenario
from src.scenarios.storage.layout import ITEM, REFERENCES, RUN, SCENARIO
from src.scenarios.storage.run_folder import write_run, write_scenario
from src.scenarios.storage.status import STATUS, ItemState, Status, write_status

_DRAFT = re.compile(r"\..+\.[0-9a-f]{12}\.(draft|tmp)")


@contextmanager
def filling(
    plan: Plan, provenance: Provenance, items: Sequence[str], *, overwrite: bool = False
) -> Iterator["ScenarioFolder"]:
    """Open the folder of a capture, or go on with it, and keep other runs of the same command out of it meanwhile.

    items: names of all items, in the order in which they are to be made (`references`, then the conversations).
    Raises StrataError if another run fills the folder, or if it is foreign or was begun with other settings.
    """
    try:
        if plan.path.exists():
            with locked(plan.path, wait=False):  # an overwrite must not pull the folder from under another run
                open_shared_folder(plan, overwrite=overwrite)
        else:
            open_shared_folder(plan)
        with locked(plan.path, wait=False), disk_errors(plan.path):
            folder = ScenarioFolder(plan, provenance, items)
            try:
                yield folder
            except BaseException as error:
                folder.end(str(error) or type(error).__name__)
                raise
            folder.end("it ended before all items were made")
    except Busy:
        raise StrataError(f"another run is filling {plan.path}: wait until it has ended") from None


class ScenarioFolder:
    """The folder that `filling` has opened."""

    def __init__(self, plan: Plan, provenance: Provenance, items: Sequence[str]) -> None:
        self.path = plan.path
        self._plan, self._provenance = plan, provenance
        self._model: dict[str, Any] = {}
        for leftover in filter(lambda path: _DRAFT.fullmatch(path.name), plan.path.glob(".*")):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        self._files = {item: self._checked(item) for item in items}
        states: dict[str, ItemState] = {
            item: "pending" if files is None else "done" for item, files in self._files.items()
        }
        self._show(Status("running", states))

    def describe(self, scenario: Scenario, model: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> None:
        """Write what is run, and by what (see description.py): do it before all else."""
        self._model = dict(model)
        write_scenario(self.path, scenario)
        write_run(self.path, model, tokenizer)

    def finished(self, item: str) -> bool:
        """Whether an item is there, whole: then it need not be made."""
        return self._files[item] is not None

    @property
    def unfinished(self) -> list[str]:
        """The items that are still to be made."""
        return [item for item in self._files if not self.finished(item)]

    @contextmanager
    def write_item(self, item: str) -> Iterator[Path]:
        """A folder to write an item into; it takes its place when the block ends without an error.

        An error marks the item `failed` and goes on to the caller, who may make other items nevertheless.
        """
        if self.finished(item):
            raise ValueError(f"{item} is there already")
        self._mark(item, "running")
        try:
            with disk_errors(self.path), locked_draft(self.path / item, self.path / PLAN) as draft:
                yield draft
                self._commit(item, draft)
        except Exception as error:
            self._mark(item, "failed", f"{item}: {error}")
            raise
        except BaseException:  # interrupted
            self._mark(item, "pending")
            raise
        self._mark(item, "done")

    def finish(self, publish: Callable[[Draft], None]) -> Meta:
        """Seal the artifact, all of whose items must be there.

        publish: adds report and figures to the folder, and what else is to be said to the summary.
        """
        if self.unfinished:
            raise ValueError(f"not made yet: {', '.join(self.unfinished)}")
        known = {
            f"{item}/{name}": entry for item, files in self._files.items() for name, entry in (files or {}).items()
        }
        others = [STATUS, SCENARIO, RUN, *(f"{item}/{ITEM}" for item in self._files)]

        def published(draft: Draft) -> None:
            publish(draft)
            draft.summary |= {"conversations": [item for item in self._files if item != REFERENCES]}
            draft.summary |= {"model": self._model}
            self._show(Status("finished", self._status.items))

        return seal_in_place(self._plan, self._provenance, published, known, others)

    def end(self, error: str) -> None:
        """Note how the work ended, unless it was finished."""
        if self._status.state == "running":
            self._show(Status("failed", self._status.items, self._status.error or error))

    def _checked(self, item: str) -> dict[str, list[Any]] | None:
        """The files of a finished item with their checksums; None if it must be made (again)."""
        try:
            note = json.loads((self.path / item / ITEM).read_text(encoding="utf-8"))
            if (note["item"], note["fingerprint"]) != (item, self._plan.fingerprint):
                return None
            return None if changed_files(self.path / item, note["files"]) else note["files"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _commit(self, item: str, draft: Path) -> None:
        files, place = checksums(draft, relative_files(draft)), self.path / item
        made_with = {
            "device": self._provenance.device,
            "versions": self._provenance.versions,
            "git_revision": self._provenance.git_revision,
        }
        fsync_tree(draft)
        note = {"item": item, "fingerprint": self._plan.fingerprint, "made_with": made_with, "files": files}
        write_json(draft / ITEM, note)
        if place.exists():
            shutil.rmtree(place)  # damaged
        draft.rename(place)
        fsync(self.path)
        self._files[item] = files

    def _mark(self, item: str, state: ItemState, error: str | None = None) -> None:
        self._show(Status("running", {**self._status.items, item: state}, self._status.error or error))

    def _show(self, status: Status) -> None:
        self._status = status
        write_status(self.path, status)
