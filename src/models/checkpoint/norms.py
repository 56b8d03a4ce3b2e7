"""What each norm normalises, and whether its stored gains are gains less 1."""

import copy
import re
from collections.abc import Collection, Mapping

import torch
from torch import nn
from transformers import PreTrainedConfig

from src.models.checkpoint.matrices import NormPlace

_BEFORE_ATTENTION = (
    r"^(?:input_layernorm|ln_1|ln_attn|norm_?1|layer_norm_?1|layernorm_before|attention_norm|attn_norm)$"
)
_BEFORE_MLP = r"^(?:ln_2|ln_mlp|norm_?2|layer_norm_?2|layernorm_after|mlp_norm|ffn_norm|pre_feedforward_layernorm\w*)$"
_AFTER: Mapping[NormPlace, NormPlace] = {
    "attention": "after_attention",
    "mlp": "after_mlp",
    "cross_attention": "after_cross_attention",
}


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a layer norm or an RMS norm, as its class is called."""
    return "norm" in type(module).__name__.lower()


def norm_place(config: PreTrainedConfig, path: str, in_layer: bool, siblings: Collection[str]) -> NormPlace:
    """What a norm normalises. path: inside the layer. siblings: paths of all norms of the layer."""
    if not in_layer:
        return _outside(path)
    module = path.rpartition(".")[2]
    if re.fullmatch(r"(?:q|query)_?(?:norm|layer_?norm|ln)", module):
        return "q"
    if re.fullmatch(r"(?:k|key)_?(?:norm|layer_?norm|ln)", module):
        return "k"
    if config.model_type in ("t5", "mt5", "umt5", "longt5"):
        return _of_t5(path, siblings)
    place = _by_name(module, path, siblings)
    if _is_post_norm(config):
        return _AFTER.get(place, place)
    if place == "attention" and not any(_by_name(_last(other), other, siblings) == "mlp" for other in siblings):
        # nothing normalises what the MLP reads but this norm, unless outputs are normalised instead (olmo2)
        return "attention_and_mlp" if not _has_output_norms(siblings) and not _has_residual_norms(siblings) else place
    return place


def _by_name(module: str, path: str, siblings: Collection[str]) -> NormPlace:
    if re.search(_BEFORE_ATTENTION, module) or module == "self_attn_layer_norm":
        return "attention"
    if re.search(r"encoder_attn_layer_norm|cross_attn_layer_?norm", module):
        return "cross_attention"
    if re.search(_BEFORE_MLP, module) or module == "final_layer_norm":
        return "mlp"
    if module in ("post_attention_layernorm", "post_attention_norm"):
        return "attention_output" if _has_output_norms(siblings) and not _has_more(siblings) else "mlp"
    if module in ("post_self_attn_layernorm", "post_attn_norm"):
        return "attention_output"
    if re.search(r"post_(?:feedforward|mlp|ffn)_(?:layer)?norm", module):
        return "mlp_output"
    if re.search(r"^attention\.output\.LayerNorm$|^sa_layer_norm$", path):
        return "after_attention"
    if re.search(r"^crossattention\.output\.LayerNorm$", path):
        return "after_cross_attention"
    if re.search(r"^output\.LayerNorm$|^output_layer_norm$", path):
        return "after_mlp"
    return "other"


def _outside(path: str) -> NormPlace:
    if re.search(r"embed|pre_layrnorm|ln_pre|LayerNorm_embedding", path) and "final" not in path:
        return "embedding"
    return "other" if re.search(r"predictions|lm_head|vocab_layer_norm|pooler", path) else "final"


def _of_t5(path: str, siblings: Collection[str]) -> NormPlace:
    """Sublayers by number: attention, in decoders cross-attention, MLP."""
    number = int(re.findall(r"\d+", path)[0])
    if number == 0:
        return "attention"
    return "cross_attention" if number == 1 and len(siblings) == 3 else "mlp"


def _is_post_norm(config: PreTrainedConfig) -> bool:
    """Norms that stand after the additions though their names do not say so."""
    before = getattr(config, "do_layer_norm_before", getattr(config, "normalize_before", None))
    return config.model_type in ("bart", "marian", "blenderbot_small") if before is None else not before


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _has_output_norms(siblings: Collection[str]) -> bool:
    return any(re.search(r"post_(?:feedforward|mlp|ffn)_(?:layer)?norm", _last(path)) for path in siblings)


def _has_more(siblings: Collection[str]) -> bool:
    """Whether attention's output has a norm of a name of its own (glm4: then post_attention_layernorm is the MLP's)."""
    return any(_last(path) in ("post_self_attn_layernorm", "post_attn_norm") for path in siblings)


def _has_residual_norms(siblings: Collection[str]) -> bool:
    return any(re.search(r"output\.LayerNorm$|output_layer_norm$", path) for path in siblings)


def gain_offset(norm: nn.Module) -> float:
    """1 for a norm that multiplies by 1 + weight, 0 for one that multiplies by its weight.

    Tried out, on a copy whose weights are zeros (its own may lie on the meta device): only the former then gives
    something else than zeros. A norm that takes more than one argument counts as the latter.
    """
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, torch.Tensor):
        return 0.0
    trial = copy.deepcopy(norm).to(torch.float32).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in trial.parameters():
            parameter.zero_()
        try:
            given = trial(torch.linspace(-1, 1, len(weight))[None, None])
        except (TypeError, RuntimeError):
            return 0.0
    return float(bool(given.abs().max() > 0))
