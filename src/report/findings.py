"""What a stage found, in a sentence: the first of its report's text, which stands in the contents of the page too."""

import math
import re
from collections.abc import Mapping

from src.report.tables import format_number

# a sentence ends before a capital letter or the end; a number's decimal point, an abbreviation or a file name does not
_SENTENCE = re.compile(r"(?s)(.*?[.!?])(?=\s+[A-Z(\d]|\s*$)")
_LONGEST = 260


def span(values: Mapping[str, float]) -> str:
    """The range of some numbers and where its ends are: `0.38 (L0_k5) to 0.87 (L3_k1)`.

    One alone: `0.5 (L0_k1)`; several that are equal: `0 (all 3)`. NaN is passed over; `unknown` where nothing is left.
    """
    known = {name: value for name, value in values.items() if math.isfinite(value)}
    if not known:
        return "unknown"
    low, high = min(known, key=lambda name: known[name]), max(known, key=lambda name: known[name])
    if known[low] == known[high]:
        return f"{format_number(known[low])} ({low if len(known) == 1 else f'all {len(known)}'})"
    return " to ".join(f"{format_number(known[name])} ({name})" for name in (low, high))


def lead(text: str) -> str:
    """The first sentence of a text, cut at a word where it is very long; empty for an empty one."""
    first = text.strip().split("\n\n", 1)[0]
    found = _SENTENCE.match(first)
    sentence = (found[1] if found else first).strip()
    return sentence if len(sentence) <= _LONGEST else f"{sentence[:_LONGEST].rsplit(' ', 1)[0]} …"
