"""Let a model go on with a conversation token by token, and keep the state of every step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.models.continuing import GrowingCache
from src.scenarios.capturing.arrays import Arrays
from src.scenarios.capturing.keeping import Keeper
from src.scenarios.capturing.passes import Reader
from src.scenarios.capturing.sampling import NextToken, end_tokens
from src.scenarios.capturing.stepping import Stepper
from src.scenarios.scenario import CaptureSettings, GenerationSettings
from src.scenarios.states import LOGITS, Generation, Step, TopToken
from src.text.token_strings import token_strings

# steps that are on the device before their states go to the host, and on_steps hears of them
_CHUNK = 32
OnSteps = Callable[[list[Step]], None]


class TokenNames:
    """What each token reads like; each is decoded once for a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        special = {token: added.content for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        known = _NAMES.get(tokenizer)
        if known is None or known[0] != (len(tokenizer), special):  # tokens were added to it
            known = _NAMES[tokenizer] = (len(tokenizer), special), dict(special)
        self._known = known[1]

    def of(self, ids: Sequence[int]) -> list[str]:
        """Their texts, with the space before them; a piece of a character is the replacement character."""
        if missing := set(ids) - self._known.keys():
            self._known |= token_strings(self._tokenizer, missing)
        return [self._known[token] for token in ids]


_NAMES: "WeakKeyDictionary[PreTrainedTokenizerBase, tuple[tuple[int, dict[int, str]], dict[int, str]]]"
_NAMES = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Continued:
    """A generation, and the cache of all that was read for it: the prompt and every generated token but the last."""

    generation: Generation
    read: list[int]
    cache: GrowingCache | None


@dataclass(frozen=True, eq=False)
class Decoder:
    """Goes on with conversations, in the settings of one scenario."""

    reader: Reader
    tokenizer: PreTrainedTokenizerBase
    names: TokenNames
    settings: GenerationSettings
    capture: CaptureSettings

    def go_on(
        self,
        prompt_ids: list[int],
        start: Arrays,
        cache: GrowingCache | None,
        after: int,
        notes: dict[str, object],
        on_steps: OnSteps | None = None,
    ) -> Continued:
        """Generate after the tokens of the first `after` messages, until an end token (included) or the limit.

        start: one row, of the prompt's last token. cache: holds the prompt, and grows; None: each step reads all anew.
        on_steps: hears of steps every now and then. Raises StrataError if nothing can be sampled.
        """
        reader, device = self.reader, self.reader.model.device
        ends = end_tokens(reader.model.module, self.tokenizer)
        choose = NextToken(reader.model.module, self.settings, len(prompt_ids), ends)
        notes |= choose.notes
        keeper = Keeper(reader.layers, getattr(torch, self.capture.store_dtype))
        read = torch.tensor([prompt_ids], device=device)
        made: list[int] = []
        steps: list[Step] = []
        stepper = Stepper(reader, start, cache, prompt_ids)
        while True:
            token = choose(read, stepper.logits)
            made.append(int(token))
            done = made[-1] in ends or len(made) == self.settings.max_new_tokens
            if done or len(stepper) == _CHUNK:
                chunk = self._leave(stepper, prompt_ids, made, keeper)
                steps += chunk
                if on_steps is not None:
                    on_steps(chunk)
            if done:
                break
            if choose.looks_back:
                read = torch.cat([read, token], 1)
            stepper.read(token, made[-1])
        keeper.note(notes, f"generation after message {after}")
        text = str(self.tokenizer.decode(made, skip_special_tokens=True))
        generation = Generation(after, made, text, made[-1] in ends, steps, keeper.rows())
        return Continued(generation, [*prompt_ids, *made[:-1]], cache)

    def _leave(self, stepper: Stepper, prompt_ids: list[int], made: list[int], keeper: Keeper) -> list[Step]:
        """Bring the states of steps to the host; the last tokens of `made` were chosen from them."""
        chunk = stepper.take()
        kept = {name: array for name, array in chunk.items() if name != LOGITS or self.capture.logits}
        keeper.add(kept)
        first = len(made) - chunk[LOGITS].shape[1]
        return _steps(chunk[LOGITS][0], prompt_ids, made, first, self.capture.top_k_probs, self.names)


def _steps(
    logits: Float[Tensor, "step d_vocab"],
    prompt_ids: list[int],
    made: list[int],
    first: int,
    n_top: int,
    names: TokenNames,
) -> list[Step]:
    """What is told of steps in numbers; made[first] was chosen from the first row of `logits`."""
    logprobs = logits.log_softmax(-1, dtype=torch.float32)
    chosen = made[first:]
    index = torch.tensor(chosen, device=logprobs.device)[:, None]
    probs = logprobs.exp()
    # p log p is 0 where p is 0, and so is it where a logit is -inf
    entropy = -(probs * logprobs).masked_fill(probs == 0, 0.0).sum(-1)
    of_chosen, entropies, largest = torch.stack([logprobs.gather(1, index)[:, 0], entropy, probs.amax(-1)]).tolist()
    best = logprobs.topk(min(n_top, logprobs.shape[1]))
    ids, values = best.indices.tolist(), best.values.tolist()
    names.of([*chosen, *(token for row in ids for token in row)])
    steps = []
    for place, token in enumerate(chosen):
        step = first + place
        top = zip(ids[place], names.of(ids[place]), values[place], strict=True)
        steps.append(
            Step(
                step=step,
                kind="decode" if step else "prefill",
                input_token_ids=[made[step - 1]] if step else prompt_ids,
                generated_token_id=token,
                generated_token=names.of([token])[0],
                logprob=of_chosen[place],
                seq_len=len(prompt_ids) + step,
                entropy=entropies[place],
                effective_vocab=exp(entropies[place]),
                top1_prob=largest[place],
                top_k=[TopToken(*one) for one in top],
            )
        )
    return steps
