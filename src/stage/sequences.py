"""The artifact `sequences`: a dataset, tokenised once for a tokenizer and a length."""

from src.artifacts import Artifact, content_digest, label
from src.config.stages import SequencesConfig
from src.models.loading import load_tokenizer
from src.stage.context import Stage
from src.text import (
    DocumentCounts,
    local_files,
    pin_revision,
    read_documents,
    tokenize_documents,
    tokenizer_identity,
    write_sequence_table,
)


def prepare_sequences(config: SequencesConfig, stage: Stage) -> Artifact:
    """The pretokenised table of a dataset: made, or reused where the same text meets the same tokenizer.

    Local text counts by its contents, hub text by its name and commit.
    """
    tokenizer = load_tokenizer(config.model)
    files = local_files(config.dataset)
    dataset = config.dataset if files else pin_revision(config.dataset)
    identity = {
        "dataset": dataset.model_dump(mode="json"),
        "text_digest": content_digest(files) if files else None,
        "tokenizer": tokenizer_identity(tokenizer),
        "max_length": config.max_length,
        "num_tokens": config.num_tokens,
        "num_sequences": config.num_sequences,
        "skip_documents": config.skip_documents,
        "long_documents": config.long_documents,
    }
    plan = stage.plan("sequences", label(config.dataset.dataset_name, config.dataset.dataset_split or "all"), identity)
    finished = stage.reuse(plan)
    if finished is not None:
        return finished
    with stage.create(plan) as draft, stage.progress("tokenising", config.num_tokens, "tokens") as advance:
        counts = DocumentCounts()
        sequences = tokenize_documents(
            read_documents(dataset),
            tokenizer,
            config.max_length,
            long_documents=config.long_documents,
            skip_documents=config.skip_documents,
            num_tokens=config.num_tokens,
            num_sequences=config.num_sequences,
            counts=counts,
        )
        counted = advance.counting(sequences, lambda sequence: len(sequence.token_ids))
        draft.summary = vars(write_sequence_table(draft.path, counted, counts, config.dataset.dataset_name))
    if counts.truncated:
        stage.say(
            f"{counts.truncated:,} of {counts.read:,} documents were cut off at max_length={config.max_length} tokens "
            "(long_documents=split keeps the rest)"
        )
    return stage.finished(plan)
