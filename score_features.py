"""Score the features of SAEs: how coherent, focused, redundant and effective each of them is.

  python score_features.py                                      every layer of the testbed
  python score_features.py layers=[2,3] max_tokens=20000 top_percent=10
  python score_features.py preset=strata                        ranks in place of ranges
  python score_features.py causal=attribution                   first-order effects alone: one backward pass
  python score_features.py model=gemma_2_2b sae=gemma_scope_res sae.release=gemma-scope-2b-pt-res sae_l0=100 layers=20

All layers in one forward (and backward) pass per batch. The effects of the best candidates are measured by ablating
them wherever they fire. Writes feature_scores_<layer>.json, features.parquet, PNG and HTML.
"""

from src.artifacts import Artifact, label
from src.config.score_features import ScoreFeaturesConfig
from src.stage import Stage, entry_point


def run(config: ScoreFeaturesConfig, stage: Stage) -> Artifact:
    """Score every feature, or show what an earlier run found."""
    from src.report import feature_scores as show
    from src.report.feature_records import write_features, write_reference_json
    from src.stage.feature_scores import prepare, preset_of, score, scratch

    work = prepare(config, stage)
    plan = stage.plan(
        "feature_scores", label(config.model.name, work.which), work.identity(), work.parents, config.name
    )
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        return finished

    with stage.create(plan) as draft:
        with scratch(draft.path) as folder:
            layers = score(work, stage, folder)
        write_features(draft.path, layers, work.word)
        write_reference_json(draft.path, layers, work.reference_meta())
        text = show.scores_text(layers, work.dataset, preset_of(config.preset))
        tables = [show.layer_table(layers), show.feature_table(layers, work.word)]
        details = [show.feature_table(layers, work.word, show.LISTED)]
        figures, metrics = show.scores_figures(layers, work.word), show.scores_metrics(layers)
        stage.report(draft, "Scores of SAE features", text, tables, figures, details, metrics)
    return stage.finished(plan)


main = entry_point(run, ScoreFeaturesConfig, "score_features")

if __name__ == "__main__":
    main()
