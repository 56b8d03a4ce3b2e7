"""Evaluate transport operators on the documents that nothing was fitted on, beside the baselines that need no fit.

  python eval.py                                     every operator that was fitted on the store
  python eval.py eval.Ls=[0,1] eval.ks=[1,2]
  python eval.py operators=NAME bootstrap=2000       operators of one artifact
  python eval.py run_matched_rank=true               and maps of every rank against their ceiling
  python eval.py matched_rank_only=true matched_rank.permutations=99
  python eval.py run_features=true                   and single features of an SAE at each target layer

R2, MSE, cosine and skill against the identity, each with a 95 % interval from a bootstrap over documents, with BOS rows
left out (and, once, with them). Writes JSON, parquet, PNG and HTML.
"""

from src.artifacts import Artifact, label
from src.config.stages import EvalConfig
from src.stage import Stage, entry_point


def run(config: EvalConfig, stage: Stage) -> Artifact:
    """Judge the operators, or show what an earlier run found."""
    from src.report.assessment import Assessment, write_assessment
    from src.stage.feature_evaluation import judge_features, prepare_features
    from src.stage.matched_rank import match_operators
    from src.stage.operators import find_operators, judge_operators, split_of
    from src.stage.stores import find_store
    from src.transport.bootstrap import FEW_DOCUMENTS, DocumentBootstrap
    from src.transport.matched_rank import RankSettings

    store = find_store(stage, config.activations, config.model, config.dataset)
    operators = find_operators(config, stage, store)
    parents = list(dict.fromkeys(saved.artifact.parent for saved in operators.values()))
    pairs = [pair.identity() for pair in operators]
    identity = {"pairs": pairs, "bootstrap": config.bootstrap, "seed": config.seed}
    parts = [] if config.matched_rank_only else ["residual"]
    settings = RankSettings.of(config.matched_rank, store.layout.d_model)
    if config.matches_ranks:
        parts.append("rank")
        identity |= {"matched_rank": settings.identity(), "residual": not config.matched_rank_only}
    work = prepare_features(config, stage, store, operators) if config.run_features else None
    if work is not None:
        parts.append("features")
        parents += work.parents
        identity |= {"features": work.identity, "residual": not config.matched_rank_only}
    name = label(config.model.name, *parts)
    plan = stage.plan("evaluation", name, identity, [store.artifact.parent, *parents], config.name)
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        return finished

    split = split_of(store, operators)
    if split.n_test_documents < FEW_DOCUMENTS:
        stage.warn(f"only {split.n_test_documents} test documents: intervals from so few are too narrow; collect more")
    bootstrap = DocumentBootstrap(config.bootstrap, config.seed)
    residual = ranks = features = None
    if not config.matched_rank_only:
        residual = judge_operators(operators, store, split, bootstrap, stage.device, stage)
    if config.matches_ranks:
        ranks = match_operators(operators, store, split, settings, bootstrap, stage)
    if work is not None:
        features = judge_features(work, store, split, stage)
    documents = f"{split.n_test_documents:,} test documents of {store.path.name}"
    found = Assessment(operators, residual, ranks, settings.ranks, features, documents)
    with stage.create(plan) as draft:
        write_assessment(draft.path, found)
        title = "Evaluation of transport operators"
        stage.report(draft, title, found.text, found.tables, found.figures, found.details, found.metrics)
    return stage.finished(plan)


main = entry_point(run, EvalConfig, "eval")

if __name__ == "__main__":
    main()
