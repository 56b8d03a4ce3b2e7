"""The spread of volumes that points without any structure have."""

import math

from scipy.special import gammaln, polygamma


def gaussian_cv(k: int, n: float) -> float:
    """Coefficient of variation of the volume of k-simplices of an isotropic Gaussian in n dimensions (spec B4).

    V is sqrt(k + 1) / k! times a product of independent chi variables of n, n - 1, ..., n - k + 1 degrees of freedom,
    so CV^2 = prod(n - i) / prod(E[chi_{n-i}])^2 - 1, about k / (2n). n: whole or not; NaN for n <= k - 1, where there
    is no volume.
    """
    if n <= k - 1:
        return math.nan
    log_ratio = 0.0
    for i in range(k):
        mean_chi = 0.5 * math.log(2) + gammaln((n - i + 1) / 2) - gammaln((n - i) / 2)
        log_ratio += math.log(n - i) - 2 * float(mean_chi)
    return math.sqrt(math.expm1(max(log_ratio, 0.0)))


def predicted_cv(k: int, effective_dimension: float, log_norm_std: float) -> float:
    """The same where norms (of centred points) spread by `log_norm_std`, the standard deviation of their logarithms.

    A Gaussian's own norms spread by psi'(n / 2) / 4, about 1 / (2n), as variance of log norms; it is part of
    `gaussian_cv`. What the norms spread beyond it (or less) multiplies V by a nearly lognormal factor whose log has
    k^2 / (k + 1) times that variance, since each of the k + 1 norms enters V with the power k / (k + 1). So
        1 + CV^2 = (1 + gaussian_cv^2) exp(k^2 / (k + 1) (log_norm_std^2 - psi'(n / 2) / 4)),
    to first order CV^2 = k / (2n) + k^2 / (k + 1) s^2 of spec B4, whose s is the spread *beyond* the Gaussian's:
    with the measured spread in its place that formula counts the Gaussian's norms twice.

    NaN where the effective dimension is k or less.
    """
    if not effective_dimension > k:
        return math.nan
    own = float(polygamma(1, effective_dimension / 2)) / 4
    beyond = k**2 / (k + 1) * (log_norm_std**2 - own)
    squared = (1 + gaussian_cv(k, effective_dimension) ** 2) * math.exp(beyond) - 1
    return math.sqrt(max(squared, 0.0))
