"""Evaluate a trained modulator on text that it has not seen, beside the frozen model and controls of equal strength.

  python eval_modulator.py                                      the only modulator of the testbed
  python eval_modulator.py trained_modulator=testbed-residual-lexicon-1a2b3c4d measures=[predictions]
  python eval_modulator.py trained_modulator=NAME dataset=testbed       other text, less what it was trained on
  python eval_modulator.py sweep.alphas=[0.01,0.03,0.1,0.3] generation.prompts=["on monday"]

A modulator comes from train_modulator.py; its controls and LoRA are evaluated in the same way, by name.
"""

from src.artifacts import Artifact, label
from src.config.modulators.evaluate import EvaluateModulatorConfig
from src.stage import Stage, entry_point


def run(config: EvaluateModulatorConfig, stage: Stage) -> Artifact:
    """Evaluate, or show what an earlier run found."""
    from src.report.finding import write_finding
    from src.stage.modulators.evaluating.evaluation import evaluate
    from src.stage.modulators.evaluating.work import prepare

    work = prepare(config, stage)
    plan = stage.plan(
        "modulator_evaluation", label(work.artifact.path.name), work.identity(), work.parents, config.name
    )
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
    else:
        found = evaluate(work, stage)
        with stage.create(plan) as draft:
            write_finding(draft.path, found)
            stage.report(
                draft,
                f"Evaluation of {work.artifact.path.name}",
                found.text,
                found.tables,
                found.figures,
                found.details,
                found.metrics,
            )
        finished = stage.finished(plan)
    stage.say_text(finished)
    return finished


main = entry_point(run, EvaluateModulatorConfig, "eval_modulator")

if __name__ == "__main__":
    main()
