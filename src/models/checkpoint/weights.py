"""The parameters of a model by name, read one at a time."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel


class Weights(Protocol):
    """Named parameters.

    architecture: the checkpoint's config. shapes: of every parameter by its name in Transformers' model class, each
    tensor once (of tied ones the first name). tied: other names of a parameter -> the name in `shapes`.
    skeleton: the model for its structure; its own parameters may lie on the meta device.
    missing: parameters of the model class that the checkpoint lacks. unread: what the checkpoint holds and the model
    class has no place for. notes: what a user should know of how they are read.
    """

    architecture: PreTrainedConfig
    skeleton: PreTrainedModel
    shapes: Mapping[str, tuple[int, ...]]
    tied: Mapping[str, str]
    missing: tuple[str, ...]
    unread: tuple[str, ...]
    notes: tuple[str, ...]

    def read(self, name: str) -> Tensor:
        """One parameter on the CPU, in the dtype in which it is stored."""
        ...

    def digest(self, names: Iterable[str]) -> str:
        """sha256 of the contents of some parameters, in hex."""
        ...


class LoadedWeights:
    """The parameters of a model that is in memory."""

    def __init__(self, module: PreTrainedModel, missing: Iterable[str] = (), notes: Iterable[str] = ()) -> None:
        """missing: names of parameters that no checkpoint gave: they are left out."""
        self.architecture = module.config
        self.skeleton = module
        self.missing, self.unread, self.notes = tuple(missing), (), tuple(notes)
        groups = tied_names(module)
        self._parameters: dict[str, Tensor] = {
            names[0]: module.get_parameter(names[0]).detach() for names in groups if names[0] not in self.missing
        }
        self.tied: Mapping[str, str] = {other: names[0] for names in groups for other in names[1:]}
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(parameter.shape) for name, parameter in self._parameters.items()
        }

    def read(self, name: str) -> Tensor:
        """One parameter on the CPU."""
        return self._parameters[name].cpu()

    def digest(self, names: Iterable[str]) -> str:
        """sha256 of the contents of some parameters, in hex."""
        return digest_of(self, names)


def tied_names(module: PreTrainedModel) -> list[list[str]]:
    """The names of each parameter, in the model's order."""
    groups: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return list(groups.values())


def digest_of(weights: Weights, names: Iterable[str]) -> str:
    """sha256 of the contents of some parameters, one at a time, in hex."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(weights.read(name).contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_of(module: PreTrainedModel) -> Weights:
    """The weights of a model that is in memory."""
    return LoadedWeights(module)
