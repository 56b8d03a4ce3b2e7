"""Texts side by side: the frozen model, the modulated one, and a control that only shrinks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from src.errors import NotApplicableError
from src.models import load_tokenizer
from src.modulators.evaluation.effects import FROZEN
from src.modulators.evaluation.generations import Sampling, continuation_nll, edit_distance, generate
from src.modulators.modulator import Modulator
from src.modulators.training.examples import Example
from src.report.finding import Finding
from src.report.modulators.evaluation.generations import AGAIN, generations_finding
from src.report.modulators.evaluation.predictions import MODULATED
from src.stage.context import Stage
from src.stage.modulators.evaluating.work import EvaluationWork

_SHRINK = "zero"


def measure_generations(work: EvaluationWork, stage: Stage) -> Finding:
    """A greedy and a sampled text after each prompt, of each variant.

    Sampled texts of one prompt are drawn with one seed; how far texts lie apart by chance alone is told by a second
    text of the frozen model, drawn with another seed.
    """
    keys, tokenizer = work.config.generation, load_tokenizer(work.config.model)
    prompts = _prompts(work, tokenizer)
    variants: dict[str, Modulator | None] = {FROZEN: None, MODULATED: work.modulator}
    if _SHRINK in work.controls:
        variants[_SHRINK] = work.controls[_SHRINK]
    records: list[dict[str, Any]] = []

    def text(ids: Int32[np.ndarray, " pos"]) -> str:
        return str(tokenizer.decode(ids.tolist(), skip_special_tokens=True))

    with stage.progress("generating", len(prompts), "prompts") as advance:
        for place, prompt in enumerate(prompts):
            seed = work.config.seed + 2 * place
            for mode, sampling in (("greedy", None), ("sampled", Sampling(keys.temperature, keys.top_p))):
                made = {
                    name: generate(work.model, modulator, prompt, keys.max_new_tokens, sampling, seed)
                    for name, modulator in variants.items()
                }
                if sampling is not None:
                    made[AGAIN] = generate(work.model, None, prompt, keys.max_new_tokens, sampling, seed + 1)
                original = made[FROZEN]
                for name, ids in made.items():
                    records.append(
                        {
                            "prompt": place,
                            "mode": mode,
                            "variant": name,
                            "prompt_text": text(prompt),
                            "text": text(ids),
                            "n_tokens": len(ids),
                            "identical": np.array_equal(ids, original),
                            "edits": edit_distance(ids.tolist(), original.tolist()),
                            "longest": max(len(ids), len(original)),
                            # how likely the frozen model's own text is
                            "original_nll": continuation_nll(work.model, variants.get(name), prompt, original),
                            "original_tokens": len(original),
                        }
                    )
            advance(1)
    return generations_finding(records)


def _prompts(work: EvaluationWork, tokenizer: Any) -> Sequence[Int32[np.ndarray, " pos"]]:
    keys = work.config.generation
    if keys.prompts is None:
        n_tokens = keys.prompt_tokens if work.objective == "text" else None
        beginnings = [_beginning(example, n_tokens) for example in work.examples]
        found = [ids for ids in beginnings if len(ids)][: keys.num_prompts]
        if not found:
            raise NotApplicableError(
                f"generation.prompt_tokens={keys.prompt_tokens}: no test example is longer; choose fewer"
            )
        return found
    goes_on = not work.model.module.config.is_encoder_decoder
    return [_tokens(prompt, tokenizer, goes_on) for prompt in keys.prompts]


def _beginning(example: Example, n_tokens: int | None) -> Int32[np.ndarray, " pos"]:
    """The first tokens of a text that is longer (else none); n_tokens=None: all that comes before the answer."""
    if example.target_ids is not None:
        return example.input_ids
    if n_tokens is None:
        return example.input_ids[: int(np.flatnonzero(example.predicted)[0])]
    return example.input_ids[:n_tokens] if len(example.input_ids) > n_tokens else example.input_ids[:0]


def _tokens(prompt: str, tokenizer: Any, goes_on: bool) -> Int32[np.ndarray, " pos"]:
    ids = list(tokenizer(prompt)["input_ids"])
    # a text that is to go on has not ended
    while goes_on and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return np.array(ids, np.int32)
