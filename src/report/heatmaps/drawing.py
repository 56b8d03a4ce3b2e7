"""Framed pictures: whole blocks of pixels for values, with title, axes and a bar of colours."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from src.report.heatmaps.colours import ColourScale
from src.report.heatmaps.ink import FAINT, INK, font_of, plain
from src.report.tables import format_number

# of the values on the screen, and the most that a picture has before values are binned
_USUAL_WIDTH, _MOST_COLUMNS = 760, 2400
_USUAL_HEIGHT, _MOST_ROWS, _TALLEST_ROW = 420, 1600, 26
_FONT_SIZE, _TITLE_SIZE, _MARGIN = 12, 15, 14
_BAR_WIDTH = 14


def binned(values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
    """Values that no screen shows are binned: of each bin the value that is farthest from 0."""
    for axis, most in ((0, _MOST_ROWS), (1, _MOST_COLUMNS)):
        size = values.shape[axis]
        if size > most:
            starts = np.linspace(0, size, most, endpoint=False).astype(int)
            low, high = (extreme.reduceat(values, starts, axis=axis) for extreme in (np.minimum, np.maximum))
            values = np.where(np.abs(low) > np.abs(high), low, high)
    return values


def framed(
    pixels: UInt8[np.ndarray, "row column 3"],
    title: str,
    subtitle: str,
    row_names: Sequence[str],
    columns: str,
    n_columns: int,
    scale: ColourScale,
    table: UInt8[np.ndarray, "step 3"],
) -> Image.Image:
    """A picture of values with all that is needed to read it.

    n_columns: before they were binned. row_names: shown where there is room for them.
    """
    n_rows, n_shown = pixels.shape[:2]
    across = max(1, _USUAL_WIDTH // n_shown)
    down = min(_TALLEST_ROW, max(1, _USUAL_HEIGHT // n_rows))
    width, height = n_shown * across, max(n_rows * down, 40)
    names = [plain(name) for name in row_names]
    font, heading = font_of(_FONT_SIZE), font_of(_TITLE_SIZE)
    left = _MARGIN + 8 + max((int(font.getlength(name)) for name in names), default=0)
    top = _MARGIN + _TITLE_SIZE + _FONT_SIZE + 18
    bar = left + width + 18
    ends = [format_number(scale.high), format_number(scale.low)]
    right = bar + _BAR_WIDTH + 8 + max(int(font.getlength(end)) for end in ends)
    needed = left + int(max(heading.getlength(plain(title, 200)), font.getlength(plain(subtitle, 200))))
    picture = Image.new("RGB", (max(right, needed) + _MARGIN, top + height + 40), "white")
    values = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
    picture.paste(values, (left, top))
    draw = ImageDraw.Draw(picture)
    draw.text((left, _MARGIN), plain(title, 200), INK, heading)
    draw.text((left, _MARGIN + _TITLE_SIZE + 6), plain(subtitle, 200), FAINT, font)
    _row_labels(draw, names, left, top, height / max(n_rows, 1))
    _column_labels(draw, columns, n_columns, left, top + height, width)
    colours = Image.fromarray(np.ascontiguousarray(table[::-1, None])).resize((_BAR_WIDTH, height))
    picture.paste(colours, (bar, top))
    draw.text((bar + _BAR_WIDTH + 5, top), ends[0], FAINT, font, anchor="la")
    draw.text((bar + _BAR_WIDTH + 5, top + height), ends[1], FAINT, font, anchor="ls")
    return picture


def _row_labels(draw: ImageDraw.ImageDraw, names: Sequence[str], left: int, top: int, step: float) -> None:
    every = max(1, int(np.ceil((_FONT_SIZE + 2) / max(step, 1e-9))))
    for place in range(0, len(names), every):
        draw.text((left - 6, top + (place + 0.5) * step), names[place], FAINT, font_of(_FONT_SIZE), anchor="rm")


def _column_labels(draw: ImageDraw.ImageDraw, title: str, count: int, left: int, bottom: int, width: int) -> None:
    font = font_of(_FONT_SIZE)
    for place in tick_places(count):
        x = left + (place + 0.5) * width / count
        draw.line([(x, bottom), (x, bottom + 4)], FAINT)
        draw.text((x, bottom + 6), str(place), FAINT, font, anchor="ma")
    draw.text((left + width / 2, bottom + 22), title, FAINT, font, anchor="ma")


def tick_places(count: int) -> list[int]:
    """Round numbers below a count, about five of them."""
    step = next(base * 10**power for power in range(12) for base in (1, 2, 5) if count <= 6 * base * 10**power)
    return list(range(0, count, step))
