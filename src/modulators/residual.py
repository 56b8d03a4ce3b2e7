"""The residual modulator: each token's own vector mixed into the residual stream before blocks."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from src.errors import StrataError
from src.modulators.modulator import Modulator, Role
from src.modulators.row_health import RowHealth


class ResidualModulator(Modulator):
    """r' = (1 - a) r + a t, with a = sigmoid(logit) of the layer and t the token's target (spec G1).

    The target of a token is P G[token] + b; with `match_norms` it is turned into that direction at the length of r, so
    that a does not shrink the stream where it has grown (spec G5, BUG G-6). b is the mean that a fitted P leaves over
    (BUG G-5); it is not trained. Tokens outside of `known` are left as they are (BUG G-3), and so is everything at
    a = 0, to the bit.

    Args:
        table: G, a vector of each token.
        projection: P.
        known: tokens that have a vector.
        layers: before whose blocks it stands.
        alpha: its strength at the start, in (0, 1).
        per_layer: each layer has a strength of its own.
        match_norms: targets take the length of what they are mixed with.
        train_table: G is trained too.
        offset: b; 0 if not given.

    Raises:
        StrataError: shapes that do not fit, or a strength outside of (0, 1).
    """

    kind: ClassVar[str] = "residual"

    def __init__(
        self,
        table: Float[Tensor, "d_vocab width"],
        projection: Float[Tensor, "d_model width"],
        known: Bool[Tensor, "d_vocab"],
        layers: Sequence[int],
        alpha: float = 0.01,
        per_layer: bool = True,
        match_norms: bool = True,
        train_table: bool = True,
        offset: Float[Tensor, " d_model"] | None = None,
    ) -> None:
        super().__init__()
        misfit = offset is not None and offset.shape != projection.shape[:1]
        if table.shape[1] != projection.shape[1] or len(known) != len(table) or misfit:
            raise StrataError(
                f"table {tuple(table.shape)}, projection {tuple(projection.shape)}, known {tuple(known.shape)} and "
                f"offset {None if offset is None else tuple(offset.shape)} do not fit each other"
            )
        if not 0 < alpha < 1:
            raise StrataError(f"alpha={alpha}: a strength lies between 0 and 1")
        self.table = nn.Parameter(table.clone(), requires_grad=train_table)
        self.projection = nn.Parameter(projection.clone())
        self.layers = tuple(layers)
        self.match_norms, self.per_layer, self.train_table = match_norms, per_layer, train_table
        count = len(self.layers) if per_layer else 1
        self.strength = nn.Parameter(torch.full((count,), math.log(alpha / (1 - alpha)), dtype=table.dtype))
        self.known: Tensor
        self.register_buffer("known", known.clone())
        self.offset: Tensor
        self.register_buffer("offset", projection.new_zeros(len(projection)) if offset is None else offset.clone())

    def settings(self) -> dict[str, Any]:
        """See Modulator."""
        d_vocab, width = self.table.shape
        return {
            "d_vocab": d_vocab,
            "d_model": len(self.projection),
            "width": width,
            "layers": list(self.layers),
            "per_layer": self.per_layer,
            "match_norms": self.match_norms,
            "train_table": self.train_table,
        }

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Self:
        """See Modulator."""
        d_vocab, d_model, width = (settings[key] for key in ("d_vocab", "d_model", "width"))
        return cls(
            torch.zeros(d_vocab, width),
            torch.zeros(d_model, width),
            torch.zeros(d_vocab, dtype=torch.bool),
            settings["layers"],
            per_layer=settings["per_layer"],
            match_norms=settings["match_norms"],
            train_table=settings["train_table"],
        )

    @property
    def n_trained(self) -> int:
        """See Modulator; vectors of tokens that are not known are never read."""
        unread = int((~self.known).sum()) * self.table.shape[1] if self.train_table else 0
        return super().n_trained - unread

    def role(self, parameter: str) -> Role:
        """See Modulator."""
        return "strength" if parameter == "strength" else "weights"

    def strengths(self) -> Float[Tensor, "layer 1"]:
        """Alpha of each layer."""
        return self.strength.sigmoid().expand(len(self.layers))[:, None]

    def health_numbers(self) -> dict[str, float]:
        """See Modulator: of the known tokens' vectors."""
        found = RowHealth.of([self.table[self.known]], self.table.shape[1])
        return {"mean cosine of vectors": found.cosine_mean, "dimensions of vectors": found.participation}

    def forward(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"], layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """See Modulator."""
        share = self.strengths()[self.layers.index(layer)] * self.known[token_ids, None]
        return mixed(residual, self.target(token_ids), share, self.match_norms)

    def target(self, token_ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch d_model"]:
        """What tokens are drawn to, before its length is matched."""
        return self.table[token_ids] @ self.projection.T + self.offset


def mixed(
    residual: Float[Tensor, "batch pos d_model"],
    target: Float[Tensor, "*batch d_model"],
    share: Float[Tensor, "batch pos 1"],
    match_norms: bool,
) -> Float[Tensor, "batch pos d_model"]:
    """(1 - share) r + share t in the dtype of r; with match_norms t has the length of r, or is 0 where it is 0."""
    read = residual.to(target)
    if match_norms:
        # the length of t in one factor, so that autograd keeps t and r alone; squares of less are 0 in float32
        least = torch.finfo(target.dtype).tiny ** 0.5
        length = read.norm(dim=-1, keepdim=True) / target.norm(dim=-1, keepdim=True).clamp_min(least)
        return residual + (share * length * target - share * read).to(residual.dtype)
    # r + a (t - r) is r itself at a = 0, to the bit
    return residual + (share * (target - read)).to(residual.dtype)
