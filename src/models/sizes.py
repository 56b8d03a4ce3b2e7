"""Sizes of a model, as its config.json tells them: without its weights."""

from dataclasses import dataclass

from transformers import PreTrainedConfig

# where families keep the width of their MLP's neurons
_MLP_KEYS = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "hidden_dim")


@dataclass(frozen=True)
class ModelSizes:
    """Numbers of layers and heads, and widths: of queries, of keys (and values), of the MLP's neurons."""

    n_layers: int
    d_model: int
    n_heads: int
    d_query: int
    d_key: int
    d_mlp: int
    d_vocab: int


def sizes_of(config: PreTrainedConfig) -> ModelSizes | None:
    """The sizes that a config tells of; None if it lacks one. The MLP's width is 4 d_model where it is not said."""
    text = config.get_text_config()
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
    found = [getattr(text, name, None) for name in names]
    numbers = [number for number in found if isinstance(number, int)]
    if len(numbers) < len(names):
        return None
    n_layers, d_model, n_heads, d_vocab = numbers
    d_head = _number(text, ("head_dim",), d_model // n_heads)
    n_kv_heads = _number(text, ("num_key_value_heads", "num_kv_heads"), n_heads)
    d_mlp = _number(text, _MLP_KEYS, 4 * d_model)
    return ModelSizes(n_layers, d_model, n_heads, n_heads * d_head, n_kv_heads * d_head, d_mlp, d_vocab)


def _number(config: PreTrainedConfig, names: tuple[str, ...], otherwise: int) -> int:
    return next((number for name in names if isinstance(number := getattr(config, name, None), int)), otherwise)
