"""What a captured scenario says of its model and tokenizer (run.json)."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.models import LanguageModel


def describe_model(model: LanguageModel, identity: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Plain values: which model it is (name, revision, dtype, digest of the weights, ...), and its sizes.

    identity: `model.identity_of_predictions()`, if it is known already: to digest large weights takes a while.
    """
    config, module = model.module.config.get_text_config(), model.module
    n_heads = getattr(config, "num_attention_heads", None)
    head, embedding = module.get_output_embeddings(), module.get_input_embeddings()
    return dict(model.identity_of_predictions() if identity is None else identity) | {
        "model_class": type(module).__name__,
        "model_type": config.model_type,
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "n_heads": n_heads,
        "n_kv_heads": getattr(config, "num_key_value_heads", None) or n_heads,
        "d_head": getattr(config, "head_dim", None) or (model.d_model // n_heads if n_heads else None),
        "d_vocab": config.vocab_size,
        "embedding_path": _path_of(module, embedding),
        "head_path": _path_of(module, head),
    }


def _path_of(module: nn.Module, part: object) -> str | None:
    return next((name for name, found in module.named_modules() if found is part), None)


def describe_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Plain values: its special tokens, and whether it has a chat template."""
    return {
        "d_vocab": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "chat_template": tokenizer.chat_template is not None,
    }
