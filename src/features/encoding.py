"""A text through a model and its SAEs, all layers at once: one forward pass per batch, and one backward if wanted."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from src.activations.collect import right_padded
from src.activations.passes import Rows
from src.activations.products import exact_products
from src.features.codes import CodesWriter, SparseCodes
from src.features.sae import Sae, require_point
from src.hook_points import HookPoint
from src.models import LanguageModel, capture
from src.models.gradients import states_and_gradients
from src.models.head import VocabularyHead
from src.text import Keep, TokenSequence


def encode_text(
    model: LanguageModel,
    saes: Mapping[int, Sae],
    sequences: Sequence[TokenSequence],
    batch_size: int,
    folder: Path,
    head: VocabularyHead | None,
    advance: Callable[[int], None],
) -> dict[int, SparseCodes]:
    """The sparse codes of every layer at the counted tokens; each sequence is a document.

    saes: by layer. sequences: those of like length side by side, lest padding is computed; the codes keep their order.
    folder: where the codes are kept, 8 bytes for each feature that fires at a token (12 with effects).
    head: given where effects are wanted. advance: is told the number of sequences done.

    Raises:
        StrataError: as `capture` or `states_and_gradients` does; NaN or infinity at a counted token.
    """
    points = {layer: require_point(sae) for layer, sae in saes.items()}
    with ExitStack() as stack:
        writers = {
            layer: stack.enter_context(CodesWriter(folder / f"{layer:02d}", sae, with_effect=head is not None))
            for layer, sae in saes.items()
        }
        for first in range(0, len(sequences), batch_size):
            batch = sequences[first : first + batch_size]
            input_ids, mask, counted = _padded(batch)
            counted = counted.to(model.device)
            if head is None:
                states, gradients = capture(model, input_ids, mask, set(points.values())), None
            else:
                found = states_and_gradients(model, input_ids, mask, set(points.values()), head)
                states, gradients = found.states, found.gradients
            with exact_products():
                for layer, point in points.items():
                    writers[layer].add(states[point], None if gradients is None else gradients[point], counted)
            advance(len(batch))
    counts = torch.tensor([int((it.roles == Keep.COUNTED).sum()) for it in sequences])
    token_ids = np.concatenate([it.token_ids[it.roles == Keep.COUNTED] for it in sequences]).astype(np.int64)
    start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return {layer: writer.finished(torch.from_numpy(token_ids), start) for layer, writer in writers.items()}


def _padded(
    batch: Sequence[TokenSequence],
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Token ids, attention mask, and which tokens are counted."""
    input_ids, mask = right_padded([it.token_ids for it in batch])
    counted, _ = right_padded([it.roles == Keep.COUNTED for it in batch])
    return input_ids, mask, counted.bool()


def pairing_rows(
    model: LanguageModel, points: Sequence[HookPoint], sequences: Sequence[TokenSequence], batch_size: int, n_rows: int
) -> Rows:
    """About n_rows rows to check SAEs on: what each reads, and, for hints, the residual stream around those layers."""
    beside = {
        HookPoint("resid_post", layer)
        for point in points
        for layer in range(max(point.layer - 1, 0), min(point.layer + 2, model.n_layers))
    }
    wanted = sorted({*points, *beside})
    found: dict[HookPoint, list[torch.Tensor]] = {point: [] for point in wanted}
    document: list[torch.Tensor] = []
    for first in range(0, len(sequences), batch_size):
        batch = sequences[first : first + batch_size]
        input_ids, mask, counted = _padded(batch)
        states = capture(model, input_ids, mask, wanted)
        for point in wanted:
            found[point].append(states[point][counted.to(model.device)])
        document.append(first + counted.nonzero()[:, 0])
        if sum(map(len, document)) >= n_rows:
            break
    documents = torch.cat(document)
    return Rows(
        activations={point: torch.cat(parts) for point, parts in found.items()},
        document=documents,
        group=torch.zeros_like(documents),
        is_counted=torch.ones_like(documents, dtype=torch.bool),
        is_first=torch.zeros_like(documents, dtype=torch.bool),
    )
