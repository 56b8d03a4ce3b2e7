"""The files of an `operators` artifact: a folder per pair, the training means, and every cross-validation score."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from torch import Tensor

from src.activations.statistics import Statistics
from src.artifacts import Artifact
from src.artifacts.meta import flat
from src.artifacts.tensors import load_tensors, save_tensors
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.fitting import PairFit
from src.transport.operator import TransportOperator, read_metadata
from src.transport.pairs import LayerPair

_MEANS = "means.safetensors"
_SCORES = "cv_scores.parquet"


def save_operators(folder: Path, fits: Sequence[PairFit], training: Statistics) -> None:
    """Write a folder named after each pair, `means.safetensors` (of the training rows) and `cv_scores.parquet`."""
    means: dict[str, Tensor] = {}
    for fit in fits:
        place = folder / str(fit.pair)
        place.mkdir()
        fit.operator.save(place)
        for point in (fit.operator.source, fit.operator.target):
            means[str(point)] = training.mean(point)
    save_tensors(folder / _MEANS, means)
    # pair by pair: where ranks are tuned, a pair has thousands of rows
    with pq.ParquetWriter(folder / _SCORES, _SCORE_COLUMNS) as writer:
        for fit in fits:
            writer.write_table(pa.Table.from_pylist(score_rows(fit), _SCORE_COLUMNS))


_SCORE_COLUMNS = pa.schema(
    [
        ("L", pa.int32()),
        ("k", pa.int32()),
        ("offset", pa.int32()),
        ("fold", pa.int32()),
        ("alpha", pa.float64()),
        ("relative_alpha", pa.float64()),
        ("l1_ratio", pa.float64()),
        ("rank", pa.int32()),
        ("r2_uniform", pa.float64()),
        ("r2_variance_weighted", pa.float64()),
        ("unconverged", pa.int32()),
        ("output_share", pa.float64()),
        ("chosen", pa.bool_()),
    ]
)


def score_rows(fit: PairFit) -> list[dict]:
    """One row per fold and candidate; none if nothing was tuned.

    output_share: of the outputs, those that a candidate was chosen for. unconverged: outputs that were not solved to
    tol in time, None for methods that do not iterate.
    """
    path = fit.path
    if path is None:
        return []
    uniform, weighted = path.scores["uniform"].tolist(), path.scores["variance_weighted"].tolist()
    alphas, relative, shares = path.alphas.tolist(), path.relative_alphas.tolist(), path.output_share.tolist()
    ratios = None if path.l1_ratios is None else path.l1_ratios.tolist()
    ranks = None if path.ranks is None else path.ranks.tolist()
    unconverged = None if path.unconverged is None else path.unconverged.tolist()
    return [
        {
            "L": fit.pair.L,
            "k": fit.pair.k,
            "offset": fit.pair.offset,
            "fold": fold,
            "alpha": alphas[place],
            "relative_alpha": relative[place],
            "l1_ratio": None if ratios is None else ratios[place],
            "rank": None if ranks is None else ranks[place],
            "r2_uniform": uniform[fold][place],
            "r2_variance_weighted": weighted[fold][place],
            "unconverged": None if unconverged is None else unconverged[fold][place],
            "output_share": shares[place],
            "chosen": shares[place] > 0,
        }
        for fold in range(len(uniform))
        for place in range(len(alphas))
    ]


@dataclass(frozen=True)
class SavedOperator:
    """An operator on disk: where it is, and what it was fitted with."""

    artifact: Artifact
    pair: LayerPair

    @property
    def settings(self) -> dict[str, Any]:
        """What it was fitted with: hook, method, fit, split, cv_folds, precision, seed, row_offsets."""
        return fit_settings(self.artifact)

    def load(self) -> TransportOperator:
        """The operator, in the dtype of its file."""
        return TransportOperator.load(self.artifact.path / str(self.pair))

    def metadata(self) -> Mapping[str, Any]:
        """What its fit tells of it (relative_alpha, rank, ...)."""
        return read_metadata(self.artifact.path / str(self.pair))

    def means(self) -> dict[HookPoint, Float[Tensor, " d_model"]]:
        """Means of the training rows at every source and target of its artifact, float64."""
        tensors = load_tensors(self.artifact.path / _MEANS, "fit the operators again with overwrite=true")
        return {HookPoint.parse(name): mean for name, mean in tensors.items()}


def fit_settings(artifact: Artifact) -> dict[str, Any]:
    """The settings of a fit: the artifact's identity, which its fingerprint covers, without the pairs."""
    settings = {key: value for key, value in artifact.meta.identity.items() if key != "pairs"}
    return {"row_offsets": [0], **settings}


def saved_pairs(artifact: Artifact) -> list[LayerPair]:
    """The pairs that an artifact holds operators of."""
    return [LayerPair(*numbers) for numbers in artifact.meta.identity["pairs"]]


def choose_operators(
    artifacts: Sequence[Artifact], wanted: Sequence[LayerPair] | None
) -> dict[LayerPair, SavedOperator]:
    """One operator per pair (None = every pair there is), from artifacts that may overlap; all with equal settings.

    Raises StrataError if artifacts that hold wanted pairs were fitted with different settings, or a pair is missing.
    """
    there = [SavedOperator(artifact, pair) for artifact in artifacts for pair in saved_pairs(artifact)]
    chosen = [operator for operator in there if wanted is None or operator.pair in wanted]
    _refuse_mixture(list({operator.artifact.path: operator.artifact for operator in chosen}.values()))
    found = {operator.pair: operator for operator in reversed(chosen)}
    pairs = sorted(found) if wanted is None else list(wanted)
    missing = [pair for pair in pairs if pair not in found]
    if missing:
        held = ", ".join(str(pair) for pair in sorted({operator.pair for operator in there})) or "none"
        offset = f" experiment.position_offset={missing[0].offset}" if missing[0].offset else ""
        raise StrataError(
            f"no operator for {', '.join(map(str, missing))} (there: {held}); fit it with "
            f"train_transport_operators.py experiment.L={missing[0].L} experiment.k={missing[0].k}{offset}"
        )
    return {pair: found[pair] for pair in pairs}


def _refuse_mixture(artifacts: Sequence[Artifact]) -> None:
    """StrataError if the artifacts differ in their settings, with what differs and which artifacts share it."""
    settings = [flat(fit_settings(artifact)) for artifact in artifacts]
    keys = sorted({key for each in settings for key in each})
    differing = [key for key in keys if any(each.get(key) != settings[0].get(key) for each in settings)]
    if not differing:
        return
    if "method" in differing:  # each has keys of its own: what differs within a method is told, and no more
        of_method = [
            [each for each in settings if each["method"] == name] for name in {it["method"] for it in settings}
        ]
        within = {key for key in keys for alike in of_method if any(it.get(key) != alike[0].get(key) for it in alike)}
        differing = ["method", *(key for key in differing if key in within)]
    names: dict[str, list[str]] = {}
    for artifact, each in zip(artifacts, settings, strict=True):
        told = ", ".join(f"{key}={json.dumps(each[key])}" for key in differing if key in each)
        names.setdefault(told, []).append(artifact.path.name)
    lines = [f"  {told}:\n    operators=[{','.join(group)}]" for told, group in names.items()]
    raise StrataError(
        "operators of different settings do not belong into one table; choose with operators=[...], or with method=... "
        "where that tells them apart:\n" + "\n".join(lines)
    )
