"""What training, saving and evaluation know of any modulator, control or adapter."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal, Self

from jaxtyping import Float, Int
from torch import Tensor, nn

from src.errors import StrataError
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

    @property
    def part_names(self) -> tuple[str, ...]:
        """Of the parts that `strengths` tells of, all different; an only part needs no name."""
        strengths = self.strengths()
        n_parts = 0 if strengths is None else strengths.shape[1]
        return ("",) if n_parts == 1 else tuple(f"part {part}" for part in range(n_parts))

    def role(self, parameter: str) -> Role:
        """The role of one of its named parameters."""
        del parameter
        return "weights"

    @property
    def n_trained(self) -> int:
        """How many numbers training can change."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def check_fits(self, model: LanguageModel) -> None:
        """Raise StrataError if `settings` names sizes (d_model, d_vocab) or layers that a model does not have."""
        settings = self.settings()
        found = {"d_model": model.d_model, "d_vocab": len(model.embedding)}
        for key, size in found.items():
            if settings.get(key, size) != size:
                raise StrataError(
                    f"this modulator is for a model whose {key} is {settings[key]}, and that of {model.config.name} is "
                    f"{size}: choose the model that it was trained on"
                )
        if self.layers and max(self.layers) >= model.n_layers:
            raise StrataError(
                f"this modulator stands before layers up to {max(self.layers)}, and {model.config.name} has layers "
                f"0..{model.n_layers - 1}: choose the model that it was trained on"
            )

    def attached(self, model: LanguageModel) -> AbstractContextManager[None]:
        """Within it, every forward pass of the model goes through the modulator; nothing is left afterwards.

        Raises:
            StrataError: the modulator was made for a model of other sizes.
        """
        self.check_fits(model)
        return changed_inputs(model, self.layers, self)

    def tracked(self, lengths: Sequence[int]) -> AbstractContextManager[None]:
        """Within it, passes count in the running numbers of `health_numbers`, if there are any.

        lengths: of the texts of a pass, which is padded on the right.
        """
        del lengths
        return nullcontext()

    def health_numbers(self) -> dict[str, float]:
        """Numbers of its state by name that are worth following over training; no pass of the model is needed."""
        return {}
