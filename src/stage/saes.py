"""The SAEs that a stage works with: loaded for its layers, and checked against the activations that they read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from src.activations.passes import Rows
from src.activations.store import ActivationStore
from src.config.sae import SaeConfig
from src.config.stages import Layers
from src.errors import StrataError
from src.features.pairing import Pairing, check_pairing
from src.features.releases import nearest_l0
from src.features.sae import Sae, is_there, load_sae, require_point
from src.hook_points import HookPoint
from src.stage.context import Stage


@dataclass(frozen=True, eq=False)
class PairedSae:
    """An SAE, and how it fits the hook point of the store that it reads (pairing.point)."""

    sae: Sae
    pairing: Pairing

    @property
    def point(self) -> HookPoint:
        """The hook point whose stored activations the SAE encodes."""
        return self.pairing.point


def load_saes(stage: Stage, config: SaeConfig, store: ActivationStore, layers: Layers) -> dict[int, PairedSae]:
    """The SAE of each of the layers, on the stage's device, after its pairing with the store's activations was checked.

    layers: "all" = of those that the store holds, all that there is a local SAE of; of a release, all.

    Raises:
        StrataError: an SAE that can't be loaded, or that does not fit the store (see `check_pairing`); one SAE, for
            several layers; no SAE of any layer.
    """
    held = sorted({point.layer for point in store.layout.hook_points})
    return pair_saes(find_saes(stage, config, layers, held), store, config.max_fvu)


def pair_saes(saes: Mapping[int, Sae], source: ActivationStore | Rows, max_fvu: float | None) -> dict[int, PairedSae]:
    """SAEs after their pairing with a store's activations, or given ones, was checked.

    Raises:
        StrataError: one that does not fit (see `check_pairing`).
    """
    return {
        layer: PairedSae(sae, check_pairing(sae, source, require_point(sae), max_fvu=max_fvu))
        for layer, sae in saes.items()
    }


def find_saes(
    stage: Stage, config: SaeConfig, layers: Layers, held: Sequence[int], l0: float | None = None
) -> dict[int, Sae]:
    """The SAE of each of the layers, on the stage's device, unchecked.

    held: the layers that "all" stands for. l0: of SAEs that a release has by L0, the nearest one.

    Raises:
        StrataError: an SAE that can't be loaded; one SAE, for several layers; no SAE of any layer.
    """

    def load(layer: int | None = None) -> Sae:
        return load_sae(config if l0 is None else nearest_l0(config, l0, layer), stage.device, layer)

    return _of_all_layers(config, held, load) if layers == "all" else _of_layers(config, layers, load)


def is_one_for_each_layer(config: SaeConfig) -> bool:
    """Whether the config names an SAE of every layer, and not one SAE."""
    return "{layer}" in (config.sae_id or config.path or "") and config.layer is None


def _of_layers(config: SaeConfig, layers: int | Sequence[int], load: Callable[[int], Sae]) -> dict[int, Sae]:
    wanted = [layers] if isinstance(layers, int) else list(dict.fromkeys(layers))
    if len(wanted) > 1 and not is_one_for_each_layer(config):
        raise StrataError(
            f"layers {wanted} need an SAE each, and the config names one ({config.path or config.sae_id}): put "
            "{layer} into sae.path or sae.sae_id (and leave sae.layer null), or choose one layer"
        )
    return {layer: load(layer) for layer in wanted}


def _of_all_layers(config: SaeConfig, held: Sequence[int], load: Callable[..., Sae]) -> dict[int, Sae]:
    if not is_one_for_each_layer(config):
        sae = load()
        return {require_point(sae).layer: sae}
    # what is there but can't be loaded is an error, and no layer without an SAE
    there = [layer for layer in held if is_there(config, layer)]
    return {layer: load(layer) for layer in there or held[:1]}
