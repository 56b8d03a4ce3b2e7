"""What an artifact says of itself (meta.json), and the plan that gives its folder and fingerprint beforehand."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from src.config.schema import fingerprint
from src.errors import StrataError

META = "meta.json"
# what an artifact that is filled in place is to become, from its first moment on
PLAN = "plan.json"
_LABEL_WORD = 40
# of a value that differs, in a message
_MOST_SHOWN = 100

# One home for the format of each kind: raise the number when a reader of the old format would read it wrongly.
FORMAT_VERSIONS = {
    "sequences": 1,
    "activations": 1,
    "moments": 1,
    "operators": 1,
    "scaling": 1,
    "sae": 1,
    "evaluation": 1,
    "causal_evaluation": 1,
    "explanations": 1,
    "feature_scores": 1,
    "topology": 1,
    "topology_comparison": 1,
    "scenario_run": 1,
    "run_comparison": 1,
    "run_analysis": 1,
    "run_heatmaps": 1,
    "geometry": 1,
    "geometry_comparison": 1,
    "model_alignment": 1,
    "modulator": 1,
    "modulator_comparison": 1,
    "modulator_evaluation": 1,
}


@dataclass(frozen=True)
class Parent:
    """An artifact that another one was made from."""

    kind: str
    name: str
    fingerprint: str


@dataclass(frozen=True)
class Meta:
    """The contents of meta.json.

    identity: what determines the content; with kind, format version and parents it gives `fingerprint`.
    config: the whole resolved config of the stage, with keys that don't change the content (device, logger, ...).
    files: relative path -> [bytes, sha256] of every file but meta.json itself and hidden ones.
    summary: what the stage wants its readers to know without opening the data (shapes, counts, scores).
    """

    kind: str
    format_version: int
    name: str
    fingerprint: str
    identity: dict[str, Any]
    parents: list[Parent]
    config: dict[str, Any]
    config_fingerprint: str
    seed: int
    device: str
    versions: dict[str, str]
    git_revision: str | None
    started_at: str
    ended_at: str
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk."""

    path: Path
    meta: Meta

    @property
    def parent(self) -> Parent:
        """This artifact as a parent of the next one."""
        return Parent(self.meta.kind, self.meta.name, self.meta.fingerprint)


@dataclass(frozen=True)
class Provenance:
    """What a stage knows about itself, the same for every artifact that it makes."""

    config: dict[str, Any]
    seed: int
    device: str
    versions: dict[str, str]
    git_revision: str | None
    started_at: str


@dataclass(frozen=True)
class Plan:
    """What is to be made: enough to know the folder and the fingerprint before any work is done."""

    root: Path
    kind: str
    label: str
    identity: dict[str, Any]
    parents: list[Parent] = field(default_factory=list)
    name: str | None = None

    @property
    def fingerprint(self) -> str:
        """sha256 over kind, format version, identity and the parents' fingerprints."""
        return fingerprint(
            {
                "kind": self.kind,
                "format_version": FORMAT_VERSIONS[self.kind],
                "identity": self.identity,
                "parents": [parent.fingerprint for parent in self.parents],
            }
        )

    @property
    def path(self) -> Path:
        """The folder: the given name, or the label with the first 8 digits of the fingerprint."""
        name = self.name if self.name is not None else f"{self.label}-{self.fingerprint[:8]}"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]*", name):
            raise StrataError(f"name={name!r} can't be a folder name: use letters, digits and . _ = + -")
        return self.root / self.kind / name


def label(*parts: str) -> str:
    """A folder label of several words, e.g. of a hub id: characters that a path can't hold become dashes.

    Words of which nothing is left are passed over, and no word keeps more than its last 40 characters.
    """
    words = [re.sub(r"[^A-Za-z0-9._+]+", "-", part).strip("-._")[-_LABEL_WORD:].strip("-._") for part in parts]
    return "-".join(filter(None, words)) or "unnamed"


def now() -> str:
    """The time now, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


def describe_changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line for each key whose value differs between two nested mappings."""
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += describe_changes(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {_apart(json.dumps(before), json.dumps(after))}")
    return lines


def _apart(before: str, after: str) -> str:
    """Two values, from a little before the first character in which they differ where they are long."""
    same = next((k for k, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), 0)
    begin = max(0, same - 20) if max(len(before), len(after)) > _MOST_SHOWN else 0

    def shown(value: str) -> str:
        rest = value[begin:]
        rest = rest if len(rest) <= _MOST_SHOWN else rest[:_MOST_SHOWN] + " ..."
        return f"... {rest}" if begin else rest

    return f"there {shown(before)}, wanted {shown(after)}"


def meta_json(meta: Meta) -> dict[str, Any]:
    """What is written to meta.json: all of it, and a digest of it, so that an edit is noticed."""
    values = asdict(meta)
    return {**values, "digest": fingerprint(values)}


def open_meta(folder: Path) -> Meta:
    """Read meta.json; StrataError if it is missing, edited, or no meta.json of ours."""
    path = folder / META
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        digest = values.pop("digest")
        meta = _META_FORMAT.validate_python(values)
    except (FileNotFoundError, NotADirectoryError):
        hint = "check the path"
        if folder.is_dir() and any(folder.iterdir()):
            hint = "it is unfinished: run its stage again to go on"
        raise StrataError(f"{folder} is no finished artifact (it has no {META}); {hint}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _damaged(path, f"{place}: {first['msg']}") from None
    except OSError as error:
        raise StrataError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    if fingerprint(values) != digest:
        raise _damaged(path, "it was edited: its digest is of other contents")
    return meta


class DamagedArtifact(StrataError):
    """meta.json is there, and can't be trusted."""


def _damaged(path: Path, reason: str) -> DamagedArtifact:
    return DamagedArtifact(f"{path} is damaged or foreign ({reason}); remake the artifact with overwrite=true")


_META_FORMAT = TypeAdapter(Meta)
