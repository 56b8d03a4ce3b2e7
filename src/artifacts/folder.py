"""Make, find and seal artifact folders."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.artifacts.drafts import abandoned_drafts, locked_draft
from src.artifacts.files import checksums, disk_errors, fsync, fsync_tree, make_folder, relative_files, write_json
from src.artifacts.locks import is_abandoned, locked
from src.artifacts.meta import (
    FORMAT_VERSIONS,
    META,
    PLAN,
    Artifact,
    DamagedArtifact,
    Meta,
    Plan,
    Provenance,
    describe_changes,
    meta_json,
    now,
    open_meta,
)
from src.artifacts.reading import open_artifact, verify
from src.config.schema import fingerprint
from src.errors import StrataError


def find_finished(plan: Plan, *, overwrite: bool) -> Artifact | None:
    """The finished artifact of a plan, or None if it is still to be made.

    Raises StrataError when the folder holds something made with other settings (unless overwrite), or something that is
    no artifact of this kind (always: only what we made is ever replaced).
    """
    _clear_drafts(plan.path)
    _refuse_foreign(plan)
    if overwrite or not (plan.path / META).exists():
        return None
    try:
        artifact = open_artifact(plan.path, plan.kind)
    except DamagedArtifact as error:
        if plan.name is None or (plan.path / PLAN).exists():
            raise  # the folder's name, or its plan, tells that it is ours to make again
        raise StrataError(str(error)) from None
    if artifact.meta.fingerprint == plan.fingerprint:
        return artifact
    raise _made_otherwise(plan, artifact.meta.identity)


def _refuse_foreign(plan: Plan) -> None:
    """StrataError if something is in the way that is not an artifact of this kind: that is never replaced."""
    if not plan.path.exists() or (plan.path.is_dir() and not any(plan.path.glob("[!.]*"))):
        return
    if plan.kind in (_kind_of(plan.path / PLAN), _kind_of(plan.path / META)):
        return
    what = f"its {META} is damaged or foreign" if (plan.path / META).exists() else f"holds no {plan.kind}"
    raise StrataError(f"{plan.path} is there, and {what}: choose another name=..., or move it away yourself")


def _kind_of(note: Path) -> str | None:
    try:
        values = json.loads(note.read_bytes())
        return str(values["kind"]) if {"fingerprint", "identity"} <= set(values) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _made_otherwise(plan: Plan, found: Mapping[str, Any]) -> StrataError:
    changes = describe_changes(found, plan.identity) or ["it was made from other artifacts"]
    remedy = "choose another name=..., or remake it with overwrite=true"
    return StrataError("\n  ".join([f"{plan.path} was made with other settings:", *changes]) + f"\n{remedy}")


class Draft:
    """An artifact folder under construction: fill `path`, put what readers should know into `summary`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.summary: dict[str, Any] = {}


@contextlib.contextmanager
def create_artifact(plan: Plan, provenance: Provenance, *, overwrite: bool = False) -> Iterator[Draft]:
    """Make an artifact: a temporary folder beside its place, sealed and renamed when the block ends without an error.

    If the block raises, or the process is killed, the place is untouched; a full disk is reported as such.
    """
    target = plan.path
    make_folder(target.parent)
    with disk_errors(target):
        _clear_drafts(target)
        with locked_draft(target, lock=target.parent) as path:
            draft = Draft(path)
            yield draft
            seal(draft.path, plan, provenance, draft.summary)
            _move_into_place(draft.path, target, None if overwrite else plan.fingerprint)


def _clear_drafts(target: Path) -> None:
    """Remove drafts of an artifact whose process was killed.

    One that was killed between the renames of a replacement has left the new artifact or the old one, sealed: it is
    put into its place.
    """
    if not any(target.parent.glob(f".{target.name}.*")):
        return
    with locked(target.parent):
        for path in [*abandoned_drafts(target, "draft"), *abandoned_drafts(target, "replaced")]:
            if not target.exists() and _is_whole(path):
                os.rename(path, target)
            shutil.rmtree(path, ignore_errors=True)


def _move_into_place(draft: Path, target: Path, keep_fingerprint: str | None) -> None:
    with locked(target.parent):
        aside = None
        if target.exists():
            if keep_fingerprint is not None and _is_whole(target, keep_fingerprint):
                return  # another process made the same artifact meanwhile
            aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.replaced")
            os.rename(target, aside)
        os.rename(draft, target)
        fsync(target.parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def _is_whole(folder: Path, wanted: str | None = None) -> bool:
    try:
        return wanted in (None, open_meta(folder).fingerprint) and not verify(folder)
    except StrataError:
        return False


def open_shared_folder(plan: Plan, *, overwrite: bool = False) -> None:
    """Open (or go on with) an artifact that is filled in place, by several processes perhaps, until one seals it.

    `plan.json` in it tells what it is to be. Raises StrataError if it is to be something else (unless overwrite, which
    empties it first), or if it is foreign.
    """
    _refuse_foreign(plan)
    with disk_errors(plan.path):
        if overwrite and plan.path.exists():
            shutil.rmtree(plan.path)
        make_folder(plan.path)
        note = {"kind": plan.kind, "fingerprint": plan.fingerprint, "identity": plan.identity}
        try:
            begun = json.loads((plan.path / PLAN).read_text(encoding="utf-8"))
            if begun["fingerprint"] != plan.fingerprint:
                raise _made_otherwise(plan, begun["identity"])
        except FileNotFoundError:
            begun = None
        except (ValueError, KeyError, TypeError, RecursionError):
            begun = None  # damaged; what else is in the folder says by itself what it belongs to
        if begun != note:
            write_json(plan.path / PLAN, note)
        (plan.path / META).unlink(missing_ok=True)


def seal_in_place(
    plan: Plan,
    provenance: Provenance,
    publish: Callable[[Draft], None],
    known_checksums: Mapping[str, Sequence[Any]],
    others: Collection[str] = (),
) -> Meta:
    """Seal a folder that was filled in place.

    publish: adds to the folder, and to its summary, what readers should see. known_checksums: of the files that were
    written before; others: further files of ours. What is neither those nor was just published is not listed.
    """
    folder = plan.path
    for leftover in filter(is_abandoned, folder.glob(".*")):  # of processes that were killed
        shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    ours = {*known_checksums, PLAN, *others}
    strange = {name: (folder / name).stat().st_mtime_ns for name in set(relative_files(folder)) - ours}
    draft = Draft(folder)
    publish(draft)
    foreign = {name for name, time in strange.items() if (folder / name).stat().st_mtime_ns == time}
    return seal(folder, plan, provenance, draft.summary, known_checksums, lambda name: name not in foreign)


def seal(
    folder: Path,
    plan: Plan,
    provenance: Provenance,
    summary: dict[str, Any],
    known_checksums: Mapping[str, Sequence[Any]] | None = None,
    ours: Callable[[str], bool] = lambda _: True,
) -> Meta:
    """Write meta.json, after all else has reached the disk: from now on the folder is complete.

    Known checksums are not computed again. ours: the files (relative POSIX path) that belong to the artifact; others
    are not listed, and `verify` finds them.
    """
    known = known_checksums or {}
    names = [name for name in relative_files(folder) if name != META and ours(name)]
    computed = checksums(folder, [name for name in names if name not in known])
    fsync_tree(folder)
    meta = Meta(
        kind=plan.kind,
        format_version=FORMAT_VERSIONS[plan.kind],
        name=plan.path.name,
        fingerprint=plan.fingerprint,
        identity=plan.identity,
        parents=plan.parents,
        config=provenance.config,
        config_fingerprint=fingerprint(provenance.config),
        seed=provenance.seed,
        device=provenance.device,
        versions=provenance.versions,
        git_revision=provenance.git_revision,
        started_at=provenance.started_at,
        ended_at=now(),
        summary=summary,
        files={name: list(known[name]) if name in known else computed[name] for name in names},
    )
    write_json(folder / META, meta_json(meta))
    return meta
