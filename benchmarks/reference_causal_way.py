"""A causal evaluation in the manner of the published reference, for `bench_causal`: own code, its way of working.

Each condition, the clean one too, streams the text file from its start, skips documents, tokenises, and keeps those
that fill a sequence. Batch size 1; a forward hook takes the source's output to numpy and asks a scikit-learn model for
one prediction per position, which a loop over positions writes; the score is the Hugging Face loss with labels.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import Ridge
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from src.causal.interventions import Constant, Transport
from src.causal.perplexity import Condition
from src.models import LanguageModel

_SHORT = 4  # one document in so many is too short to be used


@dataclass(frozen=True)
class Text:
    """Documents of random words in a JSON Lines file; all numbers are counted in documents or tokens."""

    path: Path
    tokenizer: PreTrainedTokenizerFast
    skipped: int
    n_sequences: int
    length: int

    @classmethod
    def write(cls, path: Path, vocabulary: int, skipped: int, n_sequences: int, length: int) -> "Text":
        """Enough documents for n_sequences after those that are skipped, a quarter of them too short."""
        draws = torch.Generator().manual_seed(0)
        words = {f"w{index}": index for index in range(vocabulary)}
        with path.open("w") as file:
            for index in range(skipped + 2 * n_sequences):
                size = length // 2 if index % _SHORT == 0 else length + 50
                ids = torch.randint(0, vocabulary, (size,), generator=draws).tolist()
                file.write(json.dumps({"text": " ".join(f"w{each}" for each in ids)}) + "\n")
        backend = Tokenizer(WordLevel(words, unk_token="w0"))
        backend.pre_tokenizer = WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
        return cls(path, PreTrainedTokenizerFast(tokenizer_object=backend), skipped, n_sequences, length)

    def sequences(self) -> Iterator[Tensor]:
        """Token ids [1, length] of the documents that are long enough."""
        found = 0
        with self.path.open() as file:
            for index, line in enumerate(file):
                document = json.loads(line)
                if index < self.skipped:
                    continue
                ids = self.tokenizer(
                    document["text"], truncation=True, max_length=self.length, return_tensors="pt"
                ).input_ids
                if ids.shape[1] == self.length:
                    yield ids
                    found += 1
                if found == self.n_sequences:
                    return


def reference_way(model: LanguageModel, conditions: Sequence[Condition], text: Text) -> list[Tensor]:
    """The loss [sequence] of each condition, of which the clean one is run too."""
    _losses(model, None, text)
    return [_losses(model, condition, text) for condition in conditions]


def _losses(model: LanguageModel, condition: Condition | None, text: Text) -> Tensor:
    losses = []
    with ExitStack() as hooks:
        if condition is not None:
            edit = _Edit(condition)
            if edit.source is not None:
                hooks.callback(model.blocks[edit.source].register_forward_hook(edit.capture).remove)
            hooks.callback(model.blocks[condition.target.layer].register_forward_hook(edit.write).remove)
        for ids in text.sequences():
            ids = ids.to(model.device)
            losses.append(model.module(input_ids=ids, labels=ids, use_cache=False).loss)
    return torch.stack(losses)


class _Edit:
    """The hooks of one condition: capture at the source, write at the target."""

    def __init__(self, condition: Condition) -> None:
        self.source: int | None = None
        self._captured: Tensor | None = None
        edit = condition.intervention
        if isinstance(edit, Transport):
            self.source = edit.operator.source.layer
            self._ridge = Ridge()
            self._ridge.coef_ = edit.operator.weight.T.cpu().numpy()
            self._ridge.intercept_ = edit.operator.bias.cpu().numpy()
        else:
            assert isinstance(edit, Constant)
            self._value = edit.value

    def capture(self, _module: Any, _args: Any, output: Tensor) -> None:
        self._captured = output.detach().clone()

    def write(self, _module: Any, _args: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        for position in range(output.shape[1]):
            if self._captured is None:
                changed[:, position] = self._value
            else:
                predicted = self._ridge.predict(self._captured[:, position].cpu().numpy())
                changed[:, position] = torch.from_numpy(predicted).to(output)
        return changed
