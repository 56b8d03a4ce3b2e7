"""One run of train_modulator.py: training with its evaluations and checkpoints."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from src.artifacts import Plan
from src.models import forward_pass
from src.modulators.modulator import Modulator
from src.modulators.training.cost import measure_step
from src.modulators.training.examples import Example, losses_of, passes
from src.modulators.training.record import TrainingRecord, best_evaluation, is_out_of_patience
from src.modulators.training.strengths import StrengthWatch, strength_records
from src.modulators.training.trainer import ModulatorTraining, TrainingSettings, batch_order, step_losses
from src.stage.checkpoints import Checkpoints
from src.stage.context import Stage
from src.stage.modulators.candidates import candidate
from src.stage.modulators.work import ModulatorWork, Run


@dataclass(frozen=True, eq=False)
class Trained:
    """A run at its end: the modulator as it was at its best on val examples, and how it came there."""

    run: Run
    modulator: Modulator
    record: TrainingRecord


def train_run(run: Run, work: ModulatorWork, stage: Stage, plan: Plan) -> Trained:
    """Train, from the last checkpoint if there is one.

    Raises:
        StrataError: a loss that is not finite, too little memory, a full disk, another process that trains the same.
    """
    keys, frozen_val = work.config.training, work.frozen_val
    settings = TrainingSettings(
        keys.steps, keys.lr, keys.strength_lr, keys.geometry_lr, keys.weight_decay, keys.warm_up, keys.clip
    )
    half = "float16" in (keys.autocast, str(work.model.dtype).removeprefix("torch."))
    training = ModulatorTraining(candidate(run, work, stage), settings, half)
    watch = StrengthWatch(training.modulator)
    first = passes(_batch(run, work, 0), work.per_pass)[0]
    cost = measure_step(work.model, training.modulator, first, lambda: _cast(work))
    checkpoints = Checkpoints(plan, "this modulator")
    if work.config.overwrite:
        checkpoints.clear()
    with checkpoints.held(), training.modulator.attached(work.model):
        history = checkpoints.load(training)
        if history is None:
            history = [_evaluated(training, watch, work)]
            training.keep_as_best()
        else:
            stage.say(f"going on at step {training.step:,} of {keys.steps:,}, from {checkpoints.folder}")
        with stage.progress(f"training {work.name(run)}", keys.steps, "steps") as advance:
            advance(training.step)
            while training.step < keys.steps and not is_out_of_patience(_values(history), keys.patience):
                batch = _batch(run, work, training.step)
                training.modulator.train()
                # memory runs out in backward passes too
                with forward_pass(work.model, (work.per_pass, max(len(it.input_ids) for it in batch))):
                    loss = training.train(
                        step_losses(work.model, training.modulator, batch, work.per_pass, lambda: _cast(work))
                    )
                advance(1)
                at_end = training.step == keys.steps
                if training.step % keys.evaluate_every == 0 or at_end:
                    history.append({"loss": loss} | _evaluated(training, watch, work))
                    if best_evaluation(_values(history)) == len(_values(history)) - 1:
                        training.keep_as_best()
                elif training.step % keys.record_every == 0:
                    history.append({"loss": loss} | _record(training, watch))
                if history[-1]["step"] == training.step:
                    stage.track_point(work.name(run), training.step, _scalars(history[-1]))
                if keys.checkpoint_every and training.step % keys.checkpoint_every == 0 and not at_end:
                    checkpoints.save(training, history)
    checkpoints.clear()
    training.restore_best()
    training.modulator.eval()
    evaluations = [record for record in history if "val" in record]
    record = TrainingRecord(
        work.name(run),
        training.n_parameters,
        keys.steps,
        [_scalars(record) for record in history],
        [strength for record in history for strength in record["strengths"]],
        training.modulator.part_names,
        evaluations[best_evaluation(_values(history))]["step"],
        frozen_val,
        cost,
    )
    return Trained(run, training.modulator, record)


def _batch(run: Run, work: ModulatorWork, step: int) -> Sequence[Example]:
    rows = batch_order(len(work.train), work.config.training.batch_size, step, work.seed(run))
    return [work.train[row] for row in rows]


def _cast(work: ModulatorWork) -> AbstractContextManager[Any]:
    name = work.config.training.autocast
    return nullcontext() if name is None else torch.autocast(work.model.device.type, getattr(torch, name))


def _values(history: Sequence[dict[str, Any]]) -> list[float]:
    return [record["val"] for record in history if "val" in record]


def _scalars(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "strengths"}


def _record(training: ModulatorTraining, watch: StrengthWatch) -> dict[str, Any]:
    strengths = strength_records(training.step, watch.strengths(training.reach))
    return {"step": training.step, "reach": training.reach, "strengths": strengths}


def _evaluated(training: ModulatorTraining, watch: StrengthWatch, work: ModulatorWork) -> dict[str, Any]:
    training.modulator.eval()
    sums, counts = losses_of(work.model, work.val, work.per_pass)
    values = {"val": float(sums.sum() / counts.sum())}
    health = {name: value for name, value in training.modulator.health_numbers().items() if math.isfinite(value)}
    return _record(training, watch) | values | health
