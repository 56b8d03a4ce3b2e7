"""Profile a model's geometry: embeddings, simplices, layers, lexicon, weights, each beside its null.

  python measure_geometry.py                                    all analyses of the testbed's model
  python measure_geometry.py analysis=weights model=gpt2        weights alone: no data, no inference, a matrix at a time
  python measure_geometry.py analysis=lexicon lexicon.taxonomy=wordnet model=qwen2_5_0_5b
  python measure_geometry.py analysis=embeddings compat=notebook     the published notebook's numbers beside ours
  python measure_geometry.py -m analysis=embeddings,weights model=gpt2,pythia_70m

Each analysis is an artifact of its own: tables, JSON, parquet, PNG. layers reads a store (collect_activations.py) if
there is one of this model and dataset; else the model reads the dataset.
"""

from src.artifacts import Artifact
from src.config.geometry.stage import GeometryConfig
from src.stage import Stage, entry_point


def run(config: GeometryConfig, stage: Stage) -> Artifact:
    """Make what each analysis finds into an artifact, or show what an earlier run found. Returns the last."""
    from src.report.finding import joined, write_finding
    from src.stage.geometry.analyses import prepare

    artifacts = []
    for analysis in prepare(config, stage):
        plan = stage.plan("geometry", analysis.label, analysis.identity(), analysis.parents, config.name)
        finished = stage.reuse(plan)
        if finished is not None:
            stage.show_report(finished)
            stage.say_text(finished)
            artifacts.append(finished)
            continue
        found = joined(analysis.measure(stage))
        with stage.create(plan) as draft:
            write_finding(draft.path, found)
            draft.summary |= {"analysis": analysis.name}
            stage.report(draft, analysis.title, found.text, found.tables, found.figures, found.details, found.metrics)
        artifact = stage.finished(plan)
        stage.say_text(artifact)
        artifacts.append(artifact)
    return artifacts[-1]


main = entry_point(run, GeometryConfig, "measure_geometry")

if __name__ == "__main__":
    main()
