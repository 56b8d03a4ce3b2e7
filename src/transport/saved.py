"""The files of an `operators` artifact: a folder per pair, the training means, and every cross-validation score."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from src.activations.moments import Statistics
from src.artifacts import Artifact
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.fitting import PairFit
from src.transport.operator import TransportOperator
from src.transport.pairs import LayerPair

_MEANS = "means.safetensors"
_SCORES = "cv_scores.parquet"


def save_operators(folder: Path, fits: Sequence[PairFit], training: Statistics) -> None:
    """Write `L<L>_k<k>/` for each pair, `means.safetensors` (of the training rows) and `cv_scores.parquet`."""
    means: dict[str, Tensor] = {}
    for fit in fits:
        place = folder / str(fit.pair)
        place.mkdir()
        fit.operator.save(place)
        for point in (fit.operator.source, fit.operator.target):
            means[str(point)] = training.mean(point).cpu().contiguous()
    save_file(means, folder / _MEANS)
    pq.write_table(
        pa.Table.from_pylist([row for fit in fits for row in score_rows(fit)], _SCORE_COLUMNS), folder / _SCORES
    )


_SCORE_COLUMNS = pa.schema(
    [
        ("L", pa.int32()),
        ("k", pa.int32()),
        ("fold", pa.int32()),
        ("alpha", pa.float64()),
        ("relative_alpha", pa.float64()),
        ("r2_uniform", pa.float64()),
        ("r2_variance_weighted", pa.float64()),
        ("chosen", pa.bool_()),
    ]
)


def score_rows(fit: PairFit) -> list[dict]:
    """One row per fold and alpha; none if nothing was tuned."""
    path = fit.path
    if path is None:
        return []
    uniform, weighted = path.scores["uniform"].tolist(), path.scores["variance_weighted"].tolist()
    return [
        {
            "L": fit.pair.L,
            "k": fit.pair.k,
            "fold": fold,
            "alpha": alpha,
            "relative_alpha": relative,
            "r2_uniform": uniform[fold][place],
            "r2_variance_weighted": weighted[fold][place],
            "chosen": place == path.best,
        }
        for fold in range(len(uniform))
        for place, (alpha, relative) in enumerate(zip(path.alphas.tolist(), path.relative_alphas.tolist(), strict=True))
    ]


@dataclass(frozen=True)
class SavedOperator:
    """An operator on disk: where it is, and what it was fitted with."""

    artifact: Artifact
    pair: LayerPair

    @property
    def fitting(self) -> dict:
        """Method, grid, hook, split and folds, from meta.json."""
        return self.artifact.meta.summary["fitting"]

    def load(self) -> TransportOperator:
        """The operator, in the dtype of its file."""
        return TransportOperator.load(self.artifact.path / str(self.pair))

    def means(self) -> dict[HookPoint, Float[Tensor, " d_model"]]:
        """Means of the training rows at its source and target, float64."""
        try:
            means = load_file(self.artifact.path / _MEANS)
        except (OSError, ValueError) as error:
            raise StrataError(
                f"{self.artifact.path / _MEANS} can't be read ({error}): fit the operators again"
            ) from None
        return {HookPoint.parse(name): mean for name, mean in means.items()}


def choose_operators(
    artifacts: Sequence[Artifact], wanted: Sequence[LayerPair] | None
) -> dict[LayerPair, SavedOperator]:
    """One operator per pair (None = every pair there is), from artifacts that may overlap.

    The same pair fitted twice with the same settings counts once. Raises StrataError if a wanted pair was not
    fitted, or was fitted with different settings in several artifacts.
    """
    found: dict[LayerPair, SavedOperator] = {}
    for artifact in artifacts:
        for layer, leap in artifact.meta.summary["pairs"]:
            operator = SavedOperator(artifact, LayerPair(layer, leap))
            known = found.setdefault(operator.pair, operator)
            same_seed = known.artifact.meta.seed == artifact.meta.seed
            if wanted is not None and operator.pair not in wanted:
                continue
            if known.fitting != operator.fitting or not same_seed:
                names = "\n".join(f"  operators={name}" for name in (known.artifact.meta.name, artifact.meta.name))
                raise StrataError(f"{operator.pair} was fitted with different settings; choose one:\n{names}")
    pairs = sorted(found) if wanted is None else list(wanted)
    missing = [pair for pair in pairs if pair not in found]
    if missing:
        there = ", ".join(str(pair) for pair in sorted(found)) or "none"
        raise StrataError(
            f"no operator for {', '.join(map(str, missing))} (there: {there}); fit it with "
            f"train_transport_operators.py experiment.L={missing[0].L} experiment.k={missing[0].k}"
        )
    return {pair: found[pair] for pair in pairs}
