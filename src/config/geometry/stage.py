"""The config of measure_geometry.py: its keys, their types and limits, and what --help says of them."""

from typing import Literal, get_args

from pydantic import Field

from src.config.geometry.circuits import CircuitsConfig
from src.config.geometry.embeddings import EmbeddingsConfig
from src.config.geometry.layers import LayersConfig
from src.config.geometry.lexicon import LexiconConfig
from src.config.geometry.simplices import SimplicesConfig
from src.config.geometry.weights import WeightsConfig
from src.config.shared import DatasetConfig, ModelConfig, StageConfig

Analysis = Literal["embeddings", "simplices", "layers", "lexicon", "weights"]
ANALYSES: tuple[Analysis, ...] = get_args(Analysis)


class GeometryConfig(StageConfig):
    """measure_geometry.py."""

    model: ModelConfig
    dataset: DatasetConfig
    analysis: Analysis | Literal["all"] = Field(
        description="what is measured; all = each as an artifact of its own, but for what the model does not have"
    )
    compat: Literal["notebook"] | None = Field(
        description="notebook = beside ours also the quantities of the published notebook, mistakes included"
    )
    embeddings: EmbeddingsConfig
    simplices: SimplicesConfig
    layers: LayersConfig
    lexicon: LexiconConfig
    weights: WeightsConfig
    circuits: CircuitsConfig

    @property
    def analyses(self) -> tuple[Analysis, ...]:
        """What is measured, in order."""
        return ANALYSES if self.analysis == "all" else (self.analysis,)
