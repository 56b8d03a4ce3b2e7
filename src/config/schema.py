"""Typed configs: a Hydra config goes in, a frozen object comes out, or one message that names every bad key.

Defaults live in `configs/*.yaml`; types, limits and explanations live in the schemas. pydantic checks them, because
OmegaConf's own structured configs know neither choices, nor limits, nor unions such as `int | list[int] | "all"`.
"""

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
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
        lines = [_explain(schema, problem) for problem in error.errors()]
        raise StrataError("\n".join(dict.fromkeys(lines))) from None


def _explain(schema: type[Schema], problem: Mapping[str, Any]) -> str:
    known = dict(flat_keys(schema))
    # pydantic appends the branch of a union to the location; the key is the longest prefix that the schema knows
    parts = [str(part) for part in problem["loc"]]
    key = ".".join(parts)
    if problem["type"] == "extra_forbidden":
        return unknown_key_message(key, known)
    while parts and ".".join(parts) not in known:
        parts.pop()
    key = ".".join(parts) or key
    if problem["type"] == "missing":
        return f"{key}: is missing; {_allowed(known.get(key))}"
    if problem["type"].endswith("_type") or problem["type"] in ("literal_error", "model_type"):
        return f"{key}: {_shown(problem['input'])} is not allowed; {_allowed(known.get(key))}"
    return f"{key}: {_shown(problem['input'])} is not allowed: {problem['msg'].removeprefix('Value error, ')}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _allowed(field: "KeyInfo | None") -> str:
    return f"expected {field.allowed} ({field.help})" if field else "see --help"


def unknown_key_message(key: str, known: Mapping[str, Any]) -> str:
    """The message for a key that no schema has, with the nearest keys that exist."""
    near = difflib.get_close_matches(key, list(known), n=3, cutoff=0.5)
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
            limits = [_limit(item) for item in field.metadata]
            allowed = " ".join([_type_name(annotation), *filter(None, limits)])
            yield f"{prefix}{name}", KeyInfo(allowed, field.description or "")


def _type_name(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
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
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "of length >="}
    return " ".join(f"{sign} {getattr(item, name)}" for name, sign in signs.items() if hasattr(item, name))


def fingerprint(values: Any) -> str:
    """sha256 (hex) of the canonical JSON of plain nested values: sorted keys, no spaces, no NaN."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
