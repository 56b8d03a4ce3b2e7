"""The artifact `sequences`: a dataset, tokenised once for a tokenizer and a length."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from src.artifacts import Artifact, content_digest, label
from src.config.shared import DatasetConfig, ModelConfig
from src.config.stages import SequencesConfig
from src.errors import StrataError
from src.models.loading import load_tokenizer
from src.stage.context import Stage
from src.text import (
    DocumentCounts,
    Selection,
    TokenSequence,
    local_files,
    pin_revision,
    read_documents,
    tokenize_documents,
    tokenizer_identity,
    write_sequence_table,
)


@dataclass(frozen=True)
class Reading:
    """How a dataset becomes sequences: the keys of SequencesConfig of the same names."""

    max_length: int
    num_tokens: int | None = None
    num_sequences: int | None = None
    skip_documents: int = 0
    long_documents: Literal["truncate", "split"] = "truncate"


def prepare_sequences(config: SequencesConfig, stage: Stage) -> Artifact:
    """The pretokenised table of a dataset: made, or reused where the same text meets the same tokenizer."""
    reading = Reading(
        config.max_length, config.num_tokens, config.num_sequences, config.skip_documents, config.long_documents
    )
    return prepare_table(stage, config.model, config.dataset, reading)


def prepare_table(
    stage: Stage,
    model: ModelConfig,
    dataset: DatasetConfig,
    reading: Reading,
    selection: Selection | None = None,
    selected_by: dict[str, Any] | None = None,
) -> Artifact:
    """The same for stages that take only some of the sequences; selected_by: what decides which, for the fingerprint.

    Local text counts by its contents, hub text by its name and commit. With a selection, the summary has `fitted_on`
    and `too_short`: how many sequences were passed over.

    Raises:
        StrataError: no sequence is left, and why.
    """
    tokenizer = load_tokenizer(model)
    files = local_files(dataset)
    pinned = dataset if files else pin_revision(dataset)
    identity = {
        "dataset": pinned.model_dump(mode="json"),
        "text_digest": content_digest(files) if files else None,
        "tokenizer": tokenizer_identity(tokenizer),
        **vars(reading),
        **({} if selected_by is None else {"selected_by": selected_by}),
    }
    plan = stage.plan("sequences", label(dataset.dataset_name, dataset.dataset_split or "all"), identity)
    finished = stage.reuse(plan)
    if finished is not None:
        return finished
    with stage.create(plan) as draft, stage.progress("tokenising", reading.num_tokens, "tokens") as advance:
        counts = DocumentCounts()
        sequences = tokenize_documents(
            read_documents(pinned),
            tokenizer,
            reading.max_length,
            long_documents=reading.long_documents,
            skip_documents=reading.skip_documents,
            num_tokens=reading.num_tokens,
            num_sequences=reading.num_sequences,
            counts=counts,
        )
        taken = sequences if selection is None else _some(selection, sequences, dataset.dataset_name)
        counted = advance.counting(taken, lambda sequence: len(sequence.token_ids))
        draft.summary = vars(write_sequence_table(draft.path, counted, counts, dataset.dataset_name))
        if selection is not None:
            draft.summary |= {"fitted_on": selection.n_seen, "too_short": selection.n_short}
    if counts.truncated and selection is None:
        stage.say(
            f"{counts.truncated:,} of {counts.read:,} documents were cut off at max_length={reading.max_length} tokens "
            "(long_documents=split keeps the rest)"
        )
    return stage.finished(plan)


def _some(selection: Selection, sequences: Iterable[TokenSequence], dataset: str) -> Iterator[TokenSequence]:
    """What is selected; StrataError if nothing is, although there are sequences."""
    selected = selection.select(sequences)
    first = next(selected, None)
    if first is None and selection.n_seen + selection.n_short:
        reasons = []
        if selection.n_seen:
            reasons.append(f"{selection.n_seen:,} are in the train or val share that something was fitted on")
        if selection.n_short:
            longest = f"the longest has {selection.longest}"
            reasons.append(f"{selection.n_short:,} have fewer than {selection.min_tokens} tokens ({longest})")
        raise StrataError(
            f"no sequence of {dataset!r} is left to evaluate: {', and '.join(reasons)}; choose "
            + " or ".join(("another dataset=...", *selection.remedies))
        )
    return chain([] if first is None else [first], selected)
