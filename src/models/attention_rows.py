"""Attention weights of chosen query rows, beside sdpa, which has no weights to show.

What transformers calls under the name `sdpa` is wrapped for a while: it gets queries and keys after norms and rotary
positions, the mask and the scale, from which the rows that are wanted are computed; its own result goes on as it is.
Models that do not call it that way (gemma2, falcon, bloom) run eagerly, and their attention modules return all weights.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from src.errors import StrataError
from src.models.blocks import Blocks
from src.models.inner import InnerModel, probe
from src.models.projections import AttentionSites, eager_attention
from src.models.sites import Handles

_WIDE = (torch.float32, torch.float64)

AttentionInput = Mapping[str, Any]
Weights = Float[Tensor, "batch head query key"]


@dataclass(frozen=True, eq=False)
class QueryRows:
    """Which query rows are wanted of a pass: for each of some sequences equally many positions, and a choice of those.

    sequences: None = all, in order. positions: None = all. pick: of the flattened [sequence, position]; None = all.
    """

    sequences: Int[Tensor, "sequence"] | None = None
    positions: Int[Tensor, "sequence position"] | None = None
    pick: Int[Tensor, "row"] | None = None

    @classmethod
    def at(cls, batch: Int[Tensor, "row"], position: Int[Tensor, "row"]) -> "QueryRows":
        """Row i is the query at (batch[i], position[i])."""
        sequences, which, counts = batch.unique(return_inverse=True, return_counts=True)
        order = which.argsort(stable=True)
        slot = torch.empty_like(which)
        slot[order] = torch.arange(len(which), device=which.device) - (counts.cumsum(0) - counts)[which[order]]
        n = int(counts.max())
        positions = position.new_zeros(len(sequences), n)
        positions[which, slot] = position
        pick = which * n + slot
        in_order = torch.equal(pick, torch.arange(len(sequences) * n, device=pick.device))
        return cls(sequences, positions, None if in_order else pick)

    def of(self, states: Float[Tensor, "batch head query width"]) -> Float[Tensor, "sequence head position width"]:
        """The wanted queries of what has a row for each query; what is the same for all sequences may have one."""
        if self.positions is None or self.sequences is None:
            return states
        if len(states) == 1:
            return states[0][:, self.positions].transpose(0, 1)
        return states[self.sequences[:, None], :, self.positions].transpose(1, 2)

    def flat(self, weights: Float[Tensor, "sequence head position key"]) -> Float[Tensor, "row head key"]:
        """One row for each wanted query."""
        rows = weights[:, :, 0] if weights.shape[2] == 1 else weights.transpose(1, 2).flatten(0, 1)
        return rows if self.pick is None else rows[self.pick]


def attention_rows(
    rows: QueryRows,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    mask: Bool[Tensor, "#batch #head query key"] | Float[Tensor, "#batch #head query key"] | None,
    scaling: float | None,
    causal: bool,
    position_bias: Float[Tensor, "#batch head query key"] | None,
) -> Float[Tensor, "row head key"]:
    """softmax(scaling q k' + bias) of some queries over all keys, by the rules of torch's scaled_dot_product_attention.

    Scores and softmax are in float32 at least; what comes back has the dtype of the queries.

    Args:
        rows: which queries.
        query: after norms and rotary positions.
        key: those of earlier positions too; heads of queries share them in groups.
        mask: True, or 0, for keys that are seen. None: all of them, or, if causal, those up to the query's own.
        scaling: None = 1 / sqrt(d_head).
        causal: with no mask and several queries, query i sees keys 0..i.
        position_bias: is added to scores (T5).
    """
    wide = query.dtype if query.dtype in _WIDE else torch.float32
    chosen, keys = rows.of(query), key
    if rows.sequences is not None and len(rows.sequences) < len(key):
        keys = key[rows.sequences]
    if query.dtype != wide:
        chosen, keys = chosen.to(wide), keys.to(wide)
    (n, n_heads, length, width), n_kv_heads = chosen.shape, keys.shape[1]
    grouped = chosen.reshape(n * n_kv_heads, n_heads // n_kv_heads * length, width)
    scale = width**-0.5 if scaling is None else scaling
    scores = torch.baddbmm(grouped[:1, :1, :1], grouped, keys.flatten(0, 1).mT, beta=0, alpha=scale)
    scores = scores.view(n, n_heads, length, -1)
    if position_bias is not None:
        scores = scores + rows.of(position_bias)
    if mask is None and causal and query.shape[2] > 1:
        places = torch.arange(keys.shape[2], device=query.device)
        mask = (places <= places[: query.shape[2], None])[None, None]
    if mask is not None:
        seen = rows.of(mask)
        lowest = torch.finfo(wide).min
        scores = scores.masked_fill_(~seen, lowest) if seen.dtype == torch.bool else scores + seen
    weights = rows.flat(scores.softmax(-1))
    return weights if query.dtype == wide else weights.to(query.dtype)


# of all that listen, in whatever order they stop
_LISTENING: list[Mapping[nn.Module, Callable[[AttentionInput], None]]] = []
_COVERED = ExitStack()


@contextmanager
def listening_to_sdpa(listeners: Mapping[nn.Module, Callable[[AttentionInput], None]]) -> Iterator[None]:
    """Tell listeners what sdpa is given by their attention modules; what it returns does not change."""
    if not _LISTENING:
        _COVERED.enter_context(_covered_sdpa())
    _LISTENING.append(listeners)
    try:
        yield
    finally:
        _LISTENING[:] = [others for others in _LISTENING if others is not listeners]
        if not _LISTENING:
            _COVERED.close()


@contextmanager
def _covered_sdpa() -> Iterator[None]:
    plain, override = ALL_ATTENTION_FUNCTIONS["sdpa"], True
    try:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
    except KeyError:
        override = False  # what is registered for everybody can't be taken away, only covered

    def sdpa(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any) -> Any:
        for listeners in _LISTENING:
            if (listener := listeners.get(module)) is not None:
                causal = options.get("is_causal")
                listener(
                    {
                        "query": query,
                        "key": key,
                        "mask": attention_mask,
                        "scaling": options.get("scaling"),
                        "causal": getattr(module, "is_causal", True) if causal is None else causal,
                        "position_bias": options.get("position_bias"),
                    }
                )
        return plain(module, query, key, value, attention_mask, **options)

    ALL_ATTENTION_FUNCTIONS["sdpa"] = sdpa
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
        if override:
            ALL_ATTENTION_FUNCTIONS["sdpa"] = plain


@contextmanager
def reading_rows(
    module: PreTrainedModel,
    modules: Sequence[nn.Module],
    places: Sequence[int],
    through_sdpa: bool,
    hear: Callable[[int, AttentionInput], None],
    look: Callable[[int, Weights], None],
) -> Iterator[None]:
    """Tell of attention module i whenever it runs.

    Args:
        module: the whole model.
        modules: attention modules.
        places: index of the weights in what each of them returns eagerly.
        through_sdpa: call `hear(i, what sdpa is given)`; else the model runs eagerly for as long as this lasts.
        hear: see through_sdpa.
        look: is called as `look(i, all weights)` where the model runs eagerly.
    """

    def returned(index: int, _module: nn.Module, _args: Any, output: Any) -> None:
        look(index, output[places[index]])

    with ExitStack() as stack:
        if through_sdpa:
            listeners = {member: partial(hear, index) for index, member in enumerate(modules)}
            stack.enter_context(listening_to_sdpa(listeners))
        else:
            stack.enter_context(eager_attention(module))
            handles = stack.enter_context(Handles())
            handles.extend(member.register_forward_hook(partial(returned, i)) for i, member in enumerate(modules))
        yield


def rows_follow_sdpa(
    module: PreTrainedModel, inner: InnerModel, blocks: Blocks, attention: Sequence[AttentionSites | str]
) -> bool:
    """Whether the model runs with sdpa, and rows computed from what that is given are those of eager attention."""
    found = [
        (block.get_submodule(sites.path), sites.weights)
        for block, sites in zip(blocks.modules, attention, strict=True)
        if not isinstance(sites, str)
    ]
    if not found or module.config._attn_implementation != "sdpa":
        return False
    modules, places = zip(*found, strict=True)
    eager: dict[int, Tensor] = {}
    beside: dict[int, Tensor] = {}

    def hear(index: int, given: AttentionInput) -> None:
        beside[index] = attention_rows(QueryRows(), **given)

    def look(index: int, weights: Weights) -> None:
        eager[index] = QueryRows().flat(weights)

    for through_sdpa in (False, True):
        with reading_rows(module, modules, places, through_sdpa, hear, look):
            try:
                probe(module, inner)
            except StrataError:
                return False
    if set(beside) != set(range(len(modules))):
        return False
    limit = max(1e-5, 2 * torch.finfo(module.dtype).eps)  # a mean: single scores of half precision are far off
    return all(float((eager[i].float() - beside[i].float()).abs().mean()) <= limit for i in beside)
