"""The steps of one generation: token after token behind a prompt, whose states are taken a chunk at a time."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.models.continuing import GrowingCache
from src.scenarios.capturing.arrays import Arrays, joined
from src.scenarios.capturing.passes import Reader
from src.scenarios.states import LOGITS


class Stepper:
    """Reads what a model goes on with. No other pass may come between two of its steps."""

    def __init__(self, reader: Reader, start: Arrays, cache: GrowingCache | None, ids: list[int]) -> None:
        """start: one row, of the last of these ids. cache: holds them, and grows; None: each step reads all anew."""
        self._reader, self._cache = reader, cache
        self._ids = ids.copy()
        self._whole: list[Arrays] = [start]  # of passes over the whole text
        self._logits = [start[LOGITS][:, 0]]
        if cache is not None:
            reader.follow()

    @property
    def logits(self) -> Float[Tensor, "1 d_vocab"]:
        """After the last step."""
        return self._logits[-1]

    def __len__(self) -> int:
        """Steps that were not taken yet."""
        return len(self._logits)

    def read(self, token: Int[Tensor, "1 1"], value: int) -> None:
        """One step; `value` is the token on the host."""
        self._ids.append(value)
        if self._cache is not None:
            self._logits.append(self._reader.step(token, self._cache))
            return
        self._whole.append(self._reader.read(self._ids, [len(self._ids) - 1]))
        self._logits.append(self._whole[-1][LOGITS][:, 0])

    def take(self) -> Arrays:
        """The states and logits of all steps since the last call."""
        stepped = len(self._logits) - len(self._whole)
        states: list[Arrays] = [{name: array for name, array in one.items() if name != LOGITS} for one in self._whole]
        if stepped:
            states.append(self._reader.take_steps())
        logits = torch.stack(self._logits, 1)
        self._whole, self._logits = [], []
        return {**joined(states), LOGITS: logits}
