"""What each run trains: the modulator as it begins, or a control of it."""

from src.modulators.controls.trained import trained_control
from src.modulators.field import FieldModulator, FieldShape
from src.modulators.modulator import Modulator
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
    return trained_control(run.name, modulator, work.model, work.seed(run)).to(work.model.device)


def _modulator(run: Run, work: ModulatorWork, stage: Stage) -> Modulator:
    keys, model = work.config.modulator, work.model
    begun = begin(work, stage, work.seed(run))
    if begun.start is None:
        shape = FieldShape(
            tuple(keys.field.dimensions),
            keys.field.width,
            work.alpha(run),
            keys.field.lowest,
            keys.field.highest,
            keys.field.null_share,
            keys.field.null_place,
            keys.field.deformation,
        )
        return FieldModulator(model.d_model, work.layers, shape, work.seed(run), begun.directions)
    start = begun.start
    return ResidualModulator(
        start.table,
        start.projection,
        start.known,
        work.layers,
        work.alpha(run),
        keys.residual.per_layer,
        keys.residual.match_norms,
        keys.residual.train_table,
        start.offset,
    )
