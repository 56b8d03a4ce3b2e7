"""All analyses of a run, in their order."""

from collections.abc import Callable, Mapping, Sequence

from src.config.analyse_run import Analysis
from src.errors import StrataError
from src.report.finding import Finding
from src.stage.analysis import with_model, without_model
from src.stage.analysis.preparing import NEED_MODEL, Work
from src.stage.context import Stage

_ALONE: Mapping[Analysis, Callable[[Work], Finding]] = {
    "decomposition": without_model.decomposition,
    "neurons": without_model.neurons,
    "cross_layer": without_model.cross_layer,
    "cka": without_model.cka,
    "spectrum": without_model.spectra,
    "pca": without_model.pca,
    "convergence": without_model.settling,
    "attention": without_model.attention,
}


def analyse(work: Work, stage: Stage) -> list[Finding]:
    """What each analysis finds.

    Raises:
        StrataError: the model that is needed is not the one of the run, or states are not what they should be.
    """
    reader = with_model.Reader(work, stage) if set(NEED_MODEL) & set(work.analyses) else None
    found = []
    for analysis in work.analyses:
        try:
            found.append(_one(analysis, work, reader, stage))
        except StrataError as error:  # states that are not finite, say
            if work.config.analyses != "all":
                raise StrataError(f"analyses={analysis}: {error}") from None
            work.skipped[analysis] = str(error)
            stage.warn(f"{analysis} is left out: {error}")
    return found


def _one(analysis: Analysis, work: Work, reader: with_model.Reader | None, stage: Stage) -> Finding:
    if reader is not None and analysis == "logit_lens":
        return with_model.logit_lens(work, reader, stage)
    if reader is not None and analysis == "attribution":
        return with_model.attribution(work, reader)
    return _ALONE[analysis](work)


def introduction(work: Work, found: Sequence[Finding]) -> str:
    """What was looked at, what each analysis says in words, and what was left out."""
    run, model = work.run, work.captured.model
    rows = f"{len(work.steps)} steps"
    if work.messages is not None:
        rows += f" and {len(work.messages)} messages (at {work.position})"
    parts = [
        f"Run {run.name} of {work.captured.scenario.name}, read by {model['name']}: {rows}, layers "
        f"{', '.join(map(str, work.layers))}.",
        *(finding.text for finding in found),
        *(f"Left out: {analysis} ({reason})." for analysis, reason in work.skipped.items()),
    ]
    return "\n\n".join(part for part in parts if part)
