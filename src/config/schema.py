"""Typed configs: a Hydra config goes in, a frozen object comes out, or one message that names every bad key.

Defaults live in `configs/*.yaml`; types, limits and explanations live in the schemas. pydantic checks them, because
OmegaConf's own structured configs know neither choices, nor limits, nor unions such as `int | list[int] | "all"`.
"""

import difflib
import hashlib
import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from src.errors import StrataError


class Schema(BaseModel):
    """Base of all config schemas: frozen, unknown keys refused, no silent conversions such as "3" -> 3."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


SchemaT = TypeVar("SchemaT", bound=Schema)


def parse_config(schema: type[SchemaT], values: Mapping[str, Any]) -> SchemaT:
    """Check plain nested values (of a resolved Hydra config) against a schema.

    Raises StrataError with one line for each problem: the key, the value that was given, what is allowed.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        known = dict(flat_keys(schema))
        told: dict[str, Mapping[str, Any]] = {}
        for problem in error.errors():
            key = _key(problem, known)
            # of the branches of a union, the one whose type fits tells most
            if key not in told or (_is_type_problem(told[key]) and not _is_type_problem(problem)):
                told[key] = problem
        raise StrataError("\n".join(_explain(key, problem, known) for key, problem in told.items())) from None


def _key(problem: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """The longest prefix of a problem's location that the schema knows: pydantic appends the branch of a union."""
    parts = [str(part) for part in problem["loc"]]
    # a key of somebody's file may hold what moves a terminal's cursor
    parts = [part if part.isprintable() else repr(part)[1:-1] for part in parts]
    whole = ".".join(parts)
    if problem["type"] == "extra_forbidden":
        return whole
    while parts and ".".join(parts) not in known:
        parts.pop()
    return ".".join(parts) or whole


def _is_type_problem(problem: Mapping[str, Any]) -> bool:
    return problem["type"].endswith("_type") or problem["type"] == "literal_error"


def _explain(key: str, problem: Mapping[str, Any], known: Mapping[str, "KeyInfo"]) -> str:
    if problem["type"] == "extra_forbidden":
        return unknown_key_message(key, known)
    if problem["type"] == "missing":
        return f"{key}: is missing; {_allowed(known.get(key))}"
    if _is_type_problem(problem) or problem["type"] == "too_short":
        hint = ""
        inside = any(isinstance(part, int) for part in problem["loc"][len(key.split(".")) :])
        if problem["type"] == "list_type" and isinstance(problem["input"], str | int | float) and not inside:
            hint = f": a list is written [{problem['input']}]"
        return f"{key}: {_shown(problem['input'])} is not allowed{hint}; {_allowed(known.get(key))}"
    reason = problem["msg"].removeprefix("Value error, ")
    # what several keys are wrong about together has no key of its own, or that of their section
    if isinstance(problem["input"], Mapping):
        return f"{key}: {reason}" if key else reason
    return f"{key}: {_shown(problem['input'])} is not allowed: {reason}" if key else reason


_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 3, 90, 90


def _shown(value: Any) -> str:
    text = _short.repr(value)  # the whole may be without end: YAML's aliases unfold
    return text if len(text) <= 80 else text[:77] + "..."


def _allowed(field: "KeyInfo | None") -> str:
    return f"expected {field.allowed} ({field.help})" if field else "see --help"


def unknown_key_message(key: str, known: Iterable[str]) -> str:
    """The message for a key that no schema has, with the nearest keys that exist."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    leaf = key.rsplit(".", 1)[-1]
    near = near or [name for name in known if name.rsplit(".", 1)[-1] == leaf][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "run with --help for the list of keys"
    return f"{key}: unknown key; {hint}"


class KeyInfo:
    """What --help and error messages say of one key: the allowed values and the explanation."""

    def __init__(self, allowed: str, help: str) -> None:
        self.allowed = allowed
        self.help = help


def flat_keys(schema: type[Schema], prefix: str = "") -> Iterator[tuple[str, KeyInfo]]:
    """(dotted key, KeyInfo) of every leaf of a schema, in the order in which it declares them."""
    for name, field in schema.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Schema):
            yield from flat_keys(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", KeyInfo(_with_limits(annotation, field.metadata), field.description or "")


def _with_limits(annotation: Any, metadata: Iterable[Any]) -> str:
    if annotation is str:  # that a name is not empty goes without saying
        metadata = [item for item in metadata if getattr(item, "min_length", None) != 1]
    return " ".join([_type_name(annotation), *filter(None, map(_limit, metadata))])


def _type_name(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    if hasattr(annotation, "__metadata__"):  # Annotated[..., Field(ge=0)]
        limits = [limit for item in annotation.__metadata__ for limit in getattr(item, "metadata", ())]
        return _with_limits(annotation.__origin__, limits)
    arguments = getattr(annotation, "__args__", None)
    origin = getattr(annotation, "__origin__", None)
    if arguments is None:
        return getattr(annotation, "__name__", str(annotation))
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return "mapping"
    names = [_type_name(item) if origin is None or not isinstance(item, str) else item for item in arguments]
    return " | ".join(names)


def _limit(item: Any) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "with length >="}
    return " ".join(f"{sign} {getattr(item, name)}" for name, sign in signs.items() if hasattr(item, name))


def fingerprint(values: Any) -> str:
    """sha256 (hex) of the canonical JSON of plain nested values: sorted keys, no spaces, no NaN."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
