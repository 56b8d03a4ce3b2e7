"""Which sources a scenario asks for, and which of them an architecture offers."""

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Self

from jaxtyping import Float, Int
from torch import Tensor

from src.errors import StrataError
from src.models import LanguageModel
from src.models.recording import ActivationRecorder
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
        with ExitStack() as hooks:
            for key, sources in self._groups.items():
                self._enter_group(hooks, key, sources)
            self._hooks = hooks.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()
        self._recorders = []

    def want(self, batch: Int[Tensor, "row"], position: Int[Tensor, "row"]) -> None:
        """The tokens to take from the next pass."""
        for recorder in self._recorders:
            recorder.want(batch, position)

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

    def _enter_group(self, hooks: ExitStack, key: str, sources: tuple[str, ...]) -> None:
        parts = [(sources, self.layers)]
        if key == "hidden_states":
            parts = [(("resid_pre",), kept_resid_pre(self.layers)), (("resid_post",), self.layers)]
            parts += [(("attn_out", "mlp_out"), self.layers)]
        for names, layers in parts:
            try:
                self._recorders.append(hooks.enter_context(ActivationRecorder(self._model, names, layers)))
            except StrataError as error:
                if "resid_post" in names or "resid_pre" in names:
                    raise
                reasons = self.notes.setdefault("not_offered", {})
                assert isinstance(reasons, dict)
                reasons[", ".join(names)] = str(error)
                warnings.warn(f"left out, since the model does not offer it: {', '.join(names)} ({error})", stacklevel=5)
