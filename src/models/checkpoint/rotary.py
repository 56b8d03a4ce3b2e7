"""Rotary positions of a model: which dimensions of a head turn, and how fast; from Transformers' own modules."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Rotary:
    """Position n turns each pair of dimensions (first, second) of a head by n * frequency (Su et al. 2021).

    scale: that the cosines and sines of queries are multiplied by, and those of keys (YaRN and others).
    """

    frequencies: Float[Tensor, "pair"]
    first: Int[Tensor, "pair"]
    second: Int[Tensor, "pair"]
    scale: float = 1.0

    def turned(
        self, rows: Float[Tensor, "*head d_head column"], position: float
    ) -> Float[Tensor, "*head d_head column"]:
        """Queries, keys, or the rows of their projections, turned to a position, and not scaled."""
        angle = (self.frequencies.to(rows.device) * position).to(rows.dtype)[:, None]
        one, two = rows[..., self.first, :], rows[..., self.second, :]
        found = rows.clone()
        found[..., self.first, :] = one * angle.cos() - two * angle.sin()
        found[..., self.second, :] = two * angle.cos() + one * angle.sin()
        return found

    def scaled(self, rows: Float[Tensor, "*head d_head column"]) -> Float[Tensor, "*head d_head column"]:
        """Rows times `scale`, where they turn."""
        found = rows.clone()
        found[..., torch.cat([self.first, self.second]), :] *= self.scale
        return found


def rotary_of(skeleton: nn.Module, attention_path: str, d_head: int) -> Rotary | None:
    """The rotary positions of an attention module; None if it has none.

    Frequencies are those of short texts, where they depend on the length (dynamic scaling, LongRoPE).
    """
    attention: Any = skeleton.get_submodule(attention_path)
    config: Any = getattr(attention, "config", None)
    if hasattr(attention, "embed_positions") and hasattr(attention, "rotary_dim"):  # gptj, codegen
        width = attention.rotary_dim or getattr(attention, "embed_dim", d_head)
        return _rotary(10000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width), 1.0, attention)
    if not _turns(attention, config):
        return None
    module = _module(skeleton, attention_path)
    if module is None:
        return None
    # buffers of a skeleton may lie on the meta device: the module is made again from its config
    made = type(module)(module.config)
    kind = _kind(attention, config)
    prefix = f"{kind}_" if hasattr(made, f"{kind}_inv_freq") else ""
    frequencies = getattr(made, f"{prefix}inv_freq")
    return _rotary(frequencies.double(), float(getattr(made, f"{prefix}attention_scaling", 1.0)), attention)


def _turns(attention: nn.Module, config: Any) -> bool:
    """Whether a layer of a model with rotary positions uses them."""
    if getattr(config, "alibi", False) or getattr(attention, "use_rope", True) is False:
        return False
    return not (getattr(config, "model_type", "") == "cohere2" and getattr(attention, "sliding_window", None) is None)


def _kind(attention: nn.Module, config: Any) -> str | None:
    """The type of the layer, for models whose types of layers have frequencies of their own (gemma3)."""
    own = getattr(attention, "layer_type", None)
    if own is not None:
        return own
    types, index = getattr(config, "layer_types", None), getattr(attention, "layer_idx", None)
    return types[index] if types and index is not None else None


def _module(skeleton: nn.Module, attention_path: str) -> nn.Module | None:
    """The module with frequencies that stands nearest to an attention module."""

    def shared(path: str) -> int:
        pairs = zip(path.split("."), attention_path.split("."), strict=False)
        return next((place for place, (one, other) in enumerate(pairs) if one != other), 0)

    found = {
        path: module
        for path, module in skeleton.named_modules()
        if hasattr(module, "config")
        and any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False))
    }
    return found[max(found, key=shared)] if found else None


def _rotary(frequencies: Float[Tensor, "pair"], scale: float, attention: nn.Module) -> Rotary:
    pairs = torch.arange(len(frequencies))
    if _partner(attention, 2 * len(frequencies)) == 1:
        return Rotary(frequencies, 2 * pairs, 2 * pairs + 1, scale)
    return Rotary(frequencies, pairs, pairs + len(frequencies), scale)


def _partner(attention: nn.Module, width: int) -> int:
    """The dimension that dimension 0 turns with: 1, or half the width; the modelling code is asked."""
    modelling = sys.modules[type(attention).__module__]
    for name in ("rotate_every_two", "rotate_half"):
        turn: Callable[[Tensor], Tensor] | None = getattr(modelling, name, None)
        if turn is not None:
            return int(turn(torch.eye(width)[0].view(1, 1, 1, width)).flatten().abs().argmax())
    return width // 2
