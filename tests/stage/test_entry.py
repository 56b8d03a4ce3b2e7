"""The frame of a stage, with a small stage of the test's own in a real process where it matters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.config.geometry.alignment import AlignmentConfig
from src.config.geometry.stage import GeometryConfig
from src.config.stages import TransportConfig
from src.errors import StrataError
from src.stage.entry import check_overrides, checked_config, compose, override_key, placed, quoted

ROOT = Path(__file__).parents[2]


def run_script(name: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / f"{name}.py"), *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("experimnt.L=[0]", "experimnt.L: unknown key; did you mean experiment.L"),
        ("+experiment.M=1", "experiment.M: unknown key; did you mean experiment."),
        ("cv_fold=3", "cv_fold: unknown key; did you mean cv_folds"),
        ("sae=testbed", "sae: unknown key; did you mean "),  # a group of other stages
        ("modle=gpt2", "modle: unknown key; did you mean model"),
        ("l1ratio=0.5", "l1ratio: unknown key; did you mean l1_ratio"),
        ("model=gtp2", "model=gtp2: there is no such config; did you mean gpt2"),
        ("model=gpt2,pythia_70n", "model=pythia_70n: there is no such config; did you mean pythia_70m"),
        ("model=3", "model=3: there is no such config; choose from distilgpt2, "),
    ],
)
def test_unknown_overrides_are_refused_with_the_nearest_key(argument, message):
    with pytest.raises(StrataError) as error:
        check_overrides([argument], TransportConfig)
    assert message in str(error.value)


def test_overrides_of_keys_groups_sections_and_hydra_pass():
    words = ["experiment.L=[0,1]", "model=gpt2", "split={train: 0.5}", "hydra.job.name=x", "hydra/launcher=basic", "-m"]
    check_overrides(words, TransportConfig)


def test_a_value_for_a_section_is_refused_with_the_keys_inside():
    with pytest.raises(StrataError, match=r"^layers: is a section, .* set layers\.source, layers\.activations"):
        check_overrides(["layers=[0,1]"], GeometryConfig)
    check_overrides(["layers={source: model}", "layers.num_tokens=500"], GeometryConfig)


def test_override_key_reads_hydra_s_grammar():
    assert override_key("+experiment.L=[0,1]") == "experiment.L"
    assert override_key("model=gpt2") == "model"
    with pytest.raises(StrataError, match="is no override"):
        override_key("a=[1")


def test_paths_with_a_place_for_the_layer_need_no_quotes_of_hydra_s():
    as_users_write_it = "sae.path=artifacts/sae/NAME/layer_{layer}"
    assert quoted(as_users_write_it) == 'sae.path="artifacts/sae/NAME/layer_{layer}"'
    assert quoted("sae_path={layer}-gemmascope-res-{width}") == 'sae_path="{layer}-gemmascope-res-{width}"'
    config = compose("score_features", ["sae=local", quoted(as_users_write_it)])
    assert config.sae.path == "artifacts/sae/NAME/layer_{layer}"
    for as_it_is in ('sae.path="a/layer_{layer}"', "split={train: 0.5}", "a=x,b_{layer}", "model=gpt2", "-m", "a={b}c"):
        assert quoted(as_it_is) == as_it_is
    with pytest.raises(StrataError, match=r"""needs quotes of its own: 'sae.path="...\""""):
        override_key("sae.path=a{b}c")


def test_an_unknown_option_of_a_group_names_those_that_exist():
    with pytest.raises(StrataError, match=r"model/gpt5[\s\S]*gpt2"):
        compose("train_transport_operators", ["model=gpt5"])


@pytest.mark.parametrize("script", ["collect_activations", "train_transport_operators", "eval"])
def test_help_explains_every_key_and_imports_no_torch(script, tmp_path):
    done = run_script(script, "--help", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "experiment_name" in done.stdout
    assert "label of the study" in done.stdout
    assert "model=testbed" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "hydra" in imported
    # what makes a program wait seconds before it says anything
    assert not imported & {"torch", "transformers", "altair", "wandb", "datasets", "pandas", "sklearn"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cv_folds=x"], ["cv_folds", "'x'", "int >= 2"]),
        (["experiment.K=1"], ["experiment.K", "unknown key"]),
        (["split.train=0.9"], ["split", "it must be 1"]),
        (["dataset=text_files"], ["dataset.dataset_name"]),
    ],
)
def test_a_bad_config_is_one_message_and_a_non_zero_exit_before_torch_is_imported(arguments, words, tmp_path):
    done = run_script("train_transport_operators", *arguments, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    message = "\n".join(lines)
    for word in words:
        assert word in message
    assert "Traceback" not in message
    assert "HYDRA_FULL_ERROR" not in message
    assert "| torch" not in done.stderr
    assert not (tmp_path / "artifacts").exists()


def test_a_second_model_is_chosen_by_the_name_of_its_section():
    assert placed("target=gpt2", "align_models") == "model@target=gpt2"
    assert placed("target.dtype=float32", "align_models") == "target.dtype=float32"
    assert placed("target=gpt2", "measure_topology") == "target=gpt2"
    config = compose("align_models", ["model=testbed", "target=testbed_chat"])
    assert (config.model.path, config.target.path) == ("testbed/models/base", "testbed/models/chat")
    check_overrides(["model@target=gpt2,testbed", "target.path=x"], AlignmentConfig)
    with pytest.raises(StrataError, match=r"^target=gtp2: there is no such config; did you mean gpt2"):
        check_overrides([placed("target=gtp2", "align_models")], AlignmentConfig)


def test_a_key_that_has_no_value_is_named_as_it_is_to_be_given():
    with pytest.raises(StrataError, match=r"^dataset\.dataset_name has no value: add dataset\.dataset_name=\.\.\. to"):
        checked_config(TransportConfig, compose("collect_activations", ["dataset=text_files"]))
