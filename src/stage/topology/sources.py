"""Where clouds come from: an activation store, a model that reads prompts, or files."""

from src.config.topology import TopologyConfig
from src.stage.context import Stage
from src.stage.topology.cloud import CloudSource
from src.stage.topology.file_source import FileSource


def find_source(config: TopologyConfig, stage: Stage) -> CloudSource:
    """The source that the config names; what can't be found or does not fit is told here, before any work.

    Raises:
        StrataError: no such store or file, a hook or layer that is not there, words that are no tokens.
    """
    if config.source == "files":
        return FileSource(config)
    # Transformers takes seconds to import, and files need no model
    from src.stage.topology.prompt_source import PromptSource
    from src.stage.topology.store_source import StoreSource

    return StoreSource(config, stage) if config.source == "store" else PromptSource(config, stage)
