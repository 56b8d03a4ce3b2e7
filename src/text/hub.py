"""Datasets on the Hugging Face hub, streamed."""

from pathlib import Path

from src.config.shared import DatasetConfig
from src.errors import StrataError
from src.text.files import Rows, missing_column, not_found_places

_TIMEOUT = 10.0  # seconds


def read_hub_rows(config: DatasetConfig) -> Rows:
    """Stream the text column of a hub dataset, as (row counted from 1, value).

    Code that ships with a dataset is never run.

    Raises StrataError: not reachable, not there, gated, no such split, configuration or column.
    """
    # a second to import, and not needed for local text
    import datasets
    from datasets.exceptions import DatasetsError

    name = config.dataset_name
    try:
        stream = datasets.load_dataset(
            name,
            name=config.dataset_config,
            data_dir=config.dataset_data_dir,
            split=config.dataset_split,
            revision=config.dataset_revision,
            streaming=True,
        )
        if isinstance(stream, dict):
            splits = ", ".join(map(str, stream))
            raise StrataError(f"dataset {name!r} has several splits: set dataset.dataset_split to one of {splits}")
        columns = stream.column_names
        if columns is not None:
            if config.text_column_name not in columns:
                raise missing_column(f"dataset {name!r}", config.text_column_name, columns)
            stream = stream.select_columns([config.text_column_name])
        for row, record in enumerate(stream, start=1):
            if config.text_column_name not in record:
                raise missing_column(f"dataset {name!r}", config.text_column_name, record)
            yield row, record[config.text_column_name]
    except OSError as error:  # unreachable, unknown, gated, or the connection broke
        raise StrataError(
            f"dataset {name!r} is neither a local path nor readable from the hub. Locally, {not_found_places(config)}. "
            f"On the hub: {_reason(error)}; check dataset.dataset_name, the network, and your access (`hf auth login`)"
        ) from error
    except (ValueError, RuntimeError, DatasetsError) as error:
        raise StrataError(f"dataset {name!r} on the hub: {_reason(error)}") from error


def pin_revision(config: DatasetConfig) -> DatasetConfig:
    """The config of a hub dataset with `dataset_revision` resolved to a commit, so that what is named is what is read.

    The hub is asked; out of its reach, the commit of the cached snapshot is taken. Where neither knows it (reading will
    then say why, or go on from some other cache), the config comes back as it is.
    """
    # half a second to import, and not needed for local text
    from huggingface_hub import HfApi, snapshot_download

    name, revision = config.dataset_name, config.dataset_revision
    try:
        commit = HfApi().dataset_info(name, revision=revision, timeout=_TIMEOUT).sha
    except Exception:  # offline, unknown, gated, or an error of whichever HTTP library the hub's client stands on
        try:
            # reads the cache alone, whose folders are named by commits
            snapshot = snapshot_download(
                name, repo_type="dataset", revision=revision, local_files_only=True, allow_patterns=[]
            )
        except (OSError, ValueError):
            return config
        commit = Path(str(snapshot)).name
    return config if commit is None else config.model_copy(update={"dataset_revision": commit})


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
