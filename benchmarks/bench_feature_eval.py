"""Metrics of all features of an SAE through an operator: time beside the bare matrix products and a loop over features.

    python -m benchmarks.bench_feature_eval            # 16,384 features, d = 2304, 5,000 tokens: a few minutes
    python -m benchmarks.bench_feature_eval --quick    # small sizes, seconds

*Products* are what no way round can spare: the operator's prediction, the projections of truth, prediction and source,
and the encodings of truth, prediction, source and shifted source, by the same calls in the same blocks, with nothing
done to what comes out. *Loop* is a feature at a time, as in the reference: two products of a matrix and a vector over
all tokens, and the metrics from them (timed on some features, and multiplied); without the encodings, and with no
baselines, latents or intervals. The SAE is a JumpReLU of random weights that fires as often as Gemma Scope's (L0 about
80). Peak memory is that of the process above what it held before. One thread.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import sae_lens
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from src.activations.passes import Rows
from src.features.predicting.pair_scores import score_features
from src.features.predicting.pair_sums import N_SUMS
from src.features.predicting.prediction import ChosenFeatures, LinearPrediction, sum_features
from src.features.sae import Sae
from src.hook_points import HookPoint

SOURCE, TARGET = HookPoint("resid_post", 0), HookPoint("resid_post", 1)
TOKENS_OF_DOCUMENT = 128
L0 = 80


def timed(work: Callable[[], object]) -> tuple[float, float, object]:
    """Seconds of CPU, seconds, and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.process_time() - cpu, time.perf_counter() - wall, result


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sparse_sae(d: int, n_features: int) -> Sae:
    module = sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig(d_in=d, d_sae=n_features))
    module.W_dec.data = torch.nn.functional.normalize(torch.randn(n_features, d), dim=1)
    module.W_enc.data = module.W_dec.data.T.contiguous()
    rate = min(L0 / n_features, 0.2)
    module.threshold.data = torch.full(
        (n_features,), float(torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - rate)))
    )
    return Sae(module.eval().requires_grad_(False), "random", None, TARGET, False)


def products(sae: Sae, rows: Rows, it: LinearPrediction, precision: str, size: int) -> None:
    """The matrix products alone."""
    dtype = getattr(torch, precision)
    weight, directions = it.weight.to(dtype), sae.decoder.to(dtype).T
    for x, y in zip(rows.activations[SOURCE].split(size), rows.activations[TARGET].split(size), strict=True):
        x, y = x.to(dtype), y.to(dtype)
        predicted = torch.addmm(it.bias.to(dtype), x, weight)
        for each in (y, predicted, x):
            for features in directions.split(1024, 1):
                _ = each @ features
        for each in (y, predicted, x, x + 1):
            _ = sae.encode(each.float())


def loop(sae: Sae, y: torch.Tensor, predicted: torch.Tensor, masks: np.ndarray, n_features: int) -> None:
    """The metrics of the reference on the tokens where a feature is active, one feature after another."""
    for feature in range(n_features):
        direction = sae.decoder[feature].double()
        a, p = ((each @ direction).numpy()[masks[:, feature]] for each in (y, predicted))
        if len(a) < 2:
            continue
        error, size = a - p, np.abs(a)
        _ = 1 - (error**2).sum() / ((a - a.mean()) ** 2).sum(), (error**2).mean(), np.corrcoef(a, p)[0, 1]
        _ = (a * p).sum() / np.sqrt((a**2).sum() * (p**2).sum()), np.sqrt((p**2).mean() / (a**2).mean())
        _ = np.abs(p).mean() / size.mean(), p.mean() / a.mean(), np.abs(error).mean() / size.mean()
        _ = (np.abs(error) / size).mean(), (np.log(np.abs(p) / size) ** 2).mean()


def compare(table: Table, n: int, d: int, n_features: int, precision: str, timed_features: int) -> None:
    """Add the row for one size to the table."""
    torch.manual_seed(0)
    sae = sparse_sae(d, n_features)
    x = torch.randn(n, d)
    weight = torch.randn(d, d, dtype=torch.float64) / d**0.5
    y = (x.double() @ weight).float() + 0.3 * torch.randn(n, d)
    document, all_rows = torch.arange(n) // TOKENS_OF_DOCUMENT, torch.ones(n, dtype=torch.bool)
    rows = Rows({SOURCE: x, TARGET: y}, document, torch.zeros(n), all_rows, ~all_rows)
    zeros = torch.zeros(d, dtype=torch.float64)
    it = LinearPrediction(SOURCE, TARGET, weight, zeros, zeros, zeros)
    chosen = ChosenFeatures(sae, torch.arange(n_features))
    size = min(max(2**23 // n_features, 64), 4096)

    def evaluate() -> object:
        return sum_features(chosen, {0: it}, [rows], torch.device("cpu"), precision, lambda _: None)[0]  # type: ignore[arg-type]

    before = peak()
    summed, wall, sums = timed(evaluate)
    growth = peak() - before
    scored, _, _ = timed(lambda: score_features(chosen.ids, sums))  # type: ignore[arg-type]
    bare, _, _ = timed(lambda: products(sae, rows, it, precision, size))
    masks = (sae.encode(y)[:, :timed_features] > 1e-6).numpy()
    true, predicted = y.double(), x.double() @ it.weight
    looped = timed(lambda: loop(sae, true, predicted, masks, timed_features))[0] / timed_features * n_features
    flops = 2 * n * d * (d + 7 * n_features)
    table.add_row(
        *(
            f"{n_features:,}",
            f"{n:,}",
            f"{d:,}",
            precision,
            f"{flops / 1e12:.2f}",
            f"{bare:.1f}",
            f"{flops / bare / 1e9:.0f}",
        ),
        *(
            f"{summed:.1f}",
            f"{summed / bare:.2f}x",
            f"{scored:.1f}",
            f"{looped:.0f}",
            f"{looped / (summed + scored):.0f}x",
        ),
        *(f"{growth:,.0f}", f"{8 * 40 * N_SUMS * n_features / 2**20:,.0f}", f"{wall:.0f}"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--precision", choices=("float64", "float32"), nargs="*", default=["float64", "float32"])
    arguments = parser.parse_args()
    console = Console(width=180)
    table = Table(title="Feature evaluation of one pair: CPU seconds on one thread")
    columns = ("features", "tokens", "d", "products in", "TFLOP", "products", "GF/s", "Strata", "Strata / products")
    columns += ("intervals", "loop", "loop / Strata", "peak MB", "of it sums MB", "wall s")
    for column in columns:
        table.add_column(column, justify="right")
    torch.set_num_threads(1)
    with threadpool_limits(1), torch.no_grad():
        compare(Table(*columns), 256, 32, 64, "float64", 4)  # pays for lazy imports
        for precision in arguments.precision:
            if arguments.quick:
                compare(table, 2000, 256, 1024, precision, 20)
            else:
                compare(table, 5000, 2304, 16_384, precision, 20)
    console.print(table)


if __name__ == "__main__":
    main()
