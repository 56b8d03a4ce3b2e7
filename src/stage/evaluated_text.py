"""The sequences that causal_eval.py evaluates: long enough, and none that anything was fitted on."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32

from src.activations.splits import document_hashes
from src.activations.store import ActivationStore
from src.artifacts import Artifact
from src.causal.evaluate import may_be_edited
from src.causal.positions import Positions, position_text, reached_positions, with_sources
from src.config.causal import CausalEvalConfig
from src.errors import StrataError
from src.models.loading import load_tokenizer
from src.stage.causal_operators import Subjects
from src.stage.context import Stage
from src.stage.sequences import Reading, prepare_table
from src.stage.stores import Split
from src.text import SeenText, Selection, SequenceTable, TokenSequence, content_hashes
from src.transport.bootstrap import FEW_DOCUMENTS


@dataclass(frozen=True, eq=False)
class EvaluatedText:
    """Sequences, the document of each (those that share text count as one), and the positions that they reach."""

    artifact: Artifact
    table: SequenceTable
    sequences: list[TokenSequence]
    documents: Int[np.ndarray, " sequence"]
    positions: list[Positions]

    @property
    def n_documents(self) -> int:
        """Number of different documents."""
        return len(np.unique(self.documents))


def prepare_text(config: CausalEvalConfig, stage: Stage, subjects: Subjects) -> EvaluatedText:
    """Read and tokenise what is to be evaluated, or find it; says what was left out, and what is not reached.

    Raises:
        StrataError: no sequence is left, or none reaches any of the positions.
    """
    keys = config.causal_eval
    wanted: list[Positions] = [None] if isinstance(keys.js, str) else [tuple(positions) for positions in keys.js]
    earliest = min(0 if positions is None else positions[0] for positions in wanted)
    # the edited token, and the one that it predicts
    min_tokens = max(keys.min_length or 0, earliest + 2)
    seen = () if subjects.store is None else _seen(subjects.store, subjects.splits, config)
    selected_by = {
        "min_tokens": min_tokens,
        "at_most": keys.max_samples,
        "store": None if subjects.store is None else subjects.store.artifact.meta.fingerprint,
        "splits": [split.identity() for split in subjects.splits],
        "compared_tokens": [each.n_tokens for each in seen],
    }
    reading = Reading(keys.max_length, skip_documents=keys.skip_initial_n_samples_from_dataset)
    selection = Selection(min_tokens, seen, keys.max_samples, ("earlier positions", "a smaller min_length"))
    artifact = prepare_table(stage, config.model, config.dataset, reading, selection, selected_by)
    table = SequenceTable(artifact.path)
    sequences = table.read(0, table.n_sequences)
    _tell(stage, artifact, subjects, config)
    if len(sequences) < 2 and "resample" in config.wanted:
        raise StrataError(
            f"a single sequence of {config.dataset.dataset_name!r} is left to evaluate, and resampling takes "
            "activations from another one: choose another dataset=..., earlier positions, or interventions without "
            "resample"
        )
    hashes = document_hashes(
        content_hashes((it.token_ids for it in sequences), config.seed), np.array([it.document for it in sequences])
    )
    documents = np.unique(hashes, return_inverse=True)[1]
    offsets = {pair.offset for pair in subjects.saved}
    positions = _reached(stage, config, wanted, sequences, offsets)
    text = EvaluatedText(artifact, table, sequences, documents, positions)
    if text.n_documents < FEW_DOCUMENTS:
        stage.warn(
            f"only {text.n_documents} documents are evaluated: intervals from so few are too narrow; raise "
            "causal_eval.max_samples, or choose a larger dataset"
        )
    return text


def _seen(store: ActivationStore, splits: Sequence[Split], config: CausalEvalConfig) -> tuple[SeenText, ...]:
    """The train and val share of a store under each split. Sequences of other lengths are compared as far as both go.

    What the tokenizer adds at the end of a sequence stands elsewhere where it is cut off elsewhere: compared is text.
    """
    n_added = load_tokenizer(config.model).num_special_tokens_to_add(pair=False)
    shorter = min(config.causal_eval.max_length, store.artifact.meta.config["max_length"])
    return tuple(SeenText.of(_fitted_on(store, split), max(1, shorter - n_added)) for split in splits)


def _fitted_on(store: ActivationStore, split: Split) -> Iterator[Int32[np.ndarray, "position"]]:
    is_seen = split.groups <= split.val
    for part in store:
        for index, ids in enumerate(np.split(part.token_ids, part.sequence_start[1:-1]), part.first_sequence):
            if is_seen[index]:
                yield ids


def _tell(stage: Stage, artifact: Artifact, subjects: Subjects, config: CausalEvalConfig) -> None:
    summary = artifact.meta.summary
    if summary["fitted_on"] and subjects.store is not None:
        stage.say(
            f"{summary['fitted_on']:,} sequences were passed over: they are in the train or val share of "
            f"{subjects.store.path.name}, which operators were fitted on"
        )
    if summary["too_short"]:
        stage.say(f"{summary['too_short']:,} sequences were passed over: too short to be edited, or below min_length")
    if summary["sequences"] < config.causal_eval.max_samples:
        stage.say(
            f"{summary['sequences']:,} sequences are all that is left (max_samples={config.causal_eval.max_samples})"
        )


def _reached(
    stage: Stage,
    config: CausalEvalConfig,
    wanted: list[Positions],
    sequences: list[TokenSequence],
    offsets: Collection[int],
) -> list[Positions]:
    editable = [with_sources(may_be_edited(it, config.edit_bos), offsets) for it in sequences]
    positions, unreached = reached_positions(wanted, editable)
    longest = max(len(it.token_ids) for it in sequences)
    also = ", and whose source may be" if any(offsets) else ""
    why = (
        f"no sequence has a token there that may be edited{also}, and another one after it (the longest has {longest} "
        "tokens; BOS and special tokens may be edited with edit_bos=true)"
    )
    if not positions:
        named = position_text(tuple(unreached)) if unreached else "all"
        raise StrataError(f"causal_eval.js: of positions {named} none is left: {why}; choose other positions")
    if unreached:
        stage.warn(f"positions {position_text(tuple(unreached))} are not edited: {why}")
    return positions
