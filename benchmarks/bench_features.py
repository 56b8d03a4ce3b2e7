"""CPU time of scoring features: all at once against a plain loop over features; and attribution against ablation.

    python -m benchmarks.bench_features                                 # the testbed's SAEs
    python -m benchmarks.bench_features --saes 'FOLDER/layer_{layer}'   # others of the testbed's base model

*Scoring*: rates, entropies, correlations with every other feature, and direct logits, of every feature of a layer, with
and without the encoding. The loop does for one feature after the other what a reader of the formulas would write in
numpy, on the dense activations; both give the same numbers, which is asserted. It leaves out all errors, decoder
cosines and lists of tokens, which are in ours. *Effects*: first-order effects of all features of all layers from one
backward pass per batch, integrated gradients (4 groups, 2 steps), and exact ablation of features drawn from those that
fire; Spearman's correlations with ablation.
One thread.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from src.activations.collect import batches_of_like_length
from src.causal.ablation import ablate_features
from src.causal.attribution import attribute_features
from src.causal.feature_effects import FeatureEffects
from src.config.sae import SaeConfig
from src.config.schema import parse_config
from src.config.shared import DatasetConfig, ModelConfig
from src.features.codes import SparseCodes
from src.features.encoding import encode_text
from src.features.sae import Sae, load_sae, require_point
from src.features.scores.attribution import attributed_effects
from src.features.scores.layer_scores import FeatureMetrics, measure_features
from src.features.scores.scoring import rank_correlation
from src.hook_points import HookPoint
from src.models import LanguageModel, load_model, load_tokenizer
from src.models.head import VocabularyHead
from src.models.unembedding import Unembedding, read_unembedding
from src.stage.entry import compose
from src.text import TokenSequence, read_documents, tokenize_documents

Result = TypeVar("Result")
Subject = tuple[LanguageModel, HookPoint, Sae]
Text = tuple[list[TokenSequence], np.ndarray]

BATCH = 16
PRIOR = 5.0


def cpu_seconds(work: Callable[[], Result]) -> tuple[Result, float]:
    """The result, and the CPU seconds of one run."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def testbed() -> tuple[ModelConfig, DatasetConfig]:
    """The configs of score_features.py."""
    config = compose("score_features", [])
    return parse_config(ModelConfig, dict(config.model)), parse_config(DatasetConfig, dict(config.dataset))


def documents(model: ModelConfig, dataset: DatasetConfig, n_tokens: int) -> list[TokenSequence]:
    """Sequences of 256 tokens at most, like lengths side by side."""
    read = tokenize_documents(read_documents(dataset), load_tokenizer(model), 256, num_tokens=n_tokens)
    different = list({it.token_ids.tobytes(): it for it in read}.values())
    lengths = np.array([len(it.token_ids) for it in different])
    return [different[place] for batch in batches_of_like_length(lengths, len(lengths)) for place in batch]


def dense_activations(codes: SparseCodes) -> np.ndarray:
    """[token, feature], float64."""
    dense = np.zeros((codes.n_tokens, codes.n_features))
    token = np.repeat(np.arange(codes.n_tokens), codes.entry_start.diff().numpy())
    dense[token, codes.feature.numpy()] = codes.activation.numpy()
    return dense


def loop_over_features(
    dense: np.ndarray, token_ids: np.ndarray, document_start: np.ndarray, decoder: np.ndarray, unembedding: Unembedding
) -> np.ndarray:
    """Rate, shrunk entropy, largest |correlation| and focus of each feature: [feature, 4]."""
    text = np.bincount(token_ids) / len(token_ids)
    centred = dense - dense.mean(0)
    norms = np.linalg.norm(centred, axis=0)
    fold, weight = unembedding.fold.double().numpy(), unembedding.weight.double().numpy()
    found = np.full((dense.shape[1], 4), np.nan)
    for f in range(dense.shape[1]):
        z = dense[:, f]
        logits = weight @ (fold.T @ decoder[f])
        found[f, 0] = (z > 0).mean()
        found[f, 3] = (logits.max() - logits.mean()) / (logits.std() + 1e-6)
        if not z.any():
            continue
        of_documents = np.add.reduceat(z, document_start[:-1])
        support = of_documents.sum() ** 2 / (of_documents**2).sum()
        p = (support * np.bincount(token_ids, z, len(text)) / z.sum() + PRIOR * text) / (support + PRIOR)
        found[f, 1] = -(p[p > 0] * np.log(p[p > 0])).sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            correlation = np.abs(np.nan_to_num(centred.T @ centred[:, f] / (norms * norms[f])))
        correlation[f] = 0
        found[f, 2] = correlation.max()
    return found


def as_table(metrics: FeatureMetrics) -> np.ndarray:
    """The same numbers of ours."""
    columns = metrics.firing.rate, metrics.coherence.entropy, metrics.redundancy.correlation
    return np.stack([*(column.value.numpy() for column in columns), metrics.focus.peak.double().numpy()], axis=1)


def bench_scoring(codes: SparseCodes, sae: Sae, unembedding: Unembedding, encoding: float, console: Console) -> None:
    """One layer, both ways."""
    ours, seconds = cpu_seconds(lambda: measure_features(sae, codes, unembedding, PRIOR, torch.device("cpu")))
    arguments = codes.token_ids.numpy(), codes.document_start.numpy(), sae.decoder.double().numpy(), unembedding
    dense = dense_activations(codes)
    loop, loop_seconds = cpu_seconds(lambda: loop_over_features(dense, *arguments))
    live = ~np.isnan(loop[:, 1])
    np.testing.assert_allclose(as_table(ours)[live], loop[live], rtol=1e-4, atol=1e-5)
    table = Table(title=f"Scoring {codes.n_features} features over {codes.n_tokens:,} tokens (CPU seconds)")
    for name in ("way", "metrics", "with encoding", "times"):
        table.add_column(name, justify="left" if name == "way" else "right")
    table.add_row("all at once", f"{seconds:.2f}", f"{seconds + encoding:.2f}", "1")
    ratio = loop_seconds / seconds
    table.add_row("loop over features", f"{loop_seconds:.2f}", f"{loop_seconds + encoding:.2f}", f"{ratio:.1f}")
    console.print(table)


def bench_effects(
    model: LanguageModel,
    saes: dict[int, Sae],
    codes: dict[int, SparseCodes],
    sequences: list[TokenSequence],
    n_features: int,
    encoding: float,
    console: Console,
) -> None:
    """First orders of everything and integrated gradients of some features, against their ablation."""
    table = Table(title=f"Estimated and exact effects, {n_features} live features per layer (Spearman's correlations)")
    for name in (
        "layer",
        "ablation, CPU s",
        "integrated, CPU s",
        "first order: per token",
        "per firing",
        "integrated, per token",
        "per firing",
        "beyond 2 SE",
    ):
        table.add_column(name, justify="right")
    for layer, sae in saes.items():
        attributed = attributed_effects(codes[layer])
        live = (~attributed.per_firing.value.isnan()).nonzero()[:, 0]
        some = live[torch.randperm(len(live), generator=torch.Generator().manual_seed(0))[:n_features]]

        subject, text = (model, require_point(sae), sae), (sequences, np.arange(len(sequences)))

        def ablate(subject: Subject = subject, some: torch.Tensor = some, text: Text = text) -> FeatureEffects:
            return ablate_features(*subject, some.tolist(), *text, batch_size=BATCH)

        def integrate(subject: Subject = subject, some: torch.Tensor = some, text: Text = text) -> FeatureEffects:
            return attribute_features(*subject, *text, features=some.tolist(), groups=4, steps=2, batch_size=BATCH)

        measured, seconds = cpu_seconds(ablate)
        integrated, integrated_seconds = cpu_seconds(integrate)
        per_token, per_firing = measured.per_token.estimate(), measured.per_firing.estimate()
        table.add_row(
            str(layer),
            f"{seconds:.1f}",
            f"{integrated_seconds:.1f}",
            f"{rank_correlation(attributed.per_token.value[some], per_token.value):.3f}",
            f"{rank_correlation(attributed.per_firing.value[some], per_firing.value):.3f}",
            f"{rank_correlation(integrated.per_token.estimate().value, per_token.value):.3f}",
            f"{rank_correlation(integrated.per_firing.estimate().value, per_firing.value):.3f}",
            f"{float((per_token.value.abs() > 2 * per_token.error).double().mean()):.0%}",
        )
    console.print(table)
    console.print(f"Encoding and attribution of all features of {len(saes)} layers: {encoding:.1f} CPU s")


def main() -> None:
    """Both comparisons on the testbed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saes", default="testbed/saes/layer_{layer}", help="folders of the SAEs")
    parser.add_argument("--tokens", type=int, default=20_000, help="of the text that is scored")
    parser.add_argument("--ablated-tokens", type=int, default=2000, help="of the text that features are ablated in")
    parser.add_argument("--features", type=int, default=50, help="that are ablated, of each layer")
    chosen = parser.parse_args()
    console = Console()
    model_config, dataset = testbed()
    config = dict(compose("score_features", [f"sae.path='{chosen.saes}'"]).sae)
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        torch.set_num_threads(1)
        model = load_model(model_config, "cpu")
        head = VocabularyHead(model)
        saes = {layer: load_sae(parse_config(SaeConfig, config), "cpu", layer) for layer in range(model.n_layers)}

        def encode(name: str, sequences: list[TokenSequence]) -> tuple[dict[int, SparseCodes], float]:
            return cpu_seconds(
                lambda: encode_text(model, saes, sequences, BATCH, Path(folder) / name, head, lambda _: None)
            )

        codes, seconds = encode("scored", documents(model_config, dataset, chosen.tokens))
        middle = model.n_layers // 2
        bench_scoring(codes[middle], saes[middle], read_unembedding(model), seconds / len(saes), console)
        some = documents(model_config, dataset, chosen.ablated_tokens)
        codes, seconds = encode("ablated", some)
        bench_effects(model, saes, codes, some, chosen.features, seconds, console)


if __name__ == "__main__":
    main()
