"""The steps of a generation on disk: JSON Lines, to which each step is added as it is made."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from src.errors import StrataError
from src.scenarios.states import Step
from src.scenarios.storage.layout import steps_name

_STEP = TypeAdapter(Step)


def add_step(folder: Path, generation: int, step: Step) -> None:
    """Add a step while the generation runs, so that a user sees it come (`tail -f`)."""
    with (folder / steps_name(generation)).open("a", encoding="utf-8") as file:
        file.write(_line(step))


def write_steps(folder: Path, generation: int, steps: Sequence[Step]) -> None:
    """Write all steps; a file that holds them already stays as it is. Forced to the disk."""
    path, text = folder / steps_name(generation), "".join(map(_line, steps)).encode()
    if not path.exists() or path.read_bytes() != text:
        path.write_bytes(text)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_steps(folder: Path, generation: int) -> list[Step]:
    """Read the steps of a generation. Raises StrataError if the file is missing, damaged or foreign."""
    path = folder / steps_name(generation)
    try:
        steps = [_STEP.validate_json(line) for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise StrataError(f"{path} can't be read ({error.strerror}): capture the scenario again") from None
    except ValidationError as error:
        raise StrataError(f"{path} is damaged ({error.errors()[0]['msg']}): capture the scenario again") from None
    if [step.step for step in steps] != list(range(len(steps))):
        raise StrataError(f"{path} is damaged (steps are missing): capture the scenario again")
    return steps


def _line(step: Step) -> str:
    # not dataclasses.asdict, which copies each of a thousand likeliest tokens deeply
    values = vars(step) | {"top_k": [vars(token) for token in step.top_k]}
    try:
        return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        return json.dumps(_plain(values), ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are written as words."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
