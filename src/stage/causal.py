"""causal_eval.py from a config to numbers: what is tried, on which text, in which model; then all conditions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from src.activations.job import refuse_long_sequences
from src.artifacts import Parent, content_digest
from src.causal.design import Trial, design_conditions
from src.causal.directions import Directions
from src.causal.evaluate import CausalEvaluation, changed_before, judge, score_sequences
from src.causal.perplexity import ConditionScorer
from src.causal.saved import TokenScoreFiles
from src.config.causal import CausalEvalConfig
from src.errors import StrataError
from src.models import LanguageModel, load_model
from src.stage.causal_features import FeatureWork, prepare_features
from src.stage.causal_operators import Subjects, find_subjects, refuse_other_model
from src.stage.context import Stage
from src.stage.evaluated_text import EvaluatedText, prepare_text
from src.transport.bootstrap import DocumentBootstrap


@dataclass(frozen=True, eq=False)
class CausalWork:
    """All that an evaluation needs. directions: along which components are replaced, if any. features: likewise."""

    config: CausalEvalConfig
    subjects: Subjects
    text: EvaluatedText
    model: LanguageModel
    directions: Directions | None
    features: FeatureWork | None

    @property
    def parents(self) -> list[Parent]:
        """The artifacts that the evaluation is made from."""
        lists = [] if self.features is None else self.features.parents
        return [self.text.artifact.parent, *self.subjects.parents, *lists]

    @property
    def which(self) -> str:
        """The pair, or how many there are."""
        pairs = list(self.subjects.saved)
        return str(pairs[0]) if len(pairs) == 1 else f"{len(pairs)}-pairs"

    def identity(self) -> dict[str, Any]:
        """What decides the numbers beside the parents, for the fingerprint."""
        config = self.config
        return {
            "model": self.model.identity_of_predictions(),
            "pairs": [pair.identity() for pair in self.subjects.saved],
            "hook": self.subjects.hook,
            "interventions": list(config.wanted),
            "positions": [None if js is None else list(js) for js in self.text.positions],
            "directions": None if config.directions is None else content_digest([Path(config.directions)]),
            "edit_bos": config.edit_bos,
            "batch_size": config.batch_size,
            "bootstrap": config.bootstrap,
            "seed": config.seed,
            **({} if self.features is None else {"features": self.features.identity()}),
        }


def prepare(config: CausalEvalConfig, stage: Stage) -> CausalWork:
    """Find operators, read the text and load the model.

    Raises:
        StrataError: as `find_subjects` and `prepare_text` do; a model that the operators were not fitted on; sequences
            beyond its positions; directions that can't be read, are of another width, or not of what is edited;
        features as in `prepare_features`.
    """
    loaded = cache(lambda: load_model(config.model, stage.device))
    directions = None if config.directions is None else Directions.load(Path(config.directions))
    subjects = find_subjects(config, stage, lambda: loaded().n_layers)
    features = prepare_features(config, stage, subjects)
    text = prepare_text(config, stage, subjects)
    model = loaded()
    refuse_long_sequences(model, text.table)
    if subjects.store is not None:
        refuse_other_model(model, subjects.store)
    if directions is not None:
        directions.require(subjects.targets, model.d_model)
    return CausalWork(config, subjects, text, model, directions, features)


def evaluate(work: CausalWork, stage: Stage, folder: Path) -> CausalEvaluation:
    """Score all conditions; token scores go to the folder batch by batch.

    Raises:
        StrataError: a model that predicts no tokens, an edit that failed or did not happen.
    """
    config, text, model = work.config, work.text, work.model
    design = design_conditions(
        work.subjects.load(model.device),
        config.wanted,
        text.positions,
        model.d_model,
        config.seed,
        work.directions,
        None if work.features is None else work.features.load(work.subjects),
    )
    scorer = ConditionScorer(model, design.conditions, config.rows_per_pass)
    names = [condition.name for condition in design.conditions]
    total = len(names) * len(text.sequences)
    with (
        stage.progress("intervening", total, "sequences x conditions") as advance,
        TokenScoreFiles(folder, text.sequences, text.documents, names) as files,
    ):
        sums, proofs = score_sequences(
            scorer, text.sequences, text.documents, config.batch_size, config.edit_bos, files.add, advance
        )
    evaluation = judge(design.trials, sums, proofs, DocumentBootstrap(config.bootstrap, config.seed))
    _tell_silent(design.trials, evaluation, stage)
    if (worst := changed_before(proofs, torch.finfo(model.dtype).eps)) is not None:
        stage.warn(
            f"{worst[0]!r} changes the last block's output before its first edit by {worst[1]:.1e} of its norm, more "
            "than rounding explains: do not trust these numbers before you know why"
        )
    return evaluation


def _tell_silent(trials: Sequence[Trial], evaluation: CausalEvaluation, stage: Stage) -> None:
    """Warn of features that never fire where they could be edited; StrataError if none is left of what was asked."""
    left = {(result.trial.pair, result.trial.features) for result in evaluation.results}
    silent = {(trial.pair, trial.features) for trial in trials} - left
    if not silent:
        return
    names = sorted({features for _, features in silent}, key=lambda name: (len(name), name))
    shown = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
    where = f"never fire at a token of the text that is edited: {shown}"
    if not evaluation.results:
        raise StrataError(f"the features {where}; choose other features, or more text (causal_eval.max_samples)")
    stage.warn(f"{len(silent)} of the features (counted for each pair of layers) {where}; they are left out")
