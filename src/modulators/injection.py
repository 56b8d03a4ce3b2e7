"""Put something before blocks of a running model that changes their input, and take it away again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel, attach

# (residual [batch, pos, d_model], token ids [batch, pos], layer) -> what the block of that layer is given instead
Change = Callable[
    [Float[Tensor, "batch pos d_model"], Int[Tensor, "batch pos"], int], Float[Tensor, "batch pos d_model"]
]

# the attribute by which transformers' modules checkpoint the blocks (gradient_checkpointing_enable)
_CHECKPOINTING = "_gradient_checkpointing_func"


@contextmanager
def changed_inputs(model: LanguageModel, layers: Sequence[int], change: Change) -> Iterator[None]:
    """Every forward pass within gives blocks a changed input: whole passes, cached generation, training.

    The token ids of a pass (of a step of generation: of its new tokens) are read where its stack looks up their
    embeddings, so that no caller has to hand them on; a pass never sees the ids of another. `change` computes in the
    dtypes of its own parameters under autocast too. Gradient checkpointing that is enabled beforehand recomputes blocks
    with the ids of their own pass, as long as the backward pass is within. A model that torch.compile has compiled
    before does not see hooks: compile it within. Nothing is left on the model afterwards.

    Raises:
        StrataError: a layer that the model does not have; a pass from embeddings, without token ids.
    """
    points = [HookPoint("resid_pre", layer) for layer in layers]
    model.check_hook_points(points)
    around = _around_blocks(model)
    passes = _Passes()

    def visit(layer: int, state: Tensor) -> Tensor:
        ids = passes.token_ids(state)
        with torch.autocast(state.device.type, enabled=False):
            return change(state, ids, layer)

    with ExitStack() as hooks:
        for module in around:
            hooks.callback(module.register_forward_pre_hook(passes.begin).remove)
            hooks.callback(module.register_forward_hook(passes.end, always_call=True).remove)
        for table in _token_embeddings(model, around[0]):
            hooks.callback(table.register_forward_pre_hook(passes.look_up, with_kwargs=True).remove)
        for point in points:
            hooks.callback(attach(model, point, partial(visit, point.layer)).remove)
        for module in around[0].modules():
            if _CHECKPOINTING in vars(module):
                hooks.enter_context(_replaced(module, passes.remembered(getattr(module, _CHECKPOINTING))))
        yield


@dataclass(eq=False)
class _Pass:
    """A forward pass that is under way: the modules around the blocks that run in it, and the tokens looked up last."""

    around: set[nn.Module] = field(default_factory=set)
    token_ids: Int[Tensor, "batch pos"] | None = None


class _Passes:
    """The forward passes that are under way, the innermost last: a hook within one may begin another."""

    def __init__(self) -> None:
        self._under_way: list[_Pass] = []

    def begin(self, module: nn.Module, _args: Any) -> None:
        """A module around the blocks begins: as part of the innermost pass, or a pass anew if that has it already."""
        if not self._under_way or module in self._under_way[-1].around:
            self._under_way.append(_Pass())
        self._under_way[-1].around.add(module)

    def end(self, module: nn.Module, _args: Any, _output: Any) -> None:
        """It is done, or has failed."""
        around = self._under_way[-1].around
        around.remove(module)
        if not around:
            self._under_way.pop()

    def look_up(self, _module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        """Embeddings are looked up; outside of a pass (by the other stack of an encoder-decoder) that is no matter."""
        if self._under_way:
            self._under_way[-1].token_ids = args[0] if args else kwargs["input"]

    def token_ids(self, state: Float[Tensor, "batch pos d_model"]) -> Int[Tensor, "batch pos"]:
        """Of the innermost pass. Raises StrataError where it has none that fit a state."""
        ids = self._under_way[-1].token_ids if self._under_way else None
        if ids is None or ids.shape != state.shape[:2]:
            raise StrataError(
                "a modulator needs the token ids of the pass: give the model input_ids, no embeddings (and enable "
                "gradient checkpointing before the modulator is attached)"
            )
        return ids.to(state.device)

    def remembered(self, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
        """A checkpointing function whose recomputations, after the pass is over, see its token ids again.

        (Some versions of transformers recompute hooks on blocks, some do not.)
        """

        def checkpoint_with_ids(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            ids = self._under_way[-1].token_ids if self._under_way else None

            def with_ids(*inputs: Any, **arguments: Any) -> Any:
                self._under_way.append(_Pass(token_ids=ids))
                try:
                    return function(*inputs, **arguments)
                finally:
                    self._under_way.pop()

            return checkpoint(with_ids, *args, **kwargs)

        return checkpoint_with_ids


@contextmanager
def _replaced(module: nn.Module, checkpoint: Callable[..., Any]) -> Iterator[None]:
    before = vars(module)[_CHECKPOINTING]
    setattr(module, _CHECKPOINTING, checkpoint)
    try:
        yield
    finally:
        # checkpointing that was enabled anew within stays
        if vars(module).get(_CHECKPOINTING) is checkpoint:
            setattr(module, _CHECKPOINTING, before)


def _around_blocks(model: LanguageModel) -> list[nn.Module]:
    """The modules that the blocks lie in, the outermost first: of an encoder-decoder, the stack and what is in it.

    Which of them looks up tokens differs by family, and so does which of them its head or a caller runs.
    """
    names = model.block_list.path.split(".")[:-1]
    outermost = len(model.inner.path.split(".")) if model.inner.path else 0
    return [model.module.get_submodule(".".join(names[:end])) for end in range(outermost, len(names) + 1)]


def _token_embeddings(model: LanguageModel, outermost: nn.Module) -> list[nn.Module]:
    """The modules that look up tokens: stacks of an encoder-decoder may each have one, of the same weights."""
    owner: Any = outermost if hasattr(outermost, "get_input_embeddings") else model.module
    own = owner.get_input_embeddings()
    tables = [module for module in model.module.modules() if isinstance(module, nn.Embedding) and module is not own]
    return [own, *(module for module in tables if module.weight is getattr(own, "weight", None))]
