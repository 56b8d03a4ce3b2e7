"""The held-out corpus with its known latents at every token, and what a model's modules give there."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from testbed.ground_truth import LATENTS, Latent, Marked, find
from testbed.lexicon import BOS, PAD, vocabulary

HERE = Path(__file__).resolve().parent
MIN_SUPPORT = 15


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents as token ids, without BOS; the tokens of all stand in one row, document by document."""

    documents: list[list[int]]
    document: Tensor  # token -> its document
    labels: Tensor  # bool (token, latent)
    latents: tuple[Latent, ...]
    is_chosen_on: Tensor  # document -> it is in the half that matches are chosen on

    def tokens(self, chosen_on: bool) -> Tensor:
        """Which tokens are in one of the halves: bool (token,)."""
        return (self.is_chosen_on == chosen_on)[self.document]


def read_corpus(limit: int | None = None, min_support: int = MIN_SUPPORT, seed: int = 0) -> Corpus:
    """The held-out documents (the first `limit`), labelled and cut into halves; copies are in the same half.

    Latents with fewer than `min_support` tokens, or fewer than 5 documents, in either half are left out.
    """
    lines = (HERE / "corpus" / "heldout.jsonl").read_text().splitlines()[:limit]
    records = [json.loads(line) for line in lines]
    ids = {word: i for i, word in enumerate(vocabulary())}
    column = {latent: i for i, latent in enumerate(LATENTS)}
    labels = []
    for record in records:
        words = record["text"].split(" ")
        marks = torch.zeros(len(words), len(LATENTS), dtype=torch.bool)
        for latent, places in find(Marked(words, record["topic"], dict(record["labels"]["answers"]))).items():
            marks[list(places), column[latent]] = True
        labels.append(marks)
    texts = sorted({record["text"] for record in records})
    random.Random(seed).shuffle(texts)
    first = set(texts[: len(texts) // 2])
    corpus = Corpus(
        documents=[[ids[word] for word in record["text"].split(" ")] for record in records],
        document=torch.arange(len(records)).repeat_interleave(torch.tensor([len(marks) for marks in labels])),
        labels=torch.cat(labels),
        latents=LATENTS,
        is_chosen_on=torch.tensor([record["text"] in first for record in records]),
    )
    enough = torch.ones(len(LATENTS), dtype=torch.bool)
    for chosen_on in (True, False):
        tokens = corpus.tokens(chosen_on)
        of_documents = torch.zeros(len(records), len(LATENTS)).index_add_(
            0, corpus.document[tokens], corpus.labels[tokens].float()
        )
        enough &= (of_documents.sum(0) >= min_support) & ((of_documents > 0).sum(0) >= 5)
    kept = tuple(latent for latent, is_kept in zip(LATENTS, enough.tolist(), strict=True) if is_kept)
    return Corpus(corpus.documents, corpus.document, corpus.labels[:, enough], kept, corpus.is_chosen_on)


@torch.no_grad()
def states(model: nn.Module, modules: Mapping[str, nn.Module], corpus: Corpus, batch: int = 64) -> dict[str, Tensor]:
    """What each module gives at every token of the corpus: (token, width), float32."""
    ids = {word: i for i, word in enumerate(vocabulary())}
    lengths = torch.tensor([len(document) for document in corpus.documents])
    starts = lengths.cumsum(0) - lengths
    seen: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[nn.Module, tuple, object], None]:
        def keep(module: nn.Module, args: tuple, output: object) -> None:
            seen[name] = output if isinstance(output, Tensor) else output[0]  # type: ignore[index]

        return keep

    handles = [module.register_forward_hook(keeper(name)) for name, module in modules.items()]
    try:
        ordered = sorted(range(len(corpus.documents)), key=lambda i: len(corpus.documents[i]))
        for first in range(0, len(ordered), batch):
            picked = ordered[first : first + batch]
            width = max(len(corpus.documents[i]) for i in picked)
            rows = [[ids[BOS], *corpus.documents[i]] for i in picked]
            model(torch.tensor([row + [ids[PAD]] * (width + 1 - len(row)) for row in rows]))  # padding on the right
            for name, state in seen.items():
                if name not in found:
                    found[name] = torch.empty(len(corpus.document), state.shape[-1])
                for row, i in enumerate(picked):
                    found[name][starts[i] : starts[i] + lengths[i]] = state[row, 1 : lengths[i] + 1]
    finally:
        for handle in handles:
            handle.remove()
    return found
