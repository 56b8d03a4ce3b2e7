"""Draw captured states as heat maps: a value in each pixel, a PNG and an .npy file for each layer and step.

  python plot_heatmap.py                                              resid_post of the only captured scenario
  python plot_heatmap.py run=NAME source=attention per_head=true steps=[0]
  python plot_heatmap.py source=mlp_act view=generation layers=[2,3] reduce=abs normalize=global
  python plot_heatmap.py view=messages position=answer normalize=signed
  python plot_heatmap.py source=hidden_out cmap=magma                 Activation Lab's names of sources

Writes heatmaps/RUN/SOURCE/layer_00_step_000.png and .npy, and a contact sheet of each run.
"""

from src.artifacts import Artifact, label
from src.config.plot_heatmap import PlotHeatmapConfig
from src.stage import Stage, entry_point


def run(config: PlotHeatmapConfig, stage: Stage) -> Artifact:
    """Draw the images, or show those that an earlier run drew."""
    from src.stage.scenarios.heatmaps import draw, prepare

    work = prepare(config, stage)
    name = label(work.artifact.path.name, work.selection.source)
    plan = stage.plan("run_heatmaps", name, work.identity(), [work.artifact.parent], config.name)
    finished = stage.reuse(plan)
    if finished is None:
        with stage.create(plan) as draft:
            draw(work, draft, stage)
        finished = stage.finished(plan)
    else:
        stage.show_report(finished)
    stage.say_text(finished)
    return finished


main = entry_point(run, PlotHeatmapConfig, "plot_heatmap")

if __name__ == "__main__":
    main()
