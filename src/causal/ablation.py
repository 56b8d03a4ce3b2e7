"""Exact effects of features: each is taken away wherever it fires, and only the layers after it are rerun."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.activations.products import exact_products
from src.causal.counted_batches import windows_of_batches
from src.causal.feature_effects import FeatureEffects, checked_features
from src.causal.suffix import CleanPass, SuffixReplay, Write, suitable_rows
from src.errors import StrataError
from src.features.active import active_features
from src.features.sae import Sae
from src.hook_points import HookPoint
from src.models import LanguageModel, VocabularyHead
from src.text import TokenSequence

_HELD_BYTES = 2**27  # of final hidden states


def ablate_features(
    model: LanguageModel,
    point: HookPoint,
    sae: Sae,
    features: Sequence[int],
    sequences: Sequence[TokenSequence],
    documents: Int[np.ndarray, " sequence"],
    *,
    batch_size: int = 16,
    rows_per_pass: int | None = None,
    chunk_bytes: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> FeatureEffects:
    """The change of the NLL if x_t becomes x_t - z_tf W_dec[f] at every counted token, for each feature f by itself.

    x: the clean activations at the SAE's hook point, z = encode(x). The change is that of the sum over all predictions,
    as in `attribute_features`, and stands in the order of `features`. A feature costs a rerun of the later layers for
    each sequence in which it fires, many of them stacked along the batch.

    Args:
        model: a causal LM.
        point: the hook point that the SAE reads.
        sae: on any device.
        features: indices.
        sequences: only their counted tokens are edited and counted.
        documents: of each sequence.
        batch_size: sequences that share a clean forward pass.
        rows_per_pass: edited copies of sequences in one rerun; None = what suits the device.
        chunk_bytes: of log-probabilities, as in `VocabularyHead.nll`.
        advance: is told the number of sequences done.

    Raises:
        StrataError: features that the SAE does not have, a hook point that the model does not have, no sequences, a
            model that predicts no tokens, an edit that did not happen, or a batch that outgrows the memory.
    """
    wanted = checked_features(sae, features, model, sequences)
    model.check_hook_points([point])
    suffix = SuffixReplay(model, suitable_rows(model.device) if rows_per_pass is None else rows_per_pass)
    head = VocabularyHead(model, suffix.skipper)
    effects = FeatureEffects(len(wanted), model.device)
    for window in windows_of_batches(sequences, documents, batch_size, model.device):
        for batch in window:
            effects.count(batch.document, batch.is_counted.sum(1))
            with exact_products():
                clean = suffix.clean(batch.input_ids, batch.attention_mask, {point})
                for edited in _changes(suffix, head, clean, point, sae, wanted, batch.is_counted, chunk_bytes):
                    effects.add(batch.document[edited.sequence], edited.feature, edited.change, edited.fired)
            advance(len(batch.document))
        effects.close()
    return effects


@dataclass(frozen=True, eq=False)
class _Edited:
    """Rows of one pass: which sequence and feature, the change of the NLL, and at how many tokens was edited."""

    sequence: Int[Tensor, " row"]
    feature: Int[Tensor, " row"]
    change: Float[Tensor, " row"]
    fired: Float[Tensor, " row"]


def _changes(
    suffix: SuffixReplay,
    head: VocabularyHead,
    clean: CleanPass,
    point: HookPoint,
    sae: Sae,
    wanted: Int[Tensor, " feature"],
    is_counted: Bool[Tensor, "batch pos"],
    chunk_bytes: int | None,
) -> Iterator[_Edited]:
    """Every feature in every sequence of a batch in which it fires."""
    n_positions = clean.input_ids.shape[1]
    predicted, next_ids = clean.attention_mask[:, 1:].bool(), clean.input_ids[:, 1:]
    clean_nll = torch.zeros(predicted.shape, device=predicted.device)
    clean_nll[predicted] = head.nll(clean.states[suffix.final][:, :-1][predicted], next_ids[predicted], chunk_bytes)
    edits = _edits(clean.states[point], sae, wanted, is_counted)
    of_row = clean.states[point][0].numel() * clean.states[point].itemsize
    size = max(suffix.rows_per_pass, _HELD_BYTES // of_row)
    for first in range(0, len(edits.sequence_of_row), size):
        sequence = edits.sequence_of_row[first : first + size]
        ends = torch.tensor([first, first + len(sequence)], device=edits.row.device)
        part = slice(*torch.searchsorted(edits.row, ends).tolist())
        edited = torch.zeros(len(sequence), n_positions, dtype=torch.bool, device=predicted.device)
        edited[edits.row[part] - first, edits.position[part]] = True
        direction = sae.decoder[wanted[edits.feature[part].to(sae.device)]].to(predicted.device)
        state = clean.states[point][edits.sequence[part], edits.position[part]].to(direction.dtype)
        write = Write(edited, state - edits.contribution[part, None] * direction)
        final, deviation = suffix.rerun_rows(clean, point, sequence, write)
        if deviation.max() > 0:
            raise StrataError(
                f"an edit of {point} did not happen: what was captured there differs from what was written by "
                f"{float(deviation.max()):g}. Something else in this model writes there"
            )
        reached = (edited.cumsum(1) > 0)[:, :-1] & predicted[sequence]
        nll = head.nll(final[:, :-1][reached], next_ids[sequence][reached], chunk_bytes)
        difference = nll - clean_nll[sequence][reached]
        change = torch.zeros(len(sequence), device=difference.device, dtype=difference.dtype)
        change.index_add_(0, reached.nonzero()[:, 0], difference)
        feature = edits.feature_of_row[first : first + len(sequence)]
        yield _Edited(sequence, feature, change, edited.sum(1))


@dataclass(frozen=True, eq=False)
class _Edits:
    """The rows of a batch (a sequence and a feature that fires in it), and an entry for each token that one edits.

    Entries lie in the order of rows and positions; rows whose first edits lie close together stand side by side.
    """

    sequence_of_row: Int[Tensor, " row"]
    feature_of_row: Int[Tensor, " row"]
    row: Int[Tensor, " entry"]
    sequence: Int[Tensor, " entry"]
    position: Int[Tensor, " entry"]
    feature: Int[Tensor, " entry"]
    contribution: Float[Tensor, " entry"]


def _edits(
    state: Float[Tensor, "batch pos d_model"],
    sae: Sae,
    wanted: Int[Tensor, " feature"],
    is_counted: Bool[Tensor, "batch pos"],
) -> _Edits:
    n_sequences, n_positions = is_counted.shape
    where = is_counted.nonzero()
    found = list(active_features(sae, state[is_counted], wanted))
    token, feature, contribution = (
        torch.cat([getattr(part, name) for part in found]).to(state.device)
        for name in ("token", "feature", "contribution")
    )
    sequence, position = where[token].T
    key, row = (feature * n_sequences + sequence).unique(return_inverse=True)
    first = torch.full_like(key, n_positions).scatter_reduce_(0, row, position, "amin")
    order = first.argsort(stable=True)
    row = order.argsort()[row]
    entries = (row * n_positions + position).argsort()
    columns = (column[entries] for column in (row, sequence, position, feature, contribution))
    return _Edits(key[order] % n_sequences, key[order] // n_sequences, *columns)
