"""What the modules of Transformers' families are called, and what parameters of such names are for.

Rules are tried in order, on the path of a module inside its layer (or inside the model, outside of layers); the first
that matches decides. Where a name is not enough, the family decides (`fused.py`, `norms.py`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from src.models.checkpoint.matrices import Attention, Role

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks?|resblocks)\.(\d+)(?=\.|$)")
_EXPERT = re.compile(r"(?:^|\.)experts\.(\d+)\.")
_CROSS = re.compile(r"EncDecAttention|encoder_attn|cross_?att", re.IGNORECASE)
_ATTENTION = re.compile(r"att", re.IGNORECASE)
_LINEAR_ATTENTION = re.compile(r"(?:^|\.)(?:linear_attn|mamba|mixer|ssm|short_conv|temporal_block)(?:\.|$)")
_SHARED_EXPERT = re.compile(r"shared_(?:experts?|mlp)(?:\.|$)")

FUSED_QKV, FUSED_GATE_UP = "qkv", "gate_up"

# paths of modules inside a layer
_OF_ATTENTION: Sequence[tuple[str, str]] = (
    (r"(?:^|[._])q_?[ab]_proj$|(?:^|\.)kv_[ab]_proj(?:_with_mqa)?$", "latent_attention"),
    (r"(?:^|\.)(?:query_key_value|qkv_proj|qkv|c_attn|Wqkv|in_proj)$", FUSED_QKV),
    (r"(?:^|\.)(?:q|q_proj|q_lin|query|query_proj)$", "q"),
    (r"(?:^|\.)(?:k|k_proj|k_lin|key|key_proj)$", "k"),
    (r"(?:^|\.)(?:v|v_proj|v_lin|value|value_proj)$", "v"),
    (r"(?:^|\.)(?:o|o_proj|out_proj|out_lin|dense|c_proj|Wo|wo|proj|output\.dense)$", "o"),
    (r"relative_attention_bias$", "relative_position"),
    (r"sinks$", "sink"),
)
_OF_MLP: Sequence[tuple[str, str]] = (
    (r"(?:^|\.)(?:shared_expert_gate|router(?:\.\w+)?|(?:mlp|block_sparse_moe|feed_forward|moe)\.gate)$", "router"),
    (r"(?:^|\.)(?:gate_up_proj|Wi|weights_in)$", FUSED_GATE_UP),
    (r"(?:^|\.)(?:gate_proj|wi_0|w1|gate)$", "gate"),
    (r"(?:^|\.)(?:up_proj|wi_1|wi|w3|fc1|c_fc|fc_in|lin1|dense_h_to_4h|intermediate\.dense)$", "up"),
    (r"(?:^|\.)(?:down_proj|wo|Wo|w2|fc2|c_proj|fc_out|lin2|dense_4h_to_h|output\.dense|weights_out)$", "down"),
)
_OF_LAYER: Sequence[tuple[str, str]] = ((r"(?:^|\.)(?:layer_scale\d?|ls\d|gamma_\d)$", "layer_scale"),)
_OUTSIDE: Sequence[tuple[str, str]] = (
    (r"pooler", "pooler"),
    (r"token_type_embeddings?$", "token_type"),
    (r"(?:patch_embeddings?|patch_embed)(?:\.|$)|^conv1$|visual\.conv1$", "patch"),
    (r"(?:^|\.)(?:wpe|embed_positions|position_embeddings?|positional_embedding)$", "position"),
    (r"(?:cls|mask|class|distillation|register)_(?:token|tokens|embedding)$", "special_token"),
    (r"(?:^|\.)(?:wte|embed_tokens|word_embeddings|embed_in|token_embedding|tok_embeddings|shared)$", "embedding"),
    (r"^(?:lm_head|embed_out|vocab_projector)$|predictions\.decoder$|lm_head\.decoder$", "unembedding"),
    (r"logit_scale$", "scalar"),
    (
        r"(?:visual|text)_projection$|project_(?:in|out)$|predictions\.transform\.dense$|vocab_transform$"
        r"|(?:^|\.)(?:classifier|score|qa_outputs)$|lm_head\.dense$|embeddings_project$|embedding_hidden_mapping_in$|multi_modal_projector",
        "projection",
    ),
)


@dataclass(frozen=True)
class NamedParameter:
    """What a parameter's name tells.

    path: of its module inside the layer. leaf: weight, bias, or a name of the module's own. role: a Role, or which
    projections are fused. expert: only where experts are modules of their own.
    """

    name: str
    path: str
    leaf: str
    role: str
    layer: int | None
    attention: Attention | None
    expert: int | None
    shared: bool


def named_parameter(name: str) -> NamedParameter:
    """Read a name such as `model.layers.3.self_attn.q_proj.weight`."""
    found = _LAYER.search(name)
    inside = name if found is None else name[found.end() + 1 :]
    path, _, leaf = inside.rpartition(".")
    if leaf not in ("weight", "bias"):  # a parameter of the module's own: `experts.down_proj`, `attn.in_proj_weight`
        stem = re.sub(r"_(?:weight|bias)$", "", leaf)
        path, leaf = ".".join(filter(None, (path, stem))), "bias" if leaf.endswith("_bias") else "weight"
    is_attention = found is not None and bool(_ATTENTION.search(path))
    expert = _EXPERT.search(name)
    attention: Attention | None = ("cross" if _CROSS.search(path) else "self") if is_attention else None
    return NamedParameter(
        name=name,
        path=path,
        leaf=leaf,
        role=_role(path, found is not None, is_attention),
        layer=int(found[1]) if found else None,
        attention=attention,
        expert=int(expert[1]) if expert else None,
        shared=bool(_SHARED_EXPERT.search(path)),
    )


def _role(path: str, in_layer: bool, is_attention: bool) -> str:
    if _LINEAR_ATTENTION.search(path):
        return "linear_attention"
    if not in_layer:
        return _first(path, _OUTSIDE) or "other"
    rules = (*_OF_LAYER, *(_OF_ATTENTION if is_attention else _OF_MLP))
    return _first(re.sub(r"layer_scale(\d?)\.lambda1$", r"layer_scale\1", path), rules) or "other"


def _first(path: str, rules: Sequence[tuple[str, str]]) -> Role | str | None:
    return next((role for pattern, role in rules if re.search(pattern, path)), None)
