"""The slopes of linear position biases (ALiBi, Press et al. 2022), from Transformers' own modelling code."""

import sys
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_ALWAYS = ("bloom", "mpt")


def alibi_slopes(skeleton: nn.Module, attention_path: str, n_heads: int) -> Float[Tensor, "head"] | None:
    """What logits lose for each token of distance, of each head; None for models without such biases."""
    attention = skeleton.get_submodule(attention_path)
    config: Any = skeleton.config
    if not (getattr(config, "alibi", False) or config.model_type in _ALWAYS):
        return None
    modelling: Any = sys.modules[type(attention).__module__]
    if config.model_type == "mpt":
        if not config.attn_config.alibi:
            return None
        two = modelling.build_mpt_alibi_tensor(n_heads, 2, config.attn_config.alibi_bias_max, device="cpu")
    else:
        two = modelling.build_alibi_tensor(torch.ones(1, 2, dtype=torch.long), n_heads, torch.float32)
    two = two.reshape(n_heads, 2).double()
    slopes = two[:, 1] - two[:, 0]
    # falcon scales logits after it has added the bias
    return slopes * attention.inv_norm_factor if config.model_type == "falcon" else slopes
