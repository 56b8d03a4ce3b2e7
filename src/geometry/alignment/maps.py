"""Affine maps between spaces: orthogonal, scaled orthogonal, ridge, canonical correlations, and what they must beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError
from src.geometry.alignment.scatter import Scatter, blocks

Method = Literal["orthogonal", "scaled", "ridge", "cca"]


@dataclass(frozen=True, eq=False)
class AffineMap:
    """Source row x to (x - source_centre) weight + target_centre.

    settings: what was chosen or found: alpha, scale, components, retained (share of the source's variance that the
    map can see).
    """

    name: str
    weight: Float[Tensor, "d_source d_target"]
    source_centre: Float[Tensor, "d_source"]
    target_centre: Float[Tensor, "d_target"]
    settings: Mapping[str, float] = field(default_factory=dict)

    def centred(self, source: Float[Tensor, "row d_source"]) -> Float[Tensor, "row d_target"]:
        """Predictions less the target's centre, float64."""
        mapped = [(block - self.source_centre) @ self.weight for block in blocks(source, self.weight.device)]
        return torch.cat(mapped) if mapped else self.weight.new_zeros((0, self.weight.shape[1]))

    def with_settings(self, **settings: float) -> Self:
        """The same map that tells more of itself."""
        return replace(self, settings={**self.settings, **settings})


@dataclass(frozen=True, eq=False)
class SourceBasis:
    """The part of the source space that an orthogonal map turns: as wide as the target at most.

    basis: principal directions of the training rows where the source is the wider one, else all of its axes.
    retained: share of the training rows' variance in it.
    """

    basis: Float[Tensor, "d_source width"]
    retained: float

    @classmethod
    def of(cls, train: Scatter) -> Self:
        """From the exact covariance of all training rows (spec F1), one eigendecomposition."""
        d_source, d_target = train.xy.shape
        if d_source <= d_target:
            return cls(torch.eye(d_source, dtype=train.xx.dtype, device=train.xx.device), 1.0)
        values, vectors = torch.linalg.eigh(train.xx)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        return cls(vectors[:, :d_target], float(values[:d_target].sum() / values.sum()))


def check_anchors(train: Scatter) -> None:
    """StrataError if there are fewer anchors than dimensions to turn: infinitely many rotations would fit them."""
    width = min(train.xy.shape)
    if train.n <= width:
        raise StrataError(
            f"{train.n} anchors do not determine a rotation in {width} dimensions ({width + 1} are needed): use "
            "method=ridge, or pair more tokens"
        )


def orthogonal_map(train: Scatter, *, scaled: bool = False) -> AffineMap:
    """R with orthonormal rows or columns that minimises |A R - B|_F over the anchors, A in the source's basis.

    Schoenemann (1966): R = U V' of the singular value decomposition of A'B; reflections are allowed. scaled: times the
    optimal scale, the sum of singular values over |A|_F^2 (spec F2, BUG F-1: not that sum alone). A target wider than
    the source gets the source turned into it, as if padded with zeros.

    Raises StrataError as `check_anchors` does.
    """
    check_anchors(train)
    source = SourceBasis.of(train)
    u, singular, v = torch.linalg.svd(source.basis.T @ train.xy, full_matrices=False)
    scale = singular.sum() / (source.basis * (train.xx @ source.basis)).sum()
    weight = source.basis @ (u @ v)
    found = AffineMap(
        "scaled" if scaled else "orthogonal",
        weight * scale if scaled else weight,
        train.source_centre,
        train.target_centre,
        {"components": source.basis.shape[1], "retained": source.retained},
    )
    return found.with_settings(scale=float(scale)) if scaled else found


def ridge_map(train: Scatter, val: Scatter, alphas: Sequence[float]) -> AffineMap:
    """W = (Sxx + alpha tr(Sxx) / d I)^-1 Sxy with the alpha that explains most of the validation pairs."""
    values, vectors = torch.linalg.eigh(train.xx)
    turned = vectors.T @ train.xy
    unit = values.clamp(min=0).mean()

    def weight(alpha: float) -> Tensor:
        return vectors @ (turned / (values.clamp(min=0) + alpha * unit)[:, None])

    alpha = max(alphas, key=lambda candidate: val.explained(weight(candidate)))
    return AffineMap("ridge", weight(alpha), train.source_centre, train.target_centre, {"alpha": alpha})


def cca_map(train: Scatter, val: Scatter, alphas: Sequence[float]) -> AffineMap:
    """Prediction through the first k canonical pairs: (x - m) A_k diag(rho_k) B_k^-1 in whitened coordinates.

    Hotelling (1936); regularised by alpha tr(S) / d on both sides (Vinod 1976). alpha and k are those that explain most
    of the validation pairs; with all k and alpha near 0 it is least squares.
    """
    best: tuple[float, AffineMap] | None = None
    for alpha in alphas:
        (white_x, _), (white_y, unwhite_y) = _whitening(train.xx, alpha), _whitening(train.yy, alpha)
        u, rho, v = torch.linalg.svd(white_x @ train.xy @ white_y, full_matrices=False)
        into, out = white_x @ u, rho[:, None] * (v @ unwhite_y)
        # errors of all k at once: leading blocks of a Gram matrix
        gained = ((into.T @ val.xy) * out).sum(1).cumsum(0)
        gram = (into.T @ val.xx @ into) * (out @ out.T)
        errors = val.yy.trace() - 2 * gained + gram.cumsum(0).cumsum(1).diagonal()
        k = int(errors.argmin())
        score = float(1 - errors[k] / val.yy.trace())
        if best is None or score > best[0]:
            weight = into[:, : k + 1] @ out[: k + 1]
            settings = {"alpha": alpha, "components": k + 1, "first_correlation": float(rho[0])}
            best = score, AffineMap("cca", weight, train.source_centre, train.target_centre, settings)
    assert best is not None
    return best[1]


def _whitening(scatter: Float[Tensor, "d d"], alpha: float) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
    """The inverse square root of a regularised scatter, and its square root."""
    values, vectors = torch.linalg.eigh(scatter)
    values = values.clamp(min=0) + alpha * values.clamp(min=0).mean()
    # directions in which nothing varies and nothing is added
    kept = values > values.max() * 1e-14
    root = torch.where(kept, values, 0).sqrt()
    inverse = torch.where(kept, 1 / root.clamp(min=torch.finfo(root.dtype).tiny), 0)
    return (vectors * inverse) @ vectors.T, (vectors * root) @ vectors.T


def method_of(found: AffineMap) -> Method:
    """How a map was fitted. Raises KeyError for a baseline."""
    methods: dict[str, Method] = {"orthogonal": "orthogonal", "scaled": "scaled", "ridge": "ridge", "cca": "cca"}
    return methods[found.name]


def fit(method: Method, train: Scatter, val: Scatter, alphas: Sequence[float]) -> AffineMap:
    """Fit one kind of map. Raises StrataError for a rotation with too few anchors."""
    if method == "ridge":
        return ridge_map(train, val, alphas)
    if method == "cca":
        return cca_map(train, val, alphas)
    return orthogonal_map(train, scaled=method == "scaled")


def identity_map(train: Scatter) -> AffineMap:
    """No map at all, for spaces of one width: the source's axes are taken for the target's."""
    d_source, d_target = train.xy.shape
    if d_source != d_target:
        raise StrataError(f"spaces of {d_source} and {d_target} dimensions have no identity between them")
    weight = torch.eye(d_source, dtype=train.xx.dtype, device=train.xx.device)
    return AffineMap("identity", weight, train.source_centre, train.target_centre)


def component_map(train: Scatter) -> AffineMap:
    """The i-th principal component of the source is taken for the target's i-th, with the sign that the anchors say."""
    width = min(train.xy.shape)
    x = torch.linalg.eigh(train.xx)[1].flip(1)[:, :width]
    y = torch.linalg.eigh(train.yy)[1].flip(1)[:, :width]
    sign = ((x.T @ train.xy) * y.T).sum(1).sign()
    weight = (x * torch.where(sign == 0, 1.0, sign)) @ y.T
    return AffineMap("components", weight, train.source_centre, train.target_centre, {"components": width})


def mean_map(train: Scatter) -> AffineMap:
    """The anchors' mean for every token: what there is without looking at the source."""
    return AffineMap("mean", torch.zeros_like(train.xy), train.source_centre, train.target_centre)


def baselines(train: Scatter) -> list[AffineMap]:
    """What a fitted map must beat; identity where both spaces have one width."""
    same = [identity_map(train)] if train.xy.shape[0] == train.xy.shape[1] else []
    return [*same, component_map(train), mean_map(train)]
