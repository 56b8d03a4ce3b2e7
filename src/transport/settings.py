"""The settings of a fit: which method, what it fits, and how its penalty is chosen."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from src.config.stages import AlphaUnit, JacobianConfig, Method, TransportConfig
from src.errors import StrataError
from src.transport.affine import Scoring
from src.transport.preprocessing import Preprocessing, Target
from src.transport.rank_factors import Metric

_RIDGE_GRID = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_ABSOLUTE_RIDGE_GRID = (0.1, 1.0, 10.0, 100.0, 1000.0, 2000.0, 5000.0, 10_000.0)
_SPARSE_GRID = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
# The grids of alphas=null. Absolute ones are those in the code of Activation Transport Operators (arXiv 2508.17540).
DEFAULT_ALPHAS: Mapping[tuple[Method, AlphaUnit], tuple[float, ...]] = {
    ("ridge", "relative"): _RIDGE_GRID,
    ("ridge", "absolute"): _ABSOLUTE_RIDGE_GRID,
    ("reduced_rank", "relative"): _RIDGE_GRID,
    ("reduced_rank", "absolute"): _ABSOLUTE_RIDGE_GRID,
    ("lasso", "relative"): _SPARSE_GRID,
    ("lasso", "absolute"): (0.01, 0.1, 1.0, 10.0, 100.0),
    ("elasticnet", "relative"): _SPARSE_GRID,
    ("elasticnet", "absolute"): (0.1, 1.0, 10.0, 100.0),
}

# The tokens of jacobian.tokens=null.
DEFAULT_JACOBIAN_TOKENS = 256
_DEFAULTS = JacobianConfig(tokens=None, batch_size=None)

_PENALISED = ("normalize", "target", "alpha_unit", "auto_tune")
# What decides a fit besides the rows: always, when the penalty is tuned, and when it is given. Least squares does not
# change when variables are standardised.
_USED: Mapping[Method, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "linear": (("target",), (), ()),
    "ridge": (_PENALISED, ("alphas", "scoring", "alpha_per_output"), ("regularization",)),
    "reduced_rank": ((*_PENALISED, "rank", "rank_metric"), ("alphas", "scoring"), ("regularization",)),
    "lasso": ((*_PENALISED, "max_iter", "tol"), ("alphas", "scoring"), ("regularization",)),
    "elasticnet": (
        (*_PENALISED, "max_iter", "tol"),
        ("alphas", "l1_ratios", "scoring"),
        ("regularization", "l1_ratio"),
    ),
    "procrustes": ((), (), ()),
    "procrustes_scaled": ((), (), ()),
    "jacobian": (("jacobian",), (), ()),
    "identity": ((), (), ()),
    "identity_shift": ((), (), ()),
    "mean": ((), (), ()),
}


@dataclass(frozen=True)
class FitSettings:
    """How operators are fitted: the keys of the same names in `TransportConfig`, which explains them.

    alphas: None stands for the entry of DEFAULT_ALPHAS.
    """

    method: Method
    normalize: bool
    target: Target
    auto_tune: bool
    alphas: tuple[float, ...] | None
    regularization: float | None
    alpha_unit: AlphaUnit
    alpha_per_output: bool
    l1_ratio: float
    l1_ratios: tuple[float, ...]
    scoring: Scoring
    max_iter: int
    tol: float
    rank: int | None = None
    rank_metric: Metric = "raw"
    jacobian: JacobianConfig = _DEFAULTS

    @classmethod
    def of(cls, config: TransportConfig) -> Self:
        """The settings that a config asks for."""
        values: dict[str, Any] = {each.name: getattr(config, each.name) for each in fields(cls)}
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})

    @property
    def grid(self) -> tuple[float, ...]:
        """The alphas to choose from."""
        return DEFAULT_ALPHAS[self.method, self.alpha_unit] if self.alphas is None else self.alphas

    @property
    def penalty(self) -> float:
        """The given alpha, for fits that are not tuned (the config sees to it that there is one)."""
        assert self.regularization is not None
        return self.regularization

    @property
    def relative(self) -> bool:
        """Whether alphas are in the method's relative unit."""
        return self.alpha_unit == "relative"

    @property
    def preprocessing(self) -> Preprocessing:
        """What is fitted in place of x and y."""
        return Preprocessing(self.normalize, self.target)

    @property
    def needs_target_products(self) -> bool:
        """Whether the fit takes the products (target, target)."""
        return self.method == "reduced_rank" and self.rank_metric == "whitened"

    def require_width(self, d_model: int) -> None:
        """StrataError if the rank is above the width of the activations."""
        if self.rank is not None and self.rank > d_model:
            raise StrataError(f"rank={self.rank}: activations are {d_model} wide, so the rank is {d_model} at most")

    @property
    def jacobian_tokens(self) -> int:
        """How many tokens' Jacobians to average."""
        return self.jacobian.tokens or DEFAULT_JACOBIAN_TOKENS

    def identity(self) -> dict[str, Any]:
        """What decides the fit, for the fingerprint of an artifact: no setting that is not used."""
        always, tuned, given = _USED[self.method]
        used = {name: getattr(self, name) for name in (*always, *(tuned if self.auto_tune else given))}
        if self.method == "reduced_rank" and self.rank is None:
            used["scoring"] = self.scoring  # which chooses the rank, whether alpha is tuned or not
        if "alphas" in used:
            used["alphas"] = self.grid
        if "jacobian" in used:
            used["jacobian"] = {"tokens": self.jacobian_tokens}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in used.items()}
