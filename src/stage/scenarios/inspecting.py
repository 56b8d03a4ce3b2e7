"""inspect_run.py: what is in a captured scenario, finished or not, and what a model consists of."""

from collections.abc import Iterator
from pathlib import Path

from src.artifacts import META, Artifact, choose_artifact, open_artifact
from src.config.capture_scenario import ModelChoice
from src.config.shared import ModelConfig
from src.errors import StrataError
from src.report.scenarios import inspection as show
from src.report.tables import Table
from src.scenarios.scenario import ScenarioModel
from src.scenarios.storage.layout import CONVERSATION, KIND, REFERENCES
from src.scenarios.storage.run_folder import read_conversation, read_references, read_run, read_scenario
from src.scenarios.storage.status import STATUS, read_status
from src.stage.scenarios.choosing import chosen_model


def find_run(chosen: str, root: Path) -> Path:
    """The folder of a captured scenario by its path, or by its name below the artifacts; it may be unfinished.

    Raises StrataError if there is none; the message names those that are there.
    """
    for folder in (Path(chosen), root / KIND / chosen):
        if (folder / STATUS).is_file() and not (folder / META).exists():
            return folder
    return choose_artifact(root, KIND, chosen, [], key="run", remedy="").path


def open_run(chosen: str, root: Path) -> Artifact:
    """A finished captured scenario. Raises StrataError if there is none, or it is unfinished."""
    return open_artifact(find_run(chosen, root), KIND)


def run_tables(folder: Path, most_steps: int) -> Iterator[Table]:
    """What there is in the folder of a captured scenario, with the first steps of each run.

    Raises StrataError if something in it is damaged.
    """
    finished = (folder / META).exists()
    status = read_status(folder) if (folder / STATUS).is_file() else None
    if finished:
        meta = open_artifact(folder, KIND).meta
        names, model = list(meta.summary["conversations"]), meta.summary["model"]
    elif status is not None:
        names, model = (
            [item for item in status.items if (folder / item / CONVERSATION).is_file()],
            read_run(folder)["model"],
        )
    else:
        raise StrataError(f"{folder} holds no captured scenario")
    sizes = {name: _bytes(folder / name) for name in names}
    yield show.overview_table(folder.name, read_scenario(folder), model, status, _bytes(folder))
    if not finished and status is not None:
        yield show.item_table(status)
    conversations = [read_conversation(folder / name) for name in names]
    if conversations:
        yield show.conversation_table(conversations, sizes)
    if (folder / REFERENCES).is_dir():
        yield show.reference_table(read_references(folder / REFERENCES))
    runs = [run for conversation in conversations for run in conversation.runs()]
    if runs:
        yield show.text_table(runs)
    for run in runs if most_steps else []:
        yield show.step_table(run, most_steps)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def model_tables(name: str, trust_remote_code: bool, deepest: int) -> Iterator[Table]:
    """The modules of a model, and the sources that can be captured in it.

    name: a config of configs/model, a folder, or a hub id. Raises StrataError if the model can't be built.
    """
    from src.models.outline import outline

    config = named_model(name, trust_remote_code)
    found = outline(config, deepest)
    rows = [
        ("class", found.model),
        ("layers", found.n_layers),
        ("d_model", found.d_model),
        ("heads", found.n_heads),
        ("heads of keys and values", found.n_kv_heads),
        ("d_vocab", found.d_vocab),
        ("parameters", found.n_parameters),
        ("blocks", found.blocks),
    ]
    yield Table(config.name, ["", "value"], rows)
    yield show.tree_table(config.name, found.branches)
    caption = found.untried or ""
    if found.n_tried not in (0, found.n_layers):
        caption = f"Found with random weights and the first {found.n_tried} layers alone: the model is large."
    yield show.source_table(found.sources, caption)


def named_model(name: str, trust_remote_code: bool) -> ModelConfig:
    """The model that a scenario means by this id. Raises StrataError as chosen_model does."""
    said = ScenarioModel(id=name, trust_remote_code=trust_remote_code)
    return chosen_model(said, ModelChoice(**dict.fromkeys(ModelChoice.model_fields)))
