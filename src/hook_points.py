"""Names of places in the residual stream: `resid_post.5` is the output of block 5 (blocks are counted from 0)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from src.errors import StrataError

HOOKS = ("resid_pre", "attn_out", "mlp_out", "resid_post")

# Sources: what can be recorded of a token at a layer.
# The residual stream before and after a block, and what attention and MLP add to it
RESIDUAL_SOURCES = ("resid_pre", "resid_post", "attn_out", "mlp_out")
# queries, keys and values as the projections give them (before norms and positions), heads side by side
QKV_SOURCES = ("q", "k", "v")
# gate projection (gated MLPs), up projection (the pre-activation of others), the neurons: input of the down projection
MLP_SOURCES = ("mlp_gate", "mlp_up", "mlp_act")
# [layer, row, head, key]: attention of a row's token, 0 for keys after it
ATTENTION = "attention"
SOURCES = (*RESIDUAL_SOURCES, *QKV_SOURCES, *MLP_SOURCES, ATTENTION)

_OWN = re.compile(r"(?P<hook>[a-z_]+)\.(?P<layer>\d+)(?:@(?P<offset>[+-]\d+))?")
_TRANSFORMER_LENS = re.compile(r"blocks\.(?P<layer>\d+)\.hook_(?P<hook>[a-z_]+)")


@dataclass(frozen=True, order=True)
class HookPoint:
    """One hook of one layer.

    hook: `resid_pre` (input of the block), `attn_out` and `mlp_out` (what the block really adds to the residual
        stream, so after post-norms), or `resid_post` (output of the block, before any final norm).
    layer: index of the block, from 0.
    offset: where the point stands beside others in a row of activations, so many positions after the row's own token in
        the same sequence (negative: before it); written `resid_post.5@+1`. Models and stores have offset 0 alone.
    """

    hook: str
    layer: int
    offset: int = 0

    def __post_init__(self) -> None:
        if self.hook not in HOOKS:
            raise StrataError(f"unknown hook {self.hook!r}: choose one of {', '.join(HOOKS)}")
        if self.layer < 0:
            raise StrataError(f"layer {self.layer} is negative: layers are counted from 0")

    def __str__(self) -> str:
        return f"{self.hook}.{self.layer}{f'@{self.offset:+d}' if self.offset else ''}"

    @property
    def transformer_lens(self) -> str:
        """TransformerLens' spelling, `blocks.5.hook_resid_post`, which SAELens keeps with an SAE."""
        return f"blocks.{self.layer}.hook_{self.hook}"

    def at(self, offset: int) -> Self:
        """The same hook and layer at another offset."""
        return replace(self, offset=offset)

    @classmethod
    def parse(cls, text: str) -> Self:
        """`resid_post.5`, `resid_post.5@+1`, or TransformerLens' spelling `blocks.5.hook_resid_post`."""
        match = _OWN.fullmatch(text) or _TRANSFORMER_LENS.fullmatch(text)
        if match is None:
            raise StrataError(f"{text!r} is no hook point: write it like resid_post.5 or blocks.5.hook_resid_post")
        return cls(match["hook"], int(match["layer"]), int(match.groupdict().get("offset") or 0))


def refuse_shifted(points: Iterable[HookPoint]) -> None:
    """StrataError if a point has an offset, where only the places of a model are meant."""
    if shifted := [str(point) for point in points if point.offset]:
        raise StrataError(
            f"{', '.join(shifted)}: an offset has a meaning between the tokens of a row alone; models and stores know "
            f"{shifted[0].partition('@')[0]}"
        )
