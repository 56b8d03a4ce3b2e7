"""Train a modulator: AdamW with a rate for each role, a warm-up and a cosine, clipping; states to go on from."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from src.artifacts.tensors import load_tensors, save_tensors
from src.errors import StrataError
from src.models import LanguageModel
from src.modulators.modulator import Modulator, Role
from src.modulators.training.examples import Example, changed_ids, example_losses, n_predicted, passes
from src.modulators.training.schedule import rate_factor, reach

_MODULATOR, _MOMENTS, _BEST = "modulator.safetensors", "moments.safetensors", "best.safetensors"
_REMEDY = "train again with overwrite=true"
# where gradients pass through float16, losses begin so many times as large, lest small gradients become zero
_FIRST_SCALE = 2.0**12


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
    """Steps of one modulator down the gradient of a loss, and the best state so far.

    reach: how far the logit of a strength can have moved by now (src/modulators/training/schedule.py).
    """

    def __init__(self, modulator: Modulator, settings: TrainingSettings, half: bool = False) -> None:
        """half: gradients pass through float16, so losses are scaled; steps whose gradients overflow are left out."""
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
        device = next(iter(self._trained.values())).device.type
        self._scaler = torch.amp.GradScaler(device, init_scale=_FIRST_SCALE, enabled=half)
        self._best: dict[str, Tensor] = {}

    @property
    def n_parameters(self) -> int:
        """How many numbers are trained."""
        return self.modulator.n_trained

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return list(self._trained.values())

    def train(self, summands: Iterable[Float[Tensor, ""]]) -> float:
        """One step, down the gradient of the sum of some losses, which is returned.

        The graph of each summand is gone before the next one is asked for, so a generator needs the memory of one.
        Raises StrataError for a loss or gradient that is not finite.
        """
        factor = self._rate(self.step)
        for group, full in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = full * factor
        self._optimiser.zero_grad(set_to_none=True)
        losses = []
        for summand in summands:
            self._scaler.scale(summand).backward()
            losses.append(summand.detach())
        self._scaler.unscale_(self._optimiser)
        norm = nn.utils.clip_grad_norm_(self._trained.values(), self.settings.clip)
        loss, length = torch.stack([torch.stack(losses).sum(), norm.to(losses[0])]).tolist()
        # a scaler leaves out a step that overflows, and takes a smaller scale
        if not math.isfinite(loss) or not (math.isfinite(length) or self._scaler.is_enabled()):
            what = f"the loss at step {self.step + 1} is {loss:g}"
            if math.isfinite(loss):
                what = f"the loss at step {self.step + 1} is {loss:.4g}, but its gradient has the norm {length:g}"
            raise StrataError(f"{what}: try a smaller training.lr, training.autocast=null or model.dtype=float32")
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self.reach = reach([self.reach, self._strength_rate(self.step)])
        self.step += 1
        return loss

    def keep_as_best(self) -> None:
        """The state as it is now is the best so far."""
        self._best = {name: value.detach().clone() for name, value in self.modulator.state_dict().items()}

    def restore_best(self) -> None:
        """The modulator is what it was at its best."""
        self.modulator.load_state_dict(self._best)

    def save_state(self, folder: Path) -> None:
        """Write all that training goes on from."""
        save_tensors(folder / _MODULATOR, self.modulator.state_dict())
        save_tensors(folder / _BEST, self._best)
        moments = {
            f"scaler:{key}": torch.tensor(value, dtype=torch.float64)
            for key, value in self._scaler.state_dict().items()
        }
        for name, parameter in self._trained.items():
            for key, value in self._optimiser.state[parameter].items():
                moments[f"{key}:{name}"] = value
        save_tensors(folder / _MOMENTS, moments)

    def load_state(self, folder: Path, step: int) -> None:
        """Go on from what `save_state` wrote at a step, to the same bits. Raises StrataError for a damaged file."""
        try:
            self.modulator.load_state_dict(load_tensors(folder / _MODULATOR, _REMEDY))
            best = load_tensors(folder / _BEST, _REMEDY)
            now = self.modulator.state_dict()
            self._best = {name: value.to(now[name].device) for name, value in best.items()}
            scaler = {}
            for name, value in load_tensors(folder / _MOMENTS, _REMEDY).items():
                key, _, parameter = name.partition(":")
                if key == "scaler":
                    scaler[parameter] = value.item()
                    continue
                trained = self._trained[parameter]
                # AdamW keeps its count of steps on the CPU
                self._optimiser.state[trained][key] = value if key == "step" else value.to(trained.device)
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise StrataError(f"{folder} holds another modulator's training ({reason}): {_REMEDY}") from None
        if scaler:
            counts = ("growth_interval", "_growth_tracker")
            self._scaler.load_state_dict({key: int(value) if key in counts else value for key, value in scaler.items()})
        self.step = step
        self.reach = reach(self._strength_rate(done) for done in range(step))

    def _rate(self, step: int) -> float:
        return rate_factor(step, self.settings.n_steps, self.settings.warm_up)

    def _strength_rate(self, step: int) -> float:
        return self.settings.lr * self.settings.strength_lr * self._rate(step)


def step_losses(
    model: LanguageModel,
    modulator: Modulator,
    examples: Sequence[Example],
    per_pass: int,
    cast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[Float[Tensor, ""]]:
    """Summands of the mean loss over the predicted tokens of a step's examples: one for each pass, which is tracked.

    Args:
        model: frozen, with the modulator attached.
        modulator: what is trained.
        examples: of the step.
        per_pass: examples of a pass, at most.
        cast: a context of forward passes (autocast).

    Raises:
        StrataError: as `example_losses`.
    """
    total = n_predicted(examples)
    for part in passes(examples, per_pass):
        with cast(), modulator.tracked([len(changed_ids(model, example)) for example in part]):
            sums, _ = example_losses(model, part)
        yield sums.sum() / total


def batch_order(n_examples: int, batch_size: int, step: int, seed: int) -> Sequence[int]:
    """The examples of a step: each epoch in an order of its own, from seed and step alone, so that a run can go on.

    A last batch that would be short begins the next epoch instead.

    Raises:
        StrataError: fewer examples than a batch has.
    """
    if batch_size > n_examples:
        raise StrataError(f"training.batch_size={batch_size} is more than the {n_examples} examples to train on")
    per_epoch = n_examples // batch_size
    epoch, place = divmod(step, per_epoch)
    draws = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(n_examples, generator=draws)
    return order[place * batch_size : (place + 1) * batch_size].tolist()
