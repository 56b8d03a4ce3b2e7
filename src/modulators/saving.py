"""Modulators on disk: modulator.safetensors (parameters and buffers), modulator.json (what they are)."""

from collections.abc import Mapping
from pathlib import Path

from src.artifacts.tensors import load_tensors, read_header, save_tensors, write_header
from src.errors import StrataError
from src.modulators.controls.field_gates import ActiveScaling, ConstantGates, RandomFeatureGates
from src.modulators.controls.known_tokens import ConstantTarget, TokenScaling
from src.modulators.controls.shuffled_field import ShuffledField
from src.modulators.field import FieldModulator
from src.modulators.modulator import Modulator
from src.modulators.residual import ResidualModulator

VERSION = 1
TENSORS, HEADER = "modulator.safetensors", "modulator.json"
_CLASSES: tuple[type[Modulator], ...] = (
    ResidualModulator,
    ConstantTarget,
    TokenScaling,
    FieldModulator,
    ConstantGates,
    RandomFeatureGates,
    ShuffledField,
    ActiveScaling,
)
KINDS: Mapping[str, type[Modulator]] = {each.kind: each for each in _CLASSES}
_REMEDY = "train it again with train_modulator.py"


def save_modulator(folder: Path, modulator: Modulator) -> None:
    """Write both files into a folder that is there. Raises OSError."""
    save_tensors(folder / TENSORS, modulator.state_dict())
    write_header(folder / HEADER, "modulator", VERSION, {"class": modulator.kind, "settings": modulator.settings()})


def load_modulator(folder: Path) -> Modulator:
    """The modulator of a folder, on the CPU.

    Raises:
        StrataError: files that are missing, damaged, of another format, or do not fit each other.
    """
    header = read_header(folder / HEADER, "modulator", VERSION, _REMEDY)
    if header.get("class") not in KINDS:
        raise StrataError(f"{folder / HEADER} names the unknown class {header.get('class')!r}: {_REMEDY}")
    tensors = load_tensors(folder / TENSORS, _REMEDY)
    try:
        modulator = KINDS[header["class"]].build(header["settings"])
        modulator.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise StrataError(f"{folder / HEADER} and {TENSORS} do not fit each other ({reason}): {_REMEDY}") from None
    return modulator
