"""CPU time of a scaling study: from moments of blocks, against fitting anew from the rows of every subset.

    python -m benchmarks.bench_scaling            # d = 256, 40,000 rows: about 2 minutes
    python -m benchmarks.bench_scaling --quick    # d = 64: seconds

One source and two targets, 20 blocks, fractions 0.1, 0.25, 0.5, 0.75 and 1, 5 subsets of each: 21 different subsets.
The reference is what the published code does for each of them: GridSearchCV of Ridge over 8 alphas and the folds of the
subset, then R2 on held-out rows; it is timed on one draw and multiplied. Strata's study is timed with and without the
pass over the rows, with intervals over 10 groups of test rows; beside it are the moments that a single fit needs, and
that fit. Both must agree: the largest difference in R2 is shown, and how often they choose the same alpha. One thread,
float64.
"""

import argparse
from statistics import fmean

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from threadpoolctl import threadpool_limits

from benchmarks.bench_fit import ALPHAS, ROWS_PER_UPDATE, SEQUENCE_LENGTH, cpu_seconds, residual_stream
from src.activations.moments import Moments
from src.config.stages import TransportConfig
from src.hook_points import HookPoint
from src.stage.entry import checked_config, compose
from src.transport.fitting import fit_pairs
from src.transport.pairs import LayerPair
from src.transport.scaling import ScalingPoint, Subset, draw_subsets, study_scaling
from src.transport.settings import FitSettings

X = HookPoint("resid_post", 0)
PAIRS = [LayerPair(0, 1), LayerPair(0, 2)]
FRACTIONS, DRAWS, BLOCKS, FOLDS, TEST_BLOCKS = [0.1, 0.25, 0.5, 0.75, 1.0], 5, 20, 5, 10
VAL, TEST = BLOCKS, list(range(BLOCKS + 1, BLOCKS + 1 + TEST_BLOCKS))


def accumulate(rows: dict[HookPoint, torch.Tensor], group: np.ndarray, n_groups: int) -> Moments:
    """One pass over the rows."""
    products = [(X, X), *((X, pair.target("resid_post")) for pair in PAIRS)]
    moments = Moments.empty(products, {h: x.shape[1] for h, x in rows.items()}, n_groups, precision="float64")
    for part in torch.arange(len(group)).split(ROWS_PER_UPDATE):
        moments.update({h: x[part] for h, x in rows.items()}, torch.from_numpy(group)[part])
    return moments


def from_rows(rows: dict[HookPoint, torch.Tensor], group: np.ndarray, subset: Subset) -> list[tuple[float, float]]:
    """Alpha and test R2 of each pair, by scikit-learn."""
    fold = np.full(BLOCKS + 1 + TEST_BLOCKS, -1)
    for number, blocks in enumerate(subset.folds(FOLDS)):
        fold[blocks] = number
    train, test = fold[group] >= 0, group > VAL
    found = []
    for pair in PAIRS:
        x, y = rows[X].numpy(), rows[pair.target("resid_post")].numpy()
        search = GridSearchCV(Ridge(), {"alpha": list(ALPHAS)}, cv=PredefinedSplit(fold[group][train]), scoring="r2")
        search.fit(x[train], y[train])
        found.append((search.best_params_["alpha"], r2_score(y[test], search.predict(x[test]))))
    return found


def compare(table: Table, n: int, d: int) -> None:
    """Add the row for one size to the table."""
    rows = {h: x.double() for h, x in residual_stream(n, d, 3).items()}
    shares = [0.6 / BLOCKS] * BLOCKS + [0.2] + [0.2 / TEST_BLOCKS] * TEST_BLOCKS
    of_sequence = np.random.default_rng(0).choice(len(shares), -(-n // SEQUENCE_LENGTH), p=shares)
    group = np.repeat(of_sequence, SEQUENCE_LENGTH)[:n]
    alphas = ",".join(f"{alpha:g}" for alpha in ALPHAS)
    config = compose("train_transport_operators", [f"alphas=[{alphas}]", "alpha_unit=absolute"])
    settings = FitSettings.of(checked_config(TransportConfig, config))
    subsets = draw_subsets(BLOCKS, FRACTIONS, DRAWS, seed=0)

    single_pass, in_folds = cpu_seconds(
        lambda: accumulate(rows, np.where(group < VAL, group % FOLDS, FOLDS), FOLDS + 1)
    )
    single_fit, _ = cpu_seconds(lambda: fit_pairs(in_folds, PAIRS, "resid_post", range(FOLDS), FOLDS, settings))
    blocks_pass, moments = cpu_seconds(lambda: accumulate(rows, group, BLOCKS + 1 + TEST_BLOCKS))

    def study() -> list[ScalingPoint]:
        return study_scaling(moments, PAIRS, "resid_post", subsets, FOLDS, VAL, TEST, settings)

    fits, points = cpu_seconds(study)
    one_draw = [subset for subset in subsets if subset.draw == 0]
    seconds, same_alpha, differences = 0.0, [], []
    for subset in one_draw:
        taken, expected = cpu_seconds(lambda subset=subset: from_rows(rows, group, subset))
        seconds += taken * sum(other.fraction == subset.fraction for other in subsets)
        for point, (alpha, r2) in zip((p for p in points if p.subset == subset), expected, strict=True):
            same_alpha.append(point.alpha == alpha)
            differences.append(abs(float(point.operator.test.r2_uniform[0]) - r2))
    numbers = (seconds, blocks_pass + fits, blocks_pass, fits, single_pass, single_fit)
    ratio = f"{seconds / (blocks_pass + fits):.1f}"
    agreement = (f"{fmean(same_alpha):.0%}", f"{max(differences):.0e}")
    table.add_row(f"{n:,}", str(d), *(f"{number:.2f}" for number in numbers), ratio, *agreement)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    sizes = [(20_000, 64)] if parser.parse_args().quick else [(40_000, 256)]
    table = Table(title="scaling study of 21 subsets and 2 pairs, seconds of CPU time")
    for column in ("rows", "d", "from rows", "Strata", "pass", "fits", "pass of one fit", "one fit"):
        table.add_column(column, justify="right")
    for column in ("times faster", "same alpha", "R² differs by"):
        table.add_column(column, justify="right")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for n, d in sizes:
            compare(table, n, d)
    console = Console(highlight=False)
    console.width = max(console.width, 130)
    console.print(table)


if __name__ == "__main__":
    main()
