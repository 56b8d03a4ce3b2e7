"""Evaluate transport operators on the documents that nothing was fitted on, beside the baselines that need no fit.

  python eval.py                                     every operator that was fitted on the store
  python eval.py eval.Ls=[0,1] eval.ks=[1,2]
  python eval.py operators=NAME bootstrap=2000       operators of one artifact

R2, MSE, cosine and skill against the identity, each with a 95 % interval from a bootstrap over documents, with BOS rows
left out (and, once, with them). Writes JSON, parquet, PNG and HTML.
"""

from src.artifacts import Artifact, label
from src.config.stages import EvalConfig
from src.stage import Stage, entry_point


def run(config: EvalConfig, stage: Stage) -> Artifact:
    """Judge the operators, or show what an earlier run found."""
    from src.report import evaluation as show
    from src.report.records import write_records
    from src.stage.operators import find_operators, judge_operators, split_of
    from src.stage.stores import find_store
    from src.transport.bootstrap import FEW_DOCUMENTS, DocumentBootstrap

    store = find_store(stage, config.activations, config.model, config.dataset)
    operators = find_operators(config, stage, store)
    parents = list(dict.fromkeys(saved.artifact.parent for saved in operators.values()))
    pairs = [pair.identity() for pair in operators]
    identity = {"pairs": pairs, "bootstrap": config.bootstrap, "seed": config.seed}
    plan = stage.plan(
        "evaluation", label(config.model.name, "residual"), identity, [store.artifact.parent, *parents], config.name
    )
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        return finished

    split = split_of(store, operators)
    if split.n_test_documents < FEW_DOCUMENTS:
        stage.warn(f"only {split.n_test_documents} test documents: intervals from so few are too narrow; collect more")
    bootstrap = DocumentBootstrap(config.bootstrap, config.seed)
    evaluations = judge_operators(operators, store, split, bootstrap, stage.device, stage)
    details = [table for table in (show.residual_table(evaluations), show.bos_table(evaluations)) if table is not None]
    with stage.create(plan) as draft:
        names = {pair: saved.artifact.meta.name for pair, saved in operators.items()}
        write_records(draft.path / "residual", show.residual_records(evaluations, names))
        fitted = show.fitted_as(evaluations)
        documents = f"{split.n_test_documents:,} test documents of {store.path.name}"
        text = f"{len(operators)} operators ({fitted}) on {documents}, beside their baselines."
        figures = show.residual_figures(evaluations)
        title = "Evaluation of transport operators"
        metrics = show.operator_metrics(evaluations)
        stage.report(draft, title, text, [show.summary_table(evaluations)], figures, details, metrics)
    return stage.finished(plan)


main = entry_point(run, EvalConfig, "eval")

if __name__ == "__main__":
    main()
