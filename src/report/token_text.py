"""Texts of strangers, and tokens, as labels: nothing invisible, nothing that moves a cursor, nothing too long."""

import unicodedata

_SIGNS = {" ": "·", "\n": "↵", "\t": "⇥"}
# control, format (which holds the bidirectional overrides), surrogates, private use, line and paragraph separators
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


def visible(text: str, longest: int | None = None) -> str:
    """Spaces, newlines and tabs as signs (· ↵ ⇥), other characters without a shape as their code point.

    longest: characters that are kept; of longer texts the last one becomes an ellipsis.
    """
    shown = "".join(
        _SIGNS.get(sign) or (_code(sign) if unicodedata.category(sign) in _HIDDEN else sign) for sign in text
    )
    return shown if longest is None or len(shown) <= longest else f"{shown[: longest - 1]}…"


def _code(sign: str) -> str:
    return f"⟨{ord(sign):04X}⟩"


def one_line(text: str, width: int) -> str:
    """A text on one line of at most `width` characters; what can't be seen, or could move a cursor, is escaped."""
    shown = "".join(sign if sign.isprintable() else _escaped(sign) for sign in text[: width + 1])
    return shown if len(shown) <= width and len(text) <= width else shown[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode()
