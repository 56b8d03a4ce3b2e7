"""Read chosen tokens of many places of a model in forward passes that run as they always do."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache

from src.errors import StrataError
from src.hook_points import ATTENTION, SOURCES
from src.models.attention_rows import AttentionInput, QueryRows, attention_rows, reading_rows
from src.models.attention_steps import LayerRows, put_together
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
        self._following = False
        self._kept: dict[Place, list[Tensor]] = {}
        self._attention: list[LayerRows] = []
        self._shape: tuple[int, ...] = (0, 0)
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
        self._wanted, self._following = True, False
        self._query_rows = None
        self._clear()

    def follow(self) -> None:
        """From now on passes are of one token each, of one sequence; `take` gives a row for each since the last one.

        Attention to tokens that came after a row's own is 0.
        """
        self._rows, self._wanted, self._following, self._whole = None, True, True, True
        self._clear()

    def take(self) -> dict[str, Float[Tensor, "layer row ..."]]:
        """What the last pass has left (all passes, after `follow`), by source; once.

        Raises StrataError if there was no pass, or not through all layers.
        """
        counts = {len(kept) for kept in self._kept.values()} | {rows.n_passes for rows in self._attention}
        if len(counts) != 1 or 0 in counts:
            raise StrataError(
                f"{type(self._model.module).__name__} did not run all that is recorded: call want() before a forward "
                "pass, and take() once after it"
            )
        taken = {source: self._gather(source) for source in self._sites}
        if ATTENTION in self._sources:
            taken[ATTENTION] = put_together(self._attention, self._n_keys)
        self._clear()
        return {source: taken[source] for source in self._sources}

    def _clear(self) -> None:
        for kept in (*self._kept.values(), *self._attention):
            kept.clear()

    def _begin(self, _block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """At the first block: the shape of the pass, and how many keys its last token sees."""
        self._shape = tuple(residual_input(args, kwargs).shape[:2])
        if self._attention:
            self._n_keys = self._shape[1] + _n_cached(args, kwargs)
        if self._following:
            if self._shape != (1, 1):
                raise ValueError(f"a pass of {self._shape} tokens where one of one token was to come: see follow()")
            return
        # one token is all there is in a step of a generation
        one = self._rows is not None and len(self._rows[0]) == self._shape[0] * self._shape[1] == 1
        self._whole = self._wanted and (self._rows is None or one)
        self._clear()

    def _listen(self, place: Place) -> RemovableHandle:
        layer, path, side = place
        module, copied = self._model.blocks[layer].get_submodule(path), place in self._model.overwritten
        kept = self._kept[place] = []

        def keep(state: Tensor) -> None:
            if not self._whole:
                self._keep_rows(kept, state)
            else:
                kept.append(state.clone() if copied else state)  # `take` copies it

        def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            keep(args[0] if args else residual_input(args, kwargs))

        def after(_module: Any, _args: Any, output: Any) -> None:
            keep(output if isinstance(output, Tensor) else hidden_state(output))

        if side == "input":
            return module.register_forward_pre_hook(before, with_kwargs=True)
        return module.register_forward_hook(after)

    def _keep_rows(self, kept: list[Tensor], state: Tensor) -> None:
        if self._rows is not None:
            # opt's MLP gives [token, width]
            kept.append((state if state.ndim == 3 else state.view(*self._shape, -1))[self._rows])

    def _gather(self, source: str) -> Float[Tensor, "layer row width"]:
        sites = self._sites[source]
        if all(columns is None for _, columns in sites):
            states = torch.cat([state for place, _ in sites for state in self._kept[place]])
            return states.view(len(sites), -1, states.shape[-1])
        layers = [torch.cat(self._kept[place]) for place, _ in sites]
        chosen = [
            state if columns is None else state[..., columns] for state, (_, columns) in zip(layers, sites, strict=True)
        ]
        return torch.stack(chosen).flatten(1, -2)

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
        self._attention = [LayerRows() for _ in self._layers]
        stack.enter_context(reading_rows(model.module, modules, places, through_sdpa, self._hear, self._look))

    def _hear(self, index: int, given: AttentionInput) -> None:
        if self._following:
            self._attention[index].follow(given, self._n_keys)
        elif (wanted := self._current_rows()) is not None:
            self._attention[index].add(attention_rows(wanted, **given), self._n_keys)

    def _look(self, index: int, weights: Float[Tensor, "batch head query key"]) -> None:
        if (wanted := self._current_rows()) is not None:
            self._attention[index].add(wanted.flat(wanted.of(weights)), self._n_keys)

    def _current_rows(self) -> QueryRows | None:
        if not self._wanted:
            return None
        if self._whole:
            return _ALL
        if self._query_rows is None:
            assert self._rows is not None
            self._query_rows = QueryRows.at(*self._rows)
        return self._query_rows


def _n_cached(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Tokens in the key-value cache that a block is given."""
    cache = kwargs.get("past_key_values")
    if not isinstance(cache, Cache):
        cache = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
    return 0 if cache is None else cache.get_seq_length()
