"""Protocols: what they fix, what their fingerprint covers, what is refused."""

import re
from dataclasses import fields, replace
from typing import get_args

import numpy as np
import pytest
from omegaconf import OmegaConf

from src.config.protocol import ProtocolConfig
from src.config.schema import parse_config
from src.errors import StrataError
from src.stage.entry import CONFIGS
from src.topology.homology.distances import Distances
from src.topology.protocols.protocol import FROZEN_V5, PROTOCOLS, ROBUST, TODACOMM, Protocol, Sampling, Scale, published

OTHER = {
    "metric": "cosine",
    "scale": "quantile_99",
    "betti_fraction": 0.05,
    "survival_fraction": 0.03,
    "max_dimension": 2,
    "n_scale_steps": 10,
    "pca_components": 7,
    "max_points": 99,
    "arithmetic": "todacomm",
}


def config_of(name: str, **changes) -> ProtocolConfig:
    base = OmegaConf.load(CONFIGS / "protocol" / "_base.yaml")
    own = OmegaConf.load(CONFIGS / "protocol" / f"{name}.yaml")
    values = {**OmegaConf.to_container(base), **OmegaConf.to_container(own), **changes}
    values.pop("defaults")
    return parse_config(ProtocolConfig, values)


def test_what_the_published_protocols_fix():
    assert (ROBUST.scale, ROBUST.betti_fraction, ROBUST.survival_fraction) == ("median", 0.06, 0.02)
    assert (FROZEN_V5.scale, FROZEN_V5.betti_fraction, FROZEN_V5.survival_fraction) == ("diameter", 0.03, 0.01)
    assert (TODACOMM.pca_components, TODACOMM.max_points, TODACOMM.sampling) == (50, 500, "uniform")
    assert {protocol.n_scale_steps for protocol in PROTOCOLS.values()} == {50}


def test_every_field_but_the_name_enters_the_fingerprint():
    sampled = replace(ROBUST, max_points=50)
    prints = {ROBUST.fingerprint, sampled.fingerprint, replace(sampled, sampling="farthest").fingerprint}
    prints |= {replace(ROBUST, **{key: value}).fingerprint for key, value in OTHER.items()}
    assert set(OTHER) | {"name", "sampling"} == {field.name for field in fields(Protocol)}
    assert len(prints) == len(OTHER) + 3
    assert replace(ROBUST, name="mine").fingerprint == ROBUST.fingerprint
    assert all(re.fullmatch("[0-9a-f]{12}", found) for found in prints)


def test_the_published_fingerprints_stay():
    # stored results carry them: whoever changes one means that those no longer verify
    found = {name: protocol.fingerprint for name, protocol in PROTOCOLS.items()}
    assert found == {"robust": "6493cd2a741f", "frozen_v5": "9880dda26707", "todacomm": "275575c66673"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"betti_fraction": 0.0}, "betti_fraction=0.0"),
        ({"survival_fraction": 1.0}, "survival_fraction=1.0"),
        ({"scale": "radius"}, "diameter, median, quantile_99"),
        ({"metric": "precomputed"}, "metric=precomputed"),
        ({"max_dimension": -1}, "0 or more"),
        ({"pca_components": 0}, "1 or more"),
        ({"max_points": 2}, "3 or more"),
        ({"sampling": "farthest"}, "max_points"),
        ({"sampling": "grid", "max_points": 9}, "sampling=grid"),
    ],
)
def test_what_is_impossible_is_refused(change, told):
    with pytest.raises(StrataError, match=re.escape(told)):
        ROBUST.changed(change)


def test_a_compatible_protocol_refuses_what_its_package_does_not_know():
    with pytest.raises(StrataError, match="protocol=robust"):
        FROZEN_V5.changed({"scale": "median"})
    with pytest.raises(StrataError, match="farthest"):
        TODACOMM.changed({"sampling": "farthest"})
    with pytest.raises(StrataError, match="robust, frozen_v5, todacomm"):
        published("v5")


def test_the_title_tells_what_was_changed():
    assert FROZEN_V5.title == "frozen_v5"
    assert TODACOMM.changed({"pca_components": None}).title == "todacomm with pca_components=none"
    assert ROBUST.changed({"betti_fraction": 0.1}).changes == {"betti_fraction": 0.1}


def test_scales_are_distances_of_pairs():
    distances = Distances.from_points(np.random.default_rng(0).normal(size=(30, 4)))
    pairs = distances.matrix[np.triu_indices(30, 1)]
    assert ROBUST.scale_of(distances) == np.median(pairs)
    assert ROBUST.changed({"scale": "quantile_99"}).scale_of(distances) == pytest.approx(np.quantile(pairs, 0.99))
    assert FROZEN_V5.scale_of(distances) == pairs.max()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_config_names_a_protocol_and_changes_it(name):
    assert config_of(name).changes() == {}
    assert published(config_of(name).name).changed(config_of(name).changes()) == PROTOCOLS[name]
    changed = config_of(name, pca_components="none", max_points="all", betti_fraction=0.5).changes()
    assert changed == {"pca_components": None, "max_points": None, "betti_fraction": 0.5}


def test_config_and_protocol_know_the_same_fields_and_choices():
    assert {path.stem for path in (CONFIGS / "protocol").glob("[!_]*.yaml")} == set(PROTOCOLS)
    assert set(ProtocolConfig.model_fields) == {field.name for field in fields(Protocol)} - {"arithmetic"}
    for key, known in {"scale": Scale, "sampling": Sampling}.items():
        choices = next(item for item in get_args(ProtocolConfig.model_fields[key].annotation) if get_args(item))
        assert get_args(choices) == get_args(known)
