"""What each run trains: the modulator as it begins, or a control of it."""

from src.modulators.controls.trained import trained_control
from src.modulators.field import FieldModulator, FieldShape
from src.modulators.modulator import Modulator
from src.modulators.notebook.field import NotebookField
from src.modulators.notebook.residual import notebook_residual
from src.modulators.residual import ResidualModulator
from src.stage.context import Stage
from src.stage.modulators.beginning import begin
from src.stage.modulators.work import MODULATOR, ModulatorWork, Run


def candidate(run: Run, work: ModulatorWork, stage: Stage) -> Modulator:
    """The modulator or control of a run, on the model's device, in float32.

    Raises:
        StrataError: what can't be begun with this model.
    """
    modulator = _modulator(run, work, stage).to(work.model.device)
    if run.name == MODULATOR:
        return modulator
    if isinstance(modulator, NotebookField) and run.name != "lora":
        # the notebook has no controls: its gates are held against ours of the same shape
        modulator = FieldModulator(modulator.d_model, modulator.layers, modulator.shape, work.seed(run))
    return trained_control(run.name, modulator.to(work.model.device), work.model, work.seed(run)).to(work.model.device)


def _modulator(run: Run, work: ModulatorWork, stage: Stage) -> Modulator:
    keys, model, seed, alpha = work.config.modulator, work.model, work.seed(run), work.alpha(run)
    begun = begin(work, stage, seed)
    if begun.start is None:
        shape = FieldShape.from_settings(keys.field.model_dump() | {"alpha": alpha})
        if work.config.compat == "notebook":
            return NotebookField(model.d_model, work.layers, shape, seed)
        return FieldModulator(model.d_model, work.layers, shape, seed, begun.directions)
    start, residual = begun.start, keys.residual
    if work.config.compat == "notebook":
        return notebook_residual(
            None if keys.init == "random" else start,
            *(len(start.table), model.d_model, residual.width),
            work.layers,
            alpha,
            residual.per_layer,
            residual.train_table,
            seed,
            fitted=keys.init == "lexicon",
        )
    return ResidualModulator(
        start.table,
        start.projection,
        start.known,
        work.layers,
        alpha,
        residual.per_layer,
        residual.match_norms,
        residual.train_table,
        start.offset,
    )
