"""Look into a captured run: what each layer would say, what makes a token likely, how states change, who reads whom.

  python analyse_run.py                                       the newest captured scenario, its first conversation
  python analyse_run.py run=NAME conversation=prompt_1        another one
  python analyse_run.py analyses=[logit_lens] lens=both       beside the lens through transport operators
  python analyse_run.py analyses=[neurons] neurons=[[2,17],[3,5]]
  python analyse_run.py position=end steps=[0,1,2] layers=[0,3,5]
  python analyse_run.py -m conversation=prompt_0,prompt_1

Analyses: logit_lens, attribution (these two load the model), decomposition, neurons, cross_layer, cka, spectrum, pca,
convergence, attention. What was not captured is named with the remedy. Writes every number as parquet and JSON
(logit_lens.json as Activation Lab has it), PNG and HTML.
"""

from src.artifacts import Artifact
from src.config.analyse_run import AnalyseRunConfig
from src.stage import Stage, entry_point


def run(config: AnalyseRunConfig, stage: Stage) -> Artifact:
    """Analyse one run, or show what an earlier look at it found."""
    from src.report.finding import joined, write_finding
    from src.stage.analysis.analysing import analyse, introduction
    from src.stage.analysis.preparing import prepare

    work = prepare(config, stage)
    plan = stage.plan("run_analysis", work.label, work.identity(), work.parents, config.name)
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        stage.say_text(finished)
        return finished

    found = analyse(work, stage)
    text, whole = introduction(work, found), joined(found)
    with stage.create(plan) as draft:
        write_finding(draft.path, whole)
        draft.summary |= work.summary()
        stage.report(draft, work.title, text, whole.tables, whole.figures, whole.details, whole.metrics)
    artifact = stage.finished(plan)
    stage.say_text(artifact)
    return artifact


main = entry_point(run, AnalyseRunConfig, "analyse_run")

if __name__ == "__main__":
    main()
