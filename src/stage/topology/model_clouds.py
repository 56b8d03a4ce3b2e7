"""Clouds of a model: their names, and the same tokens in models with random weights."""

from collections.abc import Sequence

import pyarrow as pa

from src.activations.clouds import Clouds, clouds_of_model
from src.activations.parts import array_name
from src.activations.token_choice import ChosenTokens
from src.config.shared import ModelConfig
from src.config.topology import TopologyConfig
from src.hook_points import HookPoint
from src.models import load_random_model
from src.stage.context import Stage
from src.stage.topology.cloud import Cloud
from src.text import TokenSequence


def named_clouds(clouds: Clouds, table: pa.Table, random: Sequence[Clouds]) -> list[Cloud]:
    """The clouds of hook points by the names that a store gives their arrays; all are of the same points."""
    return [
        Cloud(
            array_name(point),
            point.hook,
            point.layer,
            cloud,
            table,
            [some[point] for some in random],
        )
        for point, cloud in clouds.items()
    ]


def random_clouds(
    config: TopologyConfig,
    model: ModelConfig,
    stage: Stage,
    sequences: Sequence[TokenSequence],
    points: Sequence[HookPoint],
    chosen: ChosenTokens,
) -> list[Clouds]:
    """The same tokens in models with random weights."""
    found = []
    with stage.progress("models with random weights", config.nulls.random_models, "models") as advance:
        for place in range(config.nulls.random_models):
            random = load_random_model(model, stage.device, seed=config.seed + place)
            found.append(clouds_of_model(random, sequences, points, chosen, config.batch_size))
            advance(1)
    return found
