"""Which sources a scenario asks for, and which of them an architecture offers."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Self

from jaxtyping import Float, Int
from torch import Tensor

from src.errors import StrataError
from src.models import LanguageModel
from src.models.recording import ActivationRecorder
from src.models.sources import available_sources, check_sources
from src.scenarios.scenario import CaptureSettings
from src.scenarios.states import ATTENTION, MLP_SOURCES, QKV_SOURCES, RESIDUAL_SOURCES, kept_resid_pre


def wanted_groups(capture: CaptureSettings) -> dict[str, tuple[str, ...]]:
    """The sources of each key of `capture` that is on."""
    groups = {
        "hidden_states": RESIDUAL_SOURCES,
        "qkv": QKV_SOURCES,
        "mlp": MLP_SOURCES,
        "attention_weights": (ATTENTION,),
    }
    return {key: sources for key, sources in groups.items() if getattr(capture, key)}


def chosen_layers(model: LanguageModel, capture: CaptureSettings) -> list[int]:
    """Ascending. Raises StrataError for layers that the model does not have."""
    if capture.layers == "all":
        return list(range(model.n_layers))
    if too_large := [layer for layer in sorted(capture.layers) if layer >= model.n_layers]:
        raise StrataError(
            f"capture.layers: {model.config.name} has layers 0..{model.n_layers - 1}, not "
            f"{', '.join(map(str, too_large))}"
        )
    return sorted(capture.layers)


class Recording:
    """The recorders of a scenario. A group of sources that the architecture does not offer is left out, and noted."""

    def __init__(self, model: LanguageModel, capture: CaptureSettings) -> None:
        """Raises StrataError for layers that the model does not have, and for a model without a vocabulary head."""
        if model.module.get_output_embeddings() is None:
            raise StrataError(
                f"{type(model.module).__name__} ({model.config.name}) has no vocabulary head, so it can't go on with a "
                "conversation: choose a causal LM"
            )
        self._model, self.layers = model, chosen_layers(model, capture)
        self.notes: dict[str, object] = {}
        self._hooks = ExitStack()
        self._recorders: list[ActivationRecorder] = []
        self._groups = wanted_groups(capture)

    def __enter__(self) -> Self:
        offered = self._offered()
        first = kept_resid_pre(self.layers) if "resid_pre" in offered else []
        parts = [(["resid_pre"], first), ([source for source in offered if source != "resid_pre"], self.layers)]
        with ExitStack() as hooks:
            for sources, layers in parts:
                if sources and layers:
                    self._recorders.append(hooks.enter_context(ActivationRecorder(self._model, sources, layers)))
            self._hooks = hooks.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()
        self._recorders = []

    def want(self, batch: Int[Tensor, "row"], position: Int[Tensor, "row"]) -> None:
        """The tokens to take from the next pass."""
        for recorder in self._recorders:
            recorder.want(batch, position)

    def follow(self) -> None:
        """The one token of each pass from here on; `take` gives all since the last one."""
        for recorder in self._recorders:
            recorder.follow()

    def take(self) -> Mapping[str, Float[Tensor, "layer row ..."]]:
        """What the pass has left, by source; resid_pre only of layers whose predecessor is not captured."""
        return {source: array for recorder in self._recorders for source, array in recorder.take().items()}

    def values_per_token(self, n_tokens: int) -> int:
        """About how many values are recorded of one token of a text, attention included."""
        config = self._model.module.config.get_text_config()
        width = {"hidden_states": 3, "qkv": 3, "mlp": 12}  # in d_model: an MLP has about 4 of them
        widths = sum(width.get(key, 0) for key in self._groups) * self._model.d_model
        heads = getattr(config, "num_attention_heads", 1) if "attention_weights" in self._groups else 0
        return max(1, len(self.layers) * (widths + heads * n_tokens))

    def _offered(self) -> list[str]:
        """The sources of all groups that the model offers; a warning names groups of which it offers none."""
        wanted = [source for sources in self._groups.values() for source in sources]
        reasons = {source: self._reason(source) for source in ([] if self._offers(wanted) else wanted)}
        reasons = {source: reason for source, reason in reasons.items() if reason}
        for key, sources in self._groups.items():
            if reasons.keys() >= set(sources):
                warnings.warn(
                    f"capture.{key}: left out, since {type(self._model.module).__name__} does not offer it "
                    f"({reasons[sources[0]]})",
                    stacklevel=4,
                )
        if reasons:
            self.notes["not_offered"] = reasons
        return [source for source in wanted if source not in reasons]

    def _offers(self, sources: Sequence[str]) -> bool:
        try:
            check_sources(self._model, sources, self.layers)
        except StrataError:
            return False
        return True

    def _reason(self, source: str) -> str | None:
        """Why the model does not offer a source at all of the layers; None if it does."""
        if self._offers([source]):
            return None
        return available_sources(self._model)[source] or "not at all of these layers"
