"""Modulators on disk: modulator.safetensors (parameters and buffers), modulator.json (what they are)."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from src.artifacts.tensors import load_tensors, read_header, save_tensors, write_header
from src.errors import StrataError
from src.modulators.adapters import LoraAdapters
from src.modulators.controls.field_gates import ActiveScaling, ConstantGates, RandomFeatureGates
from src.modulators.controls.known_tokens import ConstantTarget, TokenScaling
from src.modulators.controls.shuffled_field import ShuffledField
from src.modulators.field import FieldModulator
from src.modulators.modulator import Modulator
from src.modulators.notebook.field import NotebookField
from src.modulators.notebook.residual import NotebookResidual
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
    LoraAdapters,
    NotebookResidual,
    NotebookField,
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
        StrataError: files that are missing, damaged, of another format, do not fit each other, or hold NaN.
    """
    header = read_header(folder / HEADER, "modulator", VERSION, _REMEDY)
    name = header.get("class")
    if not isinstance(name, str) or name not in KINDS:
        raise StrataError(f"{folder / HEADER} names the unknown class {name!r}: {_REMEDY}")
    tensors = load_tensors(folder / TENSORS, _REMEDY)
    try:
        modulator = KINDS[name].build(header["settings"])
        _check_dtypes(modulator.state_dict(), tensors)
        modulator.load_state_dict(tensors)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError, OverflowError, StrataError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise StrataError(f"{folder / HEADER} and {TENSORS} do not fit each other ({reason}): {_REMEDY}") from None
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise StrataError(f"{folder / TENSORS}: {key} holds NaN or infinity: {_REMEDY}")
    return modulator


def _check_dtypes(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise ValueError where loading would round or wrap; missing and unknown names are load_state_dict's to find."""
    for key in expected.keys() & found.keys():
        if expected[key].dtype != found[key].dtype:
            raise ValueError(f"{key} is {found[key].dtype}, expected {expected[key].dtype}")
