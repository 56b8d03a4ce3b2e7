"""Train sparse autoencoders (SAEs) with SAELens' trainer, on a store or on the model as it reads text.

  python train_sae.py                                               an SAE for every layer of the testbed's store
  python train_sae.py layers=3 architecture=topk k=16 d_sae=1024
  python train_sae.py -m architecture=topk,batchtopk,jumprelu       one job for each
  python train_sae.py source=model layers=[1,4] tokens=1000000      no store: the model computes what is needed
  python train_sae.py -m layers=3 k=8,16,32

The artifact holds a SAELens folder for each layer; use them with sae=local 'sae.path=artifacts/sae/NAME/layer_{layer}'.
Only train documents are trained on (split.*); the scores are of test documents. Run the same command again after an
interruption: it goes on from the last checkpoint.
"""

from src.artifacts import Artifact
from src.config.train_sae import TrainSaeConfig
from src.stage import Stage, entry_point


def run(config: TrainSaeConfig, stage: Stage) -> Artifact:
    """Train SAEs, or show those that are there."""
    from src.report.records import write_records
    from src.report.sae_records import judgement_record
    from src.report.sae_training import training_figures, training_metrics, training_table, training_text
    from src.stage.sae_inputs import prepare_training
    from src.stage.sae_training import train_saes

    work = prepare_training(config, stage)
    plan = stage.plan("sae", work.label, work.identity(), [work.source.parent], config.name)
    finished = stage.reuse(plan)
    if finished is None:
        with stage.create(plan) as draft:
            judgements, curve = train_saes(work, stage, plan, draft.path)
            write_records(draft.path / "curves", curve)
            write_records(draft.path / "scores", [judgement_record(each) for each in judgements])
            draft.summary = {"layers": [point.layer for point in work.points], "d_sae": work.settings.d_sae}
            stage.report(
                draft,
                "Sparse autoencoders",
                training_text(config, work.settings.d_sae, judgements),
                [training_table(judgements)],
                training_figures(curve),
                metrics=training_metrics(judgements),
            )
        finished = stage.finished(plan)
    else:
        stage.show_report(finished)
    layers = finished.path / "layer_{layer}"
    stage.say(f"use them with sae=local 'sae.path={layers}'")
    return finished


main = entry_point(run, TrainSaeConfig, "train_sae")

if __name__ == "__main__":
    main()
