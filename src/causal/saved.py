"""The token scores of an evaluation on disk, written batch by batch: whoever wants other statistics starts here."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int

from src.causal.evaluate import ScoredBatch
from src.text import TokenSequence

CLEAN, CHANGED = "clean_tokens.parquet", "token_scores.parquet"

_CLEAN_SCHEMA = pa.schema(
    [
        ("sequence", pa.int32()),
        ("document", pa.int64()),
        ("position", pa.int32()),
        ("token_id", pa.int32()),
        ("keep", pa.uint8()),
        ("clean_nll", pa.float32()),
    ]
)
_CHANGED_SCHEMA = pa.schema(
    [
        ("condition", pa.dictionary(pa.int32(), pa.string())),
        ("sequence", pa.int32()),
        ("position", pa.int32()),
        ("edited", pa.bool_()),
        ("nll", pa.float32()),
        ("kl", pa.float32()),
        ("agrees", pa.bool_()),
    ]
)


class TokenScoreFiles:
    """Writes `clean_tokens.parquet` (a row for every token) and `token_scores.parquet`; use it as a context manager.

    The latter has a row for each condition and each prediction that it can change; all others keep the clean score.
    clean_nll, nll: of the next token, null at the end of a sequence. Memory holds one batch.
    """

    def __init__(
        self,
        folder: Path,
        sequences: Sequence[TokenSequence],
        documents: Int[np.ndarray, " sequence"],
        conditions: Sequence[str],
    ) -> None:
        self._sequences, self._documents, self._conditions = sequences, documents, pa.array(conditions, pa.string())
        self._clean = pq.ParquetWriter(folder / CLEAN, _CLEAN_SCHEMA, compression="zstd")
        self._changed = pq.ParquetWriter(folder / CHANGED, _CHANGED_SCHEMA, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clean.close()
        self._changed.close()

    def add(self, batch: ScoredBatch) -> None:
        """Append the rows of a batch."""
        self._add_clean(batch)
        scores = batch.scores
        condition, row, position = scores.affected.nonzero(as_tuple=True)
        edited = torch.stack([scores.edited[name] for name in scores.conditions])
        columns = [
            pa.DictionaryArray.from_arrays(pa.array(condition.int().numpy()), self._conditions),
            batch.sequences[row.numpy()].astype(np.int32),
            position.int().numpy(),
            edited[condition, row, position].numpy(),
            *(values[condition, row, position].numpy() for values in (scores.nll, scores.kl, scores.agrees)),
        ]
        self._changed.write_table(
            pa.Table.from_arrays([pa.array(column) for column in columns], schema=_CHANGED_SCHEMA)
        )

    def _add_clean(self, batch: ScoredBatch) -> None:
        sequences = [self._sequences[index] for index in batch.sequences]
        lengths = [len(sequence.token_ids) for sequence in sequences]
        nll = [
            np.append(batch.scores.clean_nll[row, : length - 1].numpy(), np.float32(np.nan))
            for row, length in enumerate(lengths)
        ]
        columns = [
            np.repeat(batch.sequences, lengths).astype(np.int32),
            np.repeat(self._documents[batch.sequences], lengths).astype(np.int64),
            np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
            np.concatenate([sequence.token_ids for sequence in sequences]),
            np.concatenate([sequence.roles for sequence in sequences]),
        ]
        arrays = [*map(pa.array, columns), pa.array(np.concatenate(nll), from_pandas=True)]
        self._clean.write_table(pa.Table.from_arrays(arrays, schema=_CLEAN_SCHEMA))
