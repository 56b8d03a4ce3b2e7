"""The modules of a model as a tree, with like modules shown once."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from torch import nn


@dataclass(frozen=True)
class Branch:
    """A module, or several alike that stand side by side.

    name: `layers`, or `0..11`. n_parameters: of all of them; share: of the whole model.
    """

    depth: int
    name: str
    kind: str
    n_alike: int
    n_parameters: int
    share: float


def module_tree(module: nn.Module, deepest: int) -> list[Branch]:
    """The tree in the order in which modules are registered. Weights may lie on the meta device."""
    seen: set[int] = set()
    total = sum(weight.numel() for weight in module.parameters())
    return list(_branches([("", module)], 0, deepest, seen, max(total, 1)))


def _branches(
    named: list[tuple[str, nn.Module]], depth: int, deepest: int, seen: set[int], total: int
) -> Iterator[Branch]:
    for _, alike in groupby(named, lambda item: _likeness(item[1]) if item[0].isdigit() else item[0]):
        members = list(alike)
        name = members[0][0] if len(members) == 1 else f"{members[0][0]}..{members[-1][0]}"
        first = members[0][1]
        before = set(seen)
        count = sum(_count(part, seen) for _, part in members)
        yield Branch(depth, name or type(first).__name__, type(first).__name__, len(members), count, count / total)
        if depth < deepest:
            yield from _branches(list(first.named_children()), depth + 1, deepest, before, total)


def _count(module: nn.Module, seen: set[int]) -> int:
    """Parameters that were not counted before."""
    weights = [weight for weight in module.parameters() if id(weight) not in seen]
    seen |= {id(weight) for weight in weights}
    return sum(weight.numel() for weight in weights)


def _likeness(module: nn.Module) -> tuple[object, ...]:
    shapes = tuple((name, tuple(weight.shape)) for name, weight in module.named_parameters())
    # modules without weights are alike only if they have the same parts
    return (type(module), shapes, tuple(name for name, _ in module.named_modules()))
