"""Find a model's blocks by what they do, never by the name of its family."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from src.errors import StrataError
from src.models.inner import PROBE_SHAPE, InnerModel, hidden_state, is_hidden_state, probe, residual_input

# the names under which configs keep the number of layers (most others are mapped to the first by transformers)
_LAYER_COUNTS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
)
_MOST_SHOWN = 12  # lists named in an error: a mixture of experts has hundreds


@dataclass(frozen=True)
class Blocks:
    """The blocks of a model in the order in which they run; `path` leads to their list inside the whole model."""

    path: str
    modules: tuple[nn.Module, ...]
    d_model: int


@dataclass
class _Calls:
    """What the probe saw of one module: hidden states taken and returned, when, and of what width."""

    times: list[int] = field(default_factory=list)
    widths: set[int | None] = field(default_factory=set)


def find_blocks(module: PreTrainedModel, inner: InnerModel, path: str | None = None) -> Blocks:
    """The list of modules that are called once each, in order, and take and return [batch, pos, d_model].

    Candidates are the lists of the model (of the wanted stack, for an encoder-decoder) whose length is a number of
    layers in the config; the outermost that passes the probe is taken.

    Args:
        module: the whole model.
        inner: its inner model.
        path: the user's own choice (`model.blocks`); it is checked in the same way.

    Raises:
        StrataError: nothing passes, or more than one list does; the message names the paths that were tried.
    """
    lists = dict(_lists(module, inner, path))
    counts = _layer_counts(module)
    candidates = {name: members for name, members in lists.items() if path is not None or len(members) in counts}
    calls = _observe(module, inner, {id(member): member for members in candidates.values() for member in members})
    faults = {name: _fault(members, calls) for name, members in candidates.items()}
    fitting = [name for name, fault in faults.items() if fault is None]
    outermost = [name for name in fitting if not any(name.startswith(f"{other}.") for other in fitting)]
    if len(outermost) == 1:
        members = candidates[outermost[0]]
        (d_model,) = calls[id(members[0])].widths
        assert d_model is not None
        return Blocks(outermost[0], tuple(members), d_model)
    shown = sorted(lists, key=lambda name: (name not in faults, name.count(".")))[:_MOST_SHOWN]
    tried = [f"  {name} ({_contents(lists[name])}): {_reason(name, faults, counts)}" for name in shown]
    if path is not None:
        raise StrataError(f"model.blocks={path} is not the list of blocks of {type(module).__name__}:\n{tried[0]}")
    raise StrataError(
        f"found no single list of blocks in {type(module).__name__}, whose config speaks of "
        f"{' or '.join(map(str, sorted(counts))) or 'no number of'} layers. Tried:\n"
        + ("\n".join(tried) or "  (it holds no lists of modules)")
        + "\nName the right one with model.blocks=path.to.list"
    )


def _lists(module: PreTrainedModel, inner: InnerModel, path: str | None) -> Iterator[tuple[str, list[nn.Module]]]:
    if path is None:
        for name, submodule in module.named_modules():
            inside = not inner.path or name.startswith(f"{inner.path}.")
            if inside and isinstance(submodule, nn.ModuleList | nn.Sequential):
                yield name, list(submodule)
        return
    submodule = dict(module.named_modules()).get(path)
    if not isinstance(submodule, nn.ModuleList | nn.Sequential):
        known = [name for name, item in module.named_modules() if isinstance(item, nn.ModuleList)]
        raise StrataError(
            f"model.blocks={path}: {type(module).__name__} has no list of modules of that path; "
            f"it has {', '.join(known[:10]) or 'none at all'}{' ...' if len(known) > 10 else ''}"
        )
    yield path, list(submodule)


def _layer_counts(module: PreTrainedModel) -> set[int]:
    configs = (module.config, module.config.get_text_config())
    counts = {getattr(config, name, None) for config in configs for name in _LAYER_COUNTS}
    return {count for count in counts if isinstance(count, int) and count > 0}


def _observe(module: PreTrainedModel, inner: InnerModel, watched: dict[int, nn.Module]) -> dict[int, _Calls]:
    calls = {key: _Calls() for key in watched}
    clock = iter(range(10**9))
    with ExitStack() as hooks:
        for key, member in watched.items():

            def record(_module: nn.Module, args: Any, kwargs: Any, output: Any, seen: _Calls = calls[key]) -> None:
                seen.times.append(next(clock))
                seen.widths |= {_width(residual_input(args, kwargs)), _width(hidden_state(output))}

            handle = member.register_forward_hook(record, with_kwargs=True)
            hooks.callback(handle.remove)
        probe(module, inner)
    return calls


def _width(value: object) -> int | None:
    if isinstance(value, Tensor) and is_hidden_state(value) and tuple(value.shape[:2]) == PROBE_SHAPE:
        return value.shape[2]
    return None


def _fault(members: Iterable[nn.Module], calls: dict[int, _Calls]) -> str | None:
    """Why a list can't be the blocks; None if it can."""
    seen = [calls[id(member)] for member in members]
    if not seen or any(len(call.times) != 1 for call in seen):
        return "its members are not called once each in a forward pass"
    if sorted(seen, key=lambda call: call.times[0]) != seen:
        return "its members are not called in order"
    widths = set().union(*(call.widths for call in seen))
    if None in widths or len(widths) != 1:
        return "its members do not all take and return [batch, pos, d_model]"
    return None


def _reason(name: str, faults: dict[str, str | None], counts: set[int]) -> str:
    if name not in faults:
        return f"not {' or '.join(map(str, sorted(counts)))} members"
    return faults[name] or "fits, but is not the only one"


def _contents(members: list[nn.Module]) -> str:
    kinds = dict.fromkeys(type(member).__name__ for member in members)
    return f"{len(members)} x {' / '.join(kinds)}" if members else "empty"
