"""The model that several scenarios are read with in turn."""

from src.config.shared import ModelConfig
from src.models import LanguageModel, load_model
from src.stage.context import Stage


class LoadedModel:
    """The model that was asked for last; it is loaded again only when another one is asked for."""

    def __init__(self) -> None:
        self._key: tuple[ModelConfig, str] | None = None
        self._model: LanguageModel | None = None

    def get(self, config: ModelConfig, stage: Stage) -> LanguageModel:
        """A model on the stage's device. Raises StrataError as `load_model` does."""
        key = (config, str(stage.device))
        if self._model is None or self._key != key:
            self._key, self._model = key, None  # the old one makes room first
            self._model = load_model(config, stage.device)
        return self._model
