"""The model that a store was collected with, for stages that go on with it."""

from src.activations.store import ActivationStore
from src.config.shared import ModelConfig
from src.errors import StrataError
from src.models import LanguageModel, load_model
from src.stage.context import Stage

# where a model lies may differ; what it is may not
_PLACE = ("name", "path", "revision")


def load_model_of(store: ActivationStore, config: ModelConfig, stage: Stage) -> LanguageModel:
    """Load a model onto the stage's device. Raises StrataError if it is not the one that the store was collected with.

    (Weights are compared by their digest, so a retrained or edited model is another one.)
    """
    model = load_model(config, stage.device)
    collected, found = store.artifact.meta.identity["model"], model.identity()
    differing = [key for key in found if key not in _PLACE and collected.get(key) != found[key]]
    if differing:
        raise StrataError(
            f"{store.path} was not collected with this model={config.name}: they differ in {', '.join(differing)}. "
            f"Choose the model of the store, {store.model_name}, as it was then, or collect again with this one"
        )
    return model
