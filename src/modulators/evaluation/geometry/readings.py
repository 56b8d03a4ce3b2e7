"""States of the same words under the frozen model, a modulator and its controls, measured and compared together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.geometry.words.cosines import Transform, unit_rows
from src.geometry.words.mantel import CosineTest, mantel_tests
from src.geometry.words.pair_sums import JackknifeEstimate
from src.modulators.evaluation.geometry.differences import (
    WordDifference,
    mean_estimate,
    slope_estimate,
    word_difference,
)
from src.modulators.evaluation.geometry.relations import Kinship, WordRelations, word_relations
from src.multiple_tests import holm

# readings that are no control, beside FROZEN
STATIC, VECTORS, MODULATED = "embedding rows", "its vectors", "modulated"


@dataclass(frozen=True, eq=False)
class WordReading:
    """What one variant of the model makes of the words at one layer.

    name: STATIC, VECTORS (what the modulator mixes in), FROZEN, MODULATED, or a control's. layer: None for the first
    two. draws: states of the words; several of a control that is drawn at random.
    """

    name: str
    layer: int | None
    draws: Sequence[Float[Tensor, "word d"]]


@dataclass(frozen=True, eq=False)
class ReadingProfile:
    """The relations in one reading.

    draws: of each of its draws. low, high, p: of the first draw's Pearson correlation with path similarity when words
    change places: 95 % of these, and p over all readings together (Mantel test, maxT).
    """

    name: str
    layer: int | None
    draws: Sequence[WordRelations]
    low: float
    high: float
    p: float

    @property
    def path(self) -> JackknifeEstimate:
        """Pearson correlation of cosines with path similarity, the mean over draws."""
        return mean_estimate(self.estimates("path"))

    @property
    def wu_palmer(self) -> JackknifeEstimate:
        """The same with Wu-Palmer similarity."""
        return mean_estimate(self.estimates("Wu-Palmer"))

    @property
    def spearman(self) -> JackknifeEstimate:
        """Spearman correlation with path similarity."""
        return mean_estimate(self.estimates("Spearman"))

    @property
    def slope(self) -> JackknifeEstimate:
        """Change of the cosine with words above for each step up, less that with words as deep as these."""
        return mean_estimate(self.estimates("slope"))

    def estimates(self, measure: str) -> list[JackknifeEstimate]:
        """One of MEASURES of every draw."""
        return [MEASURES[measure](draw) for draw in self.draws]

    def band(self, name: str) -> list[JackknifeEstimate]:
        """Mean cosines in a band of similarity of every draw."""
        return [draw.bands[name].mean for draw in self.draws]


MEASURES: Mapping[str, Callable[[WordRelations], JackknifeEstimate]] = {
    "path": lambda found: found.path.pearson,
    "Wu-Palmer": lambda found: found.wu_palmer,
    "Spearman": lambda found: found.path.spearman,
    "slope": lambda found: slope_estimate(found.decay),
}


@dataclass(frozen=True, eq=False)
class Contrast:
    """The modulated states less another reading of the same words at the same layer.

    differences: by MEASURES. bands: of mean cosines, by BANDS. p: of the path measure, corrected over all contrasts
    (Holm).
    """

    other: str
    differences: Mapping[str, WordDifference]
    bands: Mapping[str, WordDifference]
    p: float


def profile_readings(
    readings: Sequence[WordReading],
    related: Kinship,
    contrasted: int,
    transform: Transform,
    permutations: int,
    seed: int,
    device: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> list[ReadingProfile]:
    """Measure all readings, in their order, and test their correlations with the taxonomy together.

    Args:
        readings: of the same words.
        related: of these words.
        contrasted: the layer at which bands and slopes over steps up are measured too (and of what is of no layer).
        transform: before cosines.
        permutations: of the words.
        seed: of the permutations.
        device: where.
        advance: is told the readings done, each twice.
    """
    distances = torch.from_numpy(related.distances).to(device)
    measured, tests = [], []
    for reading in readings:
        in_full = reading.layer in (None, contrasted)
        units = [unit_rows(rows, transform, device) for rows in reading.draws]
        # the p of slopes is shown of first draws
        draws = [
            word_relations(each, related, (0 if place else permutations) if in_full else None, seed)
            for place, each in enumerate(units)
        ]
        measured.append(draws)
        tests.append(CosineTest(units[0]))
        advance(1)
    scores = measured[0][0].path.similarity_of_distance
    chance = mantel_tests(tests, distances, scores, permutations, seed)
    advance(len(readings))
    low, high = chance.band()
    rows = zip(readings, measured, low, high, chance.adjusted, strict=True)
    return [
        ReadingProfile(reading.name, reading.layer, draws, float(start), float(stop), float(p))
        for reading, draws, start, stop, p in rows
    ]


def contrasts(profiles: Sequence[ReadingProfile], layer: int) -> list[Contrast]:
    """What the modulated states of a layer have that the frozen model's and each control's have not.

    Raises ValueError if the layer was not read under the modulator.
    """
    here = {profile.name: profile for profile in profiles if profile.layer == layer}
    if MODULATED not in here:
        raise ValueError(f"layer {layer} was not read under the modulator")
    modulated = here.pop(MODULATED)
    found: list[tuple[str, dict[str, WordDifference], dict[str, WordDifference]]] = []
    for other in here.values():
        differences = {
            measure: word_difference(of_draw(modulated.draws[0]), other.estimates(measure))
            for measure, of_draw in MEASURES.items()
        }
        bands = {name: word_difference(band.mean, other.band(name)) for name, band in modulated.draws[0].bands.items()}
        found.append((other.name, differences, bands))
    corrected = holm(np.array([differences["path"].p for _, differences, _ in found]))
    return [
        Contrast(other, differences, bands, p)
        for (other, differences, bands), p in zip(found, corrected.tolist(), strict=True)
    ]
