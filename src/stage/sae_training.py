"""train_sae.py's run: training with its evaluations and checkpoints, and the judgement of what was saved."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from src.activations.products import exact_products
from src.artifacts import Plan
from src.causal.splice import SpliceEffect, loss_recovered
from src.config.sae import SaeConfig
from src.errors import NotApplicableError, StrataError
from src.features.sae import Sae, load_sae
from src.features.training.reconstruction import Reconstruction, ReconstructionSums
from src.features.training.row_sources import CountedRows, RowSource
from src.features.training.row_stream import ShuffledRows
from src.features.training.trainer import SaeTraining
from src.hook_points import HookPoint
from src.report.sae_records import Judgement, judgement_record
from src.stage.checkpoints import Checkpoints
from src.stage.context import Stage
from src.stage.sae_inputs import TrainingWork
from src.text import TokenSequence

_CHECKED_STEPS = 50  # between looks at the loss, for which an accelerator has to wait


def layer_folder(point: HookPoint) -> str:
    """The folder of a layer's SAE in the artifact: sae.path=artifacts/sae/NAME/layer_{layer}."""
    return f"layer_{point.layer}"


def train_saes(work: TrainingWork, stage: Stage, plan: Plan, folder: Path) -> tuple[list[Judgement], list[dict]]:
    """Train, save one SAELens folder for each hook point, and judge what was saved on test documents.

    Returns the judgements, and records of the curves: an evaluation on val documents at each interval.

    Raises:
        StrataError: too few tokens, divergence, a full disk, weights that the storage dtype can't hold.
    """
    config, checkpoints = work.config, Checkpoints(plan, "these SAEs")
    stream = ShuffledRows(work.train, config.batch_size, config.buffer_tokens, config.seed)
    training = SaeTraining(work.points, work.d_model, work.settings, stage.device)
    judge = _Judge(work, stage)
    if config.overwrite:
        checkpoints.clear()
    with checkpoints.held():
        curve = checkpoints.load(training)
        if curve is None:
            curve = []
            training.begin(stream.batches())
        else:
            stage.say(f"going on at step {training.step:,} of {work.settings.n_steps:,}, from {checkpoints.folder}")
        n_tokens = work.settings.n_steps * config.batch_size
        epochs = n_tokens / stream.n_rows
        stage.say(
            f"{len(work.points)} SAEs of {work.settings.d_sae:,} features ({config.architecture}): {n_tokens:,} "
            f"tokens, {epochs:.3g} times the {stream.n_rows:,} of the train documents"
        )
        with stage.progress("training", n_tokens, "tokens") as advance:
            advance(training.step * config.batch_size)
            batches = stream.batches(training.step)
            while training.step < work.settings.n_steps:
                training.train(next(batches))
                advance(config.batch_size)
                at_end = training.step == work.settings.n_steps
                is_checkpoint = _is_due(training.step, config.checkpoint_every, config.batch_size) and not at_end
                if is_checkpoint or at_end or training.step % _CHECKED_STEPS == 0:
                    training.refuse_divergence()
                if _is_due(training.step, config.evaluate_every, config.batch_size) and not at_end:
                    curve += [judgement_record(each) for each in judge.on_val(training)]
                if is_checkpoint:
                    checkpoints.save(training, curve)
        curve += [judgement_record(each) for each in judge.on_val(training)]
        for point in work.points:
            training.save(point, folder / layer_folder(point), config.storage_dtype)
        judgements = judge.saved(training, folder)
    checkpoints.clear()
    return judgements, curve


def _is_due(step: int, every: int | None, batch_size: int) -> bool:
    """Whether a step is the first that reaches another multiple of `every` tokens."""
    return every is not None and step * batch_size // every > (step - 1) * batch_size // every


class _Judge:
    """Judges SAEs on held-out documents; val rows are read once and held, test rows pass by."""

    def __init__(self, work: TrainingWork, stage: Stage) -> None:
        self._work, self._stage = work, stage
        self._val: list[CountedRows] | None = None
        self._val_text: list[TokenSequence] | None = None
        self._splices = work.config.loss_recovered

    def on_val(self, training: SaeTraining) -> list[Judgement]:
        """The SAEs as they are now."""
        if self._val is None:
            self._val, self._val_text = list(_chunks(self._work.val)), self._work.val.sequences()
        saes = {point: training.inference_sae(point) for point in self._work.points}
        return self._judged(saes, self._val, self._val_text or [], training)

    def saved(self, training: SaeTraining, folder: Path) -> list[Judgement]:
        """The SAEs on the disk, as their users will have them."""
        saes = {point: _load(folder / layer_folder(point), self._stage.device) for point in self._work.points}
        return self._judged(saes, _chunks(self._work.test), self._work.test.sequences(), training)

    def _judged(
        self,
        saes: Mapping[HookPoint, Sae],
        chunks: "list[CountedRows] | Iterator[CountedRows]",
        text: list[TokenSequence],
        training: SaeTraining,
    ) -> list[Judgement]:
        sums = {point: ReconstructionSums() for point in saes}
        with exact_products(), torch.no_grad():
            for rows in chunks:
                for point, sae in saes.items():
                    sums[point].add(sae, rows.activations[point], rows.document)
        effects = self._effects(saes, text, training)
        tokens = training.step * training.settings.batch_size
        return [
            Judgement(point, tokens, _found(total.result(), point), effects.get(point)) for point, total in sums.items()
        ]

    def _effects(
        self, saes: Mapping[HookPoint, Sae], text: list[TokenSequence], training: SaeTraining
    ) -> dict[HookPoint, SpliceEffect]:
        if not self._splices:
            return {}
        try:
            return loss_recovered(self._work.model(), saes, training.means, text, self._work.config.sequences_per_pass)
        except NotApplicableError as error:
            self._splices = False
            self._stage.warn(f"no loss recovered: {error}")
            return {}


def _chunks(rows: RowSource) -> Iterator[CountedRows]:
    return (rows.read(chunk) for chunk, count in enumerate(rows.counts) if count)


def _found(found: Reconstruction | None, point: HookPoint) -> Reconstruction:
    if found is None or not found.squares > 0:
        raise StrataError(f"{point} does not vary over the held-out tokens: there is nothing to reconstruct")
    return found


def _load(folder: Path, device: torch.device) -> Sae:
    keys: dict[str, Any] = dict.fromkeys(SaeConfig.model_fields) | {"path": str(folder), "force_download": False}
    return load_sae(SaeConfig(**keys), device)
