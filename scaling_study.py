"""How the R2 of transport operators grows with the training data: fits on random subsets of the training documents.

  python scaling_study.py experiment.L=[0,1,2] experiment.k=[1,2]
  python scaling_study.py fractions=[0.05,0.1,0.2,0.5,1.0] blocks=40 subsets=10
  python scaling_study.py method=linear                              any method that is fitted from moments

Deals the training documents to blocks, reads the activation store once for the moments of each, and takes all else from
sums of blocks: alpha by cross-validation within each subset, then R2 on val and test documents, beside the identity and
the identity + shift. Writes CSV, JSON, parquet, PNG and HTML.
"""

from src.artifacts import Artifact
from src.config.scaling import ScalingConfig
from src.stage import Stage, entry_point


def run(config: ScalingConfig, stage: Stage) -> Artifact:
    """Fit every pair on every subset, or show what an earlier run found."""
    from src.report import scaling as show
    from src.report.scaling_records import save_scaling
    from src.stage.fitting import prepare_fit
    from src.stage.moments import pair_products, prepare_moments
    from src.stage.stores import split_store, warn_if_lopsided
    from src.transport.scaling import draw_subsets, require_rows, study_scaling
    from src.transport.scaling_summary import growth_of

    work = prepare_fit(config, stage)
    own = config.model_dump(include={"fractions", "subsets", "blocks", "test_blocks", "plateau"})
    plan = stage.plan("scaling", work.label, work.identity | own, [work.store.artifact.parent], config.name)
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        return finished

    split = split_store(work.store, config.split, config.blocks, config.seed, config.test_blocks)
    warn_if_lopsided(stage, split)
    products = pair_products(work.pairs, config.hook, targets_too=work.settings.needs_target_products)
    moments = prepare_moments(stage, work.store, split, products, work.precision, with_test=True)
    subsets = draw_subsets(config.blocks, config.fractions, config.subsets, config.seed)
    require_rows(moments, subsets, config.cv_folds, split.test_groups)
    how = (config.cv_folds, split.val, split.test_groups, work.settings)
    with stage.progress("fitting", len(work.pairs) * len(subsets), "fits") as advance:
        points = study_scaling(moments, work.pairs, config.hook, subsets, *how, advance)
    if (warning := show.unconverged(points)) is not None:
        stage.warn(warning)
    growths = growth_of(points, config.plateau)
    documents = split.documents_per_group().tolist()
    with stage.create(plan) as draft:
        save_scaling(draft.path, growths, documents, config.hook, config.method)
        text = show.scaling_text(growths, split.n_test_documents, config.test_blocks)
        tables, details = [show.growth_table(growths, config.plateau)], [show.curve_table(growths, documents)]
        figures = show.scaling_figures(growths, config.alpha_unit == "relative")
        stage.report(draft, "Scaling study", text, tables, figures, details, show.scaling_metrics(growths))
    return stage.finished(plan)


main = entry_point(run, ScalingConfig, "scaling_study")

if __name__ == "__main__":
    main()
