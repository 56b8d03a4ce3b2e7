"""Edit the residual stream of a running model, and measure what that does to its predictions.

  python causal_eval.py                                                  every operator there is, at every position
  python causal_eval.py causal_eval=single_js causal_eval.L=[0,1,2] causal_eval.k=[1,2]
  python causal_eval.py causal_eval.L=2 causal_eval.k=1 interventions=[transport,zero]
  python causal_eval.py method=[ridge,procrustes]                        several methods side by side
  python causal_eval.py eval_mode=baselines interventions=[zero,resample]

resid_post of layer L + k is replaced by the operator's prediction from layer L, and by what that is compared with: a
rotated operator, the source copied, the operator's bias, the mean, another sequence's activation, zero. One clean pass
per batch, then only the layers after the edit. Scored are sequences that nothing was fitted on.
"""

from src.artifacts import Artifact, label
from src.config.causal import CausalEvalConfig
from src.stage import Stage, entry_point


def run(config: CausalEvalConfig, stage: Stage) -> Artifact:
    """Score every condition, or show what an earlier run found."""
    from src.report import causal as show
    from src.report.causal_records import causal_metrics, condition_records, distance_records
    from src.report.records import write_records
    from src.stage.causal import evaluate, prepare

    work = prepare(config, stage)
    plan = stage.plan(
        "causal_evaluation", label(config.model.name, work.which), work.identity(), work.parents, config.name
    )
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        return finished

    with stage.create(plan) as draft:
        evaluation = evaluate(work, stage, draft.path)
        artifacts = {
            (pair, name): saved.artifact.meta.name
            for pair, operators in work.subjects.saved.items()
            for name, saved in operators.items()
        }
        write_records(draft.path / "conditions", condition_records(evaluation, artifacts))
        write_records(draft.path / "by_distance", distance_records(evaluation))
        methods, dataset = work.subjects.methods, config.dataset.dataset_name
        n_directions = None if work.directions is None else work.directions.count(work.subjects.targets)
        n_features = None if work.features is None else work.features.count
        text = show.result_text(evaluation, methods, work.subjects.hook, dataset, n_directions, n_features)
        tables, details = show.result_tables(evaluation, " at ".join(filter(None, (methods, work.subjects.hook))))
        figures, metrics = show.causal_figures(evaluation), causal_metrics(evaluation)
        stage.report(draft, "Causal evaluation", text, tables, figures, details, metrics)
    return stage.finished(plan)


main = entry_point(run, CausalEvalConfig, "causal_eval")

if __name__ == "__main__":
    main()
