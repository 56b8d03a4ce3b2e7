"""Set results of measure_geometry.py side by side: a row for each model, each number beside its null.

  python compare_geometry.py                                     all results of this experiment_name
  python compare_geometry.py results=[NAME,NAME]                 some of them
  python compare_geometry.py published=false                     without the published notebook's figures

Any subset of analyses will do: what was not measured is a gap. Where results hold compat=notebook, the notebook's way
of computing the same number is a row of its own. No model is loaded.
"""

from src.artifacts import Artifact
from src.config.geometry.comparison import CompareGeometryConfig
from src.stage import Stage, entry_point


def run(config: CompareGeometryConfig, stage: Stage) -> Artifact:
    """Compare the results, or show what an earlier run found."""
    from src.report.finding import write_finding
    from src.report.geometry.comparison.finding import TITLE, comparison_finding
    from src.stage.geometry.comparing import prepare

    work = prepare(config, stage)
    plan = stage.plan("geometry_comparison", work.label, work.identity(), work.parents, config.name)
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        stage.say_text(finished)
        return finished

    found = comparison_finding(work.rows, work.differing, published=config.published)
    with stage.create(plan) as draft:
        write_finding(draft.path, found)
        stage.report(draft, TITLE, found.text, found.tables, found.figures, found.details, found.metrics)
    artifact = stage.finished(plan)
    stage.say_text(artifact)
    return artifact


main = entry_point(run, CompareGeometryConfig, "compare_geometry")

if __name__ == "__main__":
    main()
