"""Singular values of a matrix, what they say of its rank, and what a random matrix of its shape has."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from src.geometry.weights.blocks import exact_device, gram, row_blocks

# of the Tracy-Widom law of real matrices (beta = 1), at 0.999 (Bejan 2005)
_TRACY_WIDOM = 3.2724
ENERGY_SHARES = (0.8, 0.9, 0.95, 0.99)
# the notebook counts singular values above this share of the largest
_ACTIVE = 0.01
# beyond this condition the Gram matrix has lost the smallest singular value: eps * condition^2 = 2e-4
_WORST_CONDITION = 1e6
# draws of a random matrix have this many singular values together, so that their means are as steady for small shapes
_DRAWN_VALUES, _MOST_DRAWS = 512, 16


@dataclass(frozen=True, eq=False)
class Spectrum:
    """values: singular values, descending. shape: of the matrix. rms: of its entries."""

    values: Float[np.ndarray, "rank"]
    shape: tuple[int, int]
    rms: float

    @cached_property
    def _energy(self) -> Float[np.ndarray, "rank"]:
        return self.values**2

    @property
    def is_zero(self) -> bool:
        """Whether the matrix is zero: all its ranks are 0 then."""
        return self.values.size == 0 or not self.values[0] > 0

    @property
    def stable_rank(self) -> float:
        """The sum of s^2 over s_1^2 (Rudelson and Vershynin 2007)."""
        return 0.0 if self.is_zero else float(self._energy.sum() / self._energy[0])

    @property
    def energy_participation(self) -> float:
        """(sum s^2)^2 / sum s^4: the participation ratio of energies, as used for embeddings."""
        return 0.0 if self.is_zero else float(self._energy.sum() ** 2 / (self._energy**2).sum())

    @property
    def nuclear_participation(self) -> float:
        """(sum s)^2 / sum s^2."""
        return 0.0 if self.is_zero else float(self.values.sum() ** 2 / self._energy.sum())

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of s / sum s (Roy and Vetterli 2007)."""
        if self.is_zero:
            return 0.0
        shares = self.values[self.values > 0] / self.values.sum()
        return float(np.exp(-(shares * np.log(shares)).sum()))

    def energy_rank(self, share: float) -> int:
        """How many singular values hold a share of sum s^2."""
        return _rank(self._energy, share)

    def nuclear_rank(self, share: float) -> int:
        """How many singular values hold a share of sum s; not of the energy (BUG E-4 took the one for the other)."""
        return _rank(self.values, share)

    @property
    def active_share(self) -> float:
        """Share of singular values above 0.01 of the largest."""
        return 0.0 if self.is_zero else float((self.values > _ACTIVE * self.values[0]).mean())

    @property
    def condition(self) -> float:
        """Largest over smallest singular value; infinite where the smallest is 0, NaN for a zero matrix."""
        if self.is_zero:
            return math.nan
        return float(self.values[0] / self.values[-1]) if self.values[-1] > 0 else math.inf

    @property
    def edge(self) -> float:
        """Where singular values of independent entries end: rms (sqrt m + sqrt n) (Marchenko and Pastur 1967)."""
        return self.rms * (math.sqrt(self.shape[0]) + math.sqrt(self.shape[1]))

    @property
    def stands_out(self) -> bool:
        """Whether independent entries have so large a singular value in less than 1 of 1000 matrices.

        The edge is the limit of infinite matrices: the largest value of 1 in 6 random matrices lies a little beyond it.
        s_1^2 less its mean, over its scale, has the Tracy-Widom law (Johnstone 2001, theorem 1.1).
        """
        m, n = math.sqrt(max(self.shape) - 1), math.sqrt(min(self.shape))
        if self.is_zero or m == 0:
            return False
        scale = (m + n) * (1 / m + 1 / n) ** (1 / 3)
        return bool(self._energy[0] > self.rms**2 * ((m + n) ** 2 + _TRACY_WIDOM * scale))

    @property
    def above_edge(self) -> int:
        """Singular values beyond the edge of independent entries of this variance."""
        return int((self.values > self.edge).sum())

    @property
    def energy_above_edge(self) -> float:
        """Share of sum s^2 that they hold."""
        return 0.0 if self.is_zero else float(self._energy[self.values > self.edge].sum() / self._energy.sum())

    def numbers(self) -> dict[str, float]:
        """All of them by name."""
        return dict(self._numbers)

    @cached_property
    def _numbers(self) -> dict[str, float]:
        ranks = {f"energy_rank_{100 * share:.0f}": self.energy_rank(share) for share in ENERGY_SHARES}
        return {
            "stable_rank": self.stable_rank,
            "energy_participation": self.energy_participation,
            "nuclear_participation": self.nuclear_participation,
            "effective_rank": self.effective_rank,
            **ranks,
            "nuclear_rank_90": self.nuclear_rank(0.9),
            "active_share": self.active_share,
            "largest": float(self.values[0]) if self.values.size else 0.0,
            "smallest": float(self.values[-1]) if self.values.size else 0.0,
            "condition": self.condition,
            "edge": self.edge,
            "above_edge": self.above_edge,
            "stands_out": float(self.stands_out),
            "energy_above_edge": self.energy_above_edge,
        }


def _rank(values: Float[np.ndarray, "rank"], share: float) -> int:
    total = values.sum() if values.size else 0.0
    if not total > 0:
        return 0
    # rounding must not push a full share beyond the last value
    return min(int(np.searchsorted(np.cumsum(values) / total, share * (1 - 1e-12))) + 1, values.size)


def spectrum(
    matrix: Float[Tensor, "row column"], device: torch.device, small_gram: Float[Tensor, "side side"] | None = None
) -> Spectrum:
    """The singular values of a matrix, from the float64 Gram matrix of its smaller side.

    Their relative error is eps (s_1 / s)^2, so that the smallest and the condition are right to 2e-4 up to a condition
    of 1e6. Beyond it they are those of the triangle of a QR decomposition (Golub and Van Loan 2013, 5.4), to eps s_1.

    Args:
        matrix: in any dtype.
        device: where it is computed.
        small_gram: W W' or W'W, whichever is smaller, if it is known.
    """
    where = exact_device(device)
    m, n = matrix.shape
    if small_gram is None:
        small_gram = gram(matrix if n <= m else matrix.T, where)
    eigenvalues = _eigenvalues(small_gram)
    values = np.sqrt(np.clip(eigenvalues, 0, None))[::-1]
    if values.size and values[0] > 0 and values[-1] * _WORST_CONDITION < values[0]:
        values = torch.linalg.svdvals(_triangle(matrix if n <= m else matrix.T, where)).cpu().numpy()
    rms = math.sqrt(float(small_gram.diagonal().sum()) / max(1, m * n))
    return Spectrum(values.copy(), (m, n), rms)


def _triangle(tall: Float[Tensor, "row column"], device: torch.device) -> Float[Tensor, "column column"]:
    """R of W = Q R, block by block of rows: it has the singular values of W."""
    triangle = torch.zeros(0, tall.shape[1], dtype=torch.float64, device=device)
    for block in row_blocks(tall, device, torch.float64):
        triangle = torch.linalg.qr(torch.cat([triangle, block]), mode="r").R
    return triangle


def _eigenvalues(symmetric: Float[Tensor, "side side"]) -> Float[np.ndarray, "side"]:
    """Ascending. LAPACK through scipy takes half the time of torch's on a CPU."""
    if symmetric.device.type == "cpu":
        return scipy.linalg.eigvalsh(symmetric.numpy(), check_finite=False)
    return torch.linalg.eigvalsh(symmetric).cpu().numpy()


def top_eigenvectors(symmetric: Float[Tensor, "side side"], count: int) -> Float[Tensor, "side count"]:
    """Orthonormal eigenvectors of the largest eigenvalues, the largest first; `count` is at most the side."""
    side = len(symmetric)
    if symmetric.device.type == "cpu":
        chosen = (side - count, side - 1)
        vectors = scipy.linalg.eigh(symmetric.numpy(), subset_by_index=chosen, check_finite=False)[1]
        return torch.from_numpy(vectors[:, ::-1].copy())
    return torch.linalg.eigh(symmetric).eigenvectors[:, -count:].flip(1)


def random_spectra(shape: tuple[int, int], seed: int) -> list[Spectrum]:
    """Spectra of matrices of independent standard normal entries: what a shape alone gives.

    Drawn as triangles with the same singular values: of m x n entries, m >= n, those of R in W = Q R are independent,
    chi with m - i degrees of freedom on the diagonal (i from 0), standard normal above it (Bartlett 1933).
    """
    m, n = max(shape), min(shape)
    draws = min(_MOST_DRAWS, -(-_DRAWN_VALUES // max(1, n)))
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        triangle = np.triu(generator.standard_normal((n, n)), 1)
        triangle[np.diag_indices(n)] = np.sqrt(generator.chisquare(m - np.arange(n)))
        drawn = spectrum(torch.from_numpy(triangle), torch.device("cpu"))
        rms = math.sqrt(float((drawn.values**2).sum()) / (m * n))
        found.append(Spectrum(drawn.values, shape, rms))
    return found
