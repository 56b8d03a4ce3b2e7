"""How the R2 of transport operators grows with the training data: fits on random subsets of the training documents.

  python scaling_study.py experiment.L=[0,1,2] experiment.k=[1,2]
  python scaling_study.py fractions=[0.05,0.1,0.2,0.5,1.0] blocks=40 subsets=10
  python scaling_study.py method=linear                              any method and setting of a fit

Deals the training documents to blocks, reads the activation store once for the moments of each, and takes all else from
sums of blocks: alpha by cross-validation within each subset, then R2 on val and test documents, beside the identity and
the identity + shift. Writes CSV, JSON, parquet, PNG and HTML.
"""

from src.artifacts import Artifact, label
from src.config.scaling import ScalingConfig
from src.stage import Stage, entry_point


def run(config: ScalingConfig, stage: Stage) -> Artifact:
    """Fit every pair on every subset, or show what an earlier run found."""
    from src.activations.passes import row_offsets
    from src.activations.products import resolve_precision
    from src.report import scaling as show
    from src.report.scaling_records import save_scaling
    from src.stage.moments import pair_products, prepare_moments
    from src.stage.stores import find_store, split_store, warn_if_lopsided
    from src.transport.pairs import layer_pairs
    from src.transport.scaling import draw_subsets, require_rows, study_scaling
    from src.transport.scaling_summary import growth_of
    from src.transport.settings import FitSettings

    store = find_store(stage, config.activations, config.model, config.dataset)
    wanted, keys = config.experiment, "experiment.L, experiment.k"
    pairs = layer_pairs(wanted.L, wanted.k, store.layout.n_layers, keys, wanted.position_offset)
    store.require([point for pair in pairs for point in (pair.source(config.hook), pair.target(config.hook))])
    settings = FitSettings.of(config)
    precision = resolve_precision(config.precision, stage.device)
    identity = {
        "pairs": [pair.identity() for pair in pairs],
        "row_offsets": row_offsets([pair.target(config.hook) for pair in pairs]),
        "fit": settings.identity(),
        "split": config.split.model_dump(),
        "precision": precision,
        **config.model_dump(include={"hook", "method", "cv_folds", "seed"}),
        **config.model_dump(include={"fractions", "subsets", "blocks", "test_blocks", "plateau"}),
    }
    which = str(pairs[0]) if len(pairs) == 1 else f"{len(pairs)}-pairs"
    name = label(config.model.name, config.method, which)
    plan = stage.plan("scaling", name, identity, [store.artifact.parent], config.name)
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        return finished

    split = split_store(store, config.split, config.blocks, config.seed, config.test_blocks)
    warn_if_lopsided(stage, split)
    moments = prepare_moments(stage, store, split, pair_products(pairs, config.hook), precision, with_test=True)
    subsets = draw_subsets(config.blocks, config.fractions, config.subsets, config.seed)
    require_rows(moments, subsets, config.cv_folds, split.test_groups)
    how = (config.cv_folds, split.val, split.test_groups, settings)
    with stage.progress("fitting", len(pairs) * len(subsets), "fits") as advance:
        points = study_scaling(moments, pairs, config.hook, subsets, *how, advance)
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
