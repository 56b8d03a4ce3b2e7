"""Which run is analysed, what its captured states allow, which artifacts are needed; before anything large loads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from src.artifacts import Parent, label, refuse_damaged
from src.config.analyse_run import ANALYSES, AnalyseRunConfig, Analysis
from src.errors import StrataError
from src.scenarios.lenses.decomposition import refuse_gaps
from src.scenarios.lenses.items import Items, captured_position, message_items, step_items
from src.scenarios.lenses.similarity import FEWEST
from src.scenarios.source_names import canonical_source
from src.scenarios.states import ATTENTION, LOGITS, Rows, Run
from src.scenarios.storage.run_folder import CapturedScenario, read_captured
from src.stage.analysis.captured_model import captured_config, refuse_unreachable
from src.stage.analysis.lens_operators import find_lens_operators
from src.stage.context import Stage
from src.stage.scenarios.captured import captured_scenario
from src.transport.saved import SavedOperator

NEED_MODEL = ("logit_lens", "attribution")


@dataclass(frozen=True, eq=False)
class Work:
    """What is looked at.

    steps, messages: rows; messages is None where none was captured. position: of the messages. layers: captured ones
    that the user wants. analyses: what is done. skipped: why others are not. operators: by source layer, to the last.
    """

    config: AnalyseRunConfig
    captured: CapturedScenario
    run: Run
    steps: Items
    messages: Items | None
    position: str | None
    layers: list[int]
    analyses: list[Analysis]
    skipped: dict[Analysis, str]
    operators: dict[int, SavedOperator]

    @property
    def items(self) -> list[Items]:
        """Steps, and messages where there are some."""
        return [self.steps] if self.messages is None else [self.steps, self.messages]

    @property
    def n_layers(self) -> int:
        """Of the model."""
        return int(self.captured.model["n_layers"])

    @property
    def source(self) -> str:
        """The source of cross_layer, spectrum, pca and convergence."""
        return canonical_source(self.config.source)

    @property
    def neuron_source(self) -> str:
        """What the neurons are dimensions of."""
        return canonical_source(self.config.neuron_source)

    @property
    def cka_sources(self) -> list[str]:
        """The sources that CKA compares."""
        return [canonical_source(name) for name in self.config.cka_sources]

    @property
    def title(self) -> str:
        """Of the report."""
        return f"{self.captured.scenario.name}: {self.run.name}"

    @property
    def label(self) -> str:
        """Names the artifact."""
        return label(self.captured.scenario.name, str(self.captured.model["name"]), self.run.name)

    @property
    def parents(self) -> list[Parent]:
        """The captured scenario, and the operators."""
        artifacts = [self.captured.artifact, *(saved.artifact for saved in self.operators.values())]
        return list(dict.fromkeys(artifact.parent for artifact in artifacts))

    def identity(self) -> dict[str, Any]:
        """What decides the content, besides the parents."""
        keys = {"top_k", "neurons"}
        return {
            **self.config.model_dump(mode="json", include=keys),
            "run": self.run.name,
            "analyses": list(self.analyses),
            "lens": self.config.lens if "logit_lens" in self.analyses else None,
            "layers": self.layers,
            "steps": self.steps.numbers,
            "position": self.position,
            "sources": [self.source, self.neuron_source, *self.cka_sources],
        }

    def summary(self) -> dict[str, Any]:
        """What meta.json tells of it."""
        done = [analysis for analysis in self.analyses if analysis not in self.skipped]
        return {"run": self.run.name, "analyses": done, "skipped": dict(self.skipped)}


def prepare(config: AnalyseRunConfig, stage: Stage) -> Work:
    """Find the run, and find out which analyses it allows.

    Raises:
        StrataError: no run, conversation, step, layer or position of that name; an analysis that was named can't be
            done (with analyses=all it is left out, and the user told why).
    """
    for key, names in (
        ("source", [config.source]), ("cka_sources", config.cka_sources), ("neuron_source", [config.neuron_source])
    ):  # fmt: skip
        for name in names:
            try:
                canonical_source(name)
            except StrataError as error:
                raise StrataError(f"{key}: {error}") from None
    artifact = captured_scenario(stage, config.run, "run")
    refuse_damaged(artifact, "capture the scenario again with overwrite=true")
    captured = read_captured(artifact)
    run = _chosen_run(config, captured)
    steps = step_items(run, None if config.steps == "all" else config.steps)
    position = config.position or captured_position(run)
    messages = None if position is None else message_items(run, position)
    work = Work(config, captured, run, steps, messages, position, _layers(config, steps.rows), [], {}, {})
    for analysis in ANALYSES if config.analyses == "all" else config.analyses:
        try:
            _check(analysis, work)
            work.analyses.append(analysis)
        except StrataError as error:
            if config.analyses != "all":
                raise StrataError(f"analyses={analysis}: {error}") from None
            work.skipped[analysis] = str(error)
            stage.warn(f"{analysis} is left out: {error}")
    if not work.analyses:
        raise StrataError(f"{artifact.path}: nothing of {run.name} can be analysed; the reasons stand above")
    if "logit_lens" in work.analyses and config.lens != "logit":
        work.operators.update(find_lens_operators(config, stage, captured, work.layers))
    return work


def _chosen_run(config: AnalyseRunConfig, captured: CapturedScenario) -> Run:
    runs = [run for conversation in captured.conversations for run in conversation.runs()]
    name = config.conversation or captured.conversations[0].name
    for run in reversed(runs):  # of several runs of a conversation the last one has read all of it
        if name in (run.name, run.conversation.name):
            return run
    raise StrataError(
        f"conversation={name}: {captured.artifact.path.name} has no such run; choose from "
        f"{', '.join(run.name for run in runs)}"
    )


def _layers(config: AnalyseRunConfig, rows: Rows) -> list[int]:
    if config.layers == "all":
        return list(rows.layers)
    if lacking := [layer for layer in config.layers if layer not in rows.layers]:
        raise StrataError(
            f"layers: {', '.join(map(str, lacking))} was not captured (there are {', '.join(map(str, rows.layers))}): "
            "capture with capture.layers=all, if the model has it"
        )
    return sorted(config.layers)


def _check(analysis: Analysis, work: Work) -> None:
    """StrataError, with the remedy, where an analysis lacks what it needs. Nothing large is read."""
    rows = work.steps.rows
    if analysis in ("cross_layer", "convergence") and len(work.layers) < 2:
        raise StrataError("it compares layers, and there is one: capture or name more of them")
    match analysis:
        case "logit_lens":
            _refuse_missing(rows, ["resid_post"])
            if work.n_layers - 1 not in rows.layers and LOGITS not in rows:
                raise StrataError(
                    "neither logits nor the last layer were captured, so nobody knows what the model predicted: "
                    "capture with capture.logits=true"
                )
        case "attribution" | "decomposition":
            refuse_gaps(rows, work.n_layers)
        case "neurons":
            _refuse_missing(rows, [work.neuron_source])
            if work.neuron_source in (ATTENTION, LOGITS):
                raise StrataError(
                    f"neuron_source={work.neuron_source} has no neurons: choose mlp_act or resid_post, say"
                )
        case "cka":
            _refuse_missing(rows, work.cka_sources)
            for source in work.cka_sources:
                _refuse_what_is_no_state("cka_sources", source)
            counts = [len(items) for items in work.items]
            if work.captured.references is not None:
                counts.append(len(work.captured.references.texts))
            if max(counts) < FEWEST:
                raise StrataError(
                    f"CKA needs {FEWEST} items, and there are at most {max(counts)} steps, messages or reference "
                    "texts: generate more with generation.max_new_tokens"
                )
        case "attention":
            _refuse_missing(rows, [ATTENTION])
        case _:
            _refuse_missing(rows, [work.source])
            _refuse_what_is_no_state("source", work.source)
    if analysis in NEED_MODEL:
        refuse_unreachable(captured_config(work.captured, work.config))


def _refuse_what_is_no_state(key: str, source: str) -> None:
    if source in (ATTENTION, LOGITS):
        raise StrataError(f"{key}={source} is no state of a token: choose resid_post, say")


def _refuse_missing(rows: Rows, sources: Sequence[str]) -> None:
    if lacking := [source for source in sources if source not in rows]:
        raise StrataError(
            f"{', '.join(lacking)} was not captured (there are {', '.join(rows.arrays) or 'no states'}): capture with "
            f"{', '.join(dict.fromkeys(_group(source) for source in lacking))}"
        )


def _group(source: str) -> str:
    """The key of a scenario's capture block that keeps a source."""
    if source == ATTENTION:
        return "capture.attention_weights=true"
    if source == LOGITS:
        return "capture.logits=true"
    if source in ("q", "k", "v"):
        return "capture.qkv=true"
    return "capture.mlp=true" if source.startswith("mlp_") and source != "mlp_out" else "capture.hidden_states=true"
