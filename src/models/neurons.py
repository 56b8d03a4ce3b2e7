"""Find the gate, up and down projections of each block's MLP, by asking how its neurons answer to them.

The down projection is the linear map whose output is the MLP's (before any post-norm); its input are the neurons. The
maps before it whose width is that of the neurons (or twice, fused) are tried with chosen outputs: an MLP works on each
token alone, so one forward pass of the probe tries a different set of outputs at every token. A gated MLP computes
neuron = f(gate) * up (Shazeer 2020, GLU variants), so

    the neurons turn to their negative when `up` does, and not when `gate` does;
    changing some columns of either changes those neurons and no others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from src.models.blocks import Blocks
from src.models.increments import Increments
from src.models.inner import InnerModel, hidden_state, probe, residual_input
from src.models.projections import Roles
from src.models.sites import Columns, Handles, Site, linear_maps, probe_rows

_ROUNDING = 8.0  # units of the machine epsilon
ROLES = ("mlp_gate", "mlp_up", "mlp_act")

Values = Float[Tensor, "token width"]


def find_neurons(
    module: PreTrainedModel, inner: InnerModel, blocks: Blocks, increments: Increments, attention: Sequence[str | None]
) -> list[Roles]:
    """Where mlp_gate, mlp_up and mlp_act of each block are read, or why they can't be.

    attention: path of each block's attention module; what lies inside of it is no part of an MLP.
    """
    searches = [
        _Search(block, mlp, path)
        for block, mlp, path in zip(blocks.modules, increments.mlp_out, attention, strict=True)
    ]
    for step in (_Search.look_for_down, _Search.try_columns):
        with Handles() as handles:
            for search in searches:
                step(search, handles)
            probe(module, inner)
    return [search.finished() for search in searches]


@dataclass(frozen=True, eq=False)
class _Call:
    """What the probe saw of one linear map."""

    path: str
    given: Values
    output: Values


@dataclass(frozen=True)
class _Part:
    """Columns of a map that may be a gate or an up projection."""

    path: str
    columns: Columns | None


class _Search:
    def __init__(self, block: nn.Module, mlp: str, attention: str | None) -> None:
        self.block, self.mlp, self.attention = block, mlp, attention
        self.calls: list[_Call] = []
        self.mlp_values: list[Values] = []
        self.trials: list[_Trial] = []
        self.neurons: Values | None = None

    def look_for_down(self, handles: Handles) -> None:
        for path, module in linear_maps(self.block):
            if self.attention is None or not path.startswith(f"{self.attention}."):
                handles.append(module.register_forward_hook(partial(self._note, path)))
        mlp = self.block.get_submodule(self.mlp)
        handles.append(mlp.register_forward_hook(self._note_mlp, with_kwargs=True))

    def _note(self, path: str, _module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given, output = probe_rows(args[0] if args else None), probe_rows(output)
        if given is not None and output is not None:  # falcon adds to outputs in place
            self.calls.append(_Call(path, given.clone(), output.clone()))

    def _note_mlp(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        values = (probe_rows(hidden_state(output)), probe_rows(residual_input(args, kwargs)))
        self.mlp_values = [value.clone() for value in values if value is not None]

    @property
    def down(self) -> _Call | None:
        """The map whose output is the MLP's, or what a norm after the MLP takes."""
        for value in self.mlp_values:
            for call in reversed(self.calls):
                if torch.equal(call.output, value) and sum(other.path == call.path for other in self.calls) == 1:
                    return call
        return None

    def try_columns(self, handles: Handles) -> None:
        down = self.down
        if down is None:
            return
        self.trials = list(self._candidates(down))
        outputs = _arranged(self.trials, {call.path: call.output for call in self.calls})
        for path, values in outputs.items():
            handles.append(self.block.get_submodule(path).register_forward_hook(partial(_replace, values)))
        handles.append(self.block.get_submodule(down.path).register_forward_pre_hook(self._note_neurons))

    def _candidates(self, down: _Call) -> list["_Trial"]:
        width, before = down.given.shape[1], self.calls[: self.calls.index(down)]
        single = [_Part(call.path, None) for call in before if call.output.shape[1] == width]
        double = [call.path for call in before if call.output.shape[1] == 2 * width]
        if len(single) in (1, 2) and not double:
            return [_Trial(single, 0)]
        if len(double) == 1:
            halves = [_Part(double[0], slice(0, width)), _Part(double[0], slice(width, 2 * width))]
            in_turn = [_Part(double[0], torch.arange(first, 2 * width, 2)) for first in (0, 1)]
            return [_Trial(halves, 0), _Trial(in_turn, 1)]
        return []

    def _note_neurons(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self.neurons = probe_rows(args[0])

    def finished(self) -> Roles:
        down = self.down
        if down is None:
            kind = type(self.block.get_submodule(self.mlp)).__name__
            reason = f"no single linear map gives the MLP's output ({self.mlp}: {kind}), as in a mixture of experts"
            return dict.fromkeys(ROLES, reason)
        width = down.given.shape[1]
        sites: dict[str, Site | str] = {"mlp_act": Site(down.path, "input", width)}
        assert self.neurons is not None
        neurons = self.neurons.cpu()
        for trial in self.trials:
            for role, part in trial.roles(neurons).items():
                sites[role] = Site(part.path, "output", width, part.columns)
        if "mlp_up" not in sites:
            tried = ", ".join(dict.fromkeys(call.path for call in self.calls if call.path != down.path)) or "none"
            sites["mlp_up"] = (
                f"the neurons (input of {down.path}) are not f(up) or f(gate) * up of linear maps ({tried})"
            )
            sites["mlp_gate"] = sites["mlp_up"]
        elif "mlp_gate" not in sites:
            sites["mlp_gate"] = "the MLP has no gate"
        return {role: sites[role] for role in ROLES}


class _Trial:
    """One or two parts, with chosen outputs at five tokens of the probe."""

    def __init__(self, parts: list[_Part], place: int) -> None:
        self.parts, self.place = parts, place

    def values(self, width: int) -> list[Float[Tensor, "5 width"]]:
        """Of each part: as drawn; first part negative; second part negative; some columns of each drawn anew."""
        draws = torch.Generator().manual_seed(0)
        chosen = self.chosen(width)
        made = []
        for which in range(len(self.parts)):
            base, other = torch.randn(2, width, generator=draws)
            values = base.repeat(5, 1)
            values[1 + which] = -base
            values[3 + which] = torch.where(chosen, other, base)
            made.append(values)
        return made

    @staticmethod
    def chosen(width: int) -> Bool[Tensor, "width"]:
        """The columns that are drawn anew."""
        return torch.rand(width, generator=torch.Generator().manual_seed(1)) < 0.5

    def roles(self, neurons: Values) -> dict[str, _Part]:
        """Which part is what; empty if they are not what makes the neurons."""
        base, *answers = neurons[5 * self.place :][:5]
        chosen = self.chosen(neurons.shape[1])
        local = [
            _same(answers[2 + which][~chosen], base[~chosen]) and not _same(answers[2 + which][chosen], base[chosen])
            for which in range(len(self.parts))
        ]
        if not all(local) or not base.isfinite().all():
            return {}
        if len(self.parts) == 1:
            return {"mlp_up": self.parts[0]}
        linear = [_same(answers[which], -base) for which in range(2)]
        if sum(linear) != 1:
            return {}
        up = linear.index(True)
        return {"mlp_up": self.parts[up], "mlp_gate": self.parts[1 - up]}


def _arranged(trials: list[_Trial], outputs: Mapping[str, Values]) -> dict[str, Values]:
    """The outputs that maps shall give in the probe, so that each trial has its five tokens."""
    arranged: dict[str, Values] = {}
    for trial in trials:
        for part in trial.parts:
            arranged.setdefault(part.path, torch.zeros(outputs[part.path].shape))
        columns = [slice(None) if part.columns is None else part.columns for part in trial.parts]
        width = arranged[trial.parts[0].path][0, columns[0]].shape[0]
        for part, where, values in zip(trial.parts, columns, trial.values(width), strict=True):
            arranged[part.path][5 * trial.place : 5 * trial.place + 5, where] = values
    return arranged


def _same(one: Float[Tensor, "neuron"], other: Float[Tensor, "neuron"]) -> bool:
    """Up to the last bits: vectorised functions may round by an element's place."""
    rounding = _ROUNDING * torch.finfo(one.dtype).eps
    return torch.allclose(one.double(), other.double(), rtol=rounding, atol=rounding * float(other.abs().max()))


def _replace(values: Values, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    return values.to(output).reshape(output.shape)
