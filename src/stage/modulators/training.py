"""One run of train_modulator.py: training with its evaluations and checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from src.activations.collect import batches_of_like_length
from src.artifacts import Plan
from src.models import LanguageModel
from src.modulators.modulator import Modulator
from src.modulators.training.examples import Example, example_losses, mean_loss
from src.modulators.training.trainer import ModulatorTraining, TrainingSettings, batch_order
from src.stage.checkpoints import Checkpoints
from src.stage.context import Stage
from src.stage.modulators.candidates import candidate
from src.stage.modulators.work import ModulatorWork, Run


@dataclass(frozen=True, eq=False)
class Trained:
    """A run at its end.

    history: records by step: the loss of the batch, strengths ("alpha L0", ...), the reach of their logits, and where
    val examples were evaluated their mean loss ("val").
    """

    run: Run
    modulator: Modulator
    n_parameters: int
    reach: float
    history: list[dict[str, Any]]


def train_run(run: Run, work: ModulatorWork, stage: Stage, plan: Plan) -> Trained:
    """Train, from the last checkpoint if there is one.

    Raises:
        StrataError: a loss that is not finite, a full disk, another process that trains the same.
    """
    keys = work.config.training
    settings = TrainingSettings(
        keys.steps, keys.lr, keys.strength_lr, keys.geometry_lr, keys.weight_decay, keys.warm_up, keys.clip
    )
    training = ModulatorTraining(candidate(run, work, stage), settings)
    checkpoints = Checkpoints(plan, "this modulator")
    if work.config.overwrite:
        checkpoints.clear()
    with checkpoints.held(), training.modulator.attached(work.model):
        history = checkpoints.load(training)
        if history is None:
            history = [_evaluated(training, work)]
        else:
            stage.say(f"going on at step {training.step:,} of {keys.steps:,}, from {checkpoints.folder}")
        with stage.progress(f"training {run.name}", keys.steps, "steps") as advance:
            advance(training.step)
            while training.step < keys.steps:
                rows = batch_order(len(work.train), keys.batch_size, training.step, work.seed(run))
                loss = mean_loss(work.model, [work.train[row] for row in rows])
                training.train(loss)
                advance(1)
                at_end = training.step == keys.steps
                if training.step % keys.evaluate_every == 0 or at_end:
                    history.append({"loss": float(loss.detach())} | _evaluated(training, work))
                elif training.step % keys.record_every == 0:
                    history.append({"loss": float(loss.detach())} | _record(training))
                if keys.checkpoint_every and training.step % keys.checkpoint_every == 0 and not at_end:
                    checkpoints.save(training, history)
    checkpoints.clear()
    return Trained(run, training.modulator, training.n_parameters, training.reach, history)


def _record(training: ModulatorTraining) -> dict[str, Any]:
    record: dict[str, Any] = {"step": training.step, "reach": training.reach}
    strengths = training.modulator.strengths()
    if strengths is not None:
        for layer, parts in zip(training.modulator.layers, strengths.tolist(), strict=True):
            for part, alpha in enumerate(parts):
                record[f"alpha L{layer}" if len(parts) == 1 else f"alpha L{layer}.{part}"] = alpha
    return record


def _evaluated(training: ModulatorTraining, work: ModulatorWork) -> dict[str, Any]:
    losses = losses_of(work.model, work.val, work.config.training.batch_size)
    return _record(training) | {"val": float(losses[0].sum() / losses[1].sum())}


@torch.no_grad()
def losses_of(model: LanguageModel, examples: Sequence[Example], batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of -log P over the predicted tokens of each example, and how many they are, float64 on the CPU."""
    sums, counts = torch.zeros(2, len(examples), dtype=torch.float64)
    for rows in batches_of_like_length(np.array([len(it.input_ids) for it in examples]), batch_size):
        found = example_losses(model, [examples[row] for row in rows])
        sums[rows], counts[rows] = (values.double().cpu() for values in found)
    return sums, counts
