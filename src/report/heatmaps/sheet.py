"""All images of a run on one sheet: a column for each layer (and head), a row for each frame."""

from collections.abc import Mapping, Sequence

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from src.report.heatmaps.ink import FAINT, INK, font_of, plain

_MOST_COLUMNS, _MOST_ROWS = 48, 40
_WIDTH, _GAP, _LABELS, _TOP = 1500, 4, 90, 52
_LEAST, _MOST, _LOWEST = 26, 220, 16


def contact_sheet(
    title: str,
    images: Mapping[tuple[str, str], UInt8[ndarray, "row column 3"]],
    columns: Sequence[str],
    rows: Sequence[str],
) -> Image.Image:
    """A picture of all images, which are keyed by (row, column). Beyond 48 columns or 40 rows, some evenly spread."""
    columns, rows = _spread(columns, _MOST_COLUMNS), _spread(rows, _MOST_ROWS)
    width = min(_MOST, max(_LEAST, (_WIDTH - _LABELS) // max(len(columns), 1) - _GAP))
    tallest = {row: max(image.shape[0] for (name, _), image in images.items() if name == row) for row in rows}
    # a picture of one row of values is a strip
    heights = {row: max(_LOWEST, min(round(width * 0.8), 14 * tallest[row])) for row in rows}
    size = (_LABELS + len(columns) * (width + _GAP) + 12, _TOP + sum(heights.values()) + len(rows) * _GAP + 12)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((10, 8), plain(title, 160), INK, font_of(15))
    every = max(1, -(-34 // (width + _GAP)))
    for place, column in enumerate(columns):
        if place % every == 0:
            draw.text((_LABELS + place * (width + _GAP), _TOP - 18), column, FAINT, font_of(11))
    y = _TOP
    for row, height in heights.items():
        draw.text((_LABELS - 8, y + height / 2), row, FAINT, font_of(11), anchor="rm")
        for place, column in enumerate(columns):
            if (image := images.get((row, column))) is not None:
                # few pixels stay blocks, many are averaged
                few = image.shape[0] <= height and image.shape[1] <= width
                how = Image.Resampling.NEAREST if few else Image.Resampling.BOX
                small = Image.fromarray(image).resize((width, height), how)
                sheet.paste(small, (_LABELS + place * (width + _GAP), y))
        y += height + _GAP
    return sheet


def _spread(names: Sequence[str], most: int) -> list[str]:
    if len(names) <= most:
        return list(names)
    return [names[round(place * (len(names) - 1) / (most - 1))] for place in range(most)]
