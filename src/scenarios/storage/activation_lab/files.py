"""Activation Lab's JSON files, checked as they are read."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from src.errors import StrataError
from src.scenarios.scenario import Label, Position
from src.scenarios.states import ReferenceText, TopToken
from src.scenarios.storage.activation_lab.npz import REMEDY, LabTensors

_ValueT = TypeVar("_ValueT")
_FILE_NAME = re.compile(r"[\w.+-]{1,200}\.npz")


@dataclass(frozen=True)
class LabRunFile:
    """run.json."""

    scenario: dict[str, Any]
    model: dict[str, Any]
    prompt_token_ids: list[int]
    prompt_tokens: list[str]
    tokenizer: dict[str, Any] = field(default_factory=dict)
    env: dict[str, Any] = field(default_factory=dict)
    created_at: str | None = None


@dataclass(frozen=True)
class LabStep:
    """A step in steps.json."""

    step: int
    kind: Literal["prefill", "decode"]
    input_token_ids: list[int]
    generated_token_id: int
    generated_token: str
    tensors_file: str
    logit_argmax_id: int | None = None
    logit_argmax_logprob: float | None = None
    top_k: list[TopToken] | None = None
    logit_stats: dict[str, float | None] | None = None


@dataclass(frozen=True)
class LabSteps:
    """steps.json."""

    steps: list[LabStep]


@dataclass(frozen=True)
class LabSnapshot:
    """A snapshot in conversation_snapshots/index.json; `position` is there if Strata wrote it."""

    index: int
    role: str
    input_token_ids: list[int]
    tensors_file: str
    seq_len: int | None = None
    generated: bool = False
    position: Position = "answer"

    @property
    def token(self) -> int:
        """Index of the token whose state it is."""
        return max(0, (len(self.input_token_ids) if self.seq_len is None else self.seq_len) - 1)


@dataclass(frozen=True)
class LabSnapshots:
    """conversation_snapshots/index.json."""

    snapshots: list[LabSnapshot]


@dataclass(frozen=True)
class LabReferences:
    """references/index.json; `position` and `texts` are there if Strata wrote it."""

    labels: list[Label]
    position: Position = "answer"
    texts: list[ReferenceText] | None = None


def read_lab_json(path: Path, kind: type[_ValueT]) -> _ValueT:
    """Read one of the files above. Raises StrataError if it is missing, damaged or foreign."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except OSError as error:
        raise StrataError(f"{path} can't be read ({error.strerror}): {REMEDY}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = ": ".join([".".join(map(str, first["loc"])), first["msg"]])
        raise StrataError(f"{path} is none of Activation Lab's files ({reason}): {REMEDY}") from None


def lab_tensors(folder: Path, named: str) -> LabTensors:
    """The npz file of a folder that an index names, whatever path it gives it."""
    name = named.replace("\\", "/").rpartition("/")[2]
    if not _FILE_NAME.fullmatch(name):
        raise StrataError(f"{folder}: its index names a file {named!r}: {REMEDY}")
    return LabTensors(folder / name)
