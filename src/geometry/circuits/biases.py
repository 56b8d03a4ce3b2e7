"""What biases of queries and keys add to the bilinear form: preferences for keys, whatever the query says."""

from jaxtyping import Float
from torch import Tensor


def bias_share(
    bias: Float[Tensor, "head d_head"], other: Float[Tensor, "head d_head d_model"], norm: Float[Tensor, "head"]
) -> Float[Tensor, "head"]:
    """|other' bias| / |Q'K|: the size of a bias's part of the logits beside that of the form.

    For residuals that are isotropic with unit variance (after the norm's division) these are the standard deviations of
    the two parts. bias of queries, other = K: which keys all queries prefer. bias of keys, other = Q: the same for all
    keys of a query, so that without rotary positions it changes no attention weight. norm: |Q'K| of each head.
    """
    return (other.double().mT @ bias.double()[..., None])[..., 0].norm(dim=-1) / norm
