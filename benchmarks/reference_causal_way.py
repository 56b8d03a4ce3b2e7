"""A causal evaluation in the manner of the published reference, for `bench_causal`: own code, its way of working.

Each condition, the clean one too, streams the text file from its start, skips documents, tokenises, and keeps those
that fill a sequence. Batch size 1; forward hooks take what the source gives at the edited positions to numpy, ask a
scikit-learn model once for all of them (for *null*: about zeros), and write the answer in a loop over positions; the
score is the Hugging Face loss with labels, of a forward pass with a cache, which is transformers' default.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
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
from src.transport.operator import TransportOperator

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


def reference_way(
    model: LanguageModel, conditions: Sequence[Condition], null_operators: Mapping[str, TransportOperator], text: Text
) -> list[Tensor]:
    """The loss [sequence] of each condition, of which the clean one is run too.

    null_operators: by the name of the condition, those that are asked for their bias.
    """
    _losses(model, None, text)
    return [_losses(model, _Edit(condition, null_operators.get(condition.name)), text) for condition in conditions]


def _losses(model: LanguageModel, edit: "_Edit | None", text: Text) -> Tensor:
    losses = []
    with ExitStack() as hooks:
        if edit is not None:
            if edit.source is not None:
                hooks.callback(model.blocks[edit.source].register_forward_hook(edit.capture).remove)
            hooks.callback(model.blocks[edit.target].register_forward_hook(edit.write).remove)
        for ids in text.sequences():
            ids = ids.to(model.device)
            losses.append(model.module(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.item())
    return torch.tensor(losses)


class _Edit:
    """The hooks of one condition: capture at the source, write at the target."""

    def __init__(self, condition: Condition, null_operator: TransportOperator | None) -> None:
        self.target, self.source = condition.target.layer, None
        self._positions = None if condition.positions is None else list(condition.positions)
        self._captured: Tensor | None = None
        self._ridge: Ridge | None = None
        edit, operator = condition.intervention, null_operator
        if isinstance(edit, Transport):
            operator, self.source = edit.operator, edit.operator.source.layer
        else:
            assert isinstance(edit, Constant)
            self._value = edit.value
        if operator is not None:
            self._ridge = Ridge()
            self._ridge.coef_ = operator.weight.T.cpu().numpy()
            self._ridge.intercept_ = operator.bias.cpu().numpy()

    def capture(self, _module: Any, _args: Any, output: Tensor) -> None:
        self._captured = output[:, self._edited(output)].detach()

    def write(self, _module: Any, _args: Any, output: Tensor) -> Tensor:
        changed, positions = output.clone(), self._edited(output)
        if self._ridge is None:
            for position in positions:
                changed[:, position] = self._value
            return changed
        x = torch.zeros_like(output[:, positions]) if self._captured is None else self._captured
        predicted = torch.from_numpy(self._ridge.predict(x[0].float().cpu().numpy())).to(output)
        for place, position in enumerate(positions):
            changed[:, position] = predicted[place]
        return changed

    def _edited(self, output: Tensor) -> list[int]:
        return list(range(output.shape[1])) if self._positions is None else self._positions
