"""Compare runs of captured conversations: with themselves, with each other, and with reference states; one HTML page.

  python compare_runs.py                             the newest result of capture_scenario.py, all of its runs
  python compare_runs.py runs=all                    every one of this experiment_name
  python compare_runs.py runs=[sad,happy]            two of them, by name or path
  python compare_runs.py positions=[end] sources=[hidden_out]

Writes report.html (all in one file, works offline), Activation Lab's four CSVs, and the same as parquet.
"""

from src.artifacts import Artifact
from src.config.compare_runs import CompareRunsConfig
from src.stage import Stage, entry_point


def run(config: CompareRunsConfig, stage: Stage) -> Artifact:
    """Compare the runs, or show what an earlier comparison found."""
    from src.report.run_comparison.files import write_comparison_tables
    from src.report.run_comparison.page import PAGE, TITLE, write_comparison_page
    from src.report.run_comparison.showing import figures, metrics, shown_tables, words
    from src.stage.run_comparison.comparing import compare, prepare

    work = prepare(config, stage)
    plan = stage.plan("run_comparison", work.label, work.identity(), work.parents, config.name)
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        stage.say_text(finished)
        stage.say(f"report: {finished.path / PAGE.file}")
        return finished

    found = compare(work, stage)
    with stage.create(plan) as draft:
        text = words(found)
        write_comparison_tables(draft.path, found)
        write_comparison_page(draft.path, found, text)
        stage.report(draft, TITLE, text, shown_tables(found), figures(found), (), metrics(found), [PAGE])
    artifact = stage.finished(plan)
    stage.say_text(artifact)
    stage.say(f"report: {artifact.path / PAGE.file}")
    return artifact


main = entry_point(run, CompareRunsConfig, "compare_runs")

if __name__ == "__main__":
    main()
