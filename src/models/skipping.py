"""Forward passes that leave out the first blocks: the hidden state that the last of them would give is put in.

All else runs as the model itself does it (masks of every kind, positions, rotary embeddings, what lies after the last
block), so nothing of any family has to be known, and nothing recorded.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from src.models.inner import probe, with_hidden_state
from src.models.language_model import LanguageModel


class BlockSkipper:
    """Skips blocks of one model; what each of them returns beside the hidden state is learnt from a probe."""

    def __init__(self, model: LanguageModel) -> None:
        self._blocks = model.blocks
        self._returned: dict[int, Any] = {}
        with ExitStack() as hooks:
            for block in model.blocks:
                hooks.callback(block.register_forward_hook(self._remember).remove)
            probe(model.module, model.inner)

    @contextmanager
    def skipped(self, count: int, state: Float[Tensor, "batch pos d_model"]) -> Iterator[None]:
        """Inside, blocks 0..count - 1 compute nothing and return `state`, the resid_post of block count - 1.

        Hooks on the skipped blocks run and see `state`. The batch must have as many rows as `state`, and it may be
        overwritten in place. With count = 0 nothing is skipped.
        """
        with ExitStack() as undo:
            for block in self._blocks[:count]:
                output = with_hidden_state(self._returned[id(block)], state)
                before = vars(block).get("forward")  # accelerate sets one of its own
                vars(block)["forward"] = partial(_give, output)
                undo.callback(_put_back, block, before)
            yield

    def _remember(self, block: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, tuple | list):  # tensors beside the hidden state belong to the probe's tokens
            output = type(output)(None if isinstance(value, Tensor) else value for value in output)
        self._returned[id(block)] = output


def _give(output: Any, *_args: Any, **_kwargs: Any) -> Any:
    return output


def _put_back(block: nn.Module, forward: Any) -> None:
    if forward is None:
        del vars(block)["forward"]
    else:
        vars(block)["forward"] = forward
