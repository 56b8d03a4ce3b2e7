"""SAEs of a SAELens release that is sorted by L0, as Gemma Scope is: layer_20/width_16k/average_l0_71."""

import re
from pathlib import PurePosixPath

from src.config.sae import SaeConfig
from src.errors import StrataError

_AVERAGE_L0 = re.compile(r"average_l0_(\d+(?:\.\d+)?)")


def nearest_l0(config: SaeConfig, l0: float, layer: int | None = None) -> SaeConfig:
    """The config of the SAE whose average L0 is nearest (of two, the sparser) beside the one that sae_id names.

    layer: wins over config.layer.

    Raises:
        StrataError: no release; one that SAELens does not know; no SAEs by L0 beside sae_id.
    """
    filled = config.filled(layer)
    if filled.release is None or filled.sae_id is None:
        raise StrataError(
            f"sae_l0={l0:g} chooses among the SAEs of a release, and sae.path={config.path} is none: leave sae_l0 null"
        )
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    directory = get_pretrained_saes_directory()
    if filled.release not in directory:
        raise StrataError(
            f"sae_l0={l0:g}: SAELens has no release {filled.release} to choose from: name the SAE by sae.sae_id, and "
            "leave sae_l0 null"
        )
    folder = PurePosixPath(filled.sae_id).parent
    known = {
        float(match[1]): sae_id
        for sae_id in directory[filled.release].saes_map
        if PurePosixPath(sae_id).parent == folder and (match := _AVERAGE_L0.fullmatch(PurePosixPath(sae_id).name))
    }
    if not known:
        raise StrataError(
            f"sae_l0={l0:g}: release {filled.release} has no SAEs named by L0 in {folder}; take one that has, such as "
            "sae.release=gemma-scope-2b-pt-res, or leave sae_l0 null"
        )
    nearest = min(sorted(known), key=lambda average: abs(average - l0))
    return filled.model_copy(update={"sae_id": known[nearest]})
