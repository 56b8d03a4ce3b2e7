"""causal_eval.py from a config to numbers: what is tried, on which text, in which model; then all conditions."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from src.activations.job import refuse_long_sequences
from src.artifacts import Parent, content_digest
from src.causal.design import design_conditions
from src.causal.directions import Directions
from src.causal.evaluate import CausalEvaluation, changed_before, judge, score_sequences
from src.causal.perplexity import ConditionScorer
from src.causal.saved import TokenScoreFiles
from src.config.causal import CausalEvalConfig
from src.models import LanguageModel, load_model
from src.stage.causal_operators import Subjects, find_subjects, refuse_other_model
from src.stage.context import Stage
from src.stage.evaluated_text import EvaluatedText, prepare_text
from src.transport.bootstrap import DocumentBootstrap


@dataclass(frozen=True, eq=False)
class CausalWork:
    """All that an evaluation needs. directions: along which components are replaced, if any."""

    config: CausalEvalConfig
    subjects: Subjects
    text: EvaluatedText
    model: LanguageModel
    directions: Directions | None

    @property
    def parents(self) -> list[Parent]:
        """The artifacts that the evaluation is made from."""
        return [self.text.artifact.parent, *self.subjects.parents]

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
        }


def prepare(config: CausalEvalConfig, stage: Stage) -> CausalWork:
    """Find operators, read the text and load the model.

    Raises:
        StrataError: as `find_subjects` and `prepare_text` do; a model that the operators were not fitted on; sequences
            beyond its positions; directions that can't be read, are of another width, or not of what is edited.
    """
    loaded = cache(lambda: load_model(config.model, stage.device))
    directions = None if config.directions is None else Directions.load(Path(config.directions))
    subjects = find_subjects(config, stage, lambda: loaded().n_layers)
    text = prepare_text(config, stage, subjects)
    model = loaded()
    refuse_long_sequences(model, text.table)
    if subjects.store is not None:
        refuse_other_model(model, subjects.store)
    if directions is not None:
        directions.require(subjects.targets, model.d_model)
    return CausalWork(config, subjects, text, model, directions)


def evaluate(work: CausalWork, stage: Stage, folder: Path) -> CausalEvaluation:
    """Score all conditions; token scores go to the folder batch by batch.

    Raises:
        StrataError: a model that predicts no tokens, an edit that failed or did not happen.
    """
    config, text, model = work.config, work.text, work.model
    design = design_conditions(
        work.subjects.load(model.device), config.wanted, text.positions, model.d_model, config.seed, work.directions
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
    if (worst := changed_before(proofs, torch.finfo(model.dtype).eps)) is not None:
        stage.warn(
            f"{worst[0]!r} changes the last block's output before its first edit by {worst[1]:.1e} of its norm, more "
            "than rounding explains: do not trust these numbers before you know why"
        )
    return evaluation
