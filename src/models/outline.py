"""What a checkpoint's config tells of a model without its weights: modules, sizes, and what can be recorded of it."""

import copy
from dataclasses import dataclass

import torch
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig

from src.config.shared import ModelConfig
from src.errors import StrataError
from src.models.language_model import LanguageModel, wrap_model
from src.models.loading import architecture_of, is_causal_lm
from src.models.module_tree import Branch, module_tree
from src.models.sources import available_sources

# what a trial with random weights may take
_MOST_TRIAL_PARAMETERS = 600_000_000
_FEW_LAYERS, _FEW_WORDS = 2, 512


@dataclass(frozen=True)
class Outline:
    """model: its class. blocks, sources: as a trial with random weights and n_tried layers found them.

    untried: why there was no trial; then there are no sources, and no path of the blocks.
    """

    model: str
    n_layers: int | None
    d_model: int | None
    n_heads: int | None
    n_kv_heads: int | None
    d_vocab: int
    n_parameters: int
    branches: list[Branch]
    blocks: str | None
    n_tried: int
    sources: dict[str, str | None]
    untried: str | None


def outline(config: ModelConfig, deepest: int) -> Outline:
    """Describe a model whose weights stay where they are.

    Parameters are counted on the meta device. What can be captured is found by running a copy with random weights: all
    layers of a small model, the first ones of a large one.

    Raises:
        StrataError: the config can't be had, or the model can't be built from it.
    """
    architecture = architecture_of(config)
    text = architecture.get_text_config()
    with torch.device("meta"):
        module = _built(architecture, config)
    n_parameters = sum(weight.numel() for weight in module.parameters())
    tried, untried = None, None
    try:
        tried = _trial(architecture, config, n_parameters)
    except StrataError as error:
        untried = str(error)
    heads = getattr(text, "num_attention_heads", None)
    return Outline(
        model=type(module).__name__,
        n_layers=getattr(text, "num_hidden_layers", None),
        d_model=getattr(text, "hidden_size", None),
        n_heads=heads,
        n_kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        d_vocab=text.vocab_size,
        n_parameters=n_parameters,
        branches=module_tree(module, deepest),
        blocks=tried.block_list.path if tried else None,
        n_tried=tried.n_layers if tried else 0,
        sources=available_sources(tried) if tried else {},
        untried=untried,
    )


def _built(architecture: PreTrainedConfig, config: ModelConfig) -> torch.nn.Module:
    auto_class = AutoModelForCausalLM if is_causal_lm(architecture) else AutoModel
    try:
        return auto_class.from_config(architecture, dtype=torch.float32, trust_remote_code=config.trust_remote_code)
    except (ValueError, ImportError, RuntimeError, AttributeError, TypeError, KeyError) as error:
        raise StrataError(f"{config.name} can't be built from its config ({str(error).splitlines()[0]})") from None


def _trial(architecture: PreTrainedConfig, config: ModelConfig, n_parameters: int) -> LanguageModel:
    """A model with random weights that is small enough to run."""
    if n_parameters > _MOST_TRIAL_PARAMETERS:
        architecture = _cut(architecture)
        with torch.device("meta"):
            left = sum(weight.numel() for weight in _built(architecture, config).parameters())
        if left > _MOST_TRIAL_PARAMETERS:
            raise StrataError(
                f"which sources it has was not tried out: {_FEW_LAYERS} of its layers have {left / 1e9:.3g} billion "
                "parameters"
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return wrap_model(_built(architecture, config), config)  # pyright: ignore[reportArgumentType]


def _cut(architecture: PreTrainedConfig) -> PreTrainedConfig:
    """The config of a model with the first layers and a small vocabulary."""
    cut = copy.deepcopy(architecture)
    text = cut.get_text_config()
    text.num_hidden_layers = _FEW_LAYERS
    if isinstance(getattr(text, "layer_types", None), list):
        text.layer_types = text.layer_types[:_FEW_LAYERS]
    text.vocab_size = _FEW_WORDS
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(text, name, None)
    return cut
