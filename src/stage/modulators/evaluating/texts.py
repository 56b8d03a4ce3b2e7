"""The examples that a modulator is judged on: none that it was trained or chosen by."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from src.activations.splits import document_hashes
from src.artifacts import Artifact, Parent
from src.config.modulators.evaluate import EvaluateModulatorConfig
from src.config.modulators.train import TrainModulatorConfig
from src.config.shared import DatasetConfig
from src.errors import StrataError
from src.models import LanguageModel, load_tokenizer
from src.modulators.training.examples import Example, text_example
from src.stage.context import Stage
from src.stage.modulators.texts import Examples, Objective, prepare_examples
from src.stage.sequences import Reading, prepare_table
from src.text import SeenText, Selection, SequenceTable, content_hashes

_ALL = 2**62


def prepare_test_examples(
    config: EvaluateModulatorConfig,
    trained: TrainModulatorConfig,
    artifact: Artifact,
    model: LanguageModel,
    stage: Stage,
) -> tuple[Objective, Sequence[Example], Examples, list[Parent]]:
    """The objective, at most `config.examples` examples, those of the training, and the artifacts that they come from.

    They are drawn from the test examples of the modulator's training, split as they were then, or are the first of
    another dataset but for documents that begin like one of its train or val documents.

    Raises:
        StrataError: the text of the training is not what it was (its test documents would be others); no example is
            left; another dataset for an encoder-decoder, which does not go on with a text.
    """
    objective: Objective = artifact.meta.identity["objective"]
    dataset = config.dataset.chosen()
    known = prepare_examples(trained, stage, objective, model.module.config.is_encoder_decoder)
    _refuse_other_text(artifact, known)
    train, val, test = known.shares
    if dataset is None:
        return objective, _drawn(test, config), known, known.parents
    if model.module.config.is_encoder_decoder:
        raise StrataError(
            f"dataset={dataset.dataset_name}: {config.model.name} is an encoder-decoder, which does not go on with a "
            "text: leave it out, for the test definitions"
        )
    seen = [example.input_ids for example in (*train, *val)] if objective == "text" else []
    examples, table = _other_examples(config, trained, dataset, seen, artifact, stage)
    return "text", _drawn(examples, config), known, [*known.parents, table]


def _refuse_other_text(artifact: Artifact, known: Examples) -> None:
    """A modulator that was trained on other text may have seen what would be its test documents now."""
    then, now = (sorted((it.kind, it.fingerprint) for it in some) for some in (artifact.meta.parents, known.parents))
    if then != now or artifact.meta.identity.get("examples") != known.digest:
        raise StrataError(
            f"the text that {artifact.path.name} was trained on is not what it was, so nobody can tell what it has not "
            "seen: put the text back, or train again with train_modulator.py"
        )


def _other_examples(
    config: EvaluateModulatorConfig,
    trained: TrainModulatorConfig,
    dataset: DatasetConfig,
    seen: Sequence[np.ndarray],
    artifact: Artifact,
    stage: Stage,
) -> tuple[list[Example], Parent]:
    n_added = load_tokenizer(config.model).num_special_tokens_to_add(pair=False)
    # what the tokenizer adds at the end stands elsewhere where a text is cut off elsewhere
    known = (SeenText.of(seen, max(1, trained.max_length - n_added)),) if seen else ()
    at_most = config.examples or _ALL
    selection = Selection(2, known, at_most)
    selected_by = {"min_tokens": 2, "at_most": at_most, "seen_by": artifact.meta.fingerprint}
    table = prepare_table(stage, config.model, dataset, Reading(trained.max_length), selection, selected_by)
    passed_over = table.meta.summary["fitted_on"]
    if passed_over:
        stage.say(
            f"{passed_over:,} documents of {dataset.dataset_name} were passed over: {artifact.path.name} was trained "
            "on them, or chosen by them"
        )
    texts = SequenceTable(table.path)
    sequences = texts.read(0, texts.n_sequences)
    hashes = document_hashes(
        content_hashes((it.token_ids for it in sequences), config.seed), np.array([it.document for it in sequences])
    )
    documents = np.unique(hashes, return_inverse=True)[1]
    examples = [text_example(it, int(document)) for it, document in zip(sequences, documents, strict=True)]
    return examples, table.parent


def _drawn(examples: Sequence[Example], config: EvaluateModulatorConfig) -> list[Example]:
    """At most so many of those with a token to predict, in their order; groups are counted anew from 0."""
    useful = [example for example in examples if example.predicted.any()]
    if not useful:
        raise StrataError("no test example has a token to predict: choose another dataset=...")
    draws = torch.Generator().manual_seed(config.seed)
    rows = torch.randperm(len(useful), generator=draws)[: config.examples].sort().values.tolist()
    groups = np.unique([useful[row].group for row in rows], return_inverse=True)[1].tolist()
    return [replace(useful[row], group=group) for row, group in zip(rows, groups, strict=True)]
