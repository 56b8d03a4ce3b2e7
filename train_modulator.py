"""Train a modulator of a frozen model's residual stream, and its controls, and compare them on held-out text.

  python train_modulator.py                                     tokens' vectors from the taxonomy; testbed
  python train_modulator.py modulator=field                     simplex gates
  python train_modulator.py -m modulator=residual,field modulator.init=random,lexicon
  python train_modulator.py controls=[zero,lora] repeats=3      fewer controls, three seeds of each
  python train_modulator.py alpha_starts=[0.01,0.1,0.3] controls=[]      where do strengths end?
  python train_modulator.py objective=definitions               a word from its definition, in place of text
  python train_modulator.py model=gpt2 dataset=wikitext2 lexicon.taxonomy=wordnet modulator.layers=[4,5,6]

Each training is an artifact of its own (kind modulator), which eval_modulator.py goes on with; the comparison on test
documents, with paired intervals, is another. Run the same command again after an interruption: it goes on from the last
checkpoint.
"""

from src.artifacts import Artifact
from src.config.modulators.train import TrainModulatorConfig
from src.stage import Stage, entry_point


def run(config: TrainModulatorConfig, stage: Stage) -> Artifact:
    """Train what is not trained yet, and compare. Returns the modulator, which eval_modulator.py goes on with."""
    from src.modulators.saving import load_modulator, save_modulator
    from src.report.finding import joined, write_finding
    from src.report.modulators.training import training_finding, training_summary
    from src.stage.modulators.comparing import compare
    from src.stage.modulators.courses import courses
    from src.stage.modulators.describing import described
    from src.stage.modulators.training import train_run
    from src.stage.modulators.work import prepare

    work = prepare(config, stage)
    trained = {}
    for each in [*work.runs, *work.starts]:
        plan = stage.plan("modulator", work.label(each), work.identity(each), work.parents)
        finished = stage.reuse(plan)
        if finished is None:
            with stage.create(plan) as draft:
                result = train_run(each, work, stage, plan)
                save_modulator(draft.path, result.modulator)
                found = joined([training_finding(result.record), *described(each, result.modulator, work)])
                write_finding(draft.path, found)
                title = f"Training of {result.record.name}"
                stage.report(draft, title, found.text, found.tables, found.figures, found.details, found.metrics)
            finished = stage.finished(plan)
            stage.say(training_summary(result.record))
        trained[each] = finished
    parents = [*work.parents, *(artifact.parent for artifact in trained.values())]
    plan = stage.plan("modulator_comparison", work.label(work.runs[0]), {"compared": "test"}, parents, config.name)
    finished = stage.reuse(plan)
    if finished is None:
        modulators = {each: load_modulator(trained[each].path) for each in work.runs}
        found = joined([compare(modulators, work, stage), *courses(trained, work)])
        with stage.create(plan) as draft:
            write_finding(draft.path, found)
            stage.report(draft, "Modulators", found.text, found.tables, found.figures, found.details, found.metrics)
        finished = stage.finished(plan)
    else:
        stage.show_report(finished)
    stage.say_text(finished)
    return trained[work.runs[0]]


main = entry_point(run, TrainModulatorConfig, "train_modulator")

if __name__ == "__main__":
    main()
