"""Put something before blocks of a running model that changes their input, and take it away again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel, attach

# (residual [batch, pos, d_model], token ids [batch, pos], layer) -> what the block of that layer is given instead
Change = Callable[
    [Float[Tensor, "batch pos d_model"], Int[Tensor, "batch pos"], int], Float[Tensor, "batch pos d_model"]
]


@contextmanager
def changed_inputs(model: LanguageModel, layers: Sequence[int], change: Change) -> Iterator[None]:
    """Every forward pass within gives blocks a changed input: whole passes, cached generation, training.

    The token ids of a pass (of a step of generation: of its new tokens) are read where the model looks up their
    embeddings, so that no caller has to hand them on. Nothing is left on the model afterwards.

    Raises:
        StrataError: a layer that the model does not have; a pass from embeddings, without token ids.
    """
    points = [HookPoint("resid_pre", layer) for layer in layers]
    model.check_hook_points(points)
    seen: list[Tensor] = []

    def look_up(_module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        seen[:] = [args[0] if args else kwargs["input"]]

    def visit(layer: int, state: Tensor) -> Tensor:
        if not seen or seen[0].shape != state.shape[:2]:
            raise StrataError("a modulator needs the token ids of the pass: give the model input_ids, no embeddings")
        return change(state, seen[0], layer)

    with ExitStack() as hooks:
        for table in _token_embeddings(model):
            hooks.callback(table.register_forward_pre_hook(look_up, with_kwargs=True).remove)
        for point in points:
            hooks.callback(attach(model, point, partial(visit, point.layer)).remove)
        yield


def _token_embeddings(model: LanguageModel) -> list[nn.Module]:
    """The modules that look up tokens: each stack of an encoder-decoder has one of its own, with the same weights."""
    weight = model.module.get_input_embeddings().weight
    return [module for module in model.module.modules() if isinstance(module, nn.Embedding) and module.weight is weight]
