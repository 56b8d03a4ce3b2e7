"""What was measured of layers, as flat records."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from src.geometry.layers.profile import LayerProfile, SiteStatistics
from src.geometry.layers.stacks import StackComparison
from src.report.records import estimate_fields
from src.transport.bootstrap import Band, Estimate
from src.transport.jackknife import jackknife_estimate

Record = dict[str, Any]
Profiles = Mapping[str, LayerProfile]


def bootstrapped(name: str, replicates: Float[Tensor, "replicate"]) -> Record:
    """A value and its interval as fields of a record."""
    return estimate_fields(name, Estimate.of(replicates))


def site_records(stacks: Profiles) -> list[Record]:
    """One record for each site of each stack."""
    return [
        {"stack": stack} | _site_record(site, profile.d_model)
        for stack, profile in stacks.items()
        for site in profile.sites
    ]


def _site_record(found: SiteStatistics, d_model: int) -> Record:
    norms, cosines, dimensions = found.norms, found.cosines, found.dimensions
    return {
        "site": found.site.name,
        "kind": found.site.kind,
        "layer": found.site.layer,
        "n_tokens": norms.n,
        "d_model": d_model,
        **bootstrapped("norm_mean", norms.mean),
        **bootstrapped("norm_std", norms.std),
        **bootstrapped("norm_median", norms.median),
        "norm_quartile_low": norms.low_quartile,
        "norm_quartile_high": norms.high_quartile,
        "sink_share": norms.sink_share,
        **bootstrapped("cosine_within", cosines.within),
        **bootstrapped("cosine_across", cosines.across),
        **bootstrapped("cosine_within_minus_across", cosines.within - cosines.across),
        "n_pairs_within": cosines.n_within_pairs,
        "n_pairs_across": cosines.n_across_pairs,
        "n_zero": cosines.n_zero,
        **estimate_fields("participation", jackknife_estimate(dimensions.participation)),
        **estimate_fields("participation_unbiased", jackknife_estimate(dimensions.participation_unbiased)),
        **bootstrapped("mean_share", dimensions.mean_share),
        **bootstrapped("top_share", dimensions.top_share),
        "top_dimension": dimensions.top_dimension,
        "random_share": dimensions.random_share,
        "half_dimensions": dimensions.half,
        "n_massive": len(dimensions.massive),
        "massive": dimensions.massive,
        **bootstrapped("outlier_tokens", dimensions.outlier_tokens),
        "gaussian_outlier_tokens": dimensions.gaussian_outlier_tokens,
        "outlier_dimensions": dimensions.outlier_dimensions,
    }


def update_records(stacks: Profiles) -> list[Record]:
    """What each block does to the stream."""
    return [
        {"stack": stack, "layer": layer}
        | bootstrapped("cosine", found.cosine)
        | bootstrapped("unrelated_cosine", found.unrelated_cosine)
        | bootstrapped("size", found.size)
        | bootstrapped("direction", found.direction)
        | bootstrapped("growth", found.growth)
        for stack, profile in stacks.items()
        for layer, found in profile.updates.items()
    ]


def increment_records(stacks: Profiles) -> list[Record]:
    """Attention against MLP."""
    return [
        {"stack": stack, "layer": layer}
        | bootstrapped("attention_share", found.attention_share)
        | bootstrapped("attention_norm", found.attention_norm)
        | bootstrapped("mlp_norm", found.mlp_norm)
        | bootstrapped("cosine", found.cosine)
        for stack, profile in stacks.items()
        for layer, found in profile.increments.items()
    ]


def position_records(stacks: Profiles) -> list[Record]:
    """Mean norm at each position, and its ratio to the counted tokens' median."""
    records = []
    for stack, profile in stacks.items():
        for found in profile.sites:
            of_positions = found.norms.by_position
            band = Band.of(of_positions / found.norms.median[:, None])
            for position in range(of_positions.shape[1]):
                if bool(of_positions[0, position].isfinite()):
                    record: Record = {"stack": stack, "site": found.site.name, "layer": found.site.layer}
                    record |= {"position": position, "norm": float(of_positions[0, position])}
                    records.append(record | estimate_fields("ratio", band.at(position)))
    return records


def left_out_records(stacks: Profiles) -> list[Record]:
    """Norms of tokens that are left out of all else."""
    return [
        {"stack": stack, "site": found.site.name, "layer": found.site.layer, "reason": reason, **vars(left_out)}
        for stack, profile in stacks.items()
        for found in profile.sites
        for reason, left_out in found.norms.left_out.items()
    ]


def largest_records(stacks: Profiles, strings: Mapping[int, str]) -> list[Record]:
    """The counted tokens with the largest norms."""
    return [
        {"stack": stack, "site": found.site.name, "layer": found.site.layer, "norm": large.norm}
        | {"ratio": large.norm / float(found.norms.median[0]), "token_id": large.token_id}
        | {"token": strings[large.token_id], "position": large.position}
        for stack, profile in stacks.items()
        for found in profile.sites
        for large in found.norms.largest
    ]


def comparison_records(found: StackComparison | None) -> list[Record]:
    """All sites of one stack against all of the other."""
    if found is None:
        return []
    records = []
    for i, ours in enumerate(found.first):
        for j, theirs in enumerate(found.second):
            record: Record = {"first": ours.name, "second": theirs.name}
            record |= {"first_layer": ours.layer, "second_layer": theirs.layer}
            if found.cosine is not None and found.shuffled_cosine is not None:
                record |= bootstrapped("cosine", found.cosine[:, i, j])
                record |= bootstrapped("shuffled_cosine", found.shuffled_cosine[:, i, j])
                record |= bootstrapped("excess_cosine", found.cosine[:, i, j] - found.shuffled_cosine[:, i, j])
            record |= estimate_fields("cka", jackknife_estimate(found.cka[:, i, j]))
            record |= estimate_fields("shuffled_cka", jackknife_estimate(found.shuffled_cka[:, i, j]))
            records.append(record)
    return records
