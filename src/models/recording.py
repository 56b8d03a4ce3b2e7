"""Read chosen tokens of many places of a model in forward passes that run as they always do."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.hook_points import HOOKS, HookPoint
from src.models.capture import attach
from src.models.language_model import LanguageModel


class ActivationRecorder:
    """Hooks that stay on a model for many forward passes, and take from each the rows that are wanted of it.

    with ActivationRecorder(model, {"resid_post", "q"}, layers=[0, 1]) as recorder:
        recorder.want(batch, position)          # of the next pass: row i is token (batch[i], position[i])
        model.module(input_ids, ...)
        taken = recorder.take()                 # source -> [layer, row, width], on the model's device
    """

    def __init__(self, model: LanguageModel, sources: Collection[str], layers: Sequence[int]) -> None:
        """sources: of resid_pre, resid_post, attn_out, mlp_out. layers: ascending."""
        self._model, self._layers = model, list(layers)
        self._sources = [source for source in HOOKS if source in sources]
        self._hooks = ExitStack()
        self._taken: dict[tuple[str, int], Tensor] = {}
        self._rows: tuple[Tensor, Tensor] | None = None

    def __enter__(self) -> Self:
        points = [HookPoint(source, layer) for source in self._sources for layer in self._layers]
        self._model.check_hook_points(points)
        for point in points:
            self._hooks.callback(attach(self._model, point, partial(self._receive, point)).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def want(self, batch: Int[Tensor, "row"], position: Int[Tensor, "row"]) -> None:
        """The tokens to take from the next pass; position is the index within the pass's own input."""
        self._rows = batch.to(self._model.device), position.to(self._model.device)
        self._taken = {}

    def take(self) -> dict[str, Float[Tensor, "layer row width"]]:
        """What the pass has left, by source."""
        return {source: torch.stack([self._taken[source, layer] for layer in self._layers]) for source in self._sources}

    def _receive(self, point: HookPoint, state: Tensor) -> None:
        if self._rows is not None:
            self._taken[point.hook, point.layer] = state[self._rows].clone()
