"""Datasets on the Hugging Face hub, streamed."""

from src.config.shared import DatasetConfig
from src.errors import StrataError
from src.text.files import Rows, missing_column, not_found_places


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


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
