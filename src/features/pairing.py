"""Do an SAE and a hook belong together? The fraction of variance unexplained (FVU) and L0 on real activations tell."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from src.activations.passes import Rows, rows_by_part
from src.activations.products import exact_products
from src.activations.store import ActivationStore
from src.errors import StrataError
from src.features.sae import Sae, require_point
from src.features.training.reconstruction import Ratio, Reconstruction, ReconstructionSums
from src.hook_points import HookPoint
from src.text import Keep

MAX_ROWS = 20_000
_HINT_ROWS = 2048  # tell hooks apart, where many have to be tried
# another hook fits clearly better below this share of the FVU, and if the difference is no rounding
_CLEARLY, _NEGLIGIBLE = 0.8, 0.01
_PARTS = 8  # that the rows are taken from, spread over the store


@dataclass(frozen=True)
class Pairing:
    """How an SAE fits a hook point.

    fvu: sum |x - reconstruction|^2 / sum |x - mean|^2 over counted rows. l0: mean number of features that are not 0.
    """

    point: HookPoint
    fvu: Ratio
    l0: Ratio
    n_rows: int
    n_documents: int

    def __str__(self) -> str:
        return f"{self.point} (FVU {self.fvu.value:.3g}, L0 {self.l0.value:.4g})"


def check_pairing(
    sae: Sae,
    source: ActivationStore | Rows,
    point: HookPoint | None = None,
    *,
    max_fvu: float | None = 0.5,
    max_rows: int = MAX_ROWS,
) -> Pairing:
    """Measure how an SAE fits a hook point, and refuse what does not fit.

    A neighbouring layer of the residual stream can pass any fixed limit, so the hooks beside it are tried too.

    point: None = the one that the SAE was trained on. Where a store lacks resid_pre of a layer, resid_post of the layer
    before is the same. max_fvu: None = refuse nothing. max_rows: as in `measure_pairings`.

    Raises:
        StrataError: FVU above max_fvu, or clearly above that of a hook of this layer or one beside it (the message
            has the numbers, and names the stored hook that fits best); no such hook, another width, no counted rows.
    """
    held = _held_points(source)
    asked = _as_stored(require_point(sae) if point is None else point, held)
    found = measure_pairings(sae, source, [asked], max_rows=max_rows)[asked]
    if max_fvu is None:
        return found
    is_bad = not found.fvu.value <= max_fvu
    others = [other for other in held if other != asked and not other.offset]
    if not is_bad:
        others = [other for other in others if abs(other.layer - asked.layer) <= 1 or other == sae.point]
    best = _best(sae, source, asked, others)
    if not is_bad and best is None:
        return found
    interval = f" (95 % interval {found.fvu.low:.3g} to {found.fvu.high:.3g})" if found.n_documents > 1 else ""
    limit = f" with sae.max_fvu={max_fvu:g}" if is_bad else ""
    of_model = f" of {sae.model_name}" if sae.model_name else ""
    says = f"; the SAE says that it reads {sae.hook_name}{of_model}" if sae.hook_name else ""
    raise StrataError(
        f"SAE {sae.source} does not fit {asked} of {_name(source)}: FVU {found.fvu.value:.3g}{interval}{limit}, L0 "
        f"{found.l0.value:.4g}, over {found.n_rows:,} rows of {found.n_documents:,} documents{says}. "
        f"{_hint(best, found, max_fvu, bool(others))}"
    )


def _best(sae: Sae, source: ActivationStore | Rows, asked: HookPoint, others: Sequence[HookPoint]) -> Pairing | None:
    """The one of the others that the SAE fits clearly better than what was asked for, on the same rows."""
    if not others:
        return None
    tried = measure_pairings(sae, source, [asked, *others], max_rows=_HINT_ROWS)
    fvu = {point: float(np.nan_to_num(pairing.fvu.value, nan=np.inf)) for point, pairing in tried.items()}
    best = min(others, key=lambda other: fvu[other])
    return tried[best] if fvu[best] < min(_CLEARLY * fvu[asked], fvu[asked] - _NEGLIGIBLE) else None


def _hint(best: Pairing | None, found: Pairing, max_fvu: float, has_others: bool) -> str:
    if best is not None and best.fvu.value <= max_fvu:
        return f"It fits {best} best: use it there (sae.max_fvu=null turns this check off)"
    if not has_others:
        return "No other hook is stored there: collect the one that the SAE was trained on"
    return (
        f"No hook that is stored there fits; the nearest is {best or found}: check that the SAE is of this very model, "
        "and collect the hook that it was trained on"
    )


def _as_stored(point: HookPoint, held: Sequence[HookPoint]) -> HookPoint:
    """The input of a block is the output of the one before: resid_post, where resid_pre is not held."""
    if point in held or point.hook != "resid_pre" or point.layer == 0:
        return point
    before = HookPoint("resid_post", point.layer - 1)
    return before if before in held else point


def measure_pairings(
    sae: Sae, source: ActivationStore | Rows, points: Sequence[HookPoint], *, max_rows: int = MAX_ROWS
) -> dict[HookPoint, Pairing]:
    """FVU and L0 at each of some hook points, in one pass over the same counted rows.

    max_rows: of a store, take whole sequences from the beginnings of a few parts spread over it, until there are about
    so many rows. Memory: one part, and d_model numbers per document. All given rows are taken.

    Raises StrataError for a hook that is not there, another width, no counted rows, or rows that do not vary.
    """
    _refuse_other_width(sae, source, points)
    sums = {point: ReconstructionSums() for point in points}
    with exact_products():
        for rows in _batches(source, points, max_rows):
            for point, total in sums.items():
                total.add(sae, rows.activations[point][rows.is_counted], rows.document[rows.is_counted])
            del rows  # before the next part is read
    return {point: _pairing(total.result(), point, _name(source)) for point, total in sums.items()}


def _pairing(found: Reconstruction | None, point: HookPoint, where: str) -> Pairing:
    if found is None:
        raise StrataError(f"{where} has no counted rows to check an SAE on: collect more text")
    if not found.squares > 0:
        raise StrataError(f"{where}: {point} is the same in all of its {found.n_rows:,} counted rows")
    return Pairing(point, found.fvu, found.l0, found.n_rows, found.n_documents)


def _batches(source: ActivationStore | Rows, points: Sequence[HookPoint], max_rows: int) -> Iterator[Rows]:
    if isinstance(source, Rows):
        yield source
    else:
        yield from rows_by_part(source, points, _chosen_sequences(source, max_rows), [1])


def _chosen_sequences(store: ActivationStore, max_rows: int) -> Int[np.ndarray, " sequence"]:
    """1 for the sequences that begin some parts of a store and hold about max_rows counted rows in all, else 0."""
    chosen = np.zeros(store.layout.n_sequences, np.int8)
    parts = list(store)
    places = np.unique(np.linspace(0, len(parts) - 1, min(len(parts), _PARTS)).astype(int))
    for part in (parts[place] for place in places):
        counted = np.bincount(part.sequence[part.keep == Keep.COUNTED] - part.first_sequence)
        n_sequences = np.searchsorted(np.cumsum(counted), max_rows / len(places)) + 1
        chosen[part.first_sequence : part.first_sequence + min(n_sequences, len(counted))] = 1
    return chosen


def _held_points(source: ActivationStore | Rows) -> tuple[HookPoint, ...]:
    return tuple(source.activations) if isinstance(source, Rows) else source.layout.hook_points


def _name(source: ActivationStore | Rows) -> str:
    return "these rows" if isinstance(source, Rows) else str(source.path)


def _refuse_other_width(sae: Sae, source: ActivationStore | Rows, points: Sequence[HookPoint]) -> None:
    if isinstance(source, ActivationStore):
        source.require(points)
        widths = {source.layout.d_model}
    else:
        if missing := [str(point) for point in points if point not in source.activations]:
            raise StrataError(
                f"these rows lack {', '.join(missing)}; they have {', '.join(map(str, source.activations))}"
            )
        widths = {source.activations[point].shape[1] for point in points}
    if widths != {sae.d_model}:
        made_for = f" of {sae.model_name}" if sae.model_name else ""
        raise StrataError(
            f"SAE {sae.source} reads activations of width {sae.d_model}{made_for}; those of {_name(source)} have width "
            f"{', '.join(map(str, sorted(widths)))}: take an SAE of the store's own model"
        )
