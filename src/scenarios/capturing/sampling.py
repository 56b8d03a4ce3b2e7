"""Which token comes next: greedy or drawn, by the rules of transformers' `generate`."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.logits_process import (
    ForcedBOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.errors import StrataError
from src.scenarios.scenario import GenerationSettings

# what shapes which token is chosen without sampling too, and the values that change nothing
_SHAPING = {
    "sequence_bias": (None,),
    "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "forced_bos_token_id": (None,),
    "remove_invalid_values": (None, False),
    "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,),
}
_PASSED_OVER = {
    "guidance_scale": (None, 1.0),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "watermarking_config": (None,),
    "stop_strings": (None,),
}


class NextToken:
    """The rule by which one generation chooses its tokens.

    Settings of the scenario are all that sampling goes by: temperature, top_k and top_p (null = off), in `generate`'s
    order; what the checkpoint's generation_config says of them is passed over. What shapes greedy `generate` too
    (repetition_penalty, no_repeat_ngram_size, bad_words_ids, suppress_tokens, min_new_tokens, ...) is taken from
    generation_config, so that the tokens are those of `generate`; `notes` names it. Steps tell the model's own
    distribution, before all of this.
    """

    def __init__(
        self, module: PreTrainedModel, settings: GenerationSettings, n_prompt: int, ends: frozenset[int]
    ) -> None:
        config = module.generation_config
        assert isinstance(config, GenerationConfig)
        self.notes = {
            **{f"generation_config.{key}": value for key, value in _unlike(config, _SHAPING).items()},
            **{f"generation_config.{key} (passed over)": value for key, value in _unlike(config, _PASSED_OVER).items()},
        }
        if config.eos_token_id is None and ends:
            self.notes["generation_config.eos_token_id"] = "none: the tokenizer's end token ends a reply"
        self._processors = _shaping(config, n_prompt, ends, module.device)
        self._draws: torch.Generator | None = None
        if settings.do_sample:
            self._processors.extend(_warping(settings))
            self._draws = torch.Generator(module.device)
            if settings.seed is None:
                self._draws.seed()
            else:
                self._draws.manual_seed(settings.seed)

    def __call__(self, read: Int[Tensor, "1 pos"] | None, logits: Float[Tensor, "1 d_vocab"]) -> Int[Tensor, "1 1"]:
        """The token after all that was read (needed if `looks_back`). Raises StrataError if nothing can be drawn."""
        scores = logits.float()
        if self._processors:
            ids = logits.new_zeros(1, 0, dtype=torch.long) if read is None else read
            scores = self._processors(ids, scores.clone())  # pyright: ignore[reportArgumentType]
        if self._draws is None:
            return scores.argmax(-1, keepdim=True)
        try:
            return torch.multinomial(scores.softmax(-1), 1, generator=self._draws)
        except RuntimeError as error:
            raise StrataError(
                f"no token can be sampled ({error}): the model's logits are not finite; run it in a wider dtype "
                "(model.dtype=float32 or bfloat16), or set generation.do_sample=false"
            ) from None

    @property
    def looks_back(self) -> bool:
        """Whether the tokens before are needed."""
        return any(not isinstance(rule, _WARPERS) for rule in self._processors)


_WARPERS = (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)


def end_tokens(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a generation: those of generation_config, as in `generate`, or else the tokenizer's."""
    config = module.generation_config
    assert isinstance(config, GenerationConfig)
    ends = config.eos_token_id
    found = set() if ends is None else {ends} if isinstance(ends, int) else set(ends)
    if not found and isinstance(tokenizer.eos_token_id, int):
        found.add(tokenizer.eos_token_id)
    return frozenset(found)


def _unlike(config: GenerationConfig, defaults: Mapping[str, tuple[object, ...]]) -> dict[str, object]:
    found = {key: getattr(config, key, None) for key in defaults}
    return {
        key: value if isinstance(value, int | float | str | list) else str(value)
        for key, value in found.items()
        if value not in defaults[key]
    }


def _shaping(
    config: GenerationConfig, n_prompt: int, ends: frozenset[int], device: torch.device
) -> LogitsProcessorList:
    """What `generate` applies whether it samples or not, in its order."""
    on, rules, eos = _unlike(config, _SHAPING), LogitsProcessorList(), sorted(ends)
    if "sequence_bias" in on:
        rules.append(SequenceBiasLogitsProcessor(config.sequence_bias))
    if "repetition_penalty" in on:
        rules.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if "no_repeat_ngram_size" in on:
        rules.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if "bad_words_ids" in on:
        rules.append(NoBadWordsLogitsProcessor(config.bad_words_ids, eos or None))
    if "min_length" in on and eos:
        rules.append(MinLengthLogitsProcessor(config.min_length, eos, device=str(device)))
    if "min_new_tokens" in on and eos:
        rules.append(MinNewTokensLengthLogitsProcessor(n_prompt, config.min_new_tokens, eos, device=str(device)))
    if "forced_bos_token_id" in on:
        rules.append(ForcedBOSTokenLogitsProcessor(config.forced_bos_token_id))
    if "remove_invalid_values" in on:
        rules.append(InfNanRemoveLogitsProcessor())
    if "suppress_tokens" in on:
        rules.append(SuppressTokensLogitsProcessor(config.suppress_tokens, device=str(device)))
    if "begin_suppress_tokens" in on:
        begin = n_prompt if n_prompt > 1 or config.forced_bos_token_id is None else n_prompt + 1
        rules.append(SuppressTokensAtBeginLogitsProcessor(config.begin_suppress_tokens, begin, device=str(device)))
    return rules


def _warping(settings: GenerationSettings) -> LogitsProcessorList:
    """What `generate` applies when it samples, in its order."""
    rules = LogitsProcessorList()
    if settings.temperature != 1.0:
        rules.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k is not None:
        rules.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p is not None and settings.top_p < 1.0:
        rules.append(TopPLogitsWarper(settings.top_p))
    return rules
