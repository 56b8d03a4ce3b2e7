"""Sparse autoencoders (SAEs), loaded through SAELens from a release, a local folder, or a raw file of Gemma Scope."""

import difflib
import hashlib
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from src.config.sae import SaeConfig
from src.devices import resolve_device
from src.errors import StrataError
from src.features.gemma_scope import FILE as GEMMA_SCOPE_FILE
from src.features.gemma_scope import gemma_scope_hook_name, read_gemma_scope
from src.hook_points import HOOKS, HookPoint
from src.models.loading import PROJECT_ROOT

if TYPE_CHECKING:
    from sae_lens import SAE

_MOST_LAYERS = 200  # of any model, where those are named that there are SAEs of
_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"


@dataclass(frozen=True, eq=False)
class Sae:
    """An SAE as SAELens has it, without gradients of its weights, and what it reads.

    source: what a user calls it. hook_name: where it was trained, in its own spelling; point: the same as ours, None
    where Strata has no such hook. is_centred: it was trained on a model whose writing weights are centred
    (TransformerLens' center_writing_weights), so that every row of the residual stream has mean 0 over its dimensions.
    """

    module: "SAE[Any]"
    source: str
    hook_name: str | None
    point: HookPoint | None
    is_centred: bool

    @property
    def architecture(self) -> str:
        """SAELens' name: standard, gated, jumprelu, topk, ..."""
        return self.module.cfg.architecture()

    @property
    def d_model(self) -> int:
        """Width of the activations."""
        return self.module.cfg.d_in

    @property
    def n_features(self) -> int:
        """Number of latents."""
        return self.module.cfg.d_sae

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.module.parameters()).device

    @property
    def model_name(self) -> str | None:
        """The model that the SAE says it was trained on."""
        return self.module.cfg.metadata.model_name

    @cached_property
    def decoder(self) -> Float[Tensor, "feature d_model"]:
        """What a feature adds to the reconstruction per unit of its activation."""
        weights = self.module.W_dec
        if getattr(self.module.cfg, "rescale_acts_by_decoder_norm", False):
            weights = weights / weights.norm(dim=1, keepdim=True)
        return weights.detach()

    def _centred(self, rows: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        """Rows as the SAE saw them in training."""
        return rows - rows.mean(-1, keepdim=True) if self.is_centred else rows

    def encode(self, rows: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row feature"]:
        """Feature activations, by SAELens' encode, in the SAE's dtype."""
        return self.module.encode(self._centred(rows))

    def reconstruct(
        self, rows: Float[Tensor, "*row d_model"]
    ) -> tuple[Float[Tensor, "*row feature"], Float[Tensor, "*row d_model"]]:
        """Feature activations and reconstruction, in one: SAEs that normalise rows decode what they encoded last."""
        features = self.encode(rows)
        decoded = self.module.decode(features)
        return features, decoded + rows.mean(-1, keepdim=True) if self.is_centred else decoded

    def contribution_scale(self, rows: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row 1"]:
        """What a unit of any feature adds to the reconstruction of each row, in units of its decoder row.

        1, but for SAEs that normalise each row and undo that after decoding (SAELens' normalize_activations).
        """
        kind = self.module.cfg.normalize_activations
        if kind == "constant_norm_rescale":
            return self._centred(rows).norm(dim=-1, keepdim=True) / self.d_model**0.5
        return rows.std(dim=-1, keepdim=True) if kind == "layer_norm" else torch.ones_like(rows[..., :1])

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the numbers that the SAE gives, for fingerprints, wherever it lies and whatever its name."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.module.state_dict().items()):
            weight = weight.detach().cpu().contiguous()
            digest.update(f"{name}\0{weight.dtype}\0{tuple(weight.shape)}\0".encode())
            digest.update(weight.reshape(-1).view(torch.uint8).numpy())
        settings = {
            key: value for key, value in self.module.cfg.to_dict().items() if key not in ("device", "dtype", "metadata")
        }
        return {
            "weights": digest.hexdigest(),
            "settings": settings,
            "is_centred": self.is_centred,
            "point": str(self.point) if self.point else self.hook_name,
        }


def load_sae(config: SaeConfig, device: torch.device | str = "cpu", layer: int | None = None) -> Sae:
    """Load an SAE in float32. device: where config.device is null. layer: wins over config.layer.

    Folders of SAELens' training SAEs (checkpoints) become the inference SAEs that SAELens makes of them: BatchTopK and
    Matryoshka a JumpReLU.

    Raises:
        StrataError: no such release, SAE or folder; out of the hub's reach; damaged files; an architecture that does
            not reconstruct single rows; another layer than the SAE's own.
    """
    named, config = config, config.filled(layer)
    place = resolve_device(config.device) if config.device else torch.device(device)
    if config.path is not None:
        source, module = f"{config.path}", _load_local(config, _local_path(named, config.path), str(place))
    else:
        source, module = f"{config.release}/{config.sae_id}", _load_release(config, str(place))
    _refuse_unusable(module, source)
    # rows are d_in numbers here, heads side by side
    module.turn_off_forward_pass_hook_z_reshaping()
    module.eval().requires_grad_(False)
    hook_name = module.cfg.metadata.hook_name
    return Sae(module, source, hook_name, _point(config, hook_name, source), _is_centred(module))


def is_there(config: SaeConfig, layer: int) -> bool:
    """Whether the SAE of a layer may be loaded: of a release always, a local one where its file or folder exists."""
    path = config.filled(layer).path
    return path is None or _placed(path).exists()


def _placed(text: str) -> Path:
    """A path as it is, else, where there is nothing, below the project."""
    path = Path(text).expanduser()
    return path if path.exists() else PROJECT_ROOT / path


def _local_path(named: SaeConfig, text: str) -> Path:
    """A folder of SAELens, or a params.npz; relative to the working directory, else to the project.

    named: as the user wrote it, perhaps with {layer}. text: its path, filled in.
    """
    path = _placed(text)
    if not path.exists():
        is_one_for_each = "{layer}" in (named.path or "")
        there = [str(layer) for layer in range(_MOST_LAYERS) if is_one_for_each and is_there(named, layer)]
        if there:
            raise StrataError(
                f"sae.path={text}: no such file or folder; of {named.path} there are the layers {', '.join(there)}"
            )
        tried = dict.fromkeys(str(place.absolute()) for place in (Path(text).expanduser(), path))
        raise StrataError(
            f"sae.path={text}: no such file or folder (looked at {' and '.join(tried)}). Give a folder that SAELens' "
            f"save_model wrote, or a {GEMMA_SCOPE_FILE} of Gemma Scope; for one of SAELens' releases set "
            "sae.path=null, sae.release and sae.sae_id"
        )
    if path.is_dir() and (path / _CONFIG).is_file():
        if not (path / _WEIGHTS).is_file():
            raise StrataError(f"sae.path={text}: {path} lacks {_WEIGHTS}; save the SAE there with SAELens' save_model")
        return path
    if (path / GEMMA_SCOPE_FILE).is_file():
        return path / GEMMA_SCOPE_FILE
    if path.suffix == ".npz":
        return path
    below = sorted({found.parent for name in (_CONFIG, GEMMA_SCOPE_FILE) for found in path.glob(f"*/{name}")})
    hint = f"; below it are {', '.join(str(folder) for folder in below[:5])}" if below else ""
    raise StrataError(
        f"sae.path={text}: {path} is no SAE of SAELens (a folder with {_CONFIG} and {_WEIGHTS}), and no "
        f"{GEMMA_SCOPE_FILE} of Gemma Scope{hint}"
    )


def _load_local(config: SaeConfig, path: Path, device: str) -> "SAE[Any]":
    # seconds to import: after whatever can be wrong about the path
    import sae_lens

    def read() -> "SAE[Any]":
        if path.suffix == ".npz":
            return _load_gemma_scope(config, path, device)
        try:
            return sae_lens.SAE.load_from_disk(path, device=device, dtype="float32")
        except KeyError as error:
            # SAELens keeps training SAEs whose encode needs a whole batch apart
            if error.args[0] not in sae_lens.registry.SAE_TRAINING_CLASS_REGISTRY:
                raise
        trained = sae_lens.TrainingSAE.load_from_disk(path, device=device, dtype="float32")
        with tempfile.TemporaryDirectory() as folder:
            trained.save_inference_model(folder)
            return sae_lens.SAE.load_from_disk(folder, device=device, dtype="float32")

    remedy = f"It must hold {_CONFIG} and {_WEIGHTS} as SAELens' save_model writes them; save or download it anew"
    return _explained(read, f"sae.path={config.path} can't be loaded", remedy)


def _load_gemma_scope(config: SaeConfig, path: Path, device: str) -> "SAE[Any]":
    import sae_lens

    point = None if config.hook is None or config.layer is None else HookPoint(config.hook, config.layer)
    hook_name = gemma_scope_hook_name(path, point)

    def convert(
        path: Path | str, device: str, cfg_overrides: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        cfg, weights = read_gemma_scope(Path(path), hook_name, device)
        cfg["metadata"]["sae_lens_version"] = sae_lens.__version__
        return cfg | (cfg_overrides or {}), weights

    return sae_lens.SAE.load_from_disk(path, device=device, converter=convert)


def _load_release(config: SaeConfig, device: str) -> "SAE[Any]":
    import sae_lens
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    release, sae_id = config.release or "", config.sae_id or ""
    directory = get_pretrained_saes_directory()
    if release in directory:
        _refuse_unknown("sae.sae_id", sae_id, list(directory[release].saes_map), f"release {release}")
    elif "/" not in release:
        _refuse_unknown("sae.release", release, list(directory), "SAELens")
    remedy = (
        "Check the names, the network, and your access (`hf auth login`), or download it and set sae.release=null "
        "sae.sae_id=null sae.path=FOLDER"
    )
    return _explained(
        lambda: sae_lens.SAE.from_pretrained(
            release, sae_id, device=device, dtype="float32", force_download=config.force_download
        ),
        f"sae.release={release} sae.sae_id={sae_id} can't be loaded from the Hugging Face hub",
        remedy,
    )


def _refuse_unknown(key: str, value: str, known: list[str], where: str) -> None:
    if value not in known:
        near = difflib.get_close_matches(value, known, n=3, cutoff=0.3) or known[:3]
        raise StrataError(
            f"{key}={value}: {where} has none of this name; it has {len(known)}, among them {', '.join(near)}"
        )


def _explained(load: Callable[[], "SAE[Any]"], what: str, remedy: str) -> "SAE[Any]":
    """Run a loader of SAELens; what goes wrong becomes one message with the remedy."""
    try:
        with warnings.catch_warnings():
            # that the model should be loaded in TransformerLens' way: `is_centred` does what that would
            warnings.filterwarnings("ignore", message=r"\s*This SAE has non-empty model_from_pretrained_kwargs")
            return load()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
        raise StrataError(f"{what} ({reason}). {remedy}") from error


def _refuse_unusable(module: "SAE[Any]", source: str) -> None:
    architecture, normalisation = module.cfg.architecture(), module.cfg.normalize_activations
    if "transcoder" in architecture or architecture == "temporal":
        raise StrataError(
            f"SAE {source} is a {architecture}: Strata takes SAEs that reconstruct a row from itself, such as "
            "standard, gated, jumprelu, topk and batchtopk"
        )
    if normalisation in ("expected_average_only_in", "covariance_whitening"):
        raise StrataError(
            f"SAE {source} was trained on normalised activations ({normalisation}), and the scale is not folded into "
            "its weights: take the SAE that SAELens' trainer writes at the end, or fold it and save it anew"
        )


def _is_centred(module: "SAE[Any]") -> bool:
    return bool((module.cfg.metadata.model_from_pretrained_kwargs or {}).get("center_writing_weights"))


def _point(config: SaeConfig, hook_name: str | None, source: str) -> HookPoint | None:
    """Where an SAE reads: what the user says, else what the SAE says."""
    try:
        own = None if hook_name is None else HookPoint.parse(hook_name)
    except StrataError:
        own = None  # a place that Strata has no name for
    layer = config.layer if config.layer is not None or own is None else own.layer
    if config.hook is not None and layer is not None:
        return HookPoint(config.hook, layer)
    if config.layer is not None and own is not None and own.layer != config.layer:
        raise StrataError(
            f"SAE {source} says that it reads {hook_name}, and sae.layer={config.layer}: choose one of them"
        )
    return own


def require_point(sae: Sae) -> HookPoint:
    """The hook point that an SAE reads. Raises StrataError where it is unknown, or Strata has no such hook."""
    if sae.point is None:
        says = f"reads {sae.hook_name}" if sae.hook_name else "does not say what it reads"
        raise StrataError(
            f"SAE {sae.source} {says}; Strata knows {', '.join(HOOKS)} of each layer: take an SAE of one of these, or, "
            "if it is one, say so by sae.hook and sae.layer"
        )
    return sae.point
