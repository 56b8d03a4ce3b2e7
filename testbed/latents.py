"""Which features of the SAEs are the known latents: `python testbed/latents.py [--write]`.

For every latent of `ground_truth.py` and every layer, the feature and threshold whose firing predicts the latent best
(F1) is chosen on one half of the held-out documents and scored on the other half. Three baselines are chosen and
scored in the same way: features for labels of other documents (what the search alone finds), single tokens, and single
dimensions of the residual stream. `--write` puts the table into docs/testbed_latents.md and
draws its figure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # run as a script, the repository's root is not on the path

from src.config.sae import SaeConfig  # noqa: E402
from src.features.sae import Sae, load_sae  # noqa: E402
from src.features.scores.matching import (  # noqa: E402
    Matches,
    best_labels,
    best_matches,
    count_hits,
    document_counts,
    f1_replicates,
    firing_thresholds,
    labels_of_other_documents,
)
from src.transport.bootstrap import Band, DocumentBootstrap  # noqa: E402
from testbed import evaluate  # noqa: E402
from testbed.labelled_corpus import Corpus, read_corpus, states  # noqa: E402
from testbed.latents_table import (  # noqa: E402
    DATA,
    FIGURE,
    TABLE,
    Named,
    Row,
    best_scoring,
    named_share,
    ranks_of,
    read,
    scores_by_group,
    summary,
    tables,
    write,
    write_scores,
)
from testbed.lexicon import vocabulary  # noqa: E402

SAE_CONFIG = {"release": None, "sae_id": None, "layer": None, "width": None, "hook": None, "device": "cpu",
              "force_download": False, "max_fvu": None}  # fmt: skip
N_THRESHOLDS = 16
N_SHUFFLES = 3
N_REPLICATES = 400


def match(
    corpus: Corpus, activations: Callable[[Tensor], Tensor], labels: Tensor | None = None, replicates: int = 0
) -> tuple[Matches, Band]:
    """Choose the best feature and threshold for each latent on one half of the documents, score it on the other.

    activations: tokens (bool, (token,)) -> what features do there, (token, feature), >= 0. labels: other labels than
    the corpus's own. Returns the matches, and their F1 on the other half with its 95 % interval.
    """
    labels = corpus.labels if labels is None else labels
    tokens = corpus.tokens(chosen_on=True)
    rows = activations(tokens)
    thresholds = firing_thresholds(rows, N_THRESHOLDS)
    matches = best_matches(count_hits(rows, labels[tokens], thresholds), thresholds)
    tokens = corpus.tokens(chosen_on=False)
    numbers, document = corpus.document[tokens].unique(return_inverse=True)
    counts = document_counts(activations(tokens), labels[tokens], document, matches, len(numbers))
    weights = DocumentBootstrap(replicates, seed=0).weights(numbers)
    return matches, Band.of(f1_replicates(counts, weights))


def shuffled(corpus: Corpus, times: int, seed: int = 0) -> Tensor:
    """The labels of other documents of the same half, side by side: bool (token, times x latent)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(len(corpus.document), times * len(corpus.latents), dtype=torch.bool)
    for chosen_on in (True, False):
        tokens = corpus.tokens(chosen_on)
        moved = [
            labels_of_other_documents(corpus.labels[tokens], corpus.document[tokens], generator) for _ in range(times)
        ]
        labels[tokens] = torch.cat(moved, 1)
    return labels


def encoder(sae: Sae, states: Tensor) -> Callable[[Tensor], Tensor]:
    """Feature activations of an SAE, for `match`."""
    return lambda tokens: torch.cat([sae.encode(rows) for rows in states[tokens].split(8192)])


def dimensions(states: Tensor, chosen_on: Tensor) -> Callable[[Tensor], Tensor]:
    """How far each dimension lies above its mean, and below, in standard deviations, less a half; for `match`."""
    mean, deviation = states[chosen_on].mean(0), states[chosen_on].std(0)

    def of(tokens: Tensor) -> Tensor:
        scaled = (states[tokens] - mean) / deviation
        return torch.cat([scaled - 0.5, -scaled - 0.5], 1).clamp_min(0)

    return of


def single_tokens(corpus: Corpus) -> Callable[[Tensor], Tensor]:
    """A feature for each word, 1 where it stands; for `match`."""
    ids = torch.tensor([token for document in corpus.documents for token in document])
    return lambda tokens: torch.nn.functional.one_hot(ids[tokens], len(vocabulary())).float()


def at_best_layer(results: Sequence[tuple[Matches, Band]]) -> tuple[Tensor, Tensor]:
    """For each latent the place of the layer of highest F1 on the half for choosing, and F1 there on the other."""
    place = torch.stack([matches.f1 for matches, _ in results]).argmax(0)
    return place, torch.stack([band.value for _, band in results]).gather(0, place[None])[0]


def measure(corpus: Corpus, path: str, layers: Sequence[int], baselines: bool = True) -> list[Row]:
    """Match the SAEs of the layers (path: of SAELens folders, with {layer}) with the corpus's latents.

    The layer of a latent is chosen as its feature is: by F1 on the first half. Without baselines theirs are 0.
    """
    model = evaluate.load("base").model
    residuals = states(model, {f"{layer}": model.layers[layer] for layer in layers}, corpus)
    n_latents, chosen_on = len(corpus.latents), corpus.tokens(chosen_on=True)
    labels = torch.cat([corpus.labels, shuffled(corpus, N_SHUFFLES)], 1) if baselines else corpus.labels
    token, chance, direct = torch.zeros(3, n_latents)
    found: list[tuple[Matches, Band]] = []
    of_dimensions: list[tuple[Matches, Band]] = []
    for layer in layers:
        found.append(match(corpus, encoder(load(path, layer), residuals[f"{layer}"]), labels, N_REPLICATES))
        if baselines:
            of_dimensions.append(match(corpus, dimensions(residuals[f"{layer}"], chosen_on)))
        print(f"layer {layer} matched", file=sys.stderr, flush=True)
    best, f1 = at_best_layer(found)
    if baselines:
        token = match(corpus, single_tokens(corpus))[1].value
        chance = f1[n_latents:].view(N_SHUFFLES, n_latents).mean(0)
        direct = at_best_layer(of_dimensions)[1]
    rows = []
    for i, latent in enumerate(corpus.latents):
        matches, band = found[best[i]]
        estimate = band.at(i)
        support = corpus.document[~chosen_on & corpus.labels[:, i]]
        rows.append(
            Row(
                group=latent.group,
                latent=latent.name,
                tokens=len(support),
                documents=len(support.unique()),
                layer=layers[int(best[i])],
                feature=int(matches.feature[i]),
                threshold=float(matches.threshold[i]),
                f1=estimate.value,
                low=estimate.low,
                high=estimate.high,
                chance=float(chance[i]),
                token=float(token[i]),
                dimension=float(direct[i]),
                features={layer: int(at[0].feature[i]) for layer, at in zip(layers, found, strict=True)},
                f1_by_layer={layer: float(at[1].value[i]) for layer, at in zip(layers, found, strict=True)},
            )
        )
    return rows


def name_features(corpus: Corpus, path: str, layer: int, states: Tensor) -> list[Named]:
    """The latent, and the single word, that each feature of an SAE is best: chosen on one half, scored on the other."""
    codes, chosen_on = encoder(load(path, layer), states), corpus.tokens(chosen_on=True)
    rows, others = codes(chosen_on), codes(~chosen_on)
    thresholds = firing_thresholds(rows, N_THRESHOLDS)
    whole = torch.zeros(len(others), dtype=torch.long)

    def best(labels: Tensor) -> tuple[list[int], list[float]]:
        label, matches = best_labels(count_hits(rows, labels[chosen_on], thresholds), thresholds)
        counts = document_counts(others, labels[~chosen_on][:, label], whole, matches, 1)
        return label.tolist(), f1_replicates(counts, torch.ones(1, 1, dtype=torch.float64))[0].nan_to_num().tolist()

    named, words_by_id = corpus.latents, vocabulary()
    words = single_tokens(corpus)(torch.ones_like(chosen_on)).bool()
    return [
        Named(layer, feature, named[latent].group, named[latent].name, f1, words_by_id[word], word_f1)
        for feature, (latent, f1, word, word_f1) in enumerate(zip(*best(corpus.labels), *best(words), strict=True))
    ]


def load(path: str, layer: int) -> Sae:
    """The SAE of a layer."""
    return load_sae(SaeConfig.model_validate(SAE_CONFIG | {"path": path}), "cpu", layer)


def main() -> None:
    """Match the committed SAEs, print the table, and write it and its figure on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saes", default="testbed/saes/layer_{layer}", help="SAELens folders, with {layer}")
    parser.add_argument("--layers", type=int, nargs="*", default=list(range(6)), help="default: all six")
    parser.add_argument("--documents", type=int, help="how many held-out documents to read (default: all 1,500)")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}, {DATA.name} and {FIGURE.name}")
    parser.add_argument("--scores", type=Path, help="an artifact of score_features.py: add how it ranks the features")
    arguments = parser.parse_args()
    corpus = read_corpus(arguments.documents)
    if arguments.scores:
        rank_features(corpus, arguments.saes, arguments.scores, arguments.write)
        return
    rows = measure(corpus, arguments.saes, arguments.layers)
    print(summary(rows))
    print(tables(rows))
    if arguments.write:
        write(rows)


def rank_features(corpus: Corpus, path: str, scores: Path, is_written: bool) -> None:
    """Print, and write on request, what the scores of features have to do with the known latents of `latents.json`."""
    rows, ranks = read(), ranks_of(scores)
    layers = sorted({layer for layer, _ in ranks})
    model = evaluate.load("base").model
    residuals = states(model, {f"{layer}": model.layers[layer] for layer in layers}, corpus)
    named = [one for layer in layers for one in name_features(corpus, path, layer, residuals[f"{layer}"])]
    print(named_share(named, ranks), scores_by_group(rows, ranks), best_scoring(named, ranks), sep="\n\n")
    if is_written:
        write_scores(rows, named, ranks)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
