"""Map one model's space onto another's: fitted on anchors, judged on tokens that nothing was fitted on.

  python align_models.py                                           the testbed's base model to its small one: embeddings
  python align_models.py -m target=testbed_small,testbed_chat      to each of several
  python align_models.py model=gpt2 target=pythia_70m              other vocabularies: tokens are paired by their texts
  python align_models.py space=unembedding compat=notebook         the published notebook's numbers beside ours
  python align_models.py space=activations layer=3                 two stores of the same text (collect_activations.py)
  python align_models.py space=activations target=testbed layer=1 target_layer=4       layer to layer of one store

Rotations (Procrustes), ridge and CCA, beside no map, shuffled pairs and the mean; retrieval, CKA, digits and weekdays.
Writes the maps (safetensors), every score as parquet and JSON, PNG and HTML.
"""

from src.artifacts import Artifact
from src.config.geometry.alignment import AlignmentConfig
from src.stage import Stage, entry_point


def run(config: AlignmentConfig, stage: Stage) -> Artifact:
    """Align the two spaces, or show what an earlier run found."""
    from src.report.finding import write_finding
    from src.stage.geometry.aligning.measuring import measure, prepare

    work = prepare(config, stage)
    plan = stage.plan("model_alignment", work.label, work.identity(), work.parents, config.name)
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        stage.say_text(finished)
        return finished

    found = measure(work, stage)
    with stage.create(plan) as draft:
        write_finding(draft.path, found)
        draft.summary |= work.summary()
        stage.report(draft, work.title, found.text, found.tables, found.figures, found.details, found.metrics)
    artifact = stage.finished(plan)
    stage.say_text(artifact)
    return artifact


main = entry_point(run, AlignmentConfig, "align_models")

if __name__ == "__main__":
    main()
