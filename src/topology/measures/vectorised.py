"""Diagrams as vectors: persistence landscapes and images, by gudhi, on grids in units of a cloud's scale.

A grid is fixed, not fitted, so that entries of the vectors of two clouds mean the same.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from src.errors import StrataError
from src.topology.homology.persistence import Bars, Persistence


@dataclass(frozen=True)
class Grid:
    """Where landscapes and images are sampled; all lengths in units of the cloud's scale.

    With the median distance for a scale, bars of H1 of activations end below 1.5, and those of a circle are 1.2 long.

    Attributes:
        largest: landscapes from scale 0 to this one, images for births from 0 to this one.
        longest: images for lifetimes from 0 to this one.
        samples: points of a landscape, both ends with it.
        landscapes: how many, from the largest down.
        pixels: per side of an image.
        bandwidth: standard deviation of the image's Gaussian, in pixels.
    """

    largest: float = 1.5
    longest: float = 1.5
    samples: int = 151
    landscapes: int = 5
    pixels: int = 30
    bandwidth: float = 1.0

    def __post_init__(self) -> None:
        if min(self.largest, self.longest) <= 0 or self.bandwidth < 0.5:
            raise StrataError("a grid reaches to scales above 0, and its bandwidth is half a pixel or more")

    @property
    def scales(self) -> Float[np.ndarray, "sample"]:
        """Where landscapes are sampled."""
        return np.linspace(0, self.largest, self.samples)


@dataclass(frozen=True)
class Vectorised:
    """The landscapes and the image of one dimension.

    Attributes:
        image: None of dimension 0, whose bars are all born at 0: the landscapes tell the same.
        share_outside: of the image's weight, what falls outside it (bars near its edges too); 0 without bars.
    """

    dimension: int
    landscapes: Float[np.ndarray, "landscape sample"]
    image: Float[np.ndarray, "lifetime_pixel birth_pixel"] | None
    share_outside: float
    grid: Grid = field(repr=False)

    @property
    def vector(self) -> Float[np.ndarray, "entry"]:
        """Landscapes times the root of the grid's step, so that euclidean distances of vectors are L2 distances."""
        return self.landscapes.ravel() * np.sqrt(self.grid.scales[1])


def vectorised(found: Persistence, scale: float, grid: Grid | None = None) -> list[Vectorised]:
    """Landscapes and image of each dimension; bars that never die take no part.

    Raises:
        StrataError: if the scale is not above 0.
    """
    grid = grid or Grid()
    if not scale > 0:
        raise StrataError("a cloud whose scale is 0 (all points alike) has no landscapes in units of it")
    return [_of_one(bars, scale, grid) for bars in found.bars]


def landscapes(diagram: Float[np.ndarray, "bar 2"], grid: Grid) -> Float[np.ndarray, "landscape sample"]:
    """Persistence landscapes (Bubenik 2015): at t, the k-th largest of min(t - birth, death - t), 0 at least."""
    from gudhi.representations import Landscape

    sampler = Landscape(grid.landscapes, grid.samples, [0.0, grid.largest])
    # gudhi draws diagrams turned by 45 degrees, which makes heights sqrt(2) times the definition's
    return sampler.fit_transform([diagram])[0].reshape(grid.landscapes, grid.samples) / np.sqrt(2)


def persistence_image(diagram: Float[np.ndarray, "bar 2"], grid: Grid) -> Float[np.ndarray, "lifetime birth"]:
    """Persistence image (Adams et al. 2017), linear weight: bars as Gaussians of weight lifetime at (birth, lifetime).

    A pixel is the density at its centre times its area. With a bandwidth of a pixel or more such pixels add up to the
    integral to 1e-8 of a bar's weight, so the image adds up to the total persistence inside it.
    """
    from gudhi.representations import PersistenceImage

    step = np.array([grid.largest, grid.longest]) / grid.pixels
    # pixels are made square, so that one bandwidth serves both axes
    in_pixels = np.stack([diagram[:, 0] / step[0], diagram[:, 0] / step[0] + (diagram[:, 1] - diagram[:, 0]) / step[1]])
    edges = [0.5, grid.pixels - 0.5] * 2
    image = PersistenceImage(grid.bandwidth, lambda bar: bar[1] * step[1], [grid.pixels] * 2, edges)
    return image.fit_transform([in_pixels.T])[0].reshape(grid.pixels, grid.pixels)


def _of_one(bars: Bars, scale: float, grid: Grid) -> Vectorised:
    diagram = bars.finite / scale
    image = persistence_image(diagram, grid) if bars.dimension else None
    total = float((diagram[:, 1] - diagram[:, 0]).sum())
    outside = 1 - float(image.sum()) / total if image is not None and total else 0.0
    return Vectorised(bars.dimension, landscapes(diagram, grid), image, outside, grid)
