"""Language models: load one, find its blocks, read its residual stream.

The only package that knows anything of model families, and what it knows it learns by asking the model: a few tokens
are run through it once, and what the modules take and return decides where its blocks and its increments are.
"""

from src.models.capture import HiddenStateCheck, attach, capture, check_hidden_states, forward_pass, run_with_hooks
from src.models.gradients import GradientPass, states_and_gradients
from src.models.head import VocabularyHead
from src.models.language_model import LanguageModel, wrap_model
from src.models.loading import (
    layers_in_config,
    load_model,
    load_predicting_model,
    load_random_model,
    load_tokenizer,
    positions_in_config,
    refuse_other_than_causal_lm,
    sizes_in_config,
)
from src.models.prefix import KeysAndValues, PrefixRecorder, prefix_cache
from src.models.skipping import BlockSkipper

__all__ = [
    "BlockSkipper",
    "GradientPass",
    "HiddenStateCheck",
    "KeysAndValues",
    "LanguageModel",
    "PrefixRecorder",
    "VocabularyHead",
    "attach",
    "capture",
    "check_hidden_states",
    "forward_pass",
    "layers_in_config",
    "load_model",
    "load_predicting_model",
    "load_random_model",
    "load_tokenizer",
    "positions_in_config",
    "prefix_cache",
    "refuse_other_than_causal_lm",
    "run_with_hooks",
    "sizes_in_config",
    "states_and_gradients",
    "wrap_model",
]
