"""Open, list, choose and verify finished artifacts."""

import contextlib
import difflib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from src.artifacts.files import changed_files, relative_files
from src.artifacts.meta import FORMAT_VERSIONS, META, PLAN, Artifact, Plan, flat, open_meta
from src.errors import StrataError


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
        return _open_chosen(root, kind, chosen, key)
    found = list(candidates)
    if not found:
        folders = [path.parent for path in sorted((root / kind).glob(f"[!.]*/{PLAN}"))]
        begun = ", ".join(folder.name for folder in folders if not (folder / META).exists())
        hint = f" (unfinished: {begun}; the command that began it goes on with it)" if begun else ""
        raise StrataError(f"no {kind} that fits is in {root / kind}{hint}; {remedy}")
    if len(found) > 1:
        raise StrataError(f"{len(found)} {kind} fit; choose one:\n" + "\n".join(_told_apart(found, key)))
    return found[0]


def _told_apart(artifacts: Sequence[Artifact], key: str) -> list[str]:
    """A line for each artifact: how to choose it, and what its config has that the others' have not."""
    configs = [flat(artifact.meta.config) for artifact in artifacts]
    keys = {name for config in configs for name in config} - {"name", "overwrite", "repair", "threads"}
    differing = sorted(name for name in keys if len({json.dumps(config.get(name)) for config in configs}) > 1)
    return [
        f"  {key}={artifact.path.name}  "
        + " ".join(f"{name}={json.dumps(config[name])}" for name in differing if name in config)
        for artifact, config in zip(artifacts, configs, strict=True)
    ]


def _open_chosen(root: Path, kind: str, chosen: str, key: str) -> Artifact:
    for folder in (root / kind / chosen, Path(chosen)):
        if folder.exists():
            return open_artifact(folder, kind)
    names = [artifact.path.name for artifact in list_artifacts(root, kind)]
    # a name begins with its label, which is what one remembers of it
    begun = difflib.get_close_matches(chosen, {name[: len(chosen)] for name in names}, n=1, cutoff=0.7)
    near = [name for name in names if name[: len(chosen)] in begun][:3]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    there = ", ".join(names) or "none"
    raise StrataError(f"{key}={chosen}: neither a path nor one of the {kind} in {root / kind} (there: {there}){hint}")


def verify(folder: Path, wanted: Callable[[str], bool] = lambda _: True) -> list[str]:
    """Check a finished artifact against its meta.json: one line for each missing, foreign or changed file.

    wanted: which files (relative POSIX path) to check; all by default.
    """
    meta = open_meta(folder)
    problems = []
    if meta.kind not in FORMAT_VERSIONS:
        problems.append(f"{META}: this version of Strata knows no kind {meta.kind!r}")
    elif FORMAT_VERSIONS[meta.kind] == meta.format_version:
        plan = Plan(folder.parent, meta.kind, "", meta.identity, meta.parents, meta.name)
        if plan.fingerprint != meta.fingerprint:
            problems.append(f"{META}: its settings don't give its fingerprint")
    expected = {name: entry for name, entry in meta.files.items() if wanted(name)}
    there = {name for name in relative_files(folder) if name != META and wanted(name)}
    problems += [f"{name}: not listed in {META}" for name in sorted(there - set(expected))]
    problems += [f"{name}: missing" for name in sorted(set(expected) - there)]
    return problems + changed_files(folder, {name: expected[name] for name in sorted(there & set(expected))})


def refuse_damaged(artifact: Artifact, remedy: str) -> None:
    """StrataError if the files of an artifact are not those that its meta.json tells."""
    problems = verify(artifact.path)
    if problems:
        raise StrataError(f"{artifact.path} is damaged ({problems[0]}): {remedy}")
