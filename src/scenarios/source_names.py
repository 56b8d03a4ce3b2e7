"""Activation Lab's names of sources, which its CSVs have and which users may type."""

import difflib

from src.errors import StrataError
from src.scenarios.states import LOGITS, SOURCES

ALIASES = {
    "hidden_in": "resid_pre",
    "hidden_out": "resid_post",
    "attn_out": "attn_out",
    "mlp_down_out": "mlp_out",
    "attn_weights": "attention",
    "mlp_down_in": "mlp_act",
}
_LAB_NAMES = {ours: theirs for theirs, ours in ALIASES.items()}


def canonical_source(name: str) -> str:
    """Our name of a source. Raises StrataError if there is no such source."""
    ours = ALIASES.get(name, name)
    if ours not in (*SOURCES, LOGITS):
        near = difflib.get_close_matches(name, (*SOURCES, LOGITS, *ALIASES), n=2, cutoff=0.6)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise StrataError(f"there is no source {name!r}: choose from {', '.join((*SOURCES, LOGITS))}{hint}")
    return ours


def lab_source(source: str) -> str:
    """Activation Lab's name of a source; ours where it has none."""
    return _LAB_NAMES.get(source, source)
