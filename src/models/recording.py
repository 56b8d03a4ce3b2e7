"""Read chosen tokens of many places of a model in forward passes that run as they always do."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache

from src.errors import StrataError
from src.hook_points import ATTENTION, SOURCES
from src.models.attention_rows import QueryRows, reading_rows
from src.models.inner import hidden_state, residual_input
from src.models.language_model import LanguageModel
from src.models.sites import Columns, Handles, Place
from src.models.sources import attention_sites, check_sources, site_of

_ALL = QueryRows()


class ActivationRecorder:
    """Hooks that stay on a model for many forward passes, and take from each the rows that are wanted of it.

    with ActivationRecorder(model, {"resid_post", "q"}, layers=[0, 1]) as recorder:
        recorder.want(batch, position)          # of each pass from here on: row i is token (batch[i], position[i])
        model.module(input_ids, ...)
        taken = recorder.take()                 # source -> [layer, row, width], on the model's device

    Attention comes as [layer, row, head, key], where key is the index of a token among all that the row's sequence has
    had so far, those in a key-value cache included; keys that lie behind a sliding window have 0. Weights are computed
    for the wanted rows alone, beside sdpa; a model that does not go through transformers' attention interface runs
    with eager attention as long as the recorder is on it.
    """

    def __init__(self, model: LanguageModel, sources: Collection[str], layers: Sequence[int]) -> None:
        """sources: of SOURCES. layers: ascending."""
        self._model, self._layers = model, list(layers)
        self._sources = [source for source in SOURCES if source in sources]
        self._device = model.device
        self._unknown = set(sources) - set(SOURCES)
        self._stack = ExitStack()
        self._sites: dict[str, list[tuple[Place, Columns | None]]] = {}
        self._rows: tuple[Tensor, Tensor] | None = None
        self._query_rows: QueryRows | None = None
        self._wanted = False
        self._kept: dict[Place, Tensor] = {}
        self._attention: dict[int, Tensor] = {}
        self._shape = (0, 0)
        self._n_keys = 0
        self._whole = False

    def __enter__(self) -> Self:
        """Raises StrataError, which lists what is missing, if the model does not offer all sources at all layers."""
        check_sources(self._model, {*self._sources, *self._unknown}, self._layers)
        with ExitStack() as stack:
            handles = stack.enter_context(Handles())
            handles.append(self._model.blocks[0].register_forward_pre_hook(self._begin, with_kwargs=True))
            self._sites = {source: self._places(source) for source in self._sources if source != ATTENTION}
            for place in sorted({place for places in self._sites.values() for place, _ in places}):
                handles.append(self._listen(place))
            if ATTENTION in self._sources:
                self._read_attention(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def want(self, batch: Int[Tensor, "row"] | None = None, position: Int[Tensor, "row"] | None = None) -> None:
        """The tokens to take from passes from now on; position is the index within a pass's own input.

        With no arguments every token of a pass: row (sequence * n_positions + position), padding included.
        """
        self._rows = None
        if batch is not None and position is not None:
            self._rows = batch.to(self._device), position.to(self._device)
        self._wanted = True
        self._query_rows = None
        self._kept.clear()
        self._attention.clear()

    def take(self) -> dict[str, Float[Tensor, "layer row ..."]]:
        """What the last pass has left, by source; once. StrataError if there was no pass, or not through all layers."""
        try:
            taken = {source: self._gather(source) for source in self._sites}
            if ATTENTION in self._sources:
                taken[ATTENTION] = self._stacked_attention()
        except KeyError:
            raise StrataError(
                f"{type(self._model.module).__name__} did not run all that is recorded: call want() before a forward "
                "pass, and take() once after it"
            ) from None
        self._kept.clear()
        self._attention.clear()
        return {source: taken[source] for source in self._sources}

    def _begin(self, _block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """At the first block: the shape of the pass, and how many keys its last token sees."""
        state = residual_input(args, kwargs)
        self._shape = state.shape[:2]
        caches = [value for value in (*args, *kwargs.values()) if isinstance(value, Cache)]
        self._n_keys = self._shape[1] + (caches[0].get_seq_length() if caches else 0)
        # one token is all there is in a step of a generation
        one = self._rows is not None and len(self._rows[0]) == self._shape[0] * self._shape[1] == 1
        self._whole = self._wanted and (self._rows is None or one)
        self._kept.clear()
        self._attention.clear()

    def _listen(self, place: Place) -> RemovableHandle:
        layer, path, side = place
        module, kept = self._model.blocks[layer].get_submodule(path), self._kept
        copied = place in self._model.overwritten

        def keep(state: Tensor) -> None:
            if not self._whole:
                self._keep_rows(place, state)
            else:
                kept[place] = state.clone() if copied else state  # `take` copies it, before the next pass

        def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            keep(args[0] if args else residual_input(args, kwargs))

        def after(_module: Any, _args: Any, output: Any) -> None:
            keep(output if isinstance(output, Tensor) else hidden_state(output))

        if side == "input":
            return module.register_forward_pre_hook(before, with_kwargs=True)
        return module.register_forward_hook(after)

    def _keep_rows(self, place: Place, state: Tensor) -> None:
        if self._rows is not None:
            # opt's MLP gives [token, width]
            self._kept[place] = (state if state.ndim == 3 else state.view(*self._shape, -1))[self._rows]

    def _gather(self, source: str) -> Float[Tensor, "layer row width"]:
        kept = self._kept
        states = [kept[at] if columns is None else kept[at][..., columns] for at, columns in self._sites[source]]
        if self._whole and self._shape[0] == 1 and states[0].ndim == 3:
            return torch.cat(states)  # layers take the place of the one sequence
        return torch.stack(states).flatten(1, -2)

    def _places(self, source: str) -> list[tuple[Place, Columns | None]]:
        sites = [(layer, site_of(self._model, source, layer)) for layer in self._layers]
        return [
            (
                (layer, site.path, site.side),
                site.columns.to(self._device) if isinstance(site.columns, Tensor) else site.columns,
            )
            for layer, site in sites
        ]

    def _read_attention(self, stack: ExitStack) -> None:
        model = self._model
        found = [attention_sites(model, layer) for layer in self._layers]
        modules = [model.blocks[i].get_submodule(sites.path) for i, sites in zip(self._layers, found, strict=True)]
        through_sdpa = model.module.config._attn_implementation == "sdpa" and model.internals.rows_follow_sdpa
        places = [sites.weights for sites in found]
        stack.enter_context(
            reading_rows(model.module, modules, places, through_sdpa, self._current_rows, self._attention_of)
        )

    def _current_rows(self) -> QueryRows | None:
        if not self._wanted:
            return None
        if self._whole:
            return _ALL
        if self._query_rows is None:
            assert self._rows is not None
            self._query_rows = QueryRows.at(*self._rows)
        return self._query_rows

    def _attention_of(self, index: int, weights: Float[Tensor, "row head key"]) -> None:
        self._attention[index] = weights

    def _stacked_attention(self) -> Float[Tensor, "layer row head key"]:
        layers = [self._attention[index] for index in range(len(self._layers))]
        if all(weights.shape[-1] == self._n_keys for weights in layers):
            return torch.stack(layers)
        # the cache of a sliding window keeps the last keys only; a static one has room for keys to come
        stacked = layers[0].new_zeros(len(layers), *layers[0].shape[:2], self._n_keys)
        for index, weights in enumerate(layers):
            n = weights.shape[-1]
            if n > self._n_keys:
                stacked[index] = weights[..., : self._n_keys]
            else:
                stacked[index, ..., self._n_keys - n :] = weights
        return stacked
