"""Places where states are measured, in the order in which a model computes them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from src.hook_points import HookPoint

FINAL_NORM = "final_norm"


@dataclass(frozen=True, order=True)
class Site:
    """A hook point, or what the final norm makes of the last block's output.

    layer: the last block that the state has passed, -1 for the input of block 0; of an increment the block it is of.
    rank: tells the sites of a layer apart, in the order of computing. name: as in `resid_post.5`, or `final_norm`.
    """

    layer: int
    rank: int
    kind: Literal["stream", "attn_out", "mlp_out", "final_norm"]
    name: str
    point: HookPoint | None

    @classmethod
    def of(cls, point: HookPoint) -> Self:
        """The site of a hook point; `resid_pre.L` is what block L - 1 has left."""
        if point.hook == "attn_out":
            return cls(point.layer, 0, "attn_out", str(point), point)
        if point.hook == "mlp_out":
            return cls(point.layer, 1, "mlp_out", str(point), point)
        layer = point.layer - 1 if point.hook == "resid_pre" else point.layer
        return cls(layer, 2 if point.hook == "resid_post" else 3, "stream", str(point), point)

    @classmethod
    def after_final_norm(cls, n_layers: int) -> Self:
        """Of a model with so many blocks."""
        return cls(n_layers - 1, 4, "final_norm", FINAL_NORM, None)


def sites_of(points: Iterable[HookPoint]) -> tuple[Site, ...]:
    """Sites of hook points in their order, each state once: `resid_pre.L` only where `resid_post.(L - 1)` is not."""
    sites = sorted({Site.of(point) for point in points})
    kept: list[Site] = []
    for site in sites:
        same = kept and kept[-1].kind == site.kind == "stream" and kept[-1].layer == site.layer
        if not same:
            kept.append(site)
    return tuple(kept)
