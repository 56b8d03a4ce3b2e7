"""Words in pictures."""

from functools import cache

from PIL import ImageFont

INK, FAINT = (31, 41, 51), (95, 107, 122)
_LONGEST_NAME = 24


def plain(text: str, longest: int = _LONGEST_NAME) -> str:
    """A text on one line, in signs that the font that comes with Pillow has; others are escaped."""
    shown = text.encode("unicode_escape").decode() if not (text.isprintable() and text.isascii()) else text
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all words."""
    return ImageFont.load_default(size)
