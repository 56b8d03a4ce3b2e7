"""Train a modulator: AdamW with a rate for each role, a warm-up and a cosine, clipping; states to go on from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from src.artifacts.tensors import load_tensors, save_tensors
from src.errors import StrataError
from src.modulators.modulator import Modulator, Role

_MODULATOR, _MOMENTS = "modulator.safetensors", "moments.safetensors"
_REMEDY = "train again with overwrite=true"


@dataclass(frozen=True)
class TrainingSettings:
    """Of one run.

    lr: of weights. strength_lr, geometry_lr: times it, for strengths and for what places simplices. Strengths have no
    weight decay: it would pull their logits to a half (BUG G-11). warm_up: share of the steps over which the rates
    grow; they fall to 0 on a cosine after that. clip: norm of the gradient at most.
    """

    n_steps: int
    lr: float = 3e-3
    strength_lr: float = 10.0
    geometry_lr: float = 0.1
    weight_decay: float = 0.01
    warm_up: float = 0.05
    clip: float = 1.0


class ModulatorTraining:
    """Steps of one modulator down the gradient of a loss.

    reach: how far the logit of a strength can have moved by now, since Adam moves a parameter by about its rate a step:
    a strength that ends at its reach has not settled (spec G9, BUG G-11).
    """

    def __init__(self, modulator: Modulator, settings: TrainingSettings) -> None:
        self.modulator, self.settings, self.step, self.reach = modulator, settings, 0, 0.0
        self._trained = {name: p for name, p in modulator.named_parameters() if p.requires_grad}
        factor: dict[Role, float] = {
            "strength": settings.strength_lr,
            "geometry": settings.geometry_lr,
            "weights": 1.0,
        }
        groups = []
        for role in factor:
            parameters = [p for name, p in self._trained.items() if modulator.role(name) == role]
            decay = 0.0 if role == "strength" else settings.weight_decay
            if parameters:
                groups.append({"params": parameters, "lr": settings.lr * factor[role], "weight_decay": decay})
        self._optimiser = torch.optim.AdamW(groups)
        self._rates = [group["lr"] for group in groups]

    @property
    def n_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self._trained.values())

    def train(self, loss: Tensor) -> None:
        """One step. Raises StrataError for a loss that is not finite."""
        if not bool(loss.isfinite()):
            raise StrataError(
                f"the loss at step {self.step + 1} is {float(loss.detach()):g}: try a smaller training.lr, or "
                "model.dtype=float32"
            )
        rate = self._rate(self.step)
        for group, full in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = full * rate
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._trained.values(), self.settings.clip)
        self._optimiser.step()
        self.reach += self.settings.lr * self.settings.strength_lr * rate
        self.step += 1

    def save_state(self, folder: Path) -> None:
        """Write all that training goes on from."""
        save_tensors(folder / _MODULATOR, self.modulator.state_dict())
        moments = {}
        for name, parameter in self._trained.items():
            for key, value in self._optimiser.state[parameter].items():
                moments[f"{key}:{name}"] = value
        save_tensors(folder / _MOMENTS, moments)

    def load_state(self, folder: Path, step: int) -> None:
        """Go on from what `save_state` wrote at a step, to the same bits. Raises StrataError for a damaged file."""
        self.modulator.load_state_dict(load_tensors(folder / _MODULATOR, _REMEDY))
        for name, value in load_tensors(folder / _MOMENTS, _REMEDY).items():
            key, _, parameter = name.partition(":")
            trained = self._trained[parameter]
            # AdamW keeps its count of steps on the CPU
            self._optimiser.state[trained][key] = value if key == "step" else value.to(trained.device)
        self.step = step
        self.reach = sum(self.settings.lr * self.settings.strength_lr * self._rate(done) for done in range(step))

    def _rate(self, step: int) -> float:
        warm_up = max(1, round(self.settings.warm_up * self.settings.n_steps))
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.settings.n_steps - warm_up)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def batch_order(n_examples: int, batch_size: int, step: int, seed: int) -> Sequence[int]:
    """The examples of a step: each epoch in an order of its own, from seed and step alone, so that a run can go on.

    A last batch that would be short begins the next epoch instead.
    """
    if batch_size > n_examples:
        raise StrataError(f"training.batch_size={batch_size} is more than the {n_examples} examples to train on")
    per_epoch = n_examples // batch_size
    epoch, place = divmod(step, per_epoch)
    draws = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(n_examples, generator=draws)
    return order[place * batch_size : (place + 1) * batch_size].tolist()
