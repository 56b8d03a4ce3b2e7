"""Find where the attention of each block makes its queries, keys and values, by asking how its output depends on them.

A block's attention is the module that returns attention weights when the model runs eagerly. The outputs of the linear
maps inside it are replaced by random numbers, and derivatives tell what each of their columns is for: of the last
token's weights and context,

    columns of earlier tokens that the weights depend on are keys,
    columns of the last token that the weights depend on, and that are not keys, are queries,
    columns of earlier tokens that the context depends on, and that are not keys, are values,

and the heads whose weights or context depend on a column are the ones it belongs to. So a fused projection is split
right however it is laid out (one after the other: gpt2; head by head: gpt_neox, bloom; group by group: falcon), and
what comes after it (rotary positions, norms, clipping) plays no part. Families are not known here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from src.errors import StrataError
from src.models.blocks import Blocks
from src.models.inner import PROBE_SHAPE, InnerModel, probe
from src.models.sites import Handles, Site, as_slice, linear_maps, probe_rows

_SCALE = 0.1  # of the random outputs: scores stay small, so that no softmax is saturated and derivatives are not zero

Roles = Mapping[str, Site | str]


@dataclass(frozen=True, eq=False)
class AttentionSites:
    """Where one block's attention is.

    path: of the attention module inside the block. weights: index of the attention weights in its eager output.
    sites: of q, k and v; a string says why one can't be read.
    """

    path: str
    weights: int
    n_heads: int
    sites: Roles


# configs of models that run eagerly for now, what they said before, and how many asked for it
_EAGER: dict[int, tuple[Any, str | None, int]] = {}


@contextmanager
def eager_attention(module: PreTrainedModel) -> Iterator[None]:
    """Let a model compute its attention eagerly, so that attention modules return their weights.

    It does so until all that asked for it have ended, in whatever order.
    """
    configs = {id(part.config): part.config for part in module.modules() if isinstance(part, PreTrainedModel)}
    before = {key: config._attn_implementation for key, config in configs.items()}
    for key, config in configs.items():
        _, implementation, count = _EAGER.get(key, (config, before[key], 0))
        _EAGER[key] = config, implementation, count + 1
    try:
        for config in configs.values():
            config._attn_implementation = "eager"
        yield
    finally:
        for key in configs:  # a config sets those inside of it too, so from the outermost inwards
            config, implementation, count = _EAGER.pop(key)
            if count > 1:
                _EAGER[key] = config, implementation, count - 1
            else:
                config._attn_implementation = implementation


def find_attention(module: PreTrainedModel, inner: InnerModel, blocks: Blocks) -> list[AttentionSites | str]:
    """The attention of each block, or why it can't be read."""
    if inner.through_decoder:
        return ["a decoder with cross-attention has two attentions in each block"] * len(blocks.modules)
    searches = [_Search(block) for block in blocks.modules]
    with eager_attention(module):
        for step, gradients in ((_Search.look_for_weights, False), (_Search.look_for_roles, True)):
            with Handles() as handles:
                for search in searches:
                    step(search, handles)
                try:
                    probe(module, inner, gradients)
                except StrataError as error:
                    return [f"it does not run with eager attention: {error}"] * len(searches)
    return [search.finished() for search in searches]


class _Search:
    def __init__(self, block: nn.Module) -> None:
        self.block = block
        self.path: str | None = None
        self.weights = 0
        self.found: AttentionSites | None = None
        self.leaves: dict[str, Tensor] = {}
        self.context: Tensor | None = None
        self.later: list[str] = []

    def finished(self) -> AttentionSites | str:
        return self.found or "no module of the block returns attention weights, even if it runs with eager attention"

    def look_for_weights(self, handles: Handles) -> None:
        for path, module in self.block.named_modules():
            if path:
                handles.append(module.register_forward_hook(partial(self._note_weights, path)))

    def _note_weights(self, path: str, _module: nn.Module, _args: Any, output: Any) -> None:
        if self.path is None and isinstance(output, tuple | list):
            for place, value in enumerate(output):
                if _are_weights(value):
                    self.path, self.weights = path, place  # modules inside return before the ones around them

    def look_for_roles(self, handles: Handles) -> None:
        if self.path is not None:
            attention = self.block.get_submodule(self.path)
            for path, module in linear_maps(attention):
                handles.append(module.register_forward_hook(partial(self._replace, f"{self.path}.{path}")))
            handles.append(attention.register_forward_hook(self._analyse))

    def _replace(self, path: str, _module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if probe_rows(output) is None:
            return None
        if args and isinstance(args[0], Tensor) and args[0].requires_grad:
            self.context = args[0]  # the output projection, which comes last, takes the context of all heads
            self.later.append(path)
            return None
        draws = torch.Generator().manual_seed(len(self.leaves))
        values = _SCALE * torch.randn(output.shape, generator=draws)
        self.leaves[path] = values.to(output).requires_grad_()
        return self.leaves[path].clone()  # some are clipped in place (olmo)

    def _analyse(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        assert self.path is not None
        weights = output[self.weights]
        context = self.context if self.context is not None else output[0]
        roles = _roles(self.leaves, weights, context)
        if len(self.later) > 1:
            chain = f"they pass through more than one linear map (then {', '.join(self.later[:-1])})"
            roles = dict.fromkeys(roles, f"queries, keys and values are not outputs of single projections: {chain}")
        self.found = AttentionSites(self.path, self.weights, weights.shape[1], roles)
        return type(output)(value.detach() if isinstance(value, Tensor) else value for value in output)


def _are_weights(value: Any) -> bool:
    """Whether a value is [sequence, head, query, key], and gives each query shares of its keys."""
    n_sequences, n_positions = PROBE_SHAPE
    if not isinstance(value, Tensor) or value.ndim != 4 or not value.is_floating_point():
        return False
    if (len(value), *value.shape[2:]) != (n_sequences, n_positions, n_positions):
        return False
    sums = value.float().sum(-1)
    return bool((value >= 0).all() and (sums > 0).all() and (sums < 1.02).all())  # with a sink they are less than 1


def _roles(
    leaves: Mapping[str, Float[Tensor, "..."]],
    weights: Float[Tensor, "sequence head query key"],
    context: Float[Tensor, "sequence pos width"],
) -> Roles:
    """Which columns of which projection are queries, keys and values."""
    n_heads = weights.shape[1]
    if not weights.requires_grad or not context.requires_grad or context.shape[-1] % n_heads:
        missing = "its queries, keys and values do not come from linear maps inside the attention module"
        return dict.fromkeys(("q", "k", "v"), missing)
    last, of_heads = weights[:, :, -1], context.reshape(*PROBE_SHAPE, n_heads, -1)[:, -1]
    together = _hits(leaves, last.flatten(1)[:, None], of_heads.flatten(1)[:, None])
    by_head: Mapping[str, Mapping[str, Bool[Tensor, "head column"]]] | None = None
    found: dict[str, list[Site]] = {"q": [], "k": [], "v": []}
    for path, roles in together.items():
        for role, hits in roles.items():
            if len(roles) == 1 and hits.all():
                found[role].append(Site(path, "output", hits.shape[1]))
            else:
                by_head = by_head or _hits(leaves, last, of_heads)
                found[role].append(_site(path, by_head[path].get(role, hits)))
    return {role: _single(role, sites, n_heads) for role, sites in found.items()}


def _hits(
    leaves: Mapping[str, Float[Tensor, "..."]],
    weights: Float[Tensor, "sequence group key"],
    context: Float[Tensor, "sequence group width"],
) -> dict[str, dict[str, Bool[Tensor, "group column"]]]:
    """For each projection the roles it has, and which of its columns have them for each group of heads."""
    n_groups = weights.shape[1]
    of_weights = [_dependence(weights[:, group], leaves) for group in range(n_groups)]
    of_context = [_dependence(context[:, group], leaves) for group in range(n_groups)]
    found = {}
    for path in leaves:
        earlier = torch.stack([dependence[path][0] for dependence in of_weights])
        own = torch.stack([dependence[path][1] for dependence in of_weights])
        read = torch.stack([dependence[path][0] for dependence in of_context])
        keys = earlier.any(0)
        roles = {"q": own & ~keys, "k": earlier, "v": read & ~keys}
        found[path] = {role: hits for role, hits in roles.items() if hits.any()}
    return found


def _dependence(
    value: Float[Tensor, "sequence width"], leaves: Mapping[str, Tensor]
) -> dict[str, tuple[Bool[Tensor, "column"], Bool[Tensor, "column"]]]:
    """Of each projection, the columns of earlier tokens, and of the last token, that a value depends on."""
    draws = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    total = (value.float() * draws.to(value.device)).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()), retain_graph=True, allow_unused=True)
    found = {}
    for (path, leaf), gradient in zip(leaves.items(), gradients, strict=True):
        hit = torch.zeros_like(leaf) if gradient is None else gradient
        hit = (hit.reshape(*PROBE_SHAPE, -1) != 0).any(0).cpu()
        found[path] = hit[:-1].any(0), hit[-1]
    return found


def _site(path: str, hits: Bool[Tensor, "head column"]) -> Site:
    """The columns that are hit, in the order of the (first) head that they serve."""
    columns = hits.any(0).nonzero()[:, 0]
    columns = columns[torch.argsort(hits[:, columns].int().argmax(0), stable=True)]
    return Site(path, "output", len(columns), as_slice(columns))


def _single(role: str, sites: list[Site], n_heads: int) -> Site | str:
    name = {"q": "queries", "k": "keys", "v": "values"}[role]
    if len(sites) != 1:
        places = ", ".join(site.path for site in sites)
        return f"its {name} come from several linear maps ({places})" if sites else f"no linear map gives its {name}"
    if role == "q" and sites[0].width % n_heads:
        return f"its {name} are {sites[0].width} columns of {sites[0].path}, which {n_heads} heads can't share"
    return sites[0]
