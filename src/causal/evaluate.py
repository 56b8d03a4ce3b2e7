"""An evaluation from sequences to numbers with intervals: batches through the scorer, their sums kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int

from src.activations.collect import batches_of_like_length, right_padded
from src.causal.design import Trial
from src.causal.perplexity import ConditionScorer
from src.causal.scores import EditProof, TokenScores
from src.causal.summaries import ConditionSummary, ScoreSums
from src.causal.sums import SequenceSums
from src.errors import StrataError
from src.text import Keep, TokenSequence
from src.transport.bootstrap import DocumentBootstrap, Estimate

REFERENCES = ("zero", "mean")
FEATURE_REFERENCES = ("ablate_features", "mean_features")
# A change before an edit, in units of the dtype's epsilon: replays of other batch shapes round otherwise in each block
_ROUNDING = 64.0


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """Token scores of a batch, and which of the evaluated sequences its rows are."""

    sequences: Int[np.ndarray, " row"]
    scores: TokenScores


def may_be_edited(sequence: TokenSequence, edit_bos: bool) -> Bool[np.ndarray, "position"]:
    """Tokens that statistics count; with `edit_bos` all."""
    return (sequence.roles == Keep.COUNTED) | edit_bos


def score_sequences(
    scorer: ConditionScorer,
    sequences: Sequence[TokenSequence],
    documents: Int[np.ndarray, " sequence"],
    batch_size: int,
    edit_bos: bool,
    keep: Callable[[ScoredBatch], None],
    advance: Callable[[int], None],
) -> tuple[SequenceSums, dict[str, EditProof]]:
    """Score all sequences under all conditions, in batches of like length; only sums are held.

    documents: the document of each sequence. keep: is given the token scores of each batch. advance: is told the number
    of sequences times conditions done.

    Raises:
        StrataError: as `ConditionScorer.score` does.
    """
    longest = max(len(sequence.token_ids) for sequence in sequences)
    sums: list[SequenceSums] = []
    proofs: list[Mapping[str, EditProof]] = []
    for rows in _batches(np.array([len(sequence.token_ids) for sequence in sequences]), batch_size):
        input_ids, mask = right_padded([sequences[row].token_ids for row in rows])
        editable = torch.zeros(mask.shape, dtype=torch.bool)
        for place, row in enumerate(rows):
            flags = may_be_edited(sequences[row], edit_bos)
            editable[place, : len(flags)] = torch.from_numpy(flags)
        scores = scorer.score(input_ids, mask, editable, advance)
        keep(ScoredBatch(rows, scores))
        sums.append(SequenceSums.of(scores, torch.from_numpy(documents[rows]), distance_bins(longest)))
        proofs.append(scores.proofs)
    return SequenceSums.join(sums), {
        condition.name: EditProof.together(proof[condition.name] for proof in proofs) for condition in scorer.conditions
    }


def _batches(lengths: Int[np.ndarray, " sequence"], batch_size: int) -> list[Int[np.ndarray, " row"]]:
    """Like lengths together; a single sequence that is left over joins the batch before, for resampling needs two."""
    batches = batches_of_like_length(lengths, batch_size)
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def distance_bins(longest: int) -> tuple[int, ...]:
    """Where bins of distance begin: 0, 1, 2, 4, 8, ... below the longest sequence."""
    return (0, *(2**power for power in range((longest - 1).bit_length()) if 2**power < longest))


@dataclass(frozen=True)
class TrialResult:
    """What one trial came to.

    recovered: by the reference (zero or mean ablation of the same tokens, or of the same features), where there is one.
    by_distance: change of the NLL in each of `distance_bins`. proof: of all conditions of the trial.
    """

    trial: Trial
    summary: ConditionSummary
    recovered: Mapping[str, Estimate]
    by_distance: Sequence[Estimate]
    proof: EditProof


@dataclass(frozen=True)
class CausalEvaluation:
    """All trials, in the order of the design.

    n_sequences, n_documents: evaluated. distances: where the bins of distance begin. tokens_edited: by all conditions.
    """

    results: Sequence[TrialResult]
    clean_nll: Estimate
    n_sequences: int
    n_documents: int
    distances: Sequence[int]
    tokens_edited: int


def judge(
    trials: Sequence[Trial], sums: SequenceSums, proofs: Mapping[str, EditProof], bootstrap: DocumentBootstrap
) -> CausalEvaluation:
    """Summaries of all trials with paired intervals; features that change no prediction are left out.

    Raises:
        StrataError: an edit did not happen.
    """
    _refuse_failed_edits(proofs)
    score_sums = ScoreSums(sums, bootstrap)
    trials = _without_silent_features(trials, score_sums)
    references = {
        (trial.pair, trial.positions, trial.features, trial.intervention): trial.conditions
        for trial in trials
        if trial.intervention in (REFERENCES if not trial.features else FEATURE_REFERENCES)
    }
    results = []
    for trial in trials:
        recovered = {
            name: score_sums.recovered_share(trial.conditions, reference, of_same_tokens=not trial.features)
            for name in (REFERENCES if not trial.features else FEATURE_REFERENCES)
            if name != trial.intervention
            and (reference := references.get((trial.pair, trial.positions, trial.features, name))) is not None
        }
        results.append(
            TrialResult(
                trial=trial,
                summary=score_sums.summary(*trial.conditions),
                recovered=recovered,
                by_distance=score_sums.change_by_distance(*trial.conditions),
                proof=EditProof.together([proofs[name] for name in trial.conditions]),
            )
        )
    return CausalEvaluation(
        results,
        score_sums.clean_nll,
        len(sums.document),
        len(sums.document.unique()),
        sums.distances,
        sum(proof.tokens for proof in proofs.values()),
    )


def _without_silent_features(trials: Sequence[Trial], sums: ScoreSums) -> list[Trial]:
    """The trials without those of features that fire at no edited token: their mean alone would change something."""
    telling = [trial for trial in trials if trial.features and trial.intervention != "mean_features"]
    if not telling:
        return list(trials)
    live = {(trial.pair, trial.features) for trial in telling if sums.n_affected(*trial.conditions)}
    return [
        trial
        for trial in trials
        if not trial.features or ((trial.pair, trial.features) in live and sums.n_affected(*trial.conditions))
    ]


def _refuse_failed_edits(proofs: Mapping[str, EditProof]) -> None:
    failed = [name for name, proof in proofs.items() if not proof.holds]
    if failed:
        worst = max(failed, key=lambda name: proofs[name].max_deviation)
        raise StrataError(
            f"{len(failed)} of {len(proofs)} edits did not happen: of {worst!r}, what was captured at the hook point "
            f"differs from what was written by {proofs[worst].max_deviation:g}. Something else in this model writes "
            "there; these numbers would mean nothing"
        )


def changed_before(proofs: Mapping[str, EditProof], epsilon: float) -> tuple[str, float] | None:
    """The condition that changes most before its first edit, if that is beyond rounding; epsilon: of the dtype."""
    name, proof = max(proofs.items(), key=lambda item: item[1].max_change_before)
    return (name, proof.max_change_before) if proof.max_change_before > _ROUNDING * epsilon else None
