"""The states of reference texts, many texts in one pass."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.errors import StrataError
from src.models import LanguageModel
from src.models.continuing import logits_agree
from src.scenarios.capturing.arrays import Arrays, averaged, joined, picked
from src.scenarios.capturing.keeping import Keeper
from src.scenarios.capturing.passes import Reader
from src.scenarios.capturing.places import Wanted, find_places
from src.scenarios.capturing.templates import Renderer, TemplateRefusal, readable, wanted_state
from src.scenarios.scenario import CaptureSettings, ReferenceState
from src.scenarios.states import LOGITS, References, ReferenceText, SpokenMessage

# tokens of one pass, padding included
_CPU_TOKENS, _GPU_TOKENS = 2**11, 2**14
