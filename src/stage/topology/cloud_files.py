"""Clouds that come from files: .npy, .npz, .safetensors."""

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from src.artifacts.tensors import load_tensors
from src.errors import StrataError
from src.topology.homology.distances import checked_points

_SUFFIXES = (".npy", ".npz", ".safetensors")


def find_cloud_files(patterns: Sequence[str]) -> list[Path]:
    """The files that paths and glob patterns name, in their order.

    Raises:
        StrataError: nothing there, or of another format.
    """
    paths = []
    for pattern in patterns:
        place = Path(pattern).expanduser()
        found = [place] if place.is_file() else [Path(name) for name in sorted(glob.glob(str(place), recursive=True))]
        if not found:
            raise StrataError(f"clouds={pattern}: no such file")
        paths += found
    for path in paths:
        if path.suffix not in _SUFFIXES:
            raise StrataError(f"clouds={path}: a cloud is an array in a file that ends in {', '.join(_SUFFIXES)}")
    return list(dict.fromkeys(paths))


def read_clouds(paths: Sequence[Path]) -> dict[str, Float[np.ndarray, "point d"]]:
    """The arrays of the files by name: the file's stem, and the array's name where there are several.

    Raises:
        StrataError: a file that is damaged or holds pickles, an array that is no cloud (shape, NaN, inf), a name twice.
    """
    clouds: dict[str, np.ndarray] = {}
    for path in paths:
        for name, array in _arrays(path):
            if name in clouds:
                raise StrataError(f"two clouds are called {name}: give the files different names")
            try:
                checked_points(array)
            except StrataError as error:
                raise StrataError(f"{path}{'' if name == path.stem else f' ({name})'}: {error}") from None
            clouds[name] = np.ascontiguousarray(array)
    return clouds


def _arrays(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    if path.suffix == ".safetensors":
        tensors = load_tensors(path, "clouds=... names a file of tensors, point by row")
        arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
        yield from _named(path, arrays)
        return
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError) as error:
        reason = "it holds Python objects" if "pickle" in str(error) else str(error).splitlines()[0]
        raise StrataError(f"clouds={path} can't be read ({reason})") from None
    yield from _named(path, arrays)


def _named(path: Path, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    if not arrays:
        raise StrataError(f"clouds={path} holds no array")
    for name, array in arrays.items():
        if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
            raise StrataError(f"clouds={path}: {name or 'the array'} holds {array.dtype}, not numbers")
        whole = np.issubdtype(array.dtype, np.integer) or array.dtype.itemsize < 4
        yield (path.stem if len(arrays) == 1 else f"{path.stem}/{name}"), array.astype(np.float32) if whole else array


def read_point_names(path: Path, clouds: Mapping[str, np.ndarray]) -> list[str]:
    """What the rows of all clouds are called, one line each.

    Raises:
        StrataError: no such file, or not as many lines as rows.
    """
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StrataError(f"point_names={path} can't be read ({reason})") from None
    for name, cloud in clouds.items():
        if len(cloud) != len(names):
            raise StrataError(f"point_names={path} has {len(names)} lines, and {name} has {len(cloud)} rows")
    return names
