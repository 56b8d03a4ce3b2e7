"""Run every stage in order and write one report of it all: artifacts/index.html.

  python run_pipeline.py                                            the testbed: what `make demo` does
  python run_pipeline.py model=gpt2 dataset=wikitext2 num_tokens=50000 experiment.L=[3,6] experiment.k=[1,2]
  python run_pipeline.py model=gemma_2_2b sae=gemma_scope_res dataset=slimpajama layers=[9,10]

Each override goes to every stage that has its key. A stage whose artifact is there already is not run again.
"""

import sys

import align_models
import analyse_run
import capture_scenario
import causal_eval
import collect_activations
import compare_runs
import eval
import eval_modulator
import explain_features
import measure_geometry
import measure_topology
import score_features
import train_modulator
import train_transport_operators
from src.config.analyse_run import AnalyseRunConfig
from src.config.capture_scenario import CaptureScenarioConfig
from src.config.causal import CausalEvalConfig
from src.config.compare_runs import CompareRunsConfig
from src.config.explain_features import ExplainConfig
from src.config.geometry.alignment import AlignmentConfig
from src.config.geometry.stage import GeometryConfig
from src.config.modulators.evaluate import EvaluateModulatorConfig
from src.config.modulators.train import TrainModulatorConfig
from src.config.score_features import ScoreFeaturesConfig
from src.config.stages import CollectConfig, EvalConfig, TransportConfig
from src.config.topology import TopologyConfig
from src.errors import StrataError
from src.stage.entry import interrupts, quoted
from src.stage.pipeline import PipelineStage, run_stages

# cycles of words whose circles are looked for in the residual stream
WEEKDAYS = "monday,tuesday,wednesday,thursday,friday,saturday,sunday"
MONTHS = "january,february,march,april,may,june,july,august,september,october,november,december"
_CYCLE = ("contexts=all", "cyclic_labels=true", "subsamples.draws=0", "nulls.models=[gaussian]")

STAGES = (
    PipelineStage("collect_activations", collect_activations.run, CollectConfig),
    PipelineStage(
        "train_transport_operators",
        train_transport_operators.run,
        TransportConfig,
        ("experiment.L=all", "experiment.k=all"),
    ),
    PipelineStage("score_features", score_features.run, ScoreFeaturesConfig, needs="sae"),
    PipelineStage("explain_features", explain_features.run, ExplainConfig, needs="sae"),
    PipelineStage("eval", eval.run, EvalConfig, with_saes=("run_features=true",)),
    PipelineStage(
        "causal_eval",
        causal_eval.run,
        CausalEvalConfig,
        ("causal_eval.max_samples=32",),
        with_saes=(
            "interventions=[transport,rotated,identity,null,mean,resample,zero,ablate_features,transport_features]",
            "features.max_features=2",
        ),
    ),
    PipelineStage(
        "measure_topology",
        measure_topology.run,
        TopologyConfig,
        ("tokens=all", "n_points=200", "nulls.models=[gaussian]", "nulls.draws=19", "subsamples.draws=20"),
    ),
    *(
        PipelineStage("measure_topology", measure_topology.run, TopologyConfig, (f"tokens=[{words}]", *_CYCLE))
        for words in (WEEKDAYS, MONTHS)
    ),
    PipelineStage(
        "measure_geometry",
        measure_geometry.run,
        GeometryConfig,
        ("simplices.null_draws=19", "simplices.n_simplices=20000"),
    ),
    PipelineStage("align_models", align_models.run, AlignmentConfig, needs="target"),
    PipelineStage(
        "train_modulator",
        train_modulator.run,
        TrainModulatorConfig,
        (
            *("training.steps=40", "training.evaluate_every=20", "training.lr=0.01"),
            *("controls=[zero,shuffled,lora]", "num_sequences=500", "max_length=64"),
        ),
        needs="modulator",
    ),
    PipelineStage(
        "eval_modulator",
        eval_modulator.run,
        EvaluateModulatorConfig,
        ("measures=[predictions,sweep,generations]", "generation.num_prompts=3"),
        needs="modulator",
        takes={"modulator": "trained_modulator"},
    ),
    PipelineStage("capture_scenario", capture_scenario.run, CaptureScenarioConfig, needs="scenario"),
    PipelineStage(
        "compare_runs", compare_runs.run, CompareRunsConfig, needs="scenario", takes={"scenario_run": "runs"}
    ),
    PipelineStage("analyse_run", analyse_run.run, AnalyseRunConfig, needs="scenario", takes={"scenario_run": "run"}),
)


def main() -> None:
    """Run the stages with the overrides of the command line, then write the report."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        scripts = ", ".join(f"{stage.config_name}.py" for stage in STAGES)
        print(f"{__doc__}\nThe keys of a stage: --help of {scripts}")
        return
    with interrupts("run_pipeline"):
        try:
            artifacts = run_stages(STAGES, [quoted(word) for word in sys.argv[1:]])
            from src.report.index import write_index

            print(f"report: {write_index(artifacts)}")
        except StrataError as error:
            sys.exit(f"run_pipeline: {error}")


if __name__ == "__main__":
    main()
