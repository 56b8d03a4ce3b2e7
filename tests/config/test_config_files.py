"""Every config file composes and passes its schema."""

from typing import get_args

import pytest
from omegaconf import OmegaConf

from src.config.analyse_run import AnalyseRunConfig
from src.config.capture_scenario import CaptureScenarioConfig
from src.config.causal import CausalEvalConfig
from src.config.compare_runs import CompareRunsConfig
from src.config.compare_topology import CompareTopologyConfig
from src.config.explain_features import ExplainConfig
from src.config.geometry.alignment import AlignmentConfig
from src.config.geometry.comparison import CompareGeometryConfig
from src.config.geometry.stage import GeometryConfig
from src.config.modulators.evaluate import EvaluateModulatorConfig
from src.config.modulators.train import TrainModulatorConfig
from src.config.plot_heatmap import PlotHeatmapConfig
from src.config.scaling import ScalingConfig
from src.config.schema import flat_keys, parse_config
from src.config.score_features import ScoreFeaturesConfig
from src.config.stages import CollectConfig, EvalConfig, TransportConfig
from src.config.topology import TopologyConfig
from src.config.train_sae import TrainSaeConfig
from src.errors import StrataError
from src.stage.entry import CONFIGS, compose

STAGES = {
    "collect_activations": CollectConfig,
    "train_transport_operators": TransportConfig,
    "scaling_study": ScalingConfig,
    "train_sae": TrainSaeConfig,
    "eval": EvalConfig,
    "causal_eval": CausalEvalConfig,
    "explain_features": ExplainConfig,
    "score_features": ScoreFeaturesConfig,
    "measure_topology": TopologyConfig,
    "compare_topology": CompareTopologyConfig,
    "align_models": AlignmentConfig,
    "capture_scenario": CaptureScenarioConfig,
    "plot_heatmap": PlotHeatmapConfig,
    "analyse_run": AnalyseRunConfig,
    "compare_runs": CompareRunsConfig,
    "measure_geometry": GeometryConfig,
    "compare_geometry": CompareGeometryConfig,
    "train_modulator": TrainModulatorConfig,
    "eval_modulator": EvaluateModulatorConfig,
}


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


@pytest.mark.parametrize("option", options("protocol"))
def test_every_protocol_passes(option):
    assert checked("measure_topology", f"protocol={option}").protocol.name == option


@pytest.mark.parametrize("option", options("causal_eval"))
def test_every_option_of_causal_eval_passes(option):
    config = checked("causal_eval", f"causal_eval={option}", "causal_eval.L=[0,1]")
    assert (config.causal_eval.L, config.causal_eval.k) == ([0, 1], "all")


@pytest.mark.parametrize("option", options("architecture"))
def test_every_architecture_has_the_keys_that_it_heeds(option):
    config = checked("train_sae", f"architecture={option}")
    assert config.architecture == option
    assert set(options("architecture")) == set(get_args(TrainSaeConfig.model_fields["architecture"].annotation))
    width = config.width(128)
    assert width == 1024
    if option == "matryoshka_batchtopk":
        assert config.architecture_keys(width)["matryoshka_widths"] == [128, 256, 512, 1024]
    if option == "jumprelu":
        assert config.architecture_keys(width) == {"l0_coefficient": 1.0, "l0_warm_up_steps": 98}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["architecture=standard", "k=16"], r"^k: not for architecture=standard, it has l1_coefficient$"),
        (["architecture=topk", "k=null"], r"^architecture=topk needs k: set it$"),
        (["architecture=topk", "k=2.5"], r"^k=2\.5 is no whole number"),
        (["l1_coefficient=1.0"], r"^l1_coefficient: not for architecture=topk, it has k$"),
        (["matryoshka_widths=[2,4]"], r"^matryoshka_widths: not for architecture=topk"),
        (
            ["normalize_activations=layer_norm"],
            r"^normalize_activations=layer_norm does not go with the auxiliary loss",
        ),
        (["warm_up=0.6", "decay=0.6"], r"^warm_up \+ decay is 1\.2 of the run"),
        (["tokens=100"], r"^tokens=100 is less than one step of batch_size=2048"),
        (["buffer_tokens=3000"], r"^buffer_tokens=3000 must hold 2 steps"),
        (["source=model", "activations=x"], r"^activations names a store, and source=model reads none"),
        (["d_sae=1"], r"^d_sae: 1 is not allowed: .*greater than or equal to 2"),
    ],
)
def test_saes_that_can_t_be_trained_are_refused(overrides, message):
    with pytest.raises(StrataError, match=message) as error:
        checked("train_sae", *overrides)
    assert len(str(error.value).splitlines()) == 1


def test_the_issue_s_models_and_datasets_are_there():
    models = "testbed testbed_chat testbed_small gpt2 distilgpt2 pythia_70m pythia_160m pythia_410m qwen2_5_0_5b"
    models += " smollm2_135m smollm2_360m opt_125m gpt_neo_125m gemma_2_2b gemma_2_9b"
    assert set(models.split()) <= set(options("model"))
    assert {"testbed", "wikitext2", "slimpajama", "the_stack_json", "text_files"} <= set(options("dataset"))


def test_shares_that_do_not_sum_to_one_are_refused():
    with pytest.raises(StrataError, match=r"split.*1\.2.*must be 1"):
        checked("train_transport_operators", "split.test=0.4")


@pytest.mark.parametrize(
    ("stage", "override", "message"),
    [
        ("collect_activations", "layers=[]", r"^layers: \[\] is not allowed; expected .*with length >= 1"),
        ("compare_runs", "runs=", r"^runs: '' is not allowed: .*at least 1 character"),
        ("compare_runs", "runs=[a,'']", r"^runs: '' is not allowed: .*at least 1 character"),
        ("compare_runs", "runs=3", r"^runs: 3 is not allowed; expected str \| list of str with length >= 1 \| null"),
        ("analyse_run", "steps=3", r"^steps: 3 is not allowed: a list is written \[3\]; expected list of int"),
        ("analyse_run", "analyses=pca", r"^analyses: 'pca' is not allowed: a list is written \[pca\]; expected list"),
        ("analyse_run", "analyses=[pcs]", r"^analyses: 'pcs' is not allowed; expected list of logit_lens"),
        ("collect_activations", "layers=[0,-1]", r"^layers: -1 is not allowed: .*greater than or equal to 0$"),
        ("train_transport_operators", "experiment.L=[]", r"^experiment\.L: \[\] is not allowed; expected"),
        ("train_transport_operators", "experiment.k=[]", r"^experiment\.k: \[\] is not allowed; expected"),
        ("eval", "eval.Ls=[]", r"^eval\.Ls: \[\] is not allowed; expected"),
        ("eval", "eval.ks=[0]", r"^eval\.ks: 0 is not allowed: .*greater than or equal to 1$"),
        ("train_transport_operators", "cv_folds=126", r"^cv_folds: 126 is not allowed: .*less than or equal to 125$"),
        ("eval", "threads=0", r"^threads: 0 is not allowed: .*greater than or equal to 1$"),
        ("eval", f"seed={2**63}", r"^seed: 9223372036854775808 is not allowed: .*less than or equal to"),
        ("eval", "name=a/b", r"^name: 'a/b' is not allowed: use letters, digits and \. _ = \+ - .*at most 100 char"),
        ("eval", "name=.hidden", r"^name: '\.hidden' is not allowed: use letters"),
        ("eval", f"name={101 * 'x'}", r"^name: 'xxx.* is not allowed: use letters.*at most 100 characters"),
        ("collect_activations", "num_workers=2", r"^set num_workers and worker_index together, or neither$"),
        ("collect_activations", "worker_index=0", r"^set num_workers and worker_index together, or neither$"),
    ],
)
def test_what_no_stage_could_use_is_refused_with_the_config(stage, override, message):
    with pytest.raises(StrataError, match=message) as error:
        checked(stage, override)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["causal_eval.js=[[3,-1]]"], r"^causal_eval\.js: -1 is not allowed: .*greater than or equal to 0$"),
        (
            ["causal_eval.js=[3]"],
            r"^causal_eval\.js: 3 is not allowed; expected list of list of int .*experiment of its",
        ),
        (["causal_eval.js=[[]]"], r"^causal_eval\.js: \[\] is not allowed"),
        (["causal_eval.js=[[7,256]]"], r"^causal_eval: .*position 256 is beyond max_length=256, .* 0\.\.255"),
        (["causal_eval.min_length=300"], r"^causal_eval: .*min_length=300 exceeds max_length=256"),
        (
            ["eval_mode=baselines", "interventions=[zero,transport]"],
            r"^interventions: transport need a fitted operator",
        ),
        (["causal_eval.max_samples=1"], r"^resampling takes activations from another sequence .*without resample"),
        (["batch_size=1"], r"^resampling takes activations from another sequence"),
        (["interventions=[zap]"], r"^interventions: 'zap' is not allowed; expected .*transport"),
    ],
)
def test_interventions_that_can_t_be_made_are_refused(overrides, message):
    with pytest.raises(StrataError, match=message) as error:
        checked("causal_eval", *overrides)
    assert len(str(error.value).splitlines()) == 1


def test_the_order_of_positions_and_interventions_does_not_matter():
    words = ("causal_eval.js=[[6,2,6],[3],[2,6]]", "interventions=[zero,transport]")
    config = checked("causal_eval", *words, "batch_size=1")
    assert config.causal_eval.js == [[2, 6], [3]]
    assert config.wanted == ("transport", "zero")
    assert checked("causal_eval", "eval_mode=baselines").wanted == ("identity", "mean", "resample", "zero")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=linear", "alphas=[3]"], r"^regularization and alphas mean nothing to method=linear"),
        (["method=jacobian", "regularization=3"], r"^regularization and alphas mean nothing to method=jacobian"),
        (["method=procrustes", "normalize=true"], r"^normalize=true means nothing to method=procrustes"),
        (["method=identity", "target=delta"], r"^target=delta means nothing to method=identity"),
        (["method=lasso", "alpha_per_output=true"], r"^alpha_per_output=true needs method=ridge and auto_tune=true"),
        (["alpha_per_output=true", "auto_tune=false"], r"^alpha_per_output=true needs method=ridge and auto_tune=true"),
        (["method=elasticnet", "l1_ratio=0.0"], r"^l1_ratio: 0\.0 is not allowed: .*greater than 0"),
        (["method=lasso", "alphas=[]"], r"^alphas: \[\] is not allowed"),
    ],
)
def test_keys_that_a_method_can_t_heed_are_refused(overrides, message):
    with pytest.raises(StrataError, match=message):
        checked("train_transport_operators", *overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "fractions=[0.05,1.0]",
            r"^fractions: 0\.05 of 20 blocks is 1 block, and .* needs 2: .* set blocks=40 or more$",
        ),
        ("fractions=[0.02,1.0]", r"^fractions: 0\.02 of 20 blocks is 0 blocks"),
        ("fractions=[0.5,0.51]", r"^fractions: 0\.5 and 0\.51 are both 10 blocks of 20: leave one out"),
        ("fractions=[0.5,0.5]", r"^fractions: a curve needs 2 different fractions"),
        ("fractions=[0.5]", r"^fractions: \[0\.5\] is not allowed; expected .*with length >= 2"),
        ("fractions=[0.5,1.5]", r"^fractions: 1\.5 is not allowed: .*less than or equal to 1"),
        ("method=jacobian", r"^method: 'jacobian' is not allowed: subsets are fitted from moments"),
        ("cv_folds=21", r"^cv_folds=21 needs as many blocks, and there are 20"),
        ("test_blocks=108", r"^blocks and test_blocks must be at most 127 together"),
        ("test_blocks=1", r"^test_blocks: 1 is not allowed: .*greater than or equal to 2"),
        ("plateau=0.0", r"^plateau: 0\.0 is not allowed: .*greater than 0"),
        ("split.test=0.4", r"^split: .*must be 1"),
    ],
)
def test_scaling_studies_that_have_no_curve_are_refused(override, message):
    with pytest.raises(StrataError, match=message) as error:
        checked("scaling_study", override)
    assert len(str(error.value).splitlines()) == 1


def test_a_scaling_study_fits_as_operators_are_fitted_by_default():
    fit, study = checked("train_transport_operators").model_dump(), checked("scaling_study").model_dump()
    assert {key: study[key] for key in fit} == fit
    assert checked("scaling_study", "fractions=[1,0.5]").fractions == [0.5, 1.0]
    assert checked("scaling_study", "test_blocks=107").test_blocks == 107


def test_limits_themselves_are_allowed():
    config = checked("eval", f"seed={2**63 - 1}", "threads=1", f"name={100 * 'x'}")
    assert (config.seed, config.threads, len(config.name)) == (2**63 - 1, 1, 100)
    assert checked("train_transport_operators", "cv_folds=125").cv_folds == 125


def test_the_order_of_hooks_does_not_matter():
    one, other = (
        checked("collect_activations", f"hooks={hooks}")
        for hooks in ("[resid_post,mlp_out,resid_pre]", "[mlp_out,resid_pre,resid_post,mlp_out]")
    )
    assert one.hooks == other.hooks == ["resid_pre", "mlp_out", "resid_post"]


def test_the_intervention_null_may_be_written_as_yaml_reads_it():
    config = checked("causal_eval", "interventions=[null,zero]")
    assert config.wanted == ("null", "zero")


def test_what_keys_of_a_section_are_wrong_about_together_is_told_without_the_section():
    with pytest.raises(StrataError, match=r"^causal_eval: position 400 is beyond max_length=256"):
        checked("causal_eval", "causal_eval.js=[[10],[400]]")
