"""Compare results of measure_topology.py: models, layers, datasets; tables, a report, and what goes with perplexity.

  python compare_topology.py                                         all results of this experiment_name
  python compare_topology.py results=[base,chat]                     two of them; same prompts: row by row
  python compare_topology.py results=[base,chat,small] reference=base match_layers=depth
  python compare_topology.py results=base perplexity.measure=false   the layers of one model among themselves

Overlap is judged by tests of the union at one scale, loops free of scale, and paired points row by row, each with a
p-value or an interval. Results whose numbers can't be compared are refused. Writes comparison.html, comparison.md,
parquet, JSON and PNG.
"""

from src.artifacts import Artifact
from src.config.compare_topology import CompareTopologyConfig
from src.stage import Stage, entry_point


def run(config: CompareTopologyConfig, stage: Stage) -> Artifact:
    """Compare the results, or show what an earlier run found."""
    from src.report.topology.comparison import comparison_metrics
    from src.report.topology.comparison_files import PAGE, TITLE, write_comparison, write_comparison_page
    from src.report.topology.comparison_words import interpretation
    from src.stage.topology_comparison.comparing import compare, groups_of, prepare

    work = prepare(config, stage)
    plan = stage.plan("topology_comparison", work.label, work.identity(), work.parents, config.name)
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        return finished

    found = compare(work, stage)
    text, groups = interpretation(found), groups_of(found)
    with stage.create(plan) as draft:
        write_comparison(draft.path, found, groups, text)
        shown = [table for group in groups for table in group.tables]
        details = [table for group in groups for table in group.details]
        figures = [figure for group in groups for figure in group.figures]
        stage.report(draft, TITLE, text, shown, figures, details, comparison_metrics(found), [PAGE])
        write_comparison_page(draft.path, groups, text)
    stage.say(text)
    return stage.finished(plan)


main = entry_point(run, CompareTopologyConfig, "compare_topology")

if __name__ == "__main__":
    main()
