"""The inner model (no vocabulary head), and how to read the hidden states that its modules take and return."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from src.errors import StrataError

PROBE_SHAPE = (2, 5)  # sequences, positions: unlike each other, so that a transposed layout is noticed
# Error of a token's state relative to its norm, in units of the dtype's epsilon: passes of other shapes round otherwise
# in each block. Half precision has few units to spare.
_NORM_LIMIT, _HALF_NORM_LIMIT = 128.0, 8.0


@dataclass(frozen=True)
class InnerModel:
    """A model up to its last block and final norm.

    path: module path of the stack that holds the blocks, inside the whole model ("" = anywhere in it).
    through_decoder: an encoder-decoder that is read in its decoder. Both stacks are then given the same tokens: at
        position i the decoder sees tokens 0..i of the text itself and the whole text through the encoder.
    """

    module: nn.Module
    path: str
    through_decoder: bool

    def __call__(
        self, input_ids: Int[Tensor, "batch pos"], attention_mask: Int[Tensor, "batch pos"], **extra: Any
    ) -> Any:
        """Run the stack; `extra` goes to transformers, whose output comes back. No cache is kept unless it says so."""
        if self.through_decoder:
            extra |= {"decoder_input_ids": input_ids, "decoder_attention_mask": attention_mask}
        if self.accepts("use_cache"):
            extra = {"use_cache": False} | extra
        return self.module(input_ids=input_ids, attention_mask=attention_mask, **extra)

    @property
    def stack(self) -> str | None:
        """`encoder` or `decoder` of an encoder-decoder; None for other models."""
        if self.through_decoder:
            return "decoder"
        return "encoder" if self.path else None

    def accepts(self, argument: str) -> bool:
        """Whether the module's forward pass has a parameter of that name."""
        return argument in self._parameters

    @cached_property
    def _parameters(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.module.forward).parameters)


def find_inner_model(module: PreTrainedModel, stack: str) -> InnerModel:
    """The base model of a causal LM or an encoder; of an encoder-decoder the stack that was asked for."""
    if not module.config.is_encoder_decoder:
        if stack != "auto":
            raise StrataError(
                f"model.stack={stack} is for encoder-decoders, and {type(module).__name__} is none: "
                "use model.stack=auto"
            )
        return InnerModel(module.base_model, "", through_decoder=False)
    through_decoder = stack == "decoder"
    part = module.get_decoder() if through_decoder else module.get_encoder()
    path = next(name for name, submodule in module.named_modules() if submodule is part)
    return InnerModel(module.base_model if through_decoder else part, path, through_decoder)


def probe_tokens(module: PreTrainedModel) -> Int[Tensor, "sequence pos"]:
    """Token ids for a look at a model, from the middle of the vocabulary, away from special tokens.

    The two sequences differ in their first token only: what differs between them at a later position has looked at
    another position.
    """
    d_vocab = module.config.get_text_config().vocab_size
    n_sequences, n_positions = PROBE_SHAPE
    ids = torch.arange(n_positions, device=module.device).repeat(n_sequences, 1) + d_vocab // 2
    ids[1, 0] += n_positions
    return ids % d_vocab


def probe(module: PreTrainedModel, inner: InnerModel, gradients: bool = False) -> None:
    """Run a few tokens through the inner model, for the sake of the hooks that stand on it.

    gradients: hooks may put tensors in its way that a graph begins from, and differentiate.

    Raises:
        StrataError: the model can't run plain tokens.
    """
    ids = probe_tokens(module)
    try:
        with torch.inference_mode(mode=not gradients), torch.set_grad_enabled(gradients):
            inner(ids, torch.ones_like(ids))
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise StrataError(
            f"{type(module).__name__} could not run a probe of {ids.shape[0]} x {ids.shape[1]} tokens "
            f"({type(error).__name__}: {error}); Strata reads models that take input_ids and attention_mask alone"
        ) from error


def hidden_state(output: Any) -> Any:
    """The hidden state in what a module returned: blocks give a bare tensor or a tuple that begins with it."""
    return output if isinstance(output, Tensor) or not isinstance(output, Sequence | Mapping) else _first(output)


def _first(output: Any) -> Any:
    values = list(output.values()) if isinstance(output, Mapping) else output
    return values[0] if len(values) else None


def with_hidden_state(output: Any, state: Tensor) -> Any:
    """What a module returned, with another hidden state in it (`hidden_state` reads it back)."""
    if isinstance(output, Tensor) or not isinstance(output, Sequence | Mapping):
        return state
    if isinstance(output, Mapping):
        return type(output)({**output, next(iter(output)): state})  # pyright: ignore[reportCallIssue]
    return type(output)((state, *output[1:]))  # pyright: ignore[reportCallIssue]


def residual_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The hidden state that a module was given: its first argument, or the first keyword that looks like one."""
    if args:
        return args[0]
    if "hidden_states" in kwargs:
        return kwargs["hidden_states"]
    return next((value for value in kwargs.values() if is_hidden_state(value)), None)


def with_residual_input(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], state: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a module, with another hidden state in them (`residual_input` reads it back)."""
    if args:
        return (state, *args[1:]), dict(kwargs)
    given = residual_input(args, kwargs)
    return args, {name: state if value is given else value for name, value in kwargs.items()}


def is_hidden_state(value: Any) -> bool:
    """Whether a value is a floating tensor [batch, pos, d]."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 3


def rounding_epsilon(dtype: torch.dtype) -> float:
    """The machine epsilon of what a model of this dtype computes; of float64 that of float32.

    Most families take their norms in float32 whatever the model's dtype is, so that states of passes of different shape
    differ by as much: which way a number is rounded turns on its last digit.
    """
    return max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)


def rounding_units(difference: Float[Tensor, "*shape"], scale: Float[Tensor, "*shape"], dtype: torch.dtype) -> float:
    """The largest |difference| in units of `rounding_epsilon` times `scale`; NaN counts as infinite."""
    units = difference.abs() / (rounding_epsilon(dtype) * scale.abs() + torch.finfo(torch.float32).tiny)
    return float(units.nan_to_num(nan=torch.inf, posinf=torch.inf).max())


def states_agree(
    found: Float[Tensor, "row pos d_model"], expected: Float[Tensor, "row pos d_model"], where: Bool[Tensor, "row pos"]
) -> bool:
    """Whether hidden states of two passes of different shape are the same but for rounding."""
    epsilon = rounding_epsilon(expected.dtype)
    limit = (_NORM_LIMIT if epsilon < torch.finfo(torch.float16).eps else _HALF_NORM_LIMIT) * epsilon
    expected, found = expected[where].float(), found[where].float()
    return bool(((found - expected).norm(dim=-1) <= limit * expected.norm(dim=-1)).all())
