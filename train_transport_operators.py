"""Fit transport operators: affine maps from layer L to layer L + k, by ridge, lasso, Procrustes and others.

  python train_transport_operators.py experiment.L=[0,1,2] experiment.k=[1,2]
  python train_transport_operators.py experiment.L=all experiment.k=all            every pair of the model
  python train_transport_operators.py -m experiment.L=0,1,2 experiment.k=1,2       one job for each pair
  python train_transport_operators.py auto_tune=false alpha_unit=absolute regularization=10
  python train_transport_operators.py experiment.position_offset=[0,1]             also the next token's activation
  python train_transport_operators.py method=lasso normalize=true target=delta     a sparse update of the identity
  python train_transport_operators.py method=jacobian jacobian.tokens=512          the model's own mean derivative

Reads the activation store of the model and dataset once, keeps second moments per fold, and fits everything from those:
alpha is chosen by cross-validation over documents. The test share is left untouched for eval.py.
"""

from src.artifacts import Artifact
from src.config.stages import TransportConfig
from src.stage import Stage, entry_point


def run(config: TransportConfig, stage: Stage) -> Artifact:
    """Fit the operators of all pairs, or reuse them."""
    from src.report.fitting import fit_figures, fit_tables, fit_text, unconverged
    from src.stage.fitting import fit_operators, prepare_fit
    from src.stage.stores import split_store, warn_if_lopsided
    from src.transport.saved import save_operators

    work = prepare_fit(config, stage)
    plan = stage.plan("operators", work.label, work.identity, [work.store.artifact.parent], config.name)
    finished = stage.reuse(plan)
    if finished is None:
        split = split_store(work.store, config.split, config.cv_folds, config.seed)
        warn_if_lopsided(stage, split)
        fits, moments = fit_operators(config, stage, work, split)
        if (warning := unconverged(fits)) is not None:
            stage.warn(warning)
        with stage.create(plan) as draft:
            save_operators(draft.path, fits, moments.subset(split.train))
            metrics = {f"{fit.pair}/val_r2": fit.val.r2_uniform for fit in fits}
            title = "Transport operators"
            figures = fit_figures(fits, config.alpha_unit == "relative")
            stage.report(draft, title, fit_text(fits), fit_tables(fits), figures, metrics=metrics)
        return stage.finished(plan)
    stage.show_report(finished)
    return finished


main = entry_point(run, TransportConfig, "train_transport_operators")

if __name__ == "__main__":
    main()
