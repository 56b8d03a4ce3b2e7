"""What is found of weights, in words, each beside what chance gives."""

from collections.abc import Sequence

import numpy as np

from src.geometry.weights.norms import SharedOutliers, shared_outliers
from src.geometry.weights.profile import WeightProfile
from src.models.checkpoint import Matrix, Weights
from src.multiple_tests import largest_by_chance
from src.report.geometry.weights.records import RoleSummary, composition_records
from src.report.token_text import visible

# standard deviations of chance, for the mean of neighbouring layers
_BEYOND = 4.0


def weight_text(
    weights: Weights, matrices: Sequence[Matrix], profile: WeightProfile, kinds: Sequence[RoleSummary]
) -> str:
    """Paragraphs: structure, scale, layers, neurons, norms, what was left out."""
    paragraphs = [
        " ".join([_structure(profile), _scale(kinds)]),
        " ".join([*_layers(profile), *_composition(profile)]),
        " ".join([*_neurons(profile), *_norms(profile)]),
        " ".join(_left_out(weights, matrices, profile)),
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _structure(profile: WeightProfile) -> str:
    layered = [each for each in profile.matrices if each.matrix.layer is not None] or profile.matrices
    having = sum(each.spectrum.stands_out for each in layered)
    energy = 100 * float(np.mean([each.spectrum.energy_above_edge for each in layered]))
    ratio = np.mean(
        [each.spectrum.stable_rank / profile.random_number(each.spectrum.shape, "stable_rank") for each in layered]
    )
    chance = float(np.mean([profile.random_number(each.spectrum.shape, "above_edge") for each in layered]))
    counted = float(np.mean([each.spectrum.above_edge for each in layered]))
    return (
        f"{having} of {len(layered)} matrices of the layers have directions that random entries would not have "
        f"(p < 0.001 each, Tracy-Widom): {counted:.1f} singular values on average beyond the random edge "
        f"(chance {chance:.1f}), with {energy:.0f} % "
        f"of the energy; their stable rank is {ratio:.2f} of a random matrix's."
    )


def _scale(kinds: Sequence[RoleSummary]) -> str:
    attention = [kind for kind in kinds if kind.group[1] in ("q", "k", "v")]
    if not attention:
        return ""
    shares = ", ".join(
        f"{kind.title} {100 * kind.pooled('below_0.1'):.1f} % (Gaussian {100 * kind.pooled_gaussian(0.1):.1f} %)"
        for kind in attention[:6]
    )
    return (
        f"The share of |w| < 0.1 is what entries of the same scale give, and says nothing of sparsity: {shares}; "
        f"relative to their own scale {_relative(attention)} of the entries are below a tenth of it (Gaussian 8.0 %)."
    )


def _relative(kinds: Sequence[RoleSummary]) -> str:
    shares = [100 * kind.pooled("below_0.1_rms") for kind in kinds]
    low, high = f"{min(shares):.1f}", f"{max(shares):.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def _layers(profile: WeightProfile) -> list[str]:
    if not profile.comparisons:
        return []
    entries = max((abs(each.entries.z(each.entries.adjacent)) for each in profile.comparisons), default=0.0)
    entry = max((abs(each.entries.adjacent) for each in profile.comparisons), default=0.0)
    grams = [each.grams.adjacent for each in profile.comparisons]
    beyond = sum(each.grams.z(each.grams.adjacent) > _BEYOND for each in profile.comparisons)
    same = "as chance has it" if entries < _BEYOND else "beyond chance"
    return [
        f"Entry by entry, neighbouring layers agree {same} (mean cosine {entry:.4f} at most, {entries:.1f} standard "
        "deviations), which must be so, since units have no common order.",
        f"What they read from and write to the residual stream, which has one, agrees beyond chance in {beyond} of "
        f"{len(grams)} kinds of matrices (Gram cosine {min(grams):.2f} to {max(grams):.2f}; a random rotation gives 0 "
        f"± {profile.comparisons[0].grams.deviation:.3f}).",
    ]


def _composition(profile: WeightProfile) -> list[str]:
    records = composition_records(profile)
    if not records:
        return []
    strongest = max(records, key=lambda record: record["gram_cosine"])
    mean = float(np.mean([record["gram_cosine"] for record in records]))
    chance = profile.compositions[0].cosines.deviation * largest_by_chance(len(records))
    return [
        f"Readers overlap with earlier writers by a Gram cosine of {mean:.3f} on average over {len(records)} pairs: "
        f"most {strongest['reader']} of layer {strongest['layer']} with {strongest['writer']} of layer "
        f"{strongest['writer_layer']} ({strongest['gram_cosine']:.2f}; the largest of as many random rotations is "
        f"about {chance:.2f})."
    ]


def _neurons(profile: WeightProfile) -> list[str]:
    if not profile.neurons:
        return []
    counted = [each.neurons.numbers() for each in profile.neurons]
    total = sum(int(numbers["n_neurons"]) for numbers in counted)
    dead, weak = (sum(int(numbers[name]) for numbers in counted) for name in ("dead", "weak"))
    factor = sum(int(numbers["dead_in_a_factor"]) for numbers in counted)
    said = f"By their norms {dead} of {total:,} MLP neurons are dead and {weak} weak (chance 0)"
    return [said + (f"; in {factor} a single factor is dead." if factor else ".")]


def _norms(profile: WeightProfile) -> list[str]:
    widths: dict[tuple[str, int], list] = {}
    for matrix, gains in profile.norms:
        if matrix.place not in ("q", "k"):
            widths.setdefault((matrix.stack, len(gains.values)), []).append(gains)
    said = []
    for (stack, _), gains in widths.items():
        if len(gains) < 3:
            continue
        shared = shared_outliers(gains)
        if shared.dims:
            said.append(
                f"{len(shared.dims)} dimensions stand out in 80 % of the {len(gains)} norms of the {stack} "
                f"({_first(shared)}; chance {shared.expected:.2g})."
            )
        else:
            said.append(f"No dimension stands out in 80 % of the {len(gains)} norms of the {stack}.")
    return said


def _first(shared: SharedOutliers) -> str:
    return ", ".join(map(str, shared.dims[:6])) + (", ..." if len(shared.dims) > 6 else "")


def _left_out(weights: Weights, matrices: Sequence[Matrix], profile: WeightProfile) -> list[str]:
    said = [f"Note: {note}." for note in weights.notes]
    unknown = [matrix.name for matrix in matrices if matrix.role == "other"]
    if unknown:
        said.append(f"{len(unknown)} matrices were not recognised ({_some(unknown)}); they are measured as they are.")
    if uncovered := uncovered_layers(matrices):
        said.append(f"No queries, keys, values and outputs were found in {_some(uncovered)}.")
    if profile.skipped:
        said.append(f"{len(profile.skipped)} parameters are no matrices and are listed alone.")
    if weights.missing:
        said.append(
            f"{len(weights.missing)} parameters of the model class are not in the files ({_some(weights.missing)})."
        )
    if weights.unread:
        said.append(f"{len(weights.unread)} tensors of the files belong to no parameter ({_some(weights.unread)}).")
    return said


def uncovered_layers(matrices: Sequence[Matrix]) -> list[str]:
    """Layers without all of q, k, v, o: with attention of another kind (linear, latent), or not understood."""
    roles: dict[tuple[str, int], set[str]] = {}
    for matrix in matrices:
        if matrix.layer is not None:
            roles.setdefault((matrix.stack, matrix.layer), set()).add(matrix.role)
    named = {"linear_attention": " (linear attention)", "latent_attention": " (latent attention)"}
    return [
        f"{stack} layer {layer}" + next((words for role, words in named.items() if role in found), "")
        for (stack, layer), found in roles.items()
        if not {"q", "k", "v", "o"} <= found
    ]


def _some(names: Sequence[str]) -> str:
    shown = [visible(name) for name in names[:4]]
    return ", ".join(shown) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
