"""Vietoris-Rips diagrams from other packages: second opinions, and homology above dimension 1."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from src.errors import StrataError

Diagrams = list[Float[np.ndarray, "bar 2"]]


def gudhi_diagrams(matrix: Float[np.ndarray, "point point"], max_dimension: int) -> Diagrams:
    """GUDHI's diagrams over Z/2, any dimension. `matrix` must be symmetric to the last bit: else H1 is silently wrong.

    Above dimension 1 memory and time grow fast with the number of points: the triangles of the whole cloud take part.
    """
    from gudhi.sklearn import RipsPersistence

    rips = RipsPersistence(
        homology_dimensions=list(range(max_dimension + 1)),
        input_type="full distance matrix",
        homology_coeff_field=2,
    )
    return [np.asarray(diagram, dtype=np.float64) for diagram in rips.fit_transform([matrix])[0]]


def ripser_diagrams(matrix: Float[np.ndarray, "point point"], max_dimension: int) -> Diagrams:
    """ripser.py's diagrams over Z/2, any dimension.

    Raises:
        StrataError: if ripser is not installed; Strata does not require it.
    """
    try:
        from ripser import ripser
    except ImportError as error:
        raise StrataError("backend ripser is not installed: pip install ripser, or use backend gudhi") from error
    return ripser(matrix, maxdim=max_dimension, distance_matrix=True)["dgms"]


OTHERS: dict[str, Callable[[Float[np.ndarray, "point point"], int], Diagrams]] = {
    "gudhi": gudhi_diagrams,
    "ripser": ripser_diagrams,
}
