"""The parameters of a model by name, read one at a time."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from src.config.shared import ModelConfig
from src.models.loading import load_model


class Weights(Protocol):
    """Named parameters.

    architecture: the checkpoint's config. shapes: of every parameter by its name in Transformers' model class, each
    tensor once (of tied ones the first name). tied: other names of a parameter -> the name in `shapes`.
    skeleton: the model for its structure; its own parameters may lie on the meta device.
    """

    architecture: PreTrainedConfig
    skeleton: PreTrainedModel
    shapes: Mapping[str, tuple[int, ...]]
    tied: Mapping[str, str]

    def read(self, name: str) -> Tensor:
        """One parameter on the CPU, in the dtype in which it is stored."""
        ...

    def digest(self, names: Iterable[str]) -> str:
        """sha256 of the contents of some parameters, in hex."""
        ...


class LoadedWeights:
    """The parameters of a model that is in memory."""

    def __init__(self, module: PreTrainedModel) -> None:
        self.architecture = module.config
        self.skeleton = module
        self._parameters: dict[str, Tensor] = {}
        tied: dict[str, str] = {}
        first: dict[int, str] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if id(parameter) in first:
                tied[name] = first[id(parameter)]
            else:
                first[id(parameter)] = name
                self._parameters[name] = parameter.detach()
        self.tied: Mapping[str, str] = tied
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(parameter.shape) for name, parameter in self._parameters.items()
        }

    def read(self, name: str) -> Tensor:
        """One parameter on the CPU."""
        return self._parameters[name].cpu()

    def digest(self, names: Iterable[str]) -> str:
        """sha256 of the contents of some parameters, in hex."""
        digest = hashlib.sha256()
        for name in names:
            digest.update(self.read(name).contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def weights_of(module: PreTrainedModel) -> Weights:
    """The weights of a model that is in memory."""
    return LoadedWeights(module)


def open_weights(config: ModelConfig) -> Weights:
    """The weights of a checkpoint.

    Raises:
        StrataError: no such folder or hub model, missing or damaged weights.
    """
    return LoadedWeights(load_model(config, "cpu").module)
