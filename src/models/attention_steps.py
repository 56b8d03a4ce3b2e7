"""Attention rows of one layer over several passes; those of passes of one token are computed together."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from src.models.attention_rows import AttentionInput, QueryRows, attention_rows

_ALL = QueryRows()


class LayerRows:
    """The rows of a layer, pass after pass.

    Where a key-value cache keeps the keys of a sequence in place and adds to them, the rows of single tokens wait until
    they are asked for: they are rows of one product of queries and keys then.
    """

    def __init__(self) -> None:
        self.n_passes = 0
        self._parts: list[tuple[Tensor, int]] = []
        self._queries: list[Tensor] = []
        self._keys: Tensor | None = None
        self._scaling: float | None = None

    def clear(self) -> None:
        """Forget all rows."""
        self.n_passes = 0
        self._parts.clear()
        self._queries.clear()
        self._keys = None

    def add(self, weights: Float[Tensor, "row head key"], n_keys: int) -> None:
        """Rows of a pass; n_keys: tokens that the last of them has had so far."""
        self.n_passes += 1
        self._compute()
        self._parts.append((weights, n_keys))

    def follow(self, given: AttentionInput, n_keys: int) -> None:
        """The row of a pass of one token, of what its attention was given."""
        key, last = given["key"], self._keys
        if given["mask"] is not None or given["position_bias"] is not None or key.shape[2] != n_keys:
            self.add(attention_rows(_ALL, **given), n_keys)
            return
        # another storage than before: the cache has moved, or does not keep the keys themselves
        grown = last is not None and key.data_ptr() == last.data_ptr() and n_keys == last.shape[2] + 1
        if not (grown and last is not None and key.stride() == last.stride()):
            self._compute()
        self.n_passes += 1
        self._queries.append(given["query"])
        self._keys, self._scaling = key, given["scaling"]

    def parts(self) -> list[tuple[Float[Tensor, "row head key"], int]]:
        """Rows that belong together, with the number of tokens that the last of them has had."""
        self._compute()
        return self._parts

    def _compute(self) -> None:
        if self._keys is None:
            return
        n, n_keys, mask = len(self._queries), self._keys.shape[2], None
        if n > 1:
            places = torch.arange(n_keys, device=self._keys.device)
            mask = (places <= places[n_keys - n :, None])[None, None]
        rows = attention_rows(_ALL, torch.cat(self._queries, 2), self._keys, mask, self._scaling, False, None)
        self._parts.append((rows, n_keys))
        self._queries.clear()
        self._keys = None


def put_together(layers: Sequence[LayerRows], n_keys: int) -> Float[Tensor, "layer row head key"]:
    """The rows of all layers, over n_keys tokens; what a row has no weight for is 0."""
    parts = [rows.parts() for rows in layers]
    if all(len(found) == 1 and found[0][0].shape[-1] == n_keys for found in parts):
        return torch.stack([found[0][0] for found in parts])
    example = parts[0][0][0]
    stacked = example.new_zeros(len(layers), sum(len(rows) for rows, _ in parts[0]), example.shape[1], n_keys)
    for layer, found in zip(stacked, parts, strict=True):
        first = 0
        for weights, n_seen in found:
            # the cache of a sliding window keeps the last keys only; a static one has room for keys to come
            kept = weights[..., :n_seen]
            layer[first : first + len(kept), :, n_seen - kept.shape[-1] : n_seen] = kept
            first += len(kept)
    return stacked
