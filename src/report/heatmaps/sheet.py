"""All images of a run on one sheet: a column for each layer (and head), a row for each frame."""

from collections.abc import Mapping, Sequence

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from src.report.heatmaps.ink import FAINT, INK, font_of, plain

_MOST_COLUMNS, _MOST_ROWS = 48, 40
_WIDTH, _GAP, _LABELS, _TOP = 1500, 4, 90, 52
_LEAST, _MOST = 26, 220


def contact_sheet(
    title: str,
    images: Mapping[tuple[str, str], UInt8[ndarray, "row column 3"]],
    columns: Sequence[str],
    rows: Sequence[str],
) -> Image.Image:
    """A picture of all images, which are keyed by (row, column). Beyond 48 columns or 40 rows, some evenly spread."""
    columns, rows = _spread(columns, _MOST_COLUMNS), _spread(rows, _MOST_ROWS)
    width = min(_MOST, max(_LEAST, (_WIDTH - _LABELS) // max(len(columns), 1) - _GAP))
    tallest = max(image.shape[0] for image in images.values())
    height = max(20, min(round(width * 0.8), 14 * tallest))
    sheet = Image.new(
        "RGB", (_LABELS + len(columns) * (width + _GAP) + 12, _TOP + len(rows) * (height + _GAP) + 12), "white"
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((10, 8), plain(title, 160), INK, font_of(15))
    every = max(1, -(-34 // (width + _GAP)))
    for place, column in enumerate(columns):
        if place % every == 0:
            draw.text((_LABELS + place * (width + _GAP), _TOP - 18), column, FAINT, font_of(11))
    for line, row in enumerate(rows):
        y = _TOP + line * (height + _GAP)
        draw.text((_LABELS - 8, y + height / 2), row, FAINT, font_of(11), anchor="rm")
        for place, column in enumerate(columns):
            if (image := images.get((row, column))) is not None:
                # few pixels stay blocks, many are averaged
                few = image.shape[0] <= height and image.shape[1] <= width
                how = Image.Resampling.NEAREST if few else Image.Resampling.BOX
                small = Image.fromarray(image).resize((width, height), how)
                sheet.paste(small, (_LABELS + place * (width + _GAP), y))
    return sheet


def _spread(names: Sequence[str], most: int) -> list[str]:
    if len(names) <= most:
        return list(names)
    return [names[round(place * (len(names) - 1) / (most - 1))] for place in range(most)]
