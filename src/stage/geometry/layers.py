"""analysis=layers: states of one stack of layers, or of two on the same tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.activations.job import chosen_layers
from src.activations.passes import store_hashes
from src.activations.splits import document_hashes
from src.activations.store import ActivationStore
from src.artifacts import Parent, choose_artifact, label, list_artifacts
from src.config.geometry.stage import Analysis, GeometryConfig
from src.errors import NotApplicableError, StrataError
from src.geometry.layers.profile import LayerProfile, LayerSettings, LayerSums
from src.geometry.layers.sites import Site, sites_of
from src.geometry.layers.stacks import StackComparison, StackSums
from src.hook_points import HookPoint
from src.models.loading import architecture_of, load_model, load_tokenizer, positions_in_config
from src.models.stack_states import Stacks, stacks_of
from src.report.finding import Finding
from src.report.geometry.layers.finding import LayerReport, layers_finding
from src.stage.context import Stage
from src.stage.geometry.layer_notebook import notebook_finding
from src.stage.geometry.layer_reading import Documents, documents_of, read_model, read_stores
from src.stage.sequences import Reading, prepare_table
from src.stage.stores import find_store, is_of_model
from src.text import SequenceTable, content_hashes
from src.text.token_strings import token_strings

_SEQUENCES_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class LayerAnalysis:
    """The layers of one model, or of two. stores: one, two, or none where the model reads (`stacks`, `table`)."""

    config: GeometryConfig
    parents: list[Parent]
    stores: Sequence[ActivationStore] = ()
    stacks: Stacks | None = None
    table: SequenceTable | None = None
    name: Analysis = "layers"

    @property
    def title(self) -> str:
        """Of the report."""
        return f"Layers of {self.config.model.name}"

    @property
    def label(self) -> str:
        """Of the artifact."""
        return label(self.config.model.name, self.name)

    def identity(self) -> dict[str, Any]:
        """What decides the content besides the parents."""
        keys = {"layers", "bootstrap", "positions"} | (set() if self.stacks is None else {"batch_size"})
        model = None if self.stacks is None else self.stacks.models[-1].identity()
        return {
            "analysis": self.name,
            "settings": self.config.layers.model_dump(mode="json", include=keys),
            "model": model,
            "compat": self.config.compat,
            "seed": self.config.seed,
        }

    def measure(self, stage: Stage) -> list[Finding]:
        """One pass; nothing is kept but sums."""
        settings = self.config.layers
        documents = self._documents(stage)
        sums = [
            LayerSums(sites, width, LayerSettings(documents.n_replicates, settings.positions), documents.device)
            for sites, width in zip(self._sites(), self._widths(), strict=True)
        ]
        comparison = self._comparison(sums, documents)
        with stage.progress("reading states", self._n_tokens(), "tokens") as advance:
            if self.stacks is None:
                read_stores(self.stores, documents, sums, comparison, advance)
            else:
                assert self.table is not None
                read_model(self.stacks, self.table, documents, sums, comparison, settings.batch_size, advance)
        profiles = [of_stack.profile() for of_stack in sums]
        found = None if comparison is None else comparison.comparison()
        findings = [layers_finding(self._report(profiles, found, documents))]
        if self.config.compat == "notebook":
            findings.append(notebook_finding(self.config, self.stacks, stage))
        return findings

    def _documents(self, stage: Stage) -> Documents:
        seed = self.config.seed
        if self.table is None:
            hashes = store_hashes(self.stores[0], seed)
        else:
            table, document = self.table, np.empty(self.table.n_sequences, np.int64)
            hashes = document_hashes(content_hashes(_token_ids(table, document), seed), document)
        # a single document can't be drawn anew
        replicates = self.config.layers.bootstrap if len(np.unique(hashes)) > 1 else 0
        return documents_of(hashes, replicates, seed, stage.device)

    def _sites(self) -> list[tuple[Site, ...]]:
        wanted = self.config.layers.layers
        if self.stacks is None:
            return [sites_of(_chosen_points(store, wanted)) for store in self.stores]
        return [
            _sites_of_model(stack.n_layers, has_norm, wanted, stack.config.name)
            for stack, has_norm in zip(self.stacks.models, self.stacks.has_final_norm, strict=True)
        ]

    def _widths(self) -> list[int]:
        if self.stacks is None:
            return [store.layout.d_model for store in self.stores]
        return [stack.d_model for stack in self.stacks.models]

    def _comparison(self, sums: Sequence[LayerSums], documents: Documents) -> StackSums | None:
        if len(sums) < 2:
            return None
        first, second = (
            [site for site in of_stack.sites if site.kind in ("stream", "final_norm")] for of_stack in sums
        )
        widths = self._widths()
        same_width = widths[0] == widths[1]
        return StackSums(first, second, same_width, documents.n_replicates, self.config.seed, documents.device)

    def _n_tokens(self) -> int:
        return self.stores[0].layout.n_tokens if self.table is None else self.table.n_tokens

    def _names(self) -> tuple[str, ...]:
        if self.stacks is not None:
            return self.stacks.names
        if len(self.stores) == 1:
            return ("",)
        models = tuple(store.model_name for store in self.stores)
        return models if models[0] != models[1] else tuple(store.path.name for store in self.stores)

    def _report(
        self, profiles: list[LayerProfile], comparison: StackComparison | None, documents: Documents
    ) -> LayerReport:
        tokens = {large.token_id for profile in profiles for site in profile.sites for large in site.norms.largest}
        try:
            strings = token_strings(load_tokenizer(self.config.model), tokens)
        except StrataError:
            strings = {token: str(token) for token in tokens}  # the model of a store may be gone
        return LayerReport(
            model=self.config.model.name,
            source="the model itself (it read the dataset)" if self.stacks is not None else "the activation store",
            stacks=dict(zip(self._names(), profiles, strict=True)),
            comparison=comparison,
            n_documents=documents.n,
            n_texts=len(documents.of_sequence),
            strings=strings,
            settings=self.config.layers.model_dump(mode="json") | {"seed": self.config.seed},
        )


def _token_ids(table: SequenceTable, document: np.ndarray) -> Iterator[np.ndarray]:
    """The ids of every sequence; writes down its document."""
    for start in range(0, table.n_sequences, _SEQUENCES_AT_ONCE):
        texts = table.read(start, min(start + _SEQUENCES_AT_ONCE, table.n_sequences))
        document[start : start + len(texts)] = [text.document for text in texts]
        yield from (text.token_ids for text in texts)


def _sites_of_model(n_layers: int, has_norm: bool, wanted: Any, name: str) -> tuple[Site, ...]:
    layers = chosen_layers(wanted, n_layers, name)
    points = [HookPoint("resid_post", layer) for layer in layers]
    embeddings = [HookPoint("resid_pre", 0)] if layers[0] == 0 else []
    final = (Site.after_final_norm(n_layers),) if has_norm and layers[-1] == n_layers - 1 else ()
    return (*sites_of([*embeddings, *points]), *final)


def _chosen_points(store: ActivationStore, wanted: Any) -> list[HookPoint]:
    if wanted == "all":
        return list(store.layout.hook_points)
    held = sorted({point.layer for point in store.layout.hook_points})
    if missing := sorted(set(wanted) - set(held)):
        raise StrataError(f"layers.layers: {store.path} holds layers {held}, not {missing}")
    return [point for point in store.layout.hook_points if point.layer in wanted]


def prepare(config: GeometryConfig, stage: Stage) -> LayerAnalysis:
    """Find the stores, or load the model and its text.

    Raises:
        StrataError: there is no such store, stores of other text, a model that can't be read, or settings that
            contradict each other.
    """
    settings = config.layers
    if _source(config, stage) == "store":
        stores = [find_store(stage, settings.activations, config.model, config.dataset, "layers.activations")]
        if settings.second is not None:
            second = choose_artifact(stage.root, "activations", settings.second, [], key="layers.second", remedy="")
            stores.append(ActivationStore(second))
            _refuse_other_text(*stores)
        for store in stores:
            _chosen_points(store, settings.layers)
        return LayerAnalysis(config, [store.artifact.parent for store in stores], stores)
    sequences = prepare_table(stage, config.model, config.dataset, _reading(config, stage))
    stacks = stacks_of(load_model(config.model, stage.device))
    for stack in stacks.models:
        chosen_layers(settings.layers, stack.n_layers, config.model.name)
    return LayerAnalysis(config, [sequences.parent], stacks=stacks, table=SequenceTable(sequences.path))


def _reading(config: GeometryConfig, stage: Stage) -> Reading:
    settings = config.layers
    positions = positions_in_config(config.model)
    length = settings.max_length if positions is None else min(settings.max_length, positions)
    if length < settings.max_length:
        stage.say(f"texts are cut off at {length} tokens: {config.model.name} has no more positions")
    return Reading(length, num_tokens=settings.num_tokens)


def _source(config: GeometryConfig, stage: Stage) -> str:
    settings = config.layers
    if settings.source == "model":
        if settings.activations or settings.second:
            raise StrataError(
                "layers.source=model reads no store: leave out layers.activations and layers.second, or set "
                "layers.source=store"
            )
        return "model"
    if settings.source == "store" or settings.activations or settings.second:
        return "store"
    architecture = architecture_of(config.model)
    if getattr(architecture.get_text_config(), "vocab_size", None) is None:
        raise NotApplicableError(
            f"{config.model.name} reads no text, so it has no tokens to measure: choose analysis=weights"
        )
    if architecture.is_encoder_decoder:
        return "model"
    wanted = config.dataset.model_dump(mode="json")
    fits = (
        is_of_model(artifact, config.model) and artifact.meta.config["dataset"] == wanted
        for artifact in list_artifacts(stage.root, "activations")
    )
    return "store" if any(fits) else "model"


def _refuse_other_text(first: ActivationStore, second: ActivationStore) -> None:
    """StrataError unless both stores hold the same sequences of token ids."""
    if first.artifact.meta.fingerprint == second.artifact.meta.fingerprint:
        raise StrataError(f"layers.second={second.path.name} is the same store: name another model's")
    same = first.layout.n_sequences == second.layout.n_sequences and first.layout.n_tokens == second.layout.n_tokens
    if same:
        # at equal lengths and equal ids nothing is left to differ
        for name in ("token_ids", "position"):
            ours, theirs = (np.concatenate([getattr(part, name) for part in store]) for store in (first, second))
            same = same and np.array_equal(ours, theirs)
    if not same:
        raise StrataError(
            f"{first.path.name} and {second.path.name} hold other tokens: collect both from the same dataset with the "
            "same max_length and num_tokens (the models must share their tokenizer)"
        )
