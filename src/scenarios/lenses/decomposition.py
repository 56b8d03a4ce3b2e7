"""The residual stream's last state as a sum of what was written into it.

resid_post of the last block = resid_pre of block 0 + sum over blocks of attn_out + mlp_out, wherever blocks add (Elhage
et al. 2021, "A Mathematical Framework for Transformer Circuits"). Blocks that normalise after adding (post-norm: bert,
opt-350m) keep no such sum; the identity's error says so.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError
from src.scenarios.states import RESIDUAL_SOURCES, Rows

EMBEDDINGS, ATTENTION_WRITES, MLP_WRITES = "embeddings", "attn_out", "mlp_out"
# rounding of half precision stays below this even over a hundred additions; a norm in between does not
HOLDS = 0.05


@dataclass(frozen=True, eq=False)
class Decomposition:
    """All that was written into the residual stream, and how much of the final state it makes.

    names: of the components, (`embeddings`, None), then (`attn_out` | `mlp_out`, layer) block by block.
    components: what each wrote. final: resid_post of the last block.
    norms: L2. shares: <component, final> / |final|^2; with the error's share they add up to 1. cosines: with the
    final state, 0 where a norm is 0.
    error: |final - sum| / |final|: rounding, or the sign of a model that does not add.
    """

    names: list[tuple[str, int | None]]
    components: Float[Tensor, "component row d_model"]
    final: Float[Tensor, "row d_model"]
    norms: Float[Tensor, "component row"]
    shares: Float[Tensor, "component row"]
    cosines: Float[Tensor, "component row"]
    error: Float[Tensor, "row"]

    @property
    def holds(self) -> bool:
        """Whether the components add up to the final state, but for rounding."""
        return bool((self.error <= HOLDS).all())

    @property
    def rest(self) -> Float[Tensor, "row d_model"]:
        """What the components leave of the final state."""
        return self.final - self.components.sum(0)


def refuse_gaps(rows: Rows, n_layers: int) -> None:
    """StrataError unless the rows hold the four residual sources of every layer."""
    lacking = [source for source in RESIDUAL_SOURCES if source not in rows]
    if lacking:
        raise StrataError(f"{', '.join(lacking)} was not captured: capture with capture.hidden_states=true")
    if rows.layers != tuple(range(n_layers)):
        raise StrataError(
            f"layers {', '.join(map(str, rows.layers))} of {n_layers} were captured, and a sum needs all of them: "
            "capture with capture.layers=all"
        )


def decompose(rows: Rows, n_layers: int) -> Decomposition:
    """Take the final state of each row apart. Raises StrataError where sources or layers were not captured."""
    refuse_gaps(rows, n_layers)
    before, attention, mlp = (rows.get(source) for source in ("resid_pre", "attn_out", "mlp_out"))
    final = rows.get("resid_post")[-1]
    names: list[tuple[str, int | None]] = [(EMBEDDINGS, None)]
    parts = [before[0]]
    for layer in range(n_layers):
        names += [(ATTENTION_WRITES, layer), (MLP_WRITES, layer)]
        parts += [attention[layer], mlp[layer]]
    components = torch.stack(parts)
    norms, size = components.norm(dim=-1), final.norm(dim=-1)
    products = (components * final).sum(-1)
    return Decomposition(
        names,
        components,
        final,
        norms,
        products / size.square(),
        torch.where(norms * size > 0, products / (norms * size), 0.0),
        (final - components.sum(0)).norm(dim=-1) / size,
    )
