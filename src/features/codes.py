"""Feature activations of a text as sparse codes: only what is above 0, on disk, read back a few documents at a time."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.activations.products import arithmetic_device
from src.errors import StrataError
from src.features.active import ActiveFeatures, active_features
from src.features.sae import Sae

_PRODUCTS_AT_ONCE = 2**21  # of gradients and decoder rows
_ENTRIES_AT_ONCE = 2**21  # read from the disk
_SUMS_AT_ONCE = 2**22  # documents times features whose sums are held densely
_FIELDS = {"feature": np.dtype("<i4"), "activation": np.dtype("<f4"), "effect": np.dtype("<f4")}


@dataclass(frozen=True, eq=False)
class Entries:
    """The entries of some whole documents, in the order of tokens, then of features; float64 on the device of a pass.

    token: place of the entry's token among all tokens. document: place among these documents. tokens_per_document:
    counted tokens of each. effect: see SparseCodes.
    """

    n_features: int
    token: Int[Tensor, " entry"]
    document: Int[Tensor, " entry"]
    feature: Int[Tensor, " entry"]
    activation: Float[Tensor, " entry"]
    effect: Float[Tensor, " entry"] | None
    tokens_per_document: Float[Tensor, " document"]
    first_document: int

    def per_document(self, values: Float[Tensor, " entry"]) -> Float[Tensor, "document feature"]:
        """Sums of the entries' values over each document."""
        n_documents = len(self.tokens_per_document)
        total = values.new_zeros(n_documents * self.n_features)
        total.index_add_(0, self.document * self.n_features + self.feature, values)
        return total.view(n_documents, self.n_features)


@dataclass(frozen=True, eq=False)
class SparseCodes:
    """What an SAE makes of the counted tokens of a text: one entry for each feature of each token that is above 0.

    token_ids: of each counted token. entry_start: where the entries of each token begin, and where the last one's end.
    document_start: the same for documents, on the axis of tokens.
    feature, activation: of each entry, ascending in feature within a token. effect: the first-order change of the
    summed next-token NLL in nats if that activation were 0; None where no gradients were taken.
    """

    n_features: int
    token_ids: Int[Tensor, " token"]
    entry_start: Int[Tensor, " token+1"]
    document_start: Int[Tensor, " document+1"]
    feature: Int[Tensor, " entry"]
    activation: Float[Tensor, " entry"]
    effect: Float[Tensor, " entry"] | None

    @property
    def n_tokens(self) -> int:
        """Number of counted tokens."""
        return len(self.token_ids)

    @property
    def n_documents(self) -> int:
        """Number of documents."""
        return len(self.document_start) - 1

    def chunks(self, device: torch.device | str = "cpu") -> Iterator[Entries]:
        """All entries, a few whole documents at a time, where float64 sums for the device are kept."""
        place = arithmetic_device(device)
        entries_before = self.entry_start[self.document_start]
        most_documents = max(1, _SUMS_AT_ONCE // self.n_features)
        first = 0
        while first < self.n_documents:
            limit = entries_before[first] + _ENTRIES_AT_ONCE
            last = int(torch.searchsorted(entries_before, limit, right=True)) - 1
            last = min(max(last, first + 1), first + most_documents, self.n_documents)
            yield self._read(first, last, place)
            first = last

    def _read(self, first: int, last: int, place: torch.device) -> Entries:
        tokens = slice(int(self.document_start[first]), int(self.document_start[last]))
        start = self.entry_start[tokens.start : tokens.stop + 1]
        entries = slice(int(start[0]), int(start[-1]))
        token = torch.arange(tokens.start, tokens.stop).repeat_interleave(start.diff())
        document = torch.searchsorted(self.document_start[first : last + 1], token, right=True) - 1
        effect = None if self.effect is None else self.effect[entries].to(place, torch.float64)
        return Entries(
            self.n_features,
            token.to(place),
            document.to(place),
            self.feature[entries].to(place, torch.int64),
            self.activation[entries].to(place, torch.float64),
            effect,
            self.document_start[first : last + 1].diff().to(place, torch.float64),
            first,
        )


class CodesWriter:
    """Writes the codes of one text and SAE into a folder, batch by batch; use it as a context manager."""

    def __init__(self, folder: Path, sae: Sae, *, with_effect: bool) -> None:
        folder.mkdir(parents=True)
        self._folder, self._sae = folder, sae
        self._fields = [name for name in _FIELDS if with_effect or name != "effect"]
        self._counts: list[Int[Tensor, " token"]] = []
        self._open = ExitStack()
        self._files = {name: self._open.enter_context((folder / name).open("wb")) for name in self._fields}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def add(
        self,
        states: Float[Tensor, "batch pos d_model"],
        gradients: Float[Tensor, "batch pos d_model"] | None,
        counted: Bool[Tensor, "batch pos"],
    ) -> None:
        """Encode the counted tokens of a batch. gradients: of the summed NLL, where effects are wanted.

        Raises:
            StrataError: NaN or infinity among the activations.
        """
        sae = self._sae
        rows = states[counted]
        if not rows.isfinite().all():
            raise StrataError(
                f"{sae.point} is NaN or infinite at a counted token: run the model in a wider dtype "
                "(model.dtype=float32 or bfloat16)"
            )
        slopes = None if gradients is None else gradients[counted]
        counts = torch.zeros(len(rows), dtype=torch.int64)
        for found in active_features(sae, rows):
            columns = {"feature": found.feature, "activation": found.activation}
            if slopes is not None:
                columns["effect"] = -found.contribution * self._slopes(slopes, found)
            for name in self._fields:
                self._files[name].write(columns[name].cpu().numpy().astype(_FIELDS[name]).tobytes())
            counts += torch.bincount(found.token, minlength=len(rows)).cpu()
        self._counts.append(counts)

    def _slopes(self, gradients: Float[Tensor, "row d_model"], found: ActiveFeatures) -> Float[Tensor, " entry"]:
        """Gradient along the decoder row of each entry; a piece of the rows at a time, which a CPU's caches hold."""
        decoder = self._sae.decoder
        gradients = gradients.to(decoder)
        size = max(1, _PRODUCTS_AT_ONCE // self._sae.d_model)
        pieces = zip(found.token.split(size), found.feature.split(size), strict=True)
        return torch.cat([(gradients[token] * decoder[feature]).sum(1) for token, feature in pieces])

    def finished(
        self,
        token_ids: Int[Tensor, " token"],
        document_start: Int[Tensor, " document+1"],
    ) -> SparseCodes:
        """The codes, read from the folder when they are asked for. Arguments: see SparseCodes."""
        self._open.close()
        counts = torch.cat(self._counts)
        start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        fields = self._read("feature"), self._read("activation")
        effect = self._read("effect") if "effect" in self._fields else None
        return SparseCodes(self._sae.n_features, token_ids, start, document_start, *fields, effect)

    def _read(self, name: str) -> Tensor:
        path = self._folder / name
        # an empty file can't be mapped
        values = np.memmap(path, _FIELDS[name], mode="c") if path.stat().st_size else np.zeros(0, _FIELDS[name])
        return torch.from_numpy(values)
