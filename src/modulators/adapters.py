"""LoRA on the linear layers of blocks (peft), of as many trained numbers as a modulator: the usual alternative."""

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from src.errors import NotApplicableError, StrataError
from src.models import LanguageModel
from src.modulators.adapter_ranks import AdaptedLayer, spread_ranks
from src.modulators.modulator import Modulator


class LoraAdapters(Modulator):
    """W' = W + B A for linear layers of blocks (Hu et al. 2021, arXiv 2106.09685), with a scale of 1.

    A begins as peft's own (Kaiming uniform), B as 0, so that nothing is changed at the start. While it is attached,
    peft's layers stand in the place of the model's and hold this module's parameters; afterwards the model's are back.

    Args:
        adapted: the linear layers, of ranks >= 1.
        layers: whose blocks they stand in.
        seed: draws A.
    """

    kind: ClassVar[str] = "lora"

    def __init__(self, adapted: Sequence[AdaptedLayer], layers: Sequence[int], seed: int) -> None:
        super().__init__()
        self.adapted, self.layers, self.seed = tuple(adapted), tuple(layers), seed
        draws = torch.Generator().manual_seed(seed)
        self.down = nn.ParameterList()
        self.up = nn.ParameterList()
        for layer in self.adapted:
            # Kaiming uniform with a = sqrt 5
            bound = 1 / math.sqrt(layer.d_in)
            self.down.append(nn.Parameter((2 * torch.rand(layer.rank, layer.d_in, generator=draws) - 1) * bound))
            self.up.append(nn.Parameter(torch.zeros(layer.d_out, layer.rank)))

    def settings(self) -> dict[str, Any]:
        """See Modulator."""
        adapted = [[it.path, it.d_in, it.d_out, it.rank] for it in self.adapted]
        return {"adapted": adapted, "layers": list(self.layers), "seed": self.seed}

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Self:
        """See Modulator."""
        return cls([AdaptedLayer(*it) for it in settings["adapted"]], settings["layers"], settings["seed"])

    def forward(
        self, residual: Float[Tensor, "batch pos d_model"], token_ids: Int[Tensor, "batch pos"], layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """The residual as it is: LoRA stands within blocks, not before them."""
        del token_ids, layer
        return residual

    @contextmanager
    def attached(self, model: LanguageModel) -> Iterator[None]:
        """See Modulator.

        Raises:
            StrataError: a model whose linear layers are others than those that were adapted.
        """
        from peft import LoraConfig  # seconds
        from peft.tuners.lora import LoraModel

        self._check(model)
        ranks = {re.escape(it.path): it.rank for it in self.adapted}
        config = LoraConfig(
            target_modules=[it.path for it in self.adapted],
            rank_pattern=ranks,
            alpha_pattern=ranks,
            init_lora_weights=False,
        )
        was_training = {name: module.training for name, module in model.module.named_modules()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of layouts that it finds by itself
            # peft's own parameters would be drawn from the global generator: they stay without storage instead
            adapters = LoraModel(model.module, cast(Any, config), "default", low_cpu_mem_usage=True)
        try:
            for layer, down, up in zip(self.adapted, self.down, self.up, strict=True):
                module: Any = model.module.get_submodule(layer.path)
                module.lora_A["default"].weight = down
                module.lora_B["default"].weight = up
            yield
        finally:
            adapters.unload()
            for name, module in model.module.named_modules():
                module.training = was_training[name]

    def _check(self, model: LanguageModel) -> None:
        there = {it.path: (it.d_in, it.d_out) for it in linear_layers(model, range(model.n_layers))}
        for it in self.adapted:
            if there.get(it.path) != (it.d_in, it.d_out):
                raise StrataError(
                    f"this LoRA adapts {it.path} ({it.d_in} to {it.d_out}), which {model.config.name} does not have: "
                    "it was trained on another model"
                )


def lora_of_size(model: LanguageModel, layers: Sequence[int], n_parameters: int, seed: int) -> LoraAdapters:
    """LoRA on the linear layers of some blocks whose number of trained parameters comes nearest to a given one.

    All have the same rank but for one more where the number asks for it (these are spread evenly over the blocks), and
    none has more than the smaller side of its matrix.

    Raises:
        NotApplicableError: blocks without linear layers.
    """
    found = linear_layers(model, layers)
    if not found:
        raise NotApplicableError(
            f"{model.config.name} has no linear layers in its blocks that LoRA could adapt: leave out the control lora"
        )
    ranks = spread_ranks(found, n_parameters)
    adapted = [AdaptedLayer(it.path, it.d_in, it.d_out, ranks[it.path]) for it in found if ranks[it.path]]
    return LoraAdapters(adapted, layers, seed)


def linear_layers(model: LanguageModel, layers: Sequence[int]) -> list[AdaptedLayer]:
    """The linear layers of blocks (of GPT-2's kind too), in order, without ranks."""
    paths = {id(module): name for name, module in model.module.named_modules()}
    found = []
    for layer in layers:
        for module in model.blocks[layer].modules():
            if isinstance(module, nn.Linear):
                found.append(AdaptedLayer(paths[id(module)], module.in_features, module.out_features))
            elif isinstance(module, Conv1D):
                found.append(AdaptedLayer(paths[id(module)], *module.weight.shape))
    return found
