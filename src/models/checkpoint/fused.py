"""Where the parts of a fused projection lie, family by family."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedConfig

Rows = Int[np.ndarray, "row"]


@dataclass(frozen=True)
class FusedLayout:
    """Rows of queries, keys and values: `groups` times, one after the other, the parts in this order.

    Each group has an equal share of the heads of each part: 1 group is q | k | v, as many groups as heads are
    [q of head 0, k of head 0, v of head 0, q of head 1, ...].
    """

    n_heads: int
    n_kv_heads: int
    groups: int = 1
    order: str = "qkv"

    @property
    def heads(self) -> dict[str, int]:
        """Heads of each part."""
        return {"q": self.n_heads, "k": self.n_kv_heads, "v": self.n_kv_heads}

    def rows(self, n_rows: int) -> dict[str, Rows]:
        """The rows of each part, head by head. Raises ValueError if they can't be shared out."""
        d_head, rest = divmod(n_rows, self.n_heads + 2 * self.n_kv_heads)
        if rest:
            raise ValueError(f"{n_rows} rows can't be {self.n_heads} queries and {self.n_kv_heads} keys and values")
        sizes = [self.heads[part] // self.groups * d_head for part in self.order]
        of_groups = np.split(np.arange(n_rows).reshape(self.groups, -1), np.cumsum(sizes)[:-1], axis=1)
        return {part: rows.reshape(-1) for part, rows in zip(self.order, of_groups, strict=True)}


def fused_layout(config: PreTrainedConfig, path: str, n_heads: int, n_kv_heads: int) -> FusedLayout:
    """How a fused projection is laid out. path: of its module inside the layer."""
    kind, module = config.model_type, path.rpartition(".")[2]
    if kind == "codegen":
        return FusedLayout(n_heads, n_heads, groups=4, order="qvk")  # made for four TPU cores
    if kind == "gpt_bigcode":
        return FusedLayout(n_heads, 1) if _has(config, "multi_query") else FusedLayout(n_heads, n_heads, n_heads)
    if kind == "falcon":
        if _has(config, "new_decoder_architecture"):
            return FusedLayout(n_heads, n_kv_heads, groups=n_kv_heads)
        return FusedLayout(n_heads, 1) if _has(config, "multi_query") else FusedLayout(n_heads, n_heads, n_heads)
    if module == "query_key_value" and kind not in ("chatglm", "vit", "beit"):
        return FusedLayout(n_heads, n_heads, groups=n_heads)  # gpt_neox, bloom, persimmon
    return FusedLayout(n_heads, n_kv_heads)  # gpt2, phi3, mpt, modernbert, open_clip


def gate_up_rows(n_rows: int, concatenated: bool) -> dict[str, Rows]:
    """Rows of a fused gate and up: the gate first, or one row of each in turn (gpt_oss)."""
    rows = np.arange(n_rows)
    half = n_rows // 2
    return {"gate": rows[:half], "up": rows[half:]} if concatenated else {"gate": rows[::2], "up": rows[1::2]}


def query_gate_rows(n_rows: int, n_heads: int) -> dict[str, Rows]:
    """Rows of queries that come with a gate of the head's output: per head its query, then its gate (qwen3.5)."""
    halves = np.arange(n_rows).reshape(n_heads, 2, -1)
    return {"q": halves[:, 0].reshape(-1), "output_gate": halves[:, 1].reshape(-1)}


def head_counts(config: Any, encoder: bool) -> tuple[int | None, int | None]:
    """Heads of queries, and of keys and values, as a config tells; encoder: of an encoder-decoder."""
    own = ("encoder_attention_heads",) if encoder else ("decoder_attention_heads",)
    n_heads = _number(config, *own, "num_attention_heads", "num_heads", "n_heads", "n_head")
    return n_heads, _number(config, "num_key_value_heads", "num_kv_heads") or n_heads


def _number(config: Any, *names: str) -> int | None:
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), None)


def _has(config: PreTrainedConfig, name: str) -> bool:
    return bool(getattr(config, name, False))
