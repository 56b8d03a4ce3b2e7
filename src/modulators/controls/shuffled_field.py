"""A field modulator whose gates read another position than they change."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from src.errors import StrataError
from src.models import LanguageModel
from src.modulators.field import FieldModulator
from src.modulators.modulator import Modulator, Role

_PRIME = 2**31 - 1
_ROUNDS = 3


class ShuffledField(Modulator):
    """The gates of a position are those of a random position of its text before it, or its own: never a later one.

    Needs whole passes: in cached generation the earlier positions are not there to be read.
    """

    kind: ClassVar[str] = "shuffled_field"

    def __init__(self, field: FieldModulator, seed: int) -> None:
        super().__init__()
        self.field, self.seed, self.layers = field, seed, field.layers
        self._mask: Bool[Tensor, "batch pos"] | None = None

    def settings(self) -> dict[str, Any]:
        """See Modulator."""
        return {"field": self.field.settings(), "seed": self.seed}

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Self:
        """See Modulator."""
        return cls(FieldModulator.build(settings["field"]), settings["seed"])

    def role(self, parameter: str) -> Role:
        """See Modulator."""
        return self.field.role(parameter.removeprefix("field."))

    def strengths(self) -> Tensor | None:
        """See Modulator."""
        return self.field.strengths()

    @contextmanager
    def attached(self, model: LanguageModel) -> Iterator[None]:
        """See Modulator; what is padding is read from the attention mask of each pass.

        Raises:
            StrataError: within it, a pass that goes on from cached positions.
        """

        def look(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
            cache = kwargs.get("past_key_values")
            if cache is not None and cache.get_seq_length():
                raise StrataError(
                    "the shuffled control of a field modulator reads earlier positions of the pass, and cached "
                    "generation has none: generate with use_cache=False, or use another control"
                )
            mask = kwargs.get("attention_mask")
            self._mask = mask.bool() if isinstance(mask, Tensor) and mask.ndim == 2 else None

        stack = model.module.get_submodule(model.inner.path) if model.inner.path else model.inner.module
        handle = stack.register_forward_pre_hook(look, with_kwargs=True)
        try:
            with super().attached(model):
                yield
        finally:
            handle.remove()
            self._mask = None

    def forward(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"], layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """See Modulator."""
        mask = self._mask
        if mask is None or mask.shape != token_ids.shape:
            mask = torch.ones_like(token_ids, dtype=torch.bool)
        source = earlier_positions(token_ids, mask, self.seed)
        active = residual.index_select(-1, self.field.active).to(self.field.strength.dtype)
        read = active.gather(1, source[..., None].expand_as(active))
        factor = self.field.factor(read, layer)
        return residual.index_copy(-1, self.field.active, (active * factor).to(residual.dtype))


def earlier_positions(
    token_ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"], seed: int
) -> Int[Tensor, "batch pos"]:
    """For each token a position of its sequence up to its own, uniform over them; for padding its own.

    The draw is a hash of the seed, the tokens up to the position and their number: the same in every batch and on every
    device, another in every text, and without knowledge of later tokens. mask: what is no padding, on either side.
    """
    place = mask.long().cumsum(-1) - 1
    first = mask.long().argmax(-1, keepdim=True)
    of_tokens = _hashed((token_ids.long() + 1) * 69_621 + place * 48_271 + seed % _PRIME) * mask
    drawn = first + _hashed(of_tokens.cumsum(-1)) % (place + 1).clamp_min(1)
    own = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
    return torch.where(mask, drawn, own)


def _hashed(values: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """Scattered over 0 .. 2^31 - 2; products of numbers below 2^31 fit into int64 on every device."""
    for _ in range(_ROUNDS):
        values = values % _PRIME
        values = values * values + 16_807 * values + 11
    return values % _PRIME
