"""The artifact `sequences`: a dataset, tokenised once for a tokenizer and a length."""

import hashlib
import json

from transformers import PreTrainedTokenizerBase

from src.artifacts import Artifact, content_digest, label
from src.config.stages import SequencesConfig
from src.models.loading import load_tokenizer
from src.stage.context import Stage
from src.text import DocumentCounts, local_files, read_documents, tokenize_documents, write_sequence_table


def prepare_sequences(config: SequencesConfig, stage: Stage) -> Artifact:
    """The pretokenised table of a dataset: made, or reused where the same text meets the same tokenizer.

    Local text counts by its contents, hub text by its name and revision.
    """
    tokenizer = load_tokenizer(config.model)
    files = local_files(config.dataset)
    identity = {
        "dataset": config.dataset.model_dump(mode="json"),
        "text_digest": content_digest(files) if files else None,
        "tokenizer": _tokenizer_digest(tokenizer),
        "chat_template": tokenizer.chat_template,
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
            read_documents(config.dataset),
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
    return stage.finished(plan)


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of all that decides how text becomes token ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = (
        backend.to_str()
        if backend is not None
        else json.dumps([repr(tokenizer), tokenizer.get_vocab()], sort_keys=True)
    )
    return hashlib.sha256(rules.encode()).hexdigest()
