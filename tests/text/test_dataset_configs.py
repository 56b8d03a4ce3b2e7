from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from src.config.schema import parse_config
from src.config.shared import DatasetConfig
from src.text import local_files

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(path.stem for path in (CONFIGS / "dataset").glob("[!_]*.yaml"))


def composed(*overrides):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(overrides=[f"+{overrides[0]}", *overrides[1:]])
    return parse_config(DatasetConfig, OmegaConf.to_container(config.dataset, throw_on_missing=True))


def test_all_are_here():
    expected = [
        "slimpajama",
        "testbed",
        "testbed_chats",
        "testbed_heldout",
        "text_files",
        "the_stack_json",
        "wikitext2",
    ]
    assert expected == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_composes_to_a_valid_config(name):
    config = composed(f"dataset={name}", *(["dataset.dataset_name=a.txt"] if name == "text_files" else []))
    assert config.dataset_name
    if name.startswith("testbed"):
        assert [path.stem for path in local_files(config)] == [config.dataset_split]


def test_text_files_wants_a_path():
    with pytest.raises(MissingMandatoryValue, match=r"dataset_name"):
        composed("dataset=text_files")
