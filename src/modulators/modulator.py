"""What training, saving and evaluation know of any modulator, control or adapter."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, Self

from jaxtyping import Float, Int
from torch import Tensor, nn

from src.models import LanguageModel
from src.modulators.injection import changed_inputs

# which learning rate and weight decay a parameter gets (TrainingSettings)
Role = Literal["weights", "geometry", "strength"]


class Modulator(nn.Module, ABC):
    """Changes the residual stream before blocks of a frozen model.

    kind: names the class in saved files. needs_whole_passes: what it does at a position depends on others of the same
    pass, so that no cached position can be left out. layers: before whose blocks it stands.
    """

    kind: ClassVar[str]
    needs_whole_passes: ClassVar[bool] = False
    layers: tuple[int, ...]

    @abstractmethod
    def forward(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"], layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """The input of block `layer` in place of `residual`, in its dtype."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Plain values (JSON) from which `build` makes an empty one of the same shapes."""

    @classmethod
    @abstractmethod
    def build(cls, settings: dict[str, Any]) -> Self:
        """One whose parameters and buffers are still to be loaded."""

    def strengths(self) -> Float[Tensor, "layer part"] | None:
        """Its alphas in each layer (of each of its parts), with their gradients; None if it has none."""
        return None

    def role(self, parameter: str) -> Role:
        """The role of one of its named parameters."""
        del parameter
        return "weights"

    def attached(self, model: LanguageModel) -> AbstractContextManager[None]:
        """Within it, every forward pass of the model goes through the modulator; nothing is left afterwards."""
        return changed_inputs(model, self.layers, self)
