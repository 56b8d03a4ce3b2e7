"""Open the weights of any checkpoint that Transformers knows: text, images, both."""

import re
from pickle import UnpicklingError
from typing import Any, cast

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from src.config.shared import ModelConfig
from src.errors import StrataError
from src.models.checkpoint.files import find_files, stored_tensors
from src.models.checkpoint.streaming import StreamedWeights
from src.models.checkpoint.weights import LoadedWeights, Weights
from src.models.loading import architecture_of, explained, is_causal_lm, named, origin_of, source_of


def open_weights(config: ModelConfig) -> Weights:
    """The weights of a checkpoint, in the dtype in which they are stored; they stay on disk until they are read.

    The model class is the one that saved it, with its heads. What can't be read in parts is loaded whole, and `notes`
    says so.

    Raises:
        StrataError: no such folder or hub model; missing, damaged or quantised weights.
    """
    architecture = architecture_of(config)
    if getattr(architecture, "quantization_config", None) is not None:
        raise StrataError(
            f"{named(config)}: its weights are quantised; their geometry is that of the rounding too. Choose the "
            "checkpoint that it was made of, or dequantise it and save it"
        )
    skeleton = explained(config, lambda: _skeleton(architecture, config))
    files = explained(config, lambda: find_files(source_of(config), origin_of(config)))
    try:
        weights: Weights = StreamedWeights(skeleton, stored_tensors(files))
        weights.read(next(iter(weights.shapes)))
    except UnpicklingError as error:
        raise StrataError(
            f"{named(config)}: its pickled weights hold more than tensors, and code in them is not run. Choose a "
            "checkpoint in safetensors"
        ) from error
    except ValueError as error:
        raise StrataError(f"{named(config)}: {error}. Point it at a folder whose files belong together") from error
    except (OSError, RuntimeError, SafetensorError, KeyError, AttributeError, StopIteration) as error:
        reason = " ".join(str(error).split())
        weights = explained(config, lambda: _loaded(config, skeleton, reason))
    _refuse_missing(config, weights)
    return weights


def _model_class(architecture: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """The class that saved a checkpoint, if Transformers has it."""
    for name in architecture.architectures or ():
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, PreTrainedModel):
            return found
    return None


def _skeleton(architecture: PreTrainedConfig, config: ModelConfig) -> PreTrainedModel:
    own = _model_class(architecture)
    with torch.device("meta"):
        if own is not None and not config.trust_remote_code:
            return own(architecture).eval()
        auto_class: Any = AutoModelForCausalLM if is_causal_lm(architecture) else AutoModel
        return auto_class.from_config(architecture, trust_remote_code=config.trust_remote_code).eval()


def _loaded(config: ModelConfig, skeleton: PreTrainedModel, reason: str) -> Weights:
    loaded, info = cast(Any, type(skeleton)).from_pretrained(
        source_of(config), config=skeleton.config, dtype="auto", output_loading_info=True, **origin_of(config)
    )
    note = f"the whole model was loaded into memory, since its files can't be read a tensor at a time ({reason})"
    return LoadedWeights(loaded.eval(), info["missing_keys"], [note])


def _refuse_missing(config: ModelConfig, weights: Weights) -> None:
    """What lies in layers must be there; a pooler that was never saved is left out."""
    harmful = [name for name in weights.missing if re.search(r"\.\d+\.", name)]
    if harmful or not weights.shapes:
        names = ", ".join(harmful[:5]) + (", ..." if len(harmful) > 5 else "")
        raise StrataError(
            f"{named(config)}: the checkpoint lacks {len(harmful) or 'all'} weights of the layers of "
            f"{type(weights.skeleton).__name__} ({names}). Point it at a complete checkpoint"
        )
