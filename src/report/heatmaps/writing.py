"""Write images of states into an artifact: heatmaps/RUN/SOURCE/layer_00_step_003.png, and the values as .npy."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from src.report.heatmaps.colours import (
    ColourMap,
    ColourScale,
    Normalization,
    Reduction,
    colour_scale,
    colour_table,
    coloured,
    reduced,
    value_range,
)
from src.report.heatmaps.drawing import binned, framed
from src.report.heatmaps.sheet import contact_sheet
from src.scenarios.state_images import ImageKey, Selection, StateImage, state_images
from src.scenarios.states import ATTENTION, Run

FOLDER = "heatmaps"
# zlib's level: files are a tenth larger than at its usual 6, in a third of the time
_COMPRESSION = 3


@dataclass(frozen=True)
class Look:
    """How values become colours. cmap: None = redblue for signed, else viridis."""

    normalize: Normalization
    reduce: Reduction
    cmap: ColourMap | None

    @property
    def colours(self) -> ColourMap:
        """The colour map."""
        return self.cmap or ("redblue" if self.normalize == "signed" else "viridis")


@dataclass
class Drawn:
    """What was written. sheets: a PNG of all images of each run. low, high: over all values, reduced."""

    n_images: int = 0
    n_not_finite: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    sheets: dict[str, bytes] = field(default_factory=dict)


def write_heatmaps(
    folder: Path, runs: Sequence[Run], selection: Selection, look: Look, advance: Callable[[int], None]
) -> Drawn:
    """Draw and write all images of some runs. Raises StrataError as state_images does."""
    drawn = Drawn()
    for image in _all_images(runs, selection):
        low, high = value_range(reduced(image.values.numpy(), look.reduce))
        drawn.low, drawn.high = min(drawn.low, low), max(drawn.high, high)
    never_negative = selection.source == ATTENTION or look.reduce == "abs"
    table = colour_table(look.colours)
    for run in runs:
        place = folder / FOLDER / run.name / selection.source
        small: dict[tuple[str, str], np.ndarray] = {}
        for image in state_images(run, selection):
            values = image.values.numpy()
            shown = reduced(values, look.reduce)
            scale = colour_scale(look.normalize, value_range(shown), (drawn.low, drawn.high), never_negative)
            pixels = coloured(binned(shown), scale, table)
            stem = place / _stem(image.key)
            stem.parent.mkdir(parents=True, exist_ok=True)
            np.save(stem.with_suffix(".npy"), values, allow_pickle=False)
            _picture(image, pixels, scale, look).save(stem.with_suffix(".png"), compress_level=_COMPRESSION)
            small[_frame_name(image.key), _column_name(image.key)] = pixels
            drawn.n_images += 1
            drawn.n_not_finite += int((~np.isfinite(values)).sum())
            advance(1)
        columns = dict.fromkeys(column for _, column in small)
        title = f"{run.name}: {selection.source}, {_words(look)}"
        sheet = contact_sheet(title, small, list(columns), list(dict.fromkeys(row for row, _ in small)))
        drawn.sheets[run.name] = _png(sheet)
        (place / "contact_sheet.png").write_bytes(drawn.sheets[run.name])
    return drawn


def _all_images(runs: Sequence[Run], selection: Selection) -> Iterator[StateImage]:
    for run in runs:
        yield from state_images(run, selection)


def _stem(key: ImageKey) -> str:
    """As Activation Lab names them."""
    layer = "" if key.layer is None else f"layer_{key.layer:02d}"
    if key.head is not None:
        return f"{layer}/{key.frame}_head_{key.head:02d}"
    return "_".join(filter(None, (layer, key.frame)))


def _frame_name(key: ImageKey) -> str:
    word, _, number = key.frame.partition("_")
    return f"{word} {int(number)}" if number else word


def _column_name(key: ImageKey) -> str:
    layer = "" if key.layer is None else f"L{key.layer}"
    return layer if key.head is None else f"{layer} H{key.head}"


def _picture(image: StateImage, pixels: np.ndarray, scale: ColourScale, look: Look) -> Image.Image:
    key = image.key
    where = "" if key.layer is None else f" of layer {key.layer}"
    head = "" if key.head is None else f", head {key.head}"
    title = f"{key.source}{where}{head}"
    if key.source == ATTENTION and key.head is None:
        title += ", mean over heads"
    subtitle = f"{key.run}, {_frame_name(key)}; {_words(look)}"
    n_rows, n_columns = image.values.shape
    # of binned rows names would stand at wrong places
    names = image.row_names if pixels.shape[0] == n_rows else []
    return framed(pixels, title, subtitle, names, image.columns, n_columns, scale, colour_table(look.colours))


def _words(look: Look) -> str:
    scales = {
        "none": "colours on a fixed scale",
        "per_image": "each image on a scale of its own",
        "signed": "each image on a scale of its own, 0 in the middle",
        "global": "one scale for all images",
    }
    return ("absolute values, " if look.reduce == "abs" else "") + scales[look.normalize]


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=_COMPRESSION)
    return content.getvalue()
