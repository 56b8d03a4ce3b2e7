"""Measure the shape of clouds of activations: persistent homology, with null models, bands and significance.

  python measure_topology.py                                              last tokens, all layers of the testbed's store
  python measure_topology.py tokens=[monday,tuesday,wednesday,thursday,friday,saturday,sunday] contexts=20
  python measure_topology.py prompts=prompts.txt model=gpt2 layers=[0,6,11]     no store: the model reads the prompts
  python measure_topology.py clouds=[base.npy,instruct.npy] protocol=frozen_v5  clouds of your own
  python measure_topology.py -m model=testbed,testbed_chat,testbed_small prompts=prompts.txt
  python measure_topology.py model=?                                      which models there are configs of

Writes clouds, diagrams and every statistic as safetensors, parquet and JSON, PNG and HTML. verify_artifact.py computes
all of it again from the clouds.
"""

from src.artifacts import Artifact
from src.config.topology import TopologyConfig
from src.stage import Stage, entry_point


def run(config: TopologyConfig, stage: Stage) -> Artifact:
    """Measure the clouds, or show what an earlier run found."""
    from src.report.topology.files import write_topology
    from src.stage.topology.measuring import measure, prepare
    from src.stage.topology.showing import show

    work = prepare(config, stage)
    plan = stage.plan("topology", work.label, work.identity(), work.parents, config.name)
    finished = stage.reuse(plan)
    if finished is not None:
        stage.show_report(finished)
        return finished

    clouds = measure(work, stage)
    with stage.create(plan) as draft:
        write_topology(draft.path, clouds, work.source.shares_points)
        draft.summary |= work.summary()
        shown = show(clouds, work)
        stage.report(draft, "Topology", shown.text, shown.tables, shown.figures, shown.details, shown.metrics)
    return stage.finished(plan)


main = entry_point(run, TopologyConfig, "measure_topology")

if __name__ == "__main__":
    main()
