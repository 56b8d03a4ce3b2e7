"""First and second moments of activations per group of sequences: all that linear operators need.

A group is a cross-validation fold or a split; every sequence belongs to exactly one. Rows are shifted by a pilot mean
before they are squared or multiplied, since residual streams have dimensions whose mean is far larger than their spread
and x'x - n m m' would lose it. Every array is a plain sum over rows, so moments add: over blocks, parts and workers.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.products import Precision, add_product, arithmetic_device, default_precision, exact_products
from src.activations.statistics import Statistics
from src.artifacts.tensors import load_tensors, read_header, save_tensors, write_header
from src.errors import StrataError
from src.hook_points import HookPoint

Pair = tuple[HookPoint, HookPoint]

_KIND, _VERSION = "moments", 1
_REMEDY = "fit the operators again with overwrite=true, which makes the moments anew"
# Bounds the shifted copies of a block, and in float32 the length over which a product is rounded to float32. Blocks are
# to stay in a CPU's caches, and to fill other devices.
_BLOCK_ROWS_CPU, _BLOCK_ROWS_DEVICE = 1024, 2048


class Moments:
    """Counts, sums, sums of squares and cross products X_a'X_b for listed pairs of hook points, per group; all float64.

    Attributes: `pairs`; `precision` of the products; `device`; `shift[h]` [d] (empty until the first rows if it was not
    given); `count` int64 [group]; `sums[h]` and `square_sums[h]` [group, d]; `products[a, b]` [group, d_a, d_b], all of
    shifted rows. A pair (a, a) is the Gram matrix of a.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        precision: Precision,
        shift: dict[HookPoint, Tensor],
        count: Int[Tensor, "group"],
        sums: dict[HookPoint, Tensor],
        square_sums: dict[HookPoint, Tensor],
        products: dict[Pair, Tensor],
    ) -> None:
        self.pairs, self.shift = tuple(pairs), shift
        self.precision: Precision = precision
        self.count, self.sums, self.square_sums, self.products = count, sums, square_sums, products
        self.device = count.device

    @classmethod
    def empty(
        cls,
        pairs: Sequence[Pair],
        d_models: Mapping[HookPoint, int],
        n_groups: int,
        shift: Mapping[HookPoint, Float[Tensor, "d"]] | None = None,
        device: torch.device | str = "cpu",
        precision: Precision | None = None,
    ) -> Self:
        """No rows yet.

        shift: a rough mean per hook point; None takes the mean of the first rows seen. precision: of the products (they
        are added up in float64 anyway); None asks `default_precision`. `arithmetic_device` says where they lie.
        """
        pairs = tuple(dict.fromkeys(pairs))
        hook_points = sorted({hook_point for pair in pairs for hook_point in pair})
        if not pairs or n_groups < 1:
            raise StrataError("moments need at least one pair of hook points and one group")
        if missing := [str(h) for h in hook_points if h not in d_models]:
            raise StrataError(f"moments: the width of {', '.join(missing)} is not given")
        device = arithmetic_device(device)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        moments = cls(
            pairs,
            precision or default_precision(device),
            {},
            torch.zeros(n_groups, dtype=torch.int64, device=device),
            {h: zeros(n_groups, d_models[h]) for h in hook_points},
            {h: zeros(n_groups, d_models[h]) for h in hook_points},
            {(a, b): zeros(n_groups, d_models[a], d_models[b]) for a, b in pairs},
        )
        if shift is not None:
            moments._set_shift(shift)
        return moments

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.count)

    @property
    def hook_points(self) -> tuple[HookPoint, ...]:
        """All hook points that occur in a pair, sorted."""
        return tuple(self.sums)

    def _set_shift(self, shift: Mapping[HookPoint, Tensor]) -> None:
        # rounded to float32, so that the same shift is subtracted exactly whatever the precision of the products
        for h, sums in self.sums.items():
            if h not in shift or shift[h].shape != sums.shape[1:] or not shift[h].isfinite().all():
                raise StrataError(f"moments: the shift of {h} must be {sums.shape[1]} finite numbers")
            self.shift[h] = shift[h].to(self.device).float().double()

    @torch.no_grad()
    def update(self, rows: Mapping[HookPoint, Float[Tensor, "row d"]], group: Int[Tensor, "row"]) -> None:
        """Add rows (any float dtype; row i of every hook point is the same token, which belongs to group[i]).

        Give many rows at a time (a part of a store): each group in them costs one addition to d x d arrays per pair.
        Raises StrataError, and adds nothing, if a value is NaN or infinite, or shapes or groups do not fit.
        """
        group = group.to("cpu", torch.int64)
        self._check_rows(rows, group)
        if len(group) == 0:
            return
        rows = {h: rows[h].to(self.device) for h in self.hook_points}
        if not self.shift:
            self._set_shift({h: x.mean(0, dtype=torch.float64) for h, x in rows.items()})
        is_sorted = bool((group[1:] >= group[:-1]).all())
        order = None if is_sorted else group.argsort(stable=True).to(self.device)
        work = torch.float64 if self.precision == "float64" else torch.float32
        shift = {h: shift.to(work) for h, shift in self.shift.items()}
        length = _BLOCK_ROWS_CPU if self.device.type == "cpu" else _BLOCK_ROWS_DEVICE
        start = 0
        with exact_products():
            for index, size in enumerate(group.bincount().tolist()):
                for first in range(start, start + size, length):
                    block = slice(first, min(first + length, start + size))
                    chosen = {h: x[block] if order is None else x[order[block]] for h, x in rows.items()}
                    self._add_block(index, {h: (x - shift[h]).to(work) for h, x in chosen.items()})
                self.count[index] += size
                start += size

    def _add_block(self, group: int, block: Mapping[HookPoint, Float[Tensor, "row d"]]) -> None:
        for h, x in block.items():
            self.sums[h][group] += x.sum(0)
            self.square_sums[h][group] += x.square().sum(0)
        for a, b in self.pairs:
            add_product(self.products[a, b][group], block[a], block[b])

    def _check_rows(self, rows: Mapping[HookPoint, Tensor], group: Tensor) -> None:
        if len(group) and not 0 <= int(group.min()) <= int(group.max()) < self.n_groups:
            raise StrataError(f"moments: groups must lie in 0..{self.n_groups - 1}; got {group.min()}..{group.max()}")
        for h, sums in self.sums.items():
            expected = (len(group), sums.shape[1])
            if h not in rows or rows[h].shape != expected:
                raise StrataError(
                    f"{h}: expected {expected[0]} rows of width {expected[1]} for the moments; collect it so"
                )
            if len(group) and not torch.stack(torch.aminmax(rows[h])).isfinite().all():
                bad = int((~rows[h].isfinite()).any(1).sum())
                raise StrataError(
                    f"{h}: {bad} of {len(group)} rows hold NaN or inf; leave those tokens out of statistics"
                )

    def merge(self, other: "Moments") -> Self:
        """Add the rows of other to these, in place; other may have another shift, and lie on another device."""
        if self.pairs != other.pairs or any(self.sums[h].shape != other.sums[h].shape for h in self.sums):
            raise StrataError("moments of other hook points, widths or groups cannot be merged: make them alike")
        if not other.shift:
            return self
        if not self.shift:
            self._set_shift(other.shift)
        n = other.count.to(self.device, torch.float64)[:, None]
        # sum of (x + delta) and of (x + delta)(y + epsilon)', x and y being shifted rows of other
        delta = {h: other.shift[h].to(self.device) - self.shift[h] for h in self.sums}
        sums = {h: sums.to(self.device) for h, sums in other.sums.items()}
        for h in self.sums:
            squares = other.square_sums[h].to(self.device)
            self.square_sums[h] += squares + 2 * sums[h] * delta[h] + n * delta[h].square()
            self.sums[h] += sums[h] + n * delta[h]
        for (a, b), product in self.products.items():
            product += other.products[a, b].to(self.device)
            if delta[a].any() or delta[b].any():
                product += torch.einsum("gi,j->gij", sums[a] + n * delta[a], delta[b])
                product += torch.einsum("i,gj->gij", delta[a], sums[b])
        self.count += other.count.to(self.device)
        return self

    def __add__(self, other: "Moments") -> "Moments":
        return self.to(self.device).merge(other)

    def to(self, device: torch.device | str) -> "Moments":
        """A copy on a device (which must know float64)."""

        def copies(tensors: Mapping) -> dict:
            return {key: tensor.to(device, copy=True) for key, tensor in tensors.items()}

        return Moments(
            self.pairs,
            self.precision,
            copies(self.shift),
            self.count.to(device, copy=True),
            copies(self.sums),
            copies(self.square_sums),
            copies(self.products),
        )

    def merged(self, unions: Sequence[Sequence[int]], pairs: Sequence[Pair]) -> "Moments":
        """Moments of some of the pairs, whose group i holds the rows of all groups in unions[i].

        Raises StrataError if a pair was not accumulated.
        """
        if missing := [f"{a} and {b}" for a, b in pairs if (a, b) not in self.products]:
            raise StrataError(
                f"the products of {', '.join(missing)} were not accumulated: add the pairs to the moments"
            )
        member = torch.zeros(len(unions), self.n_groups, dtype=torch.float64, device=self.device)
        for place, groups in enumerate(unions):
            member[place, list(groups)] = 1
        points = sorted({point for pair in pairs for point in pair})

        def union(values: Tensor) -> Tensor:
            return (member @ values.flatten(1)).view(len(unions), *values.shape[1:])

        with exact_products():
            return Moments(
                pairs,
                self.precision,
                self.shift,
                torch.stack([self.count[list(groups)].sum() for groups in unions]),
                {h: union(self.sums[h]) for h in points},
                {h: union(self.square_sums[h]) for h in points},
                {pair: union(self.products[pair]) for pair in pairs},
            )

    def subset(self, groups: Sequence[int]) -> Statistics:
        """Statistics of all rows in the given groups. Raises StrataError if there are none."""
        chosen = sorted(set(groups))
        if bad := [g for g in chosen if not 0 <= g < self.n_groups]:
            raise StrataError(f"moments have groups 0..{self.n_groups - 1}, not {bad}")
        n = int(self.count[chosen].sum())
        if n == 0:
            raise StrataError(f"groups {chosen} hold no rows: use fewer folds, or more sequences")

        def product(a: HookPoint, b: HookPoint) -> Tensor:
            if (a, b) not in self.products:
                raise StrataError(f"the products of {a} and {b} were not accumulated: add the pair to the moments")
            per_group = self.products[a, b]
            return per_group[chosen[0]] if len(chosen) == 1 else per_group[chosen].sum(0)

        return Statistics(
            n,
            self.shift,
            {h: sums[chosen].sum(0) for h, sums in self.sums.items()},
            {h: sums[chosen].sum(0) for h, sums in self.square_sums.items()},
            # all splits of one pair are usually asked for in a row
            lru_cache(maxsize=1)(product),
        )

    def save(self, folder: Path) -> None:
        """Write moments.safetensors (float64) and moments.json into an existing folder. Raises OSError on a full disk.

        Takes the memory of the moments once more.
        """
        tensors = {"count": self.count}
        for name, arrays in (("shift", self.shift), ("sum", self.sums), ("square_sum", self.square_sums)):
            tensors |= {f"{name}/{h}": array for h, array in arrays.items()}
        tensors |= {f"product/{a}/{b}": array for (a, b), array in self.products.items()}
        save_tensors(folder / "moments.safetensors", tensors)
        header = {
            "precision": self.precision,
            "pairs": [[str(a), str(b)] for a, b in self.pairs],
            "has_shift": bool(self.shift),
        }
        write_header(folder / "moments.json", _KIND, _VERSION, header)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu", pairs: Sequence[Pair] | None = None) -> Self:
        """Read what `save` wrote: of the given pairs alone, or of all; nothing else is read from the disk.

        Raises StrataError if a file is missing, truncated or foreign, or a pair was not saved.
        """
        header = read_header(folder / "moments.json", _KIND, _VERSION, _REMEDY)
        try:
            precision, has_shift = header["precision"], header["has_shift"]
            held = [(HookPoint.parse(a), HookPoint.parse(b)) for a, b in header["pairs"]]
        except (KeyError, TypeError, ValueError) as error:
            raise StrataError(f"{folder / 'moments.json'} is damaged ({error!r}): {_REMEDY}") from None
        pairs = held if pairs is None else list(dict.fromkeys(pairs))
        if missing := [f"{a} and {b}" for a, b in pairs if (a, b) not in held]:
            raise StrataError(f"{folder} holds no products of {', '.join(missing)}: add the pairs to the moments")
        hook_points = sorted({hook_point for pair in pairs for hook_point in pair})
        sums = [f"{name}/{h}" for name in ("sum", "square_sum", *(["shift"] if has_shift else [])) for h in hook_points]
        names = ["count", *sums, *(f"product/{a}/{b}" for a, b in pairs)]
        tensors = load_tensors(folder / "moments.safetensors", _REMEDY, names, arithmetic_device(device))
        return cls(
            pairs,
            precision,
            {h: tensors[f"shift/{h}"] for h in hook_points} if has_shift else {},
            tensors["count"],
            {h: tensors[f"sum/{h}"] for h in hook_points},
            {h: tensors[f"square_sum/{h}"] for h in hook_points},
            {(a, b): tensors[f"product/{a}/{b}"] for a, b in pairs},
        )
