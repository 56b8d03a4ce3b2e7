"""Why a token is left out of statistics."""

from enum import IntEnum


class Keep(IntEnum):
    """Codes of the `keep` and `roles` arrays: 0 is counted, anything else is the reason why not.

    Every token goes through the forward pass, whatever its code. Text sets BOS, SPECIAL and FIRST from token ids and
    positions alone; SINK and NON_FINITE depend on activations and are set when those are collected.
    """

    COUNTED = 0
    BOS = 1
    """The beginning-of-sequence token at position 0."""
    SPECIAL = 2
    """Any other special token: EOS, CLS, SEP, UNK, chat markers, and a BOS token further on."""
    SINK = 3
    """An attention sink: the norm is far above the median."""
    NON_FINITE = 4
    """NaN or infinity in an activation."""
    FIRST = 5
    """Position 0 where no special token stands: without a BOS, the first token takes its part as attention sink."""
