"""Scan conversations: a model reads a scenario, goes on with it, and the states that matter are kept.

  python capture_scenario.py                                        the testbed's emotional conversation
  python capture_scenario.py scenario=emotions model=testbed_chat   a scenario and a model by name
  python capture_scenario.py scenario=my/file.yaml model.path=my/model capture.preset=full
  python capture_scenario.py scenario=my/folder/                    every scenario in a folder, each in turn
  python capture_scenario.py scenario=my/file.yaml mode=validate    are file, templates and layers right? (no weights)
  python capture_scenario.py scenario=my/file.yaml mode=estimate    how many tokens and bytes? (no weights)
  python capture_scenario.py -m scenario=emotions,facts generation.max_new_tokens=20,50

The model is the scenario's own, unless model=NAME, model.name=HUB_ID or model.path=FOLDER chooses another one. What is
set on the command line (device, model.*, generation.*, capture.*) wins over the file; null = what the file says. Run the
same command again after an interruption: conversations that are finished are kept. Next: compare_runs.py.
"""

from src.artifacts import Artifact
from src.config.capture_scenario import CaptureScenarioConfig
from src.stage import Stage, entry_point


def run(config: CaptureScenarioConfig, stage: Stage) -> Artifact | None:
    """Capture, check or estimate every scenario that is meant; the artifact of the last one that was captured."""
    from src.stage.scenarios.running import run_scenarios

    return run_scenarios(config, stage)


main = entry_point(run, CaptureScenarioConfig, "capture_scenario")

if __name__ == "__main__":
    main()
