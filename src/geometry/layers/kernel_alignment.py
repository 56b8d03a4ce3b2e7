"""Linear CKA between all layers of two stacks from small blocks of rows: no product of the whole data is ever held."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.products import exact_products

# rows whose kernels are compared at a time
BLOCK_ROWS = 256
# the unbiased estimator divides by n - 3
_FEWEST_ROWS = 8


def unbiased_hsic(first: Float[Tensor, "a row row"], second: Float[Tensor, "b row row"]) -> Float[Tensor, "a b"]:
    """HSIC_1 of all pairs of kernels (Song et al. 2012, equation 5): 0 on average for independent rows; float64.

    tr(K L) / (n (n - 3)) + 1'K1 1'L1 / (n (n-1) (n-2) (n-3)) - 2 1'K L1 / (n (n-2) (n-3)), diagonals of K and L zero.
    """
    n = first.shape[-1]
    first, second = (kernels - torch.diag_embed(kernels.diagonal(dim1=-2, dim2=-1)) for kernels in (first, second))
    trace = first.flatten(1) @ second.flatten(1).T
    rows_first, rows_second = first.sum(-1), second.sum(-1)
    total = rows_first.sum(-1)[:, None] * rows_second.sum(-1)
    cross = rows_first @ rows_second.T
    return (trace + total / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)) / (n * (n - 3))


class AlignmentSums:
    """Running sums of HSIC over blocks of rows, per group of documents (Nguyen, Raghu and Kornblith 2021).

    CKA is the ratio of the means of three unbiased estimates, so it does not depend on the size of blocks but for the
    ratio's own bias; the blocks must be drawn at random from many texts, or they know differences within texts alone.
    """

    def __init__(self, n_first: int, n_second: int, n_groups: int, device: torch.device) -> None:
        self._n = n_first, n_second
        # HSIC between the stacks, the same with rows of the second shuffled, and of each stack with itself
        size = 2 * n_first * n_second + n_first + n_second
        self._sums = torch.zeros(n_groups, size, dtype=torch.float64, device=device)
        self.n_rows = 0

    def add(
        self,
        first: Sequence[Float[Tensor, "row d_first"]],
        second: Sequence[Float[Tensor, "row d_second"]],
        shuffled: Int[Tensor, "row"],
        group: int,
        draws: torch.Generator,
    ) -> None:
        """Add rows (row i of all layers is the same token), cut into blocks at random.

        shuffled: for each row another one, whose rows of the second stack stand in the null.
        """
        order = torch.randperm(len(shuffled), generator=draws).to(shuffled.device)
        for chosen in order.split(BLOCK_ROWS):
            if len(chosen) < _FEWEST_ROWS:
                continue
            ours, theirs = _kernels(first, chosen), _kernels(second, chosen)
            null = _kernels(second, shuffled[chosen])
            found = [
                unbiased_hsic(ours, theirs).flatten(),
                unbiased_hsic(ours, null).flatten(),
                torch.stack([unbiased_hsic(kernel[None], kernel[None])[0, 0] for kernel in ours]),
                torch.stack([unbiased_hsic(kernel[None], kernel[None])[0, 0] for kernel in theirs]),
            ]
            self._sums[group] += torch.cat(found) * len(chosen)
            self.n_rows += len(chosen)

    def cka(self) -> tuple[Float[Tensor, "group first second"], Float[Tensor, "group first second"]]:
        """CKA, and that of shuffled rows; entry 0 is of all rows, the others leave out one group each."""
        n_first, n_second = self._n
        groups = self._sums[self._sums.abs().sum(-1) > 0].cpu()
        whole = groups.sum(0, keepdim=True)
        parts = torch.cat([whole, whole - groups]) if len(groups) > 1 else whole
        sizes = [n_first * n_second, n_first * n_second, n_first, n_second]
        between, null, of_first, of_second = parts.split(sizes, dim=-1)
        scale = (of_first[:, :, None] * of_second[:, None]).clamp(min=0).sqrt()
        shape = len(parts), n_first, n_second
        return between.view(shape) / scale, null.view(shape) / scale


def _kernels(states: Sequence[Float[Tensor, "row d"]], chosen: Int[Tensor, "chosen"]) -> Float[Tensor, "layer n n"]:
    """Linear kernels of the chosen rows of each layer, about their mean (HSIC does not see it, but rounding does)."""
    kernels = []
    with exact_products():
        for rows in states:
            few = rows[chosen].double()
            few = (few - few.mean(0)).float()
            kernels.append((few @ few.T).double())
    return torch.stack(kernels)
