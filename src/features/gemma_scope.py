"""Raw Gemma Scope SAEs (Lieberum et al. 2024, arXiv 2408.05147): params.npz, read from the disk for SAELens.

SAELens has the same conversion only for files that it downloads itself.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.errors import StrataError
from src.hook_points import HookPoint

FILE = "params.npz"
_HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
_SITE = re.compile(r"gemma-scope-[^/]*?-(res|mlp|att)(?:[-/]|$)")
_LAYER = re.compile(r"(?:^|/)layer_(\d+)(?:/|$)")


def gemma_scope_hook_name(path: Path, point: HookPoint | None) -> str | None:
    """Where a params.npz reads, as SAELens spells it: the point that a user names, else what the folders' names say."""
    if point is not None:
        return f"blocks.{point.layer}.hook_{point.hook}"
    text = path.absolute().as_posix()
    site, layer = _SITE.search(text), _LAYER.search(text)
    return f"blocks.{layer[1]}.{_HOOKS[site[1]]}" if site and layer else None


def read_gemma_scope(path: Path, hook_name: str | None, device: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights (float32) as SAELens' loaders return them, of a JumpReLU SAE in Gemma Scope's layout.

    Raises StrataError for a file that is damaged, holds pickled objects, or lacks an array or has one of a wrong shape.
    """
    remedy = "download it anew, or give a params.npz of Gemma Scope"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            read = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zipfile, zlib, numpy and the disk each have exceptions of their own for damage
        raise StrataError(f"{path} can't be read ({type(error).__name__}: {error}): {remedy}") from error
    # some releases spell the matrices w_enc and w_dec
    weights = {f"W_{name[2:]}" if name.startswith("w_") else name: values for name, values in read.items()}
    shapes = {name: values.shape for name, values in weights.items()}
    d_model, n_features = shapes["W_enc"] if len(shapes.get("W_enc", ())) == 2 else (0, 0)
    expected = {
        "W_enc": (d_model, n_features),
        "W_dec": (n_features, d_model),
        "b_enc": (n_features,),
        "b_dec": (d_model,),
        "threshold": (n_features,),
    }
    if not n_features or shapes != expected:
        raise StrataError(
            f"{path} holds {shapes}; a params.npz of Gemma Scope holds W_enc [d_model, feature], W_dec [feature, "
            f"d_model], b_enc, threshold [feature] and b_dec [d_model]: {remedy}"
        )
    config = {
        "architecture": "jumprelu",
        "d_in": d_model,
        "d_sae": n_features,
        "dtype": "float32",
        "device": device,
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "metadata": {"hook_name": hook_name},
    }
    return config, {name: torch.from_numpy(values).to(device, torch.float32) for name, values in weights.items()}
