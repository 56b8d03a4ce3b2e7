"""How trainings went beside each other, from what each of them left on the disk."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from src.artifacts import Artifact
from src.errors import StrataError
from src.report.finding import Finding
from src.report.modulators.starts import curves_finding, starts_finding
from src.stage.modulators.work import MODULATOR, ModulatorWork, Run


def courses(trained: Mapping[Run, Artifact], work: ModulatorWork) -> list[Finding]:
    """Losses over the steps of all runs; with alpha_starts, whether strengths that begin apart end together.

    Raises:
        StrataError: a file of a training that is missing or damaged.
    """
    histories = {
        (work.name(replace(run, repeat=0)), work.seed(run)): _read(artifact.path / "history.json")
        for run, artifact in trained.items()
    }
    found = [curves_finding(histories, work.frozen_val)]
    if work.starts:
        runs = sorted([Run(MODULATOR), *work.starts], key=work.alpha)
        found.append(starts_finding([_read(trained[run].path / "training.json") for run in runs]))
    return found


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StrataError(f"{path} can't be read ({error}): train it again with overwrite=true") from None
