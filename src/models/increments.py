"""Find the modules whose outputs a block adds to the residual stream, by asking the model.

Blocks of most families compute

    resid_mid = resid_pre + a,  resid_post = resid_mid + m      (sequential),  or
    resid_post = resid_pre + a + m                              (parallel attention and MLP: gpt-neox, falcon, phi),

where a and m are outputs of modules inside the block: the attention and the MLP themselves, the norms after them
(gemma2, gemma3, olmo2), or a projection (bloom). Both have resid_post = resid_pre + a + m, and that is what is searched
for. Post-norm blocks (bert, distilbert, the original transformer) normalise after each addition,

    resid_mid = norm1(resid_pre + a),  resid_post = norm2(resid_mid + m),

so that a and m are still what is added, but resid_post - resid_pre is not their sum.
"""

import itertools
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from src.errors import StrataError
from src.models.blocks import Blocks
from src.models.inner import PROBE_SHAPE, InnerModel, hidden_state, probe, residual_input, rounding_units

_DEPTH = 3  # how deep in a block modules are looked at: bert adds the output of attention.output.dense
# resid_pre + a + m is rounded at two additions, by at most eps/2 of what is there each time: 1 unit of eps * sum|terms|
_LIMIT = 2.0
_SAME_ROWS = (
    8.0  # a module that does not mix positions gives equal rows for equal tokens, up to the last bits of a product
)

ProbeTensor = Float[Tensor, "sequence pos d_model"]  # float64, on the CPU


@dataclass(frozen=True)
class Increments:
    """Paths, inside each block, of the modules whose outputs are added to the residual stream.

    post_norm: the blocks normalise after each addition, so resid_pre + attn_out + mlp_out is not resid_post.
    """

    attn_out: tuple[str, ...]
    mlp_out: tuple[str, ...]
    post_norm: bool


@dataclass(frozen=True)
class _Record:
    """What one module inside a block gave in the probe, and took, where that is a hidden state too."""

    path: str
    given: ProbeTensor | None
    output: ProbeTensor

    @property
    def depth(self) -> int:
        return self.path.count(".")


@dataclass(frozen=True)
class _Fit:
    first: _Record
    second: _Record
    post_norm: bool


def find_increments(module: PreTrainedModel, inner: InnerModel, blocks: Blocks) -> Increments:
    """The modules that give attn_out and mlp_out in every block, checked by their sum.

    Of modules with the same output (an attention and its last projection) the outermost counts, then the earliest.
    Attention is the one that mixes positions; where both depend on other positions (in sequential blocks the MLP reads
    what attention wrote) it is the one that runs first.

    Raises:
        StrataError: the increments of some block are not outputs of its modules, or the stack attends to another one.
    """
    if inner.through_decoder:
        raise StrataError(
            f"attn_out and mlp_out are not offered for the decoder of {type(module).__name__}: its blocks "
            "also add a cross-attention, so two increments do not make up a block. "
            "Use resid_pre or resid_post, or model.stack=encoder"
        )
    watches = [
        _BlockWatch(type(module).__name__, f"{blocks.path}.{i}", blocks.d_model) for i in range(len(blocks.modules))
    ]
    with ExitStack() as hooks:
        for watch, block in zip(watches, blocks.modules, strict=True):
            watch.attach(block, hooks)
        probe(module, inner)
    fits = [watch.finished() for watch in watches]
    first, second = tuple(fit.first.path for fit in fits), tuple(fit.second.path for fit in fits)
    dtype = module.dtype
    if _mixes_positions(fits[0].second.output, dtype) and not _mixes_positions(fits[0].first.output, dtype):
        first, second = second, first
    return Increments(attn_out=first, mlp_out=second, post_norm=any(fit.post_norm for fit in fits))


class _BlockWatch:
    """Records what the modules of one block take and give, and searches as soon as the block is done."""

    def __init__(self, model_name: str, path: str, d_model: int) -> None:
        self.model_name, self.path, self.d_model = model_name, path, d_model
        self.records: list[_Record] = []
        self.calls: Counter[str] = Counter()
        self.resid_pre: ProbeTensor | None = None
        self.fit: _Fit | None = None

    def attach(self, block: nn.Module, hooks: ExitStack) -> None:
        handles = [block.register_forward_pre_hook(self._enter, with_kwargs=True)]
        for path, submodule in block.named_modules():
            if path and path.count(".") < _DEPTH:
                handles.append(submodule.register_forward_hook(partial(self._record, path), with_kwargs=True))
        handles.append(block.register_forward_hook(self._leave))
        for handle in handles:
            hooks.callback(handle.remove)

    def finished(self) -> _Fit:
        """The fit, once the whole forward pass is done and every call is counted."""
        assert self.fit is not None  # _leave has raised otherwise
        for record in (self.fit.first, self.fit.second):
            if self.calls[record.path] != 1:
                raise StrataError(
                    f"{self.path}.{record.path} of {self.model_name} runs more than once in a forward pass, so "
                    "attn_out and mlp_out can't be told apart: use resid_pre and resid_post"
                )
        return self.fit

    def _copied(self, value: Any) -> ProbeTensor | None:
        """A float64 copy, since blocks may add in place; [token, d_model] outputs (opt's MLP) are unfolded."""
        n_tokens = PROBE_SHAPE[0] * PROBE_SHAPE[1]
        shapes = ((*PROBE_SHAPE, self.d_model), (n_tokens, self.d_model))
        if not isinstance(value, Tensor) or not value.is_floating_point() or tuple(value.shape) not in shapes:
            return None
        return value.detach().cpu().to(torch.float64, copy=True).reshape(*PROBE_SHAPE, self.d_model)

    def _enter(self, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.resid_pre = self._copied(residual_input(args, kwargs))

    def _record(
        self, path: str, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        self.calls[path] += 1
        state = self._copied(hidden_state(output))
        if state is not None and self.fit is None:
            self.records.append(_Record(path, self._copied(residual_input(args, kwargs)), state))

    def _leave(self, _block: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        dtype = hidden_state(output).dtype
        resid_pre, resid_post = self.resid_pre, self._copied(hidden_state(output))
        assert resid_pre is not None  # find_blocks has seen both
        assert resid_post is not None
        records, self.records = self.records, []
        self.fit = _search_sum(records, resid_pre, resid_post, dtype) or _search_post_norm(
            records, resid_pre, resid_post, dtype
        )
        if self.fit is None:
            tried = dict.fromkeys(record.path for record in records)
            raise StrataError(
                f"attn_out and mlp_out can't be read from {self.model_name}: in {self.path} no two modules' outputs "
                "add up to what the block adds to the residual stream, neither before nor after a norm. Tried all "
                f"pairs of {', '.join(tried) or '(none gives [batch, pos, d_model])'}. Use resid_pre and resid_post"
            )


def _search_sum(
    records: list[_Record], resid_pre: ProbeTensor, resid_post: ProbeTensor, dtype: torch.dtype
) -> _Fit | None:
    fits = []
    for first, second in itertools.combinations(records, 2):
        error = _sum_error([resid_pre, first.output, second.output], resid_post, dtype)
        if error <= _LIMIT:
            fits.append((error, first.depth, second.depth, _Fit(first, second, post_norm=False)))
    return _best(fits)


def _search_post_norm(
    records: list[_Record], resid_pre: ProbeTensor, resid_post: ProbeTensor, dtype: torch.dtype
) -> _Fit | None:
    norms = [(record, record.given) for record in records if record.given is not None]
    fits = []
    for (norm1, given1), (norm2, given2) in itertools.combinations(norms, 2):
        if not torch.equal(norm2.output, resid_post):
            continue
        first = _addend(records, resid_pre, given1, dtype)
        second = _addend(records, norm1.output, given2, dtype)
        if first is not None and second is not None:
            error = max(first[0], second[0])
            fits.append((error, norm1.depth, norm2.depth, _Fit(first[1], second[1], post_norm=True)))
    return _best(fits)


def _addend(
    records: list[_Record], before: ProbeTensor, after: ProbeTensor, dtype: torch.dtype
) -> tuple[float, _Record] | None:
    """The module whose output, added to `before`, makes `after`, and the error of that sum."""
    errors = [(_sum_error([before, record.output], after, dtype), record.depth, record) for record in records]
    error, _, record = min(errors, key=lambda item: item[:2])
    return (error, record) if error <= _LIMIT else None


def _sum_error(terms: list[ProbeTensor], total: ProbeTensor, dtype: torch.dtype) -> float:
    scale = torch.stack([*terms, total]).abs().sum(0)
    return rounding_units(torch.stack(terms).sum(0) - total, scale, dtype)


def _best(fits: list[tuple[float, int, int, _Fit]]) -> _Fit | None:
    """The smallest error, then the outermost modules, then (by `min`) the earliest; equal outputs have equal errors."""
    return min(fits, key=lambda item: item[:3])[3] if fits else None


def _mixes_positions(output: ProbeTensor, dtype: torch.dtype) -> bool:
    """Whether an output at later positions depends on the first token, in which the two probe sequences differ."""
    one, other = output[0, 1:], output[1, 1:]
    return rounding_units(one - other, one.abs() + one.abs().mean(), dtype) > _SAME_ROWS
