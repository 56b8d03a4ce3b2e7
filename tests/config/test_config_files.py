"""Every config file composes and passes its schema."""

import pytest
from omegaconf import OmegaConf

from src.config.schema import flat_keys, parse_config
from src.config.stages import CollectConfig, EvalConfig, TransportConfig
from src.errors import StrataError
from src.stage.entry import CONFIGS, compose

STAGES = {"collect_activations": CollectConfig, "train_transport_operators": TransportConfig, "eval": EvalConfig}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("[!_]*.yaml"))


def checked(stage: str, *overrides: str):
    return parse_config(STAGES[stage], OmegaConf.to_container(compose(stage, list(overrides)), resolve=True))


@pytest.mark.parametrize("stage", STAGES)
def test_defaults_pass_the_schema_and_every_key_is_explained(stage):
    checked(stage)
    assert all(info.help for _, info in flat_keys(STAGES[stage]))


@pytest.mark.parametrize("stage", STAGES)
def test_every_primary_config_has_a_test(stage):
    primary = {path.stem for path in CONFIGS.glob("*.yaml")} - {"stage_defaults"}
    assert primary == set(STAGES)


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, option) for group in ("model", "dataset", "logger") for option in options(group)],
)
def test_every_option_of_every_group_passes(group, option):
    # options whose user must name something
    more = {"text_files": ["dataset.dataset_name=some/path"], "hub": ["model.name=org/name"]}.get(option, [])
    checked("collect_activations", f"{group}={option}", *more)


def test_the_issue_s_models_and_datasets_are_there():
    models = "testbed testbed_chat testbed_small gpt2 distilgpt2 pythia_70m pythia_160m pythia_410m qwen2_5_0_5b"
    models += " smollm2_135m smollm2_360m opt_125m gpt_neo_125m gemma_2_2b gemma_2_9b"
    assert set(models.split()) <= set(options("model"))
    assert {"testbed", "wikitext2", "slimpajama", "the_stack_json", "text_files"} <= set(options("dataset"))


def test_shares_that_do_not_sum_to_one_are_refused():
    with pytest.raises(StrataError, match=r"split.*1\.2.*must be 1"):
        checked("train_transport_operators", "split.test=0.4")
