"""What directions of the residual stream add to the logits: the final norm's gains and the unembedding, as matrices."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from src.errors import NotApplicableError
from src.models.capture import StopForward, forward_pass
from src.models.language_model import LanguageModel
from src.models.skipping import BlockSkipper

# far above the epsilon of a norm, and below what half precision can square
_LARGE = 64.0
# relative error of a product in the dtype of the model: random directions through norm and fold
_ROUNDING = 64.0


@dataclass(frozen=True, eq=False)
class Unembedding:
    """The linear map from a direction of the residual stream to logits, the final norm's division left out.

    fold: gains of the final norm (for a LayerNorm also the removal of the mean), and whatever else stands before the
    vocabulary head. weight: the head's. Biases and a soft cap on logits are no part of it. Both float32.
    """

    fold: Float[Tensor, "d_model d_head"]
    weight: Float[Tensor, "d_vocab d_head"]

    def logits(self, directions: Float[Tensor, "direction d_model"]) -> Float[Tensor, "direction d_vocab"]:
        """What each direction adds to the logits, per unit of its length, before the norm's division."""
        return directions.to(self.fold) @ self.fold @ self.weight.T


@dataclass(frozen=True, eq=False)
class HeadReading:
    """What norm and head do with certain outputs of the last block: they are linear once the norm's division is known.

    The head's output is (x @ fold / divisor + offset) @ weight.T + bias; soft cap and scale come after it.

    divisor: of the final norm at each row. inputs: what the head really got. offset: the part of it that does not turn
    with the state's sign (a LayerNorm's bias). bias: of the head itself, if it has one. All float32, on the model's
    device.
    """

    unembedding: Unembedding
    divisor: Float[Tensor, "row"]
    inputs: Float[Tensor, "row d_head"]
    offset: Float[Tensor, "row d_head"]
    bias: Float[Tensor, "d_vocab"] | None


def read_head(
    model: LanguageModel,
    unembedding: Unembedding,
    states: Float[Tensor, "row d_model"],
    skipper: BlockSkipper | None = None,
) -> HeadReading:
    """Run the model's own tail on some outputs of its last block, and on their negatives.

    Raises NotApplicableError if the model does not run its head on its blocks' output.
    """
    head = model.module.get_output_embeddings()
    assert head is not None  # the unembedding was read from it
    skipper = BlockSkipper(model) if skipper is None else skipper
    states = states.to(model.device, model.dtype).float()
    given, mirrored = _head_input(model, skipper, head, torch.cat([states, -states])).chunk(2)
    linear, odd = states @ unembedding.fold, (given - mirrored) / 2
    bias = getattr(head, "bias", None)
    return HeadReading(
        unembedding,
        linear.square().sum(-1) / (linear * odd).sum(-1),
        given,
        (given + mirrored) / 2,
        bias.detach().float() if isinstance(bias, Tensor) else None,
    )


def read_unembedding(model: LanguageModel, skipper: BlockSkipper | None = None) -> Unembedding:
    """Read the map from a model by what it does to basis vectors in place of the last block's output.

    So no family's norm (RMSNorm with gains 1 + w, LayerNorm, none) has to be known. A norm N is affine but for its
    division: (N(x) - N(-x)) / 2 = A x / s(x), with s the root mean square of x, or for a LayerNorm its standard
    deviation, which are the same for all basis vectors. Checked on random directions.

    Raises:
        NotApplicableError: no vocabulary head, or what stands before it is not such a norm.
    """
    name, d = f"{type(model.module).__name__} ({model.config.name})", model.d_model
    head: nn.Module | None = model.module.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if head is None or not isinstance(weight, Tensor) or weight.ndim != 2:
        raise NotApplicableError(f"{name} has no vocabulary head, so it predicts no tokens: choose a causal LM")
    skipper = BlockSkipper(model) if skipper is None else skipper
    basis = _LARGE * torch.eye(d, device=model.device)
    of_basis = _odd_part(model, skipper, head, basis)
    scale = _LARGE / math.sqrt(d)
    if torch.allclose(_odd_part(model, skipper, head, 2 * basis[:1]), 2 * of_basis[:1], rtol=1e-2):
        scale = 1.0  # no norm
    elif of_basis.sum(0).norm() <= 1e-2 * of_basis.norm():
        scale *= math.sqrt(1 - 1 / d)  # a LayerNorm, which knows no mean
    fold = of_basis * scale / _LARGE
    directions = torch.randn(4, d, generator=torch.Generator().manual_seed(0)).to(model.device) * _LARGE
    found, expected = _odd_part(model, skipper, head, directions), directions @ fold
    cosine = nn.functional.cosine_similarity(found, expected)
    if not bool((1 - cosine <= (_ROUNDING * torch.finfo(model.dtype).eps) ** 2 + 1e-6).all()):
        raise NotApplicableError(
            f"what stands between the blocks of {name} and its vocabulary head is no norm and linear map: directions "
            "of its residual stream have no logits of their own"
        )
    return Unembedding(fold, weight.detach().float())


def _odd_part(
    model: LanguageModel, skipper: BlockSkipper, head: nn.Module, rows: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row d_head"]:
    """(h(x) - h(-x)) / 2, h the head's input when x is the last block's output."""
    one, other = _head_input(model, skipper, head, torch.cat([rows, -rows])).chunk(2)
    return (one - other) / 2


def _head_input(
    model: LanguageModel, skipper: BlockSkipper, head: nn.Module, rows: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row d_head"]:
    taken: list[Tensor] = []

    def take(_module: Any, args: tuple[Tensor, ...]) -> None:
        taken.append(args[0][:, -1].float())
        raise StopForward

    whole = replace(model.inner, module=model.module)
    ids = torch.zeros(len(rows), 1, dtype=torch.long, device=model.device)
    handle = head.register_forward_pre_hook(take)
    try:
        skipped = skipper.skipped(model.n_layers, rows[:, None].to(model.dtype))
        with forward_pass(model, ids.shape), torch.inference_mode(), skipped:
            whole(ids, torch.ones_like(ids))
    except StopForward:
        return taken[0].clone()
    finally:
        handle.remove()
    raise NotApplicableError(f"{type(model.module).__name__} does not run its vocabulary head on its blocks' output")
