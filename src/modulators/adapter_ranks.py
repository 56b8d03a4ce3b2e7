"""Which ranks make LoRA as large as something else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AdaptedLayer:
    """One linear layer of the model: its path, sizes, and the rank of what is added to it."""

    path: str
    d_in: int
    d_out: int
    rank: int = 0

    @property
    def cost(self) -> int:
        """Trained numbers per rank."""
        return self.d_in + self.d_out


def spread_ranks(found: Sequence[AdaptedLayer], n_parameters: int) -> Mapping[str, int]:
    """The rank of each layer, by its path, so that their costs come nearest to a number of parameters (at least one).

    Which layers get one more is a subset-sum problem, solved exactly over the few different costs.
    """
    ranks = {it.path: 0 for it in found}
    rest = n_parameters
    while True:
        open_ = [it for it in found if ranks[it.path] < min(it.d_in, it.d_out)]
        of_all = sum(it.cost for it in open_)
        if not open_ or of_all > rest:
            break
        whole = min(rest // of_all, min(min(it.d_in, it.d_out) - ranks[it.path] for it in open_))
        for it in open_:
            ranks[it.path] += whole
        rest -= whole * of_all
    by_cost: dict[int, list[AdaptedLayer]] = {}
    for it in open_:
        by_cost.setdefault(it.cost, []).append(it)
    counts = nearest_sum({cost: len(these) for cost, these in by_cost.items()}, rest)
    if not any(ranks.values()) and not any(counts.values()):
        counts[min(by_cost)] = 1
    for cost, these in by_cost.items():
        for place in range(counts[cost]):
            # evenly over the blocks
            ranks[these[(2 * place + 1) * len(these) // (2 * counts[cost])].path] += 1
    return ranks


def nearest_sum(available: Mapping[int, int], wanted: int) -> dict[int, int]:
    """How many of each size (of so many that there are) to take so that their sum comes nearest to a number."""
    if not available:
        return {}
    unit = math.gcd(*available)
    # bit s of a number says whether a sum of s units can be had
    reached = [1]
    for size, count in available.items():
        sums = reached[-1]
        for _ in range(count):
            sums |= sums << (size // unit) | reached[-1]
        reached.append(sums)
    target = wanted / unit
    sums = reached[-1]
    below = max((s for s in range(math.floor(target), -1, -1) if sums >> s & 1), default=0)
    above = next((s for s in range(math.ceil(target), sums.bit_length()) if sums >> s & 1), below)
    chosen = above if above - target < target - below else below
    counts = {}
    for (size, count), before in zip(reversed(list(available.items())), reversed(reached[:-1]), strict=True):
        taken = next(
            n for n in range(count + 1) if chosen >= n * (size // unit) and before >> (chosen - n * (size // unit)) & 1
        )
        counts[size] = taken
        chosen -= taken * (size // unit)
    return counts
