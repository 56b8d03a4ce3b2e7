"""The pretokenised table: all sequences of a dataset on disk, found by index."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int32, Int64, UInt64

from src.errors import StrataError
from src.text.keep import Keep
from src.text.tokenization import DocumentCounts, TokenSequence

FILE_NAME = "sequences.parquet"
ROW_GROUP_TOKENS = 262_144  # what one random access has to decode at most, about 1 MB (beyond one longer sequence)

SCHEMA = pa.schema(
    [
        pa.field("document", pa.int64(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("token_ids", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
        pa.field("roles", pa.list_(pa.field("element", pa.uint8(), nullable=False)), nullable=False),
    ]
)


@dataclass(frozen=True)
class TableSummary:
    """What a table holds, and what was left out of it. `tokens_by_role`: names of `Keep` codes, in lower case."""

    documents_skipped: int
    documents_read: int
    documents_empty: int
    documents_truncated: int
    sequences: int
    tokens: int
    tokens_by_role: dict[str, int]


def write_sequence_table(
    folder: Path, sequences: Iterable[TokenSequence], counts: DocumentCounts, dataset: str
) -> TableSummary:
    """Write `folder/sequences.parquet`, row group by row group.

    counts: the object that `tokenize_documents` fills while `sequences` is drawn. dataset: its name, for messages.

    Raises StrataError if there is no sequence at all (and then writes no file).
    """
    by_role = np.zeros(len(Keep), np.int64)
    tokens = n_sequences = 0
    writer = None
    try:
        for group in _row_groups(sequences):
            table = _as_arrow(group)
            writer = writer or pq.ParquetWriter(
                folder / FILE_NAME, SCHEMA, compression="zstd", write_page_checksum=True
            )
            writer.write_table(table, row_group_size=len(group))
            by_role += np.bincount(np.concatenate([sequence.roles for sequence in group]), minlength=len(Keep))
            tokens += sum(len(sequence.token_ids) for sequence in group)
            n_sequences += len(group)
    finally:
        if writer is not None:
            writer.close()
    if not n_sequences:
        raise StrataError(_why_empty(dataset, counts))
    return TableSummary(
        documents_skipped=counts.skipped,
        documents_read=counts.read,
        documents_empty=counts.empty,
        documents_truncated=counts.truncated,
        sequences=n_sequences,
        tokens=tokens,
        tokens_by_role={Keep(role).name.lower(): int(n) for role, n in enumerate(by_role) if n},
    )


def _why_empty(dataset: str, counts: DocumentCounts) -> str:
    if counts.read:
        return (
            f"dataset {dataset!r} gives no sequence: all {counts.read} documents are empty; choose another column or "
            "split"
        )
    if counts.skipped:
        return (
            f"dataset {dataset!r} gives no sequence: it has only {counts.skipped} documents and all of them were "
            "skipped; skip fewer of them"
        )
    return f"dataset {dataset!r} gives no sequence: it has no documents"


def _row_groups(sequences: Iterable[TokenSequence]) -> Iterator[list[TokenSequence]]:
    group: list[TokenSequence] = []
    tokens = 0
    for sequence in sequences:
        if group and tokens + len(sequence.token_ids) > ROW_GROUP_TOKENS:
            yield group
            group, tokens = [], 0
        group.append(sequence)
        tokens += len(sequence.token_ids)
    if group:
        yield group


def _as_arrow(group: list[TokenSequence]) -> pa.Table:
    lengths = np.array([len(sequence.token_ids) for sequence in group], np.int32)
    offsets = pa.array(_offsets(lengths).astype(np.int32))
    columns = {
        name: pa.ListArray.from_arrays(
            offsets, pa.array(np.concatenate([getattr(sequence, name) for sequence in group])), SCHEMA.field(name).type
        )
        for name in ("token_ids", "roles")
    }
    documents = np.array([sequence.document for sequence in group], np.int64)
    return pa.table({"document": documents, "length": lengths, **columns}, schema=SCHEMA)


def _offsets(lengths: Int32[np.ndarray, "sequence"]) -> Int64[np.ndarray, "sequence+1"]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


class SequenceTable:
    """A table on disk. Opening it reads the lengths; the rest is read range by range, and checked by page checksums.

    lengths: tokens of each sequence. offsets: where each begins on the axis of all tokens, and where the last one ends.

    Raises StrataError if the folder holds no such table, or a broken one.
    """

    lengths: Int32[np.ndarray, "sequence"]
    offsets: Int64[np.ndarray, "sequence+1"]

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / FILE_NAME
        if not self.path.exists():
            raise StrataError(f"{folder} holds no sequence table: there is no {FILE_NAME}")
        with self._opened() as file:
            self._metadata = file.metadata
            if not file.schema_arrow.equals(SCHEMA):
                raise StrataError(f"{self.path} is no sequence table: its columns are {file.schema_arrow.names}")
            lengths = file.read(columns=["length"]).column("length")
        self.lengths = lengths.to_numpy()
        self.offsets = _offsets(self.lengths)
        rows = [self._metadata.row_group(i).num_rows for i in range(self._metadata.num_row_groups)]
        self._group_starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])

    @contextmanager
    def _opened(self, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(self.path, metadata=metadata, page_checksum_verification=True) as file:
                yield file
        except (OSError, pa.ArrowException, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise StrataError(
                f"{self.path} is broken ({reason}): remove the folder {self.path.parent} and run the stage again"
            ) from None

    @property
    def n_sequences(self) -> int:
        """Number of sequences."""
        return len(self.lengths)

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all sequences."""
        return int(self.offsets[-1])

    def read(self, start: int, stop: int) -> list[TokenSequence]:
        """Sequences [start, stop) in their order; only the row groups that they lie in are read.

        Raises StrataError if the range is not within [0, n_sequences], or the file is damaged there.
        """
        if not 0 <= start <= stop <= self.n_sequences:
            raise StrataError(f"sequences [{start}, {stop}) are not within the table's {self.n_sequences}: {self.path}")
        if start == stop:
            return []
        first, last = np.searchsorted(self._group_starts, [start, stop - 1], side="right") - 1
        # opened anew each time, so that threads and forked workers never share a file position
        with self._opened(self._metadata) as file:
            table = file.read_row_groups(list(range(first, last + 1)), columns=["document", "token_ids", "roles"])
            table = table.slice(start - int(self._group_starts[first]), stop - start)
            documents = table.column("document").to_numpy()
            token_ids, roles = (
                # a copy, since arrow's memory is read-only and torch wants to own what it is given
                np.array(table.column(name).combine_chunks().flatten())
                for name in ("token_ids", "roles")
            )
            offsets = self.offsets[start : stop + 1] - self.offsets[start]
            if not len(token_ids) == len(roles) == offsets[-1] or len(documents) != stop - start:
                raise ValueError("columns of different lengths")
        return [
            TokenSequence(int(document), token_ids[a:b], roles[a:b])
            for document, (a, b) in zip(documents, pairwise(offsets), strict=True)
        ]


def content_hashes(sequences: Iterable[Int32[np.ndarray, "position"]], seed: int) -> UInt64[np.ndarray, "sequence"]:
    """A hash of each sequence's token ids (blake2b, 64 bits, keyed by the seed), the same on every machine.

    Equal sequences have equal hashes, so that a split by hash never parts them; another seed gives another order.
    """
    key = str(seed).encode()
    digests = (hashlib.blake2b(ids.astype("<i4").tobytes(), digest_size=8, key=key).digest() for ids in sequences)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
