"""Load models and tokenizers from a local folder or the hub."""

import difflib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config.shared import ModelConfig
from src.errors import NotApplicableError, StrataError
from src.hook_points import HookPoint
from src.models.capture import run_with_hooks
from src.models.inner import probe_tokens
from src.models.language_model import LanguageModel, wrap_model
from src.models.sizes import ModelSizes, sizes_of

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model")
PROJECT_ROOT = Path(__file__).resolve().parents[2]

Loaded = TypeVar("Loaded")


def load_model(config: ModelConfig, device: torch.device | str) -> LanguageModel:
    """Load a causal LM, an encoder or an encoder-decoder, in eval mode and without gradients, and find its blocks.

    `config.path` (a local folder; relative to the working directory, else to the project) wins over `config.name` (a
    hub id). A checkpoint of a causal LM keeps its vocabulary head; of any other architecture the body alone is loaded.

    Raises:
        StrataError: no such folder or hub model, missing or damaged weights, or an unknown family.
    """
    is_causal = is_causal_lm(architecture_of(config))
    return _loaded(config, device, AutoModelForCausalLM if is_causal else AutoModel, with_head=is_causal)


def load_predicting_model(config: ModelConfig, device: torch.device | str) -> LanguageModel:
    """The same with the head that predicts tokens: of a causal LM, or of an encoder-decoder.

    Raises:
        StrataError: as `load_model` does; NotApplicableError for a model that predicts no text.
    """
    architecture = architecture_of(config)
    if is_causal_lm(architecture):
        return _loaded(config, device, AutoModelForCausalLM, with_head=True)
    if not architecture.is_encoder_decoder:
        raise NotApplicableError(
            f"{named(config)} ({architecture.model_type}) predicts no text: choose a causal LM or an encoder-decoder"
        )
    return _loaded(config, device, AutoModelForSeq2SeqLM, with_head=True)


def _loaded(config: ModelConfig, device: torch.device | str, auto_class: Any, with_head: bool) -> LanguageModel:
    source, options = source_of(config), origin_of(config)
    architecture = architecture_of(config)
    if config.attention is not None:
        options["attn_implementation"] = config.attention
    options |= {"dtype": config.dtype, "weights_only": True, "output_loading_info": True}
    module, info = explained(config, lambda: auto_class.from_pretrained(source, config=architecture, **options))
    model = wrap_model(module.to(device), config)
    _refuse_missing_weights(model, set(info["missing_keys"]), with_head)
    return model


def load_random_model(config: ModelConfig, device: torch.device | str, seed: int) -> LanguageModel:
    """A model of the same config whose weights are drawn anew by the family's own initialisation, in float32.

    Raises StrataError as `load_model` does.
    """
    architecture = architecture_of(config)
    auto_class = AutoModelForCausalLM if is_causal_lm(architecture) else AutoModel
    options = {} if config.attention is None else {"attn_implementation": config.attention}
    options |= {"dtype": torch.float32, "trust_remote_code": config.trust_remote_code}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = explained(config, lambda: cast(Any, auto_class).from_config(architecture, **options))
    return wrap_model(module.to(device), config)


def layers_in_config(config: ModelConfig) -> int | None:
    """The number of layers that a checkpoint's config.json tells of, without its weights; None if it tells of none.

    Raises StrataError as `load_model` does.
    """
    architecture = architecture_of(config)
    if architecture.is_encoder_decoder or config.blocks is not None:
        return None  # which of several stacks is meant is found out from the modules
    count = getattr(architecture.get_text_config(), "num_hidden_layers", None)
    return count if isinstance(count, int) else None


def sizes_in_config(config: ModelConfig) -> ModelSizes | None:
    """What a checkpoint's config.json tells of the model's sizes, without its weights; None if it lacks some.

    Raises StrataError as `load_model` does.
    """
    return sizes_of(architecture_of(config))


def positions_in_config(config: ModelConfig) -> int | None:
    """The longest sequence that a checkpoint's config.json says it was made for; None if it tells of none.

    Raises StrataError as `load_model` does.
    """
    count = getattr(architecture_of(config).get_text_config(), "max_position_embeddings", None)
    return count if isinstance(count, int) and count > 0 else None


def refuse_other_than_causal_lm(config: ModelConfig) -> None:
    """StrataError if a checkpoint is no causal language model, told by its config.json; loads no weights."""
    architecture = architecture_of(config)
    if not is_causal_lm(architecture):
        kind = ", ".join(architecture.architectures or ()) or architecture.model_type
        raise StrataError(
            f"{named(config)} is no causal language model ({kind}): it can't go on with a text; choose one that can"
        )


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model (the fast one, where there is one); loads no weights.

    Raises:
        StrataError: no such folder or hub model, or no tokenizer in it.
    """
    source = source_of(config)
    if config.path is not None and not any(file for pattern in _TOKENIZER_FILES for file in Path(source).glob(pattern)):
        raise StrataError(f"model.path={config.path}: {source} holds no tokenizer; save it there with save_pretrained")
    return explained(config, lambda: AutoTokenizer.from_pretrained(source, **origin_of(config)))


def origin_of(config: ModelConfig) -> dict[str, Any]:
    """What every loader of transformers is told besides the source."""
    return {"revision": config.revision, "trust_remote_code": config.trust_remote_code}


def architecture_of(config: ModelConfig) -> PreTrainedConfig:
    """A checkpoint's config.json. Raises StrataError as `load_model` does."""
    source = source_of(config)
    if config.path is not None and not (Path(source) / "config.json").is_file():
        raise StrataError(
            f"model.path={config.path}: {source} holds no config.json, so it is no Hugging Face model folder. "
            "Point model.path at the folder that save_pretrained wrote"
        )
    return explained(config, lambda: AutoConfig.from_pretrained(source, **origin_of(config)))


def source_of(config: ModelConfig) -> str:
    """The folder or the hub id to load from."""
    if config.path is None:
        return config.name
    path = Path(config.path).expanduser()
    folder = path if path.exists() else PROJECT_ROOT / path
    if not folder.is_dir():
        tried = dict.fromkeys(str(place.absolute()) for place in (path, PROJECT_ROOT / path))
        raise StrataError(
            f"model.path={config.path}: no such folder (looked at {' and '.join(tried)}). Give the folder that "
            "save_pretrained wrote, or set model.path=null and model.name to a hub id"
        )
    return str(folder)


def named(config: ModelConfig) -> str:
    """The key that chose the model."""
    return f"model.path={config.path}" if config.path else f"model.name={config.name}"


def is_causal_lm(architecture: PreTrainedConfig) -> bool:
    """Whether the checkpoint was saved by a class of causal LMs (or brings one as remote code)."""
    names = {name for entry in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for name in _as_tuple(entry)}
    saved_by = set(architecture.architectures or ())
    return bool(saved_by & names) or "AutoModelForCausalLM" in (getattr(architecture, "auto_map", None) or {})


def _as_tuple(entry: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(entry)


def explained(config: ModelConfig, load: Callable[[], Loaded]) -> Loaded:
    """Run a loader of transformers; what goes wrong becomes one message with the remedy."""
    try:
        return load()
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
        if config.path is not None:
            raise StrataError(
                f"model.path={config.path} can't be loaded ({reason}). The folder must hold what save_pretrained "
                "writes: config.json, weights (model.safetensors) and the tokenizer's files"
            ) from error
        known = [path.stem for path in (PROJECT_ROOT / "configs" / "model").glob("[!_]*.yaml")]
        near = difflib.get_close_matches(config.name, known, n=1, cutoff=0.8)
        hint = f" (or did you mean {near[0]} of configs/model?)" if near else ""
        raise StrataError(
            f"model.name={config.name} can't be loaded from the Hugging Face hub ({reason}). Check the id{hint} and "
            "the network (HF_TOKEN for gated models), or download it and set model.path=FOLDER"
        ) from error


def _refuse_missing_weights(model: LanguageModel, missing: set[str], with_head: bool) -> None:
    """Weights that a checkpoint lacks are random: refuse those that hidden states, or a causal LM's logits, need."""
    harmful = sorted(missing if with_head or not missing else missing & _names_in_use(model))
    if harmful:
        raise StrataError(
            f"{named(model.config)}: the checkpoint lacks {len(harmful)} weights that {type(model.module).__name__} "
            f"needs ({', '.join(harmful[:5])}{', ...' if len(harmful) > 5 else ''}), so they would be random. "
            "Point model.path at a complete checkpoint of this architecture"
        )


def _names_in_use(model: LanguageModel) -> set[str]:
    """All names of the weights of the modules that run until the last block is done (a pooler does not, say)."""
    in_use: set[int] = set()

    def note(module: nn.Module, _args: Any) -> None:
        in_use.update(id(weight) for weight in (*module.parameters(recurse=False), *module.buffers(recurse=False)))

    with ExitStack() as hooks:
        for module in model.module.modules():
            hooks.callback(module.register_forward_pre_hook(note).remove)
        ids = probe_tokens(model.module)
        run_with_hooks(
            model, ids, torch.ones_like(ids), [HookPoint("resid_post", model.n_layers - 1)], lambda _point, _state: None
        )
    named = (
        *model.module.named_parameters(remove_duplicate=False),
        *model.module.named_buffers(remove_duplicate=False),
    )
    return {name for name, weight in named if id(weight) in in_use}
