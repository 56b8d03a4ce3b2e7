"""All states of a model in one pass, also what its final norm makes of the last one; of both stacks, if it has two."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.config.shared import ModelConfig
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models.capture import attach, check_batch, forward_pass
from src.models.inner import hidden_state, probe_tokens
from src.models.language_model import LanguageModel, wrap_model

# stack, hook point (None: after the final norm), states; they are valid during the call only
StackReceiver = Callable[[int, HookPoint | None, Float[Tensor, "batch pos d_model"]], None]


@dataclass(frozen=True, eq=False)
class Stacks:
    """The stacks of one model in the order in which they run: one, or encoder and decoder.

    has_final_norm: of each, whether what it returns is anything else than the output of its last block.
    """

    models: tuple[LanguageModel, ...]
    has_final_norm: tuple[bool, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """`encoder` and `decoder` where there are two."""
        return ("encoder", "decoder") if len(self.models) == 2 else ("",)


def stacks_of(model: LanguageModel) -> Stacks:
    """Both stacks of an encoder-decoder, or the model as it is.

    Raises:
        StrataError: an encoder-decoder whose config does not say which token its decoder begins with.
    """
    if not model.module.config.is_encoder_decoder:
        models = (model,)
    else:
        decoder_start(model)
        kinds = ("encoder", "decoder")
        models = tuple(wrap_model(model.module, _of_stack(model.config, kind)) for kind in kinds)
    return Stacks(models, _final_norms(models))


def _of_stack(config: ModelConfig, stack: str) -> ModelConfig:
    return config.model_copy(update={"stack": stack, "blocks": None})


def decoder_start(model: LanguageModel) -> int:
    """The token that stands before all others in the decoder."""
    start = model.module.config.decoder_start_token_id
    if start is None:
        raise StrataError(
            f"{model.config.name}: its config has no decoder_start_token_id, so nobody knows what its decoder begins "
            "with; add it to config.json"
        )
    return start


def shifted_right(input_ids: Int[Tensor, "batch pos"], start: int) -> Int[Tensor, "batch pos"]:
    """What a decoder is given that has to write these tokens: position i + 1 holds token i, position 0 the start."""
    shifted = torch.roll(input_ids, 1, dims=-1)
    shifted[:, 0] = start
    return shifted


def run_stacks(
    stacks: Stacks,
    input_ids: Int[Tensor, "batch pos"],
    attention_mask: Int[Tensor, "batch pos"],
    points: Sequence[Sequence[HookPoint]],
    receive: StackReceiver,
) -> None:
    """One forward pass to the end; a decoder gets the same tokens as the encoder, shifted right by one.

    points: of each stack. Tokens are padded on the right. Nothing that is received can take part in autograd.

    Raises:
        StrataError: as `run_with_hooks`.
    """
    model = stacks.models[-1]
    for of_stack, wanted in zip(stacks.models, points, strict=True):
        of_stack.check_hook_points(wanted)
    check_batch(model, input_ids, attention_mask)
    shape = tuple(input_ids.shape)

    def deliver(stack: int, point: HookPoint, state: Tensor) -> None:
        receive(stack, point, state.reshape(*shape, model.d_model))

    with ExitStack() as hooks, forward_pass(model, shape), torch.inference_mode():
        for stack, of_stack in enumerate(stacks.models):
            for point in points[stack]:
                hooks.callback(attach(of_stack, point, partial(deliver, stack, point)).remove)
        output = _forward(stacks, input_ids.to(model.device), attention_mask.to(model.device))
        for stack, final in enumerate(_final_states(stacks, output)):
            if stacks.has_final_norm[stack]:
                receive(stack, None, final)


def _forward(stacks: Stacks, input_ids: Tensor, attention_mask: Tensor) -> Mapping[str, Tensor]:
    model = stacks.models[-1]
    if len(stacks.models) == 1:
        return model.inner(input_ids, attention_mask)
    extra = {"use_cache": False} if model.inner.accepts("use_cache") else {}
    return model.inner.module(
        input_ids=input_ids,
        attention_mask=attention_mask,
        decoder_input_ids=shifted_right(input_ids, decoder_start(model)),
        decoder_attention_mask=attention_mask,
        **extra,
    )


def _final_states(stacks: Stacks, output: Mapping[str, Tensor]) -> list[Tensor]:
    last = hidden_state(output)
    return [last] if len(stacks.models) == 1 else [output["encoder_last_hidden_state"], last]


def _final_norms(models: tuple[LanguageModel, ...]) -> tuple[bool, ...]:
    """Whether each stack returns its last block's output changed, but with the same width."""
    ids = probe_tokens(models[0].module)
    seen: dict[int, Tensor] = {}
    finals: dict[int, Tensor] = {}

    def take(stack: int, point: HookPoint | None, state: Tensor) -> None:
        (finals if point is None else seen)[stack] = state.clone()

    last = [[HookPoint("resid_post", model.n_layers - 1)] for model in models]
    run_stacks(Stacks(models, (True,) * len(models)), ids, torch.ones_like(ids), last, take)
    return tuple(
        finals[stack].shape == seen[stack].shape and not torch.equal(finals[stack], seen[stack])
        for stack in range(len(models))
    )
