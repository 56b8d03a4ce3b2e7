"""Make, open, find and verify artifact folders."""

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from src.artifacts.files import changed_files, checksums, disk_errors, fsync, fsync_tree, relative_files, write_json
from src.artifacts.meta import (
    FORMAT_VERSIONS,
    META,
    Artifact,
    Meta,
    Plan,
    Provenance,
    describe_changes,
    now,
    open_meta,
)
from src.config.schema import fingerprint
from src.errors import StrataError


def find_finished(plan: Plan, *, overwrite: bool) -> Artifact | None:
    """The finished artifact of a plan, or None if it is still to be made.

    Raises StrataError when the folder holds something made with other settings (unless overwrite).
    """
    if overwrite or not (plan.path / META).exists():
        return None
    artifact = open_artifact(plan.path, plan.kind)
    if artifact.meta.fingerprint == plan.fingerprint:
        return artifact
    raise _made_otherwise(plan, artifact.meta.identity)


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
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead_drafts(target)
        draft = Draft(target.with_name(f".{target.name}.{socket.gethostname()}.{os.getpid()}.draft"))
        draft.path.mkdir()
        try:
            yield draft
            seal(draft.path, plan, provenance, draft.summary)
            _move_into_place(draft.path, target, None if overwrite else plan.fingerprint)
        finally:
            shutil.rmtree(draft.path, ignore_errors=True)


def open_shared_folder(plan: Plan, *, overwrite: bool = False) -> None:
    """Open (or go on with) an artifact that is filled in place, by several processes perhaps, until one seals it.

    `plan.json` in it tells what it is to be. Raises StrataError if it is to be something else (unless overwrite, which
    empties it first).
    """
    with disk_errors(plan.path):
        if overwrite and plan.path.exists():
            shutil.rmtree(plan.path)
        plan.path.mkdir(parents=True, exist_ok=True)
        note = plan.path / "plan.json"
        if not note.exists():
            write_json(note, {"kind": plan.kind, "fingerprint": plan.fingerprint, "identity": plan.identity})
        begun = json.loads(note.read_text(encoding="utf-8"))
        if begun["fingerprint"] != plan.fingerprint:
            raise _made_otherwise(plan, begun["identity"])
        (plan.path / META).unlink(missing_ok=True)


def _remove_dead_drafts(target: Path) -> None:
    """Remove drafts of the same artifact whose process on this host is no more (it was killed)."""
    for path in target.parent.glob(f".{target.name}.{socket.gethostname()}.*.draft"):
        if not psutil.pid_exists(int(path.name.split(".")[-2])):
            shutil.rmtree(path, ignore_errors=True)


def seal(
    folder: Path,
    plan: Plan,
    provenance: Provenance,
    summary: dict[str, Any],
    known_checksums: Mapping[str, Sequence[Any]] | None = None,
) -> Meta:
    """Write meta.json: from now on the folder is complete. Known checksums are not computed again."""
    known = known_checksums or {}
    names = [name for name in relative_files(folder) if name != META]
    computed = checksums(folder, [name for name in names if name not in known])
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
    write_json(folder / META, asdict(meta))
    return meta


def _move_into_place(draft: Path, target: Path, keep_fingerprint: str | None) -> None:
    fsync_tree(draft)
    aside = None
    if target.exists():
        if (target / META).exists() and open_meta(target).fingerprint == keep_fingerprint:
            return  # another process made the same artifact meanwhile
        aside = target.with_name(f".{target.name}.{socket.gethostname()}.replaced.{os.getpid()}.draft")
        os.rename(target, aside)
    os.rename(draft, target)
    fsync(target.parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def open_artifact(folder: Path, kind: str) -> Artifact:
    """Open a finished artifact of a kind; StrataError for an unfinished one, another kind, or an unknown version."""
    meta = open_meta(folder)
    if meta.kind != kind:
        raise StrataError(f"{folder} holds {meta.kind!r}, but {kind!r} is needed here")
    if meta.format_version != FORMAT_VERSIONS[kind]:
        raise StrataError(
            f"{folder} has format {meta.format_version} of {kind!r}; this version of Strata reads "
            f"{FORMAT_VERSIONS[kind]}: remake it with overwrite=true, or read it with the version that made it"
        )
    return Artifact(folder, meta)


def list_artifacts(root: Path, kind: str) -> list[Artifact]:
    """All finished artifacts of a kind, by name. Unfinished and foreign folders are passed over."""
    found = []
    for meta in sorted((root / kind).glob(f"[!.]*/{META}")):
        with contextlib.suppress(StrataError):
            found.append(open_artifact(meta.parent, kind))
    return found


def choose_artifact(
    root: Path, kind: str, chosen: str | None, candidates: Iterable[Artifact], *, key: str, remedy: str
) -> Artifact:
    """The artifact that the user chose by name or path (config key `key`), else the only candidate.

    Raises StrataError when there is none (with the remedy) or more than one (with their names).
    """
    if chosen is not None:
        named = root / kind / chosen
        return open_artifact(named if (named / META).exists() else Path(chosen), kind)
    found = list(candidates)
    if not found:
        raise StrataError(f"no {kind} that fit are in {root / kind}; {remedy}")
    if len(found) > 1:
        lines = [f"  {key}={artifact.meta.name}" for artifact in found]
        raise StrataError(f"{len(found)} {kind} fit; choose one:\n" + "\n".join(lines))
    return found[0]


def verify(folder: Path) -> list[str]:
    """Check a finished artifact against its meta.json: one line for each missing, foreign or changed file."""
    meta = open_meta(folder)
    expected = Plan(folder.parent, meta.kind, "", meta.identity, meta.parents, meta.name)
    problems = []
    if FORMAT_VERSIONS.get(meta.kind) == meta.format_version and expected.fingerprint != meta.fingerprint:
        problems.append(f"{META}: its settings don't give its fingerprint: it was edited")
    there = set(relative_files(folder)) - {META}
    problems += [f"{name}: not listed in {META}" for name in sorted(there - set(meta.files))]
    problems += [f"{name}: missing" for name in sorted(set(meta.files) - there)]
    return problems + changed_files(folder, {name: meta.files[name] for name in sorted(there & set(meta.files))})
