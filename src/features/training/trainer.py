"""Train SAEs with SAELens' trainer: one for each hook point, side by side on the same batches."""

import contextlib
import copy
import difflib
import io
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from src.artifacts.tensors import save_tensors
from src.errors import StrataError
from src.features.sae import Sae
from src.features.training.row_stream import Batch
from src.hook_points import HookPoint

if TYPE_CHECKING:
    from sae_lens import SAETrainer, TrainingSAE

_WEIGHTS, _MEAN = "weights.safetensors", "mean.safetensors"
_ESTIMATE_ROWS = 100_000  # for the mean and the scale of the activations
_SPARSITY_STEPS = 2000
_FOLDED = ("expected_average_only_in", "covariance_whitening")


@dataclass(frozen=True)
class TrainingSettings:
    """How SAEs are trained.

    keys: of SAELens' training config of the architecture (k, l1_coefficient, ...). warm_up, decay: shares of the run.
    dead_feature_window: steps. metadata: what SAELens is to keep of where the activations come from.
    """

    architecture: str
    d_sae: int
    keys: Mapping[str, Any]
    tokens: int
    batch_size: int
    lr: float
    warm_up: float
    decay: float
    normalize_activations: str
    b_dec_init: str
    dead_feature_window: int
    dtype: str
    seed: int
    metadata: Mapping[str, Any]

    @property
    def n_steps(self) -> int:
        """Steps of the whole run."""
        return math.ceil(self.tokens / self.batch_size)


class SaeTraining:
    """SAEs in training, one for each hook point.

    An SAE depends on its hook point, the settings and the batches, not on which others are trained beside it.
    """

    def __init__(
        self, points: tuple[HookPoint, ...], d_model: int, settings: TrainingSettings, device: torch.device
    ) -> None:
        """Raises StrataError: an option that SAELens' config does not have, or a value that it refuses."""
        self.settings, self.step = settings, 0
        self.means: dict[HookPoint, Float[Tensor, " d_model"]] = {}
        self._trainers = {point: _trainer(point, d_model, settings, device) for point in points}
        self._loss: dict[HookPoint, Tensor] = {}

    @property
    def points(self) -> tuple[HookPoint, ...]:
        """What the SAEs read."""
        return tuple(self._trainers)

    def begin(self, batches: Iterator[Batch]) -> None:
        """Measure mean and scale of the activations on the first batches, and start the decoder's bias there."""
        size = self.settings.batch_size
        sample = [next(batches) for _ in range(max(1, min(self.settings.n_steps, _ESTIMATE_ROWS // size)))]
        for point, trainer in self._trainers.items():
            rows = [batch[point].to(trainer.cfg.device, torch.float32) for batch in sample]
            self.means[point] = torch.stack([x.double().mean(0) for x in _exact(rows)]).mean(0).float().cpu()
            scaler, normalisation = trainer.activation_scaler, self.settings.normalize_activations
            # bars of SAELens' own would run through ours
            with contextlib.redirect_stderr(io.StringIO()):
                if normalisation == "expected_average_only_in":
                    scaler.estimate_scaling_factor(rows[0].shape[1], iter(rows), len(rows))
                elif normalisation == "covariance_whitening":
                    scaler.estimate_whitening(rows[0].shape[1], iter(rows), len(rows))
            if self.settings.b_dec_init == "mean" and normalisation not in ("layer_norm", "constant_norm_rescale"):
                with torch.no_grad():
                    b_dec = trainer.sae.b_dec
                    b_dec.copy_(scaler(self.means[point].to(b_dec.device)[None])[0].to(b_dec.dtype))

    def train(self, batch: Batch) -> None:
        """One step of every SAE."""
        for point, trainer in self._trainers.items():
            trainer.maybe_reset_sparsity()
            self._loss[point] = trainer.step(batch[point].to(trainer.cfg.device, trainer.sae.dtype)).loss.detach()
            trainer.n_training_steps += 1
        self.step += 1

    def refuse_divergence(self) -> None:
        """StrataError if the last loss of an SAE is NaN or infinite, from which none comes back."""
        for point, loss in self._loss.items():
            if not bool(loss.isfinite()):
                raise StrataError(
                    f"the loss of the SAE of {point} is {float(loss)} at step {self.step:,}: lower lr="
                    f"{self.settings.lr:g}, or use normalize_activations=expected_average_only_in"
                    f"{'' if self.settings.dtype == 'float32' else ' and dtype=float32'}"
                )

    def inference_sae(self, point: HookPoint) -> Sae:
        """What would be saved now, in float32: normalisation folded into the weights, BatchTopK a JumpReLU."""
        from sae_lens import SAE

        trained = self._folded(point)
        weights = {name: weight.clone() for name, weight in trained.state_dict().items()}
        trained.process_state_dict_for_saving_inference(weights)
        sae: SAE[Any] = SAE.from_dict(trained.cfg.get_inference_sae_cfg_dict())
        sae.load_state_dict(weights)
        sae.to(torch.float32).eval().requires_grad_(False)
        return Sae(sae, f"of {point} in training", point.transformer_lens, point, is_centred=False)

    def save(self, point: HookPoint, folder: Path, storage_dtype: str) -> None:
        """Write the SAE as SAELens does (cfg.json, sae_weights.safetensors), its weights in the storage dtype.

        cfg.json says float32: SAELens computes in that. Raises StrataError if the dtype can't hold a weight.
        """
        self._trainers[point].set_final_sae_metadata()
        trained = self._folded(point)
        trained.cfg.dtype, trained.cfg.device = "float32", "cpu"
        path, _ = trained.save_inference_model(folder)
        dtype = getattr(torch, storage_dtype)
        weights = load_file(path)
        too_large = [name for name, weight in weights.items() if not weight.to(dtype).isfinite().all()]
        if too_large:
            raise StrataError(
                f"{' and '.join(too_large)} of the SAE of {point} exceed what {storage_dtype} can hold: use "
                "storage_dtype=bfloat16 or float32"
            )
        path.unlink()  # safetensors' own writer keeps a file from all but its owner
        save_tensors(path, {name: weight.to(dtype) for name, weight in weights.items()})

    def _folded(self, point: HookPoint) -> "TrainingSAE[Any]":
        """A copy that reads activations as they are, as SAETrainer.fit makes it at its end."""
        trainer = self._trainers[point]
        sae, scaler = copy.deepcopy(trainer.sae), trainer.activation_scaler
        if scaler.scaling_factor is not None:
            sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
        if scaler.whitening is not None:
            whitening = scaler.whitening
            sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)
        return sae

    def save_state(self, folder: Path) -> None:
        """Write all that training goes on from: weights bit by bit, and SAELens' trainer_state.pt."""
        for point, trainer in self._trainers.items():
            here = folder / str(point)
            trainer.save_trainer_state(here)
            save_tensors(here / _WEIGHTS, trainer.sae.state_dict())
            save_tensors(here / _MEAN, {"mean": self.means[point]})

    def load_state(self, folder: Path, step: int) -> None:
        """Go on from what `save_state` wrote at a step.

        SAELens reads its file with torch.load, which takes tensors and plain values alone unless the environment tells
        it otherwise.
        """
        os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
        for point, trainer in self._trainers.items():
            here = folder / str(point)
            trainer.load_trainer_state(here)
            trainer.sae.load_state_dict(load_file(here / _WEIGHTS))
            self.means[point] = load_file(here / _MEAN)["mean"]
        self.step = step


def first_seed(seed: int, point: HookPoint) -> int:
    """The seed of an SAE's first weights: that of the run, and the layer."""
    return int(np.random.SeedSequence([seed, point.layer]).generate_state(1, np.uint64)[0] >> 1)


def _exact(rows: list[Tensor]) -> list[Tensor]:
    return [x.cpu() if x.device.type == "mps" else x for x in rows]


def _trainer(
    point: HookPoint, d_model: int, settings: TrainingSettings, device: torch.device
) -> "SAETrainer[Any, Any]":
    from sae_lens import SAETrainer
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
    from sae_lens.saes.sae import SAEMetadata

    sae_class, config_class = SAE_TRAINING_CLASS_REGISTRY[settings.architecture]
    known = {
        "d_in": d_model,
        "d_sae": settings.d_sae,
        "dtype": settings.dtype,
        "device": str(device),
        "normalize_activations": settings.normalize_activations,
        "metadata": SAEMetadata(hook_name=point.transformer_lens, **settings.metadata),
    }
    _refuse_unknown_options(settings, config_class, set(known))
    # an SAE's first weights depend on its layer and the seed, not on what was drawn before
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(first_seed(settings.seed, point))
        try:
            sae = sae_class(config_class(**known, **copy.deepcopy(dict(settings.keys))))
        except (TypeError, ValueError, AssertionError) as error:
            raise StrataError(f"architecture={settings.architecture}: SAELens refuses its config ({error})") from error
    n_steps = settings.n_steps
    config = SAETrainerConfig(
        total_training_samples=n_steps * settings.batch_size,
        train_batch_size_samples=settings.batch_size,
        lr=settings.lr,
        lr_end=settings.lr,  # of a constant schedule it is without effect, and SAETrainer wants it
        lr_warm_up_steps=round(settings.warm_up * n_steps),
        lr_decay_steps=round(settings.decay * n_steps),
        device=str(device),
        dead_feature_window=settings.dead_feature_window,
        feature_sampling_window=min(_SPARSITY_STEPS, max(1, n_steps // 4)),
        logger=LoggingConfig(log_to_wandb=False),
    )
    return SAETrainer(cfg=config, sae=sae.to(device), data_provider=iter(()))


def _refuse_unknown_options(settings: TrainingSettings, config_class: type, ours: set[str]) -> None:
    known = {field.name for field in fields(config_class)} - ours - {"reshape_activations"}
    for key in settings.keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5) or sorted(known)
            raise StrataError(
                f"options.{key} means nothing to architecture={settings.architecture}: SAELens' config of it has "
                f"{', '.join(near)}"
            )
