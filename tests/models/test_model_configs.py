"""Every model config composes, and is a ModelConfig."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from src.config.schema import parse_config
from src.config.shared import ModelConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml") if not path.stem.startswith("_"))


def _composed(overrides: list[str]) -> ModelConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = compose(overrides=overrides)
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    assert list(values) == ["model"]
    return parse_config(ModelConfig, values["model"])


@pytest.mark.parametrize("name", NAMES)
def test_model_config(name: str) -> None:
    # the option for any model of the hub has no name of its own
    named = ["model.name=org/name"] if name == "hub" else []
    config = _composed([f"+model={name}", *named])
    if name.startswith("testbed"):
        assert (config.path or "").startswith("testbed/models/")
    else:
        assert (config.path, config.name.count("/")) == (None, 1)
    assert not config.trust_remote_code


def test_keys_can_be_overridden() -> None:
    config = _composed(["+model=gpt2", "model.path=/somewhere", "model.dtype=float16"])
    assert (config.name, config.path, config.dtype) == ("openai-community/gpt2", "/somewhere", "float16")


def test_the_models_of_the_readme_are_there() -> None:
    assert {"testbed", "testbed_chat", "testbed_small", "gpt2", "pythia_70m", "qwen2_5_0_5b", "gemma_2_2b"} <= set(
        NAMES
    )
