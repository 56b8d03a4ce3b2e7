"""Explain the features of SAEs: a card for each, with where it fires, what it promotes, and what is said of it.

  python explain_features.py                                       the 200 most frequent features of each layer
  python explain_features.py sae_layer=2 features=[7,42,105]       these
  python explain_features.py feature_scores=NAME                   the best ones by score_features.py
  python explain_features.py model=gemma_2_2b sae=gemma_scope_res sae_layer=6 sae_path=6-gemmascope-res-16k
  python explain_features.py cards=false layers=[6,7] 'sae_path="{layer}-gemmascope-res-16k"' feature_ids_file=ids.json
  python explain_features.py explainer=openai_compatible explainer.base_url=http://localhost:8000/v1 explainer.model=M

A card shows the contexts in which a feature fires most, and weaker ones, its activation histogram, its tokens, the
words that it promotes and suppresses, scores, the nearest features, and explanations: Neuronpedia's (sae_path), or
those of a language model of yours (explainer). Writes feature_cards_<layer>.html, JSON and parquet.
"""

from src.artifacts import Artifact, label
from src.config.explain_features import ExplainConfig
from src.stage import Stage, entry_point


def run(config: ExplainConfig, stage: Stage) -> Artifact:
    """Make the cards, or show what an earlier run found."""
    from src.report import explanations as show
    from src.report.feature_cards import write_feature_cards
    from src.stage.explain_work import prepare
    from src.stage.explaining import explain

    work = prepare(config, stage)
    plan = stage.plan("explanations", label(config.model.name, work.which), work.identity(), work.parents, config.name)
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
    else:
        with stage.create(plan) as draft:
            found = explain(work, stage)
            show.write_files(draft.path, found.layers, found.rows, found.strings, config)
            pages = []
            if config.cards:
                pages = write_feature_cards(draft.path, found.layers, found.strings, config.model.name)
            text, tables = (
                show.explanations_text(found.layers, config),
                show.feature_tables(found.layers, found.strings),
            )
            figures = show.explanation_figures(found.layers)
            metrics, details = show.explanation_metrics(found.layers), show.all_features(found.layers, found.strings)
            stage.report(draft, "Feature cards", text, tables, figures, details, metrics, pages)
        finished = stage.finished(plan)
    for path in show.copy_output(finished.path, config.output_file, [it.layer for it in work.layers]):
        stage.say(f"wrote {path}")
    return finished


main = entry_point(run, ExplainConfig, "explain_features")

if __name__ == "__main__":
    main()
