"""The model and the settings that a scenario is run with: its own, or the user's."""

import pytest

from src.config.capture_scenario import CaptureOverrides, CaptureScenarioConfig, GenerationOverrides
from src.config.schema import parse_config
from src.errors import StrataError
from src.scenarios.scenario import CaptureSettings, GenerationSettings, Scenario, ScenarioModel
from src.stage.entry import checked_config, compose
from src.stage.scenarios.choosing import chosen_model, scenario_identity, with_changes
from tests.fixtures.scenario_project import scenario_values


def config(*overrides: str) -> CaptureScenarioConfig:
    return checked_config(CaptureScenarioConfig, compose("capture_scenario", list(overrides)))


def scenario(**changes) -> Scenario:
    return parse_config(Scenario, scenario_values(**changes))


def model_for(values: dict, *overrides: str) -> dict:
    return chosen_model(parse_config(ScenarioModel, values), config(*overrides).model).model_dump(exclude_none=True)


DEFAULTS = {"stack": "auto", "trust_remote_code": False}


def test_the_scenario_names_a_config_a_folder_or_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    chat = {"name": "testbed_chat", "path": "testbed/models/chat", "dtype": "float32"}
    assert model_for({"id": "testbed_chat"}) == DEFAULTS | chat
    assert model_for({"id": "testbed_chat", "dtype": "bfloat16"}) == DEFAULTS | chat | {"dtype": "bfloat16"}
    assert model_for({"id": "mine"}) == DEFAULTS | {"name": "mine", "path": "mine", "dtype": "float16"}
    assert model_for({"id": "./other"}) == DEFAULTS | {"name": "other", "path": "./other", "dtype": "float16"}
    hub = {"id": "org/name", "dtype": "float32", "revision": "v2", "trust_remote_code": True}
    expected = {"name": "org/name", "dtype": "float32", "revision": "v2", "trust_remote_code": True}
    assert model_for(hub) == DEFAULTS | expected


def test_a_folder_of_the_users_own_is_read_in_the_scenarios_dtype():
    own = {"id": "org/name", "dtype": "float32", "revision": "v2"}
    assert model_for(own, "model.path=mine") == DEFAULTS | {"name": "mine", "path": "mine", "dtype": "float32"}
    assert model_for({"id": "org/name"}, "model.path=mine")["dtype"] == "auto"
    assert model_for(own, "model.path=mine", "model.dtype=bfloat16")["dtype"] == "bfloat16"


def test_a_model_of_the_users_own_takes_nothing_else_from_the_scenario():
    own = {"id": "org/name", "dtype": "float16", "revision": "v2", "trust_remote_code": True}
    assert model_for(own, "model=gpt2") == DEFAULTS | {"name": "openai-community/gpt2", "dtype": "auto"}
    assert model_for(own, "model.name=org/other") == DEFAULTS | {"name": "org/other", "dtype": "float16"}
    assert model_for(own, "model=gpt2", "model.dtype=float32")["dtype"] == "float32"
    adjusted = model_for(own, "model.dtype=bfloat16", "model.attention=eager", "model.trust_remote_code=false")
    assert adjusted == DEFAULTS | {"name": "org/name", "dtype": "bfloat16", "revision": "v2", "attention": "eager"}


def test_gguf_files_and_unnamed_configs_are_refused():
    with pytest.raises(StrataError, match=r"model\.gguf_file=a\.gguf: GGUF files are not read; save the model in"):
        model_for({"id": "org/name", "gguf_file": "a.gguf"})
    with pytest.raises(StrataError, match=r"model\.id=hub needs a value for name"):
        model_for({"id": "hub"})


def test_the_users_settings_win_and_the_rest_stays():
    asked = config("generation.max_new_tokens=20", "capture.layers=[0,2]", "capture.qkv=false", "seed=7")
    found = with_changes(scenario(capture={"preset": "full", "layers": [1]}), asked, model(), "cpu")
    assert found.generation == GenerationSettings(max_new_tokens=20)
    assert found.capture == CaptureSettings(preset="full", layers=[0, 2], qkv=False)
    assert found.prompt == scenario().prompt
    assert (found.model.id, found.model.device) == ("./model", "cpu")
    unseeded = scenario(generation={"do_sample": True, "seed": None})
    assert with_changes(unseeded, asked, model(), "cpu").generation.seed == 7
    assert with_changes(unseeded, config("generation.seed=3"), model(), "cpu").generation.seed == 3


def model():
    return chosen_model(ScenarioModel(id="./model", dtype="float32"), config().model)


def test_only_what_changes_numbers_is_in_the_identity():
    plain = scenario_identity(scenario())
    same = [
        {"name": "other"},
        {"model": {"id": "x", "device": "cuda"}},
        {"output": {"dir": "elsewhere"}},
        {"generation": {"max_new_tokens": 4, "temperature": 0.3, "seed": 1}},  # greedy
    ]
    assert all(scenario_identity(scenario(**change)) == plain for change in same)
    others = [
        {"generation": {"max_new_tokens": 5}},
        {"generation": {"max_new_tokens": 4, "do_sample": True}},
        {"capture": {"layers": [0]}},
        {"reference_states": []},
    ]
    assert all(scenario_identity(scenario(**change)) != plain for change in others)
    sampled = [{"generation": {"do_sample": True, "seed": seed}} for seed in (1, 2)]
    assert scenario_identity(scenario(**sampled[0])) != scenario_identity(scenario(**sampled[1]))
    turned = [scenario_identity(scenario(capture={"layers": layers})) for layers in ([0, 2], [2, 0])]
    assert turned[0] == turned[1]


def test_the_keys_are_those_of_a_scenario():
    """What may be set on the command line is what a file may hold, with the same limits."""
    overrides = {"generation": GenerationOverrides, "capture": CaptureOverrides}
    blocks = {"generation": GenerationSettings, "capture": CaptureSettings}
    for name, schema in blocks.items():
        keys = overrides[name].model_fields
        assert list(keys) == list(schema.model_fields)
        for key, field in schema.model_fields.items():
            assert keys[key].description == field.description
    for override in ("generation.top_p=1.5", "generation.temperature=0", "capture.layers=[-1]", "capture.preset=all"):
        with pytest.raises(StrataError, match=override.split("=")[0]):
            config(override)
