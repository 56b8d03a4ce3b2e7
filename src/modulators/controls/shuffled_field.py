"""A field modulator whose gates read another position than they change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from src.errors import StrataError
from src.models import LanguageModel
from src.modulators.field import FieldModulator, FieldShape

_PRIME = 2**31 - 1
_ROUNDS = 3


class ShuffledField(FieldModulator):
    """The gates of a position are those of a random position of its text before it, or its own: never a later one.

    Needs whole passes: in cached generation the earlier positions are not there to be read.
    """

    kind: ClassVar[str] = "shuffled_field"
    needs_whole_passes: ClassVar[bool] = True

    def __init__(self, d_model: int, layers: Sequence[int], shape: FieldShape, seed: int, shuffle_seed: int) -> None:
        super().__init__(d_model, layers, shape, seed)
        self.shuffle_seed = shuffle_seed
        self._mask: Bool[Tensor, "batch pos"] | None = None
        self._is_continued = False

    @classmethod
    def of(cls, field: FieldModulator, shuffle_seed: int) -> Self:
        """One with copies of a field modulator's parameters."""
        shuffled = cls.build(field.settings() | {"shuffle_seed": shuffle_seed}).to(field.strength.device)
        shuffled.load_state_dict(field.state_dict())
        return shuffled

    def settings(self) -> dict[str, Any]:
        """See Modulator."""
        return super().settings() | {"shuffle_seed": self.shuffle_seed}

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Self:
        """See Modulator."""
        keys = ("d_model", "layers", "seed", "shuffle_seed")
        return cls(shape=FieldShape.from_settings(settings["shape"]), **{key: settings[key] for key in keys})

    @contextmanager
    def attached(self, model: LanguageModel) -> Iterator[None]:
        """See Modulator; what is padding is read from the attention mask of each pass.

        Raises:
            StrataError: within it, a pass that goes on from cached positions.
        """

        def look(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
            cache = kwargs.get("past_key_values")
            self._is_continued = cache is not None and bool(cache.get_seq_length())
            mask = kwargs.get("attention_mask")
            self._mask = mask.bool() if isinstance(mask, Tensor) and mask.ndim == 2 else None

        stack = model.module.get_submodule(model.inner.path) if model.inner.path else model.inner.module
        handle = stack.register_forward_pre_hook(look, with_kwargs=True)
        try:
            with super().attached(model):
                yield
        finally:
            handle.remove()
            self._mask, self._is_continued = None, False

    def read(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "token active"]:
        """See FieldModulator: of the other position."""
        if self._is_continued:
            raise StrataError(
                "the shuffled control of a field modulator reads earlier positions of the pass, and cached generation "
                "has none: generate with use_cache=False, or use another control"
            )
        mask = self._mask
        if mask is None or mask.shape != token_ids.shape:
            mask = torch.ones_like(token_ids, dtype=torch.bool)
        source = earlier_positions(token_ids, mask, self.shuffle_seed)
        own = super().read(residual, token_ids).view(*token_ids.shape, -1)
        return own.gather(1, source[..., None].expand_as(own)).flatten(0, 1)


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
