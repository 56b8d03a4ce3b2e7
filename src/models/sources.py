"""Which sources a model offers, where each of them is read, and the shape of its attention."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

from src.errors import StrataError
from src.hook_points import ATTENTION, QKV_SOURCES, SOURCES
from src.models.language_model import LanguageModel
from src.models.projections import AttentionSites
from src.models.sites import Site

Name = TypeVar("Name", bound=Hashable)


class AttentionShape(NamedTuple):
    """Heads of queries, heads of keys and values, and the width of a head."""

    n_heads: int
    n_kv_heads: int
    d_head: int


def available_sources(model: LanguageModel) -> dict[str, str | None]:
    """Of each of SOURCES: None if every layer of the model offers it, else why not."""
    return {source: _reason(model, source, range(model.n_layers)) for source in SOURCES}


def check_sources(model: LanguageModel, sources: Collection[str], layers: Sequence[int]) -> None:
    """Raise StrataError, which lists all that is missing, unless the model offers these sources at these layers."""
    if unknown := sorted(set(sources) - set(SOURCES)):
        raise StrataError(f"unknown sources {', '.join(unknown)}: choose from {', '.join(SOURCES)}")
    if absent := [layer for layer in layers if not 0 <= layer < model.n_layers]:
        raise StrataError(f"{_numbers(absent)}: the model has layers 0..{model.n_layers - 1}")
    wanted = [source for source in SOURCES if source in sources]
    missing = {source: reason for source in wanted if (reason := _reason(model, source, layers))}
    if missing:
        lines = [f"  {', '.join(names)}: {reason}" for reason, names in _by_reason(missing).items()]
        raise StrataError(
            f"{type(model.module).__name__} ({model.config.name}) does not offer all that is to be recorded:\n"
            + "\n".join(lines)
            + "\nLeave these sources, or these layers, out"
        )


def site_of(model: LanguageModel, source: str, layer: int) -> Site:
    """Where a source (not attention) is read; StrataError if the model does not offer it there."""
    found = _find(model, source, layer)
    if isinstance(found, str):
        raise StrataError(f"{source} of layer {layer}: {found}")
    assert isinstance(found, Site)
    return found


def attention_sites(model: LanguageModel, layer: int) -> AttentionSites:
    """Where the attention of a layer is; StrataError if the model does not offer it there."""
    found = model.internals.attention[layer]
    if isinstance(found, str):
        raise StrataError(f"attention of layer {layer}: {found}")
    return found


def attention_shape(model: LanguageModel, layers: Sequence[int] | None = None) -> AttentionShape:
    """Of some layers (all of them), from attention weights and projections as they are, checked against the config.

    Raises:
        StrataError: attention or its projections can't be read, differ between layers, or are not what the config says.
    """
    layers = range(model.n_layers) if layers is None else layers
    check_sources(model, (*QKV_SOURCES, ATTENTION), layers)
    n_heads = attention_sites(model, layers[0]).n_heads
    queries, keys = (site_of(model, role, layers[0]).width for role in ("q", "k"))
    d_head = queries // n_heads
    shape = AttentionShape(n_heads, keys // d_head, d_head)
    config = model.module.config.get_text_config()
    said = {"num_attention_heads": n_heads, "num_key_value_heads": shape.n_kv_heads, "head_dim": d_head}
    for name, value in said.items():
        given = getattr(config, name, None)
        if isinstance(given, int) and given != value:
            raise StrataError(
                f"the config of {model.config.name} says {name}={given}, but its attention has {value} "
                f"({n_heads} heads; queries of {queries}, keys of {keys} numbers)"
            )
    return shape


def _find(model: LanguageModel, source: str, layer: int) -> Site | AttentionSites | str:
    if source == "resid_pre":
        return Site("", "input", model.d_model)
    if source == "resid_post":
        return Site("", "output", model.d_model)
    if source in ("attn_out", "mlp_out"):
        try:
            increments = model.increments
        except StrataError as error:
            return str(error)
        return Site(getattr(increments, source)[layer], "output", model.d_model)
    attention = model.internals.attention[layer]
    if source == ATTENTION or (isinstance(attention, str) and source in QKV_SOURCES):
        return attention
    if isinstance(attention, AttentionSites) and source in QKV_SOURCES:
        return attention.sites[source]
    return model.internals.neurons[layer][source]


def _reason(model: LanguageModel, source: str, layers: Sequence[int]) -> str | None:
    """Why a source is not there at all of some layers."""
    found = {layer: _find(model, source, layer) for layer in layers}
    reasons = {layer: place for layer, place in found.items() if isinstance(place, str)}
    if len(reasons) == len(layers) and len(set(reasons.values())) == 1:
        return next(iter(reasons.values()))
    if reasons:
        return "; ".join(f"{_numbers(named)}: {reason}" for reason, named in _by_reason(reasons).items())
    widths = {layer: _width(place) for layer, place in found.items()}
    if len(set(widths.values())) > 1:
        each = "; ".join(f"{width} at {_numbers(named)}" for width, named in _by_reason(widths).items())
        return f"layers that are recorded together must be alike: {each}"
    return None


def _width(found: Site | AttentionSites | str) -> str:
    assert not isinstance(found, str)
    return f"{found.n_heads} heads" if isinstance(found, AttentionSites) else f"{found.width} columns"


def _by_reason(reasons: Mapping[Name, str]) -> dict[str, list[Name]]:
    gathered: dict[str, list[Name]] = {}
    for name, reason in reasons.items():
        gathered.setdefault(reason, []).append(name)
    return gathered


def _numbers(layers: Sequence[int]) -> str:
    """As in "layers 0..3, 7"."""
    runs = [[layer for _, layer in run] for _, run in groupby(enumerate(layers), lambda pair: pair[1] - pair[0])]
    numbers = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)
    return f"layer{'s' if len(layers) > 1 else ''} {numbers}"
