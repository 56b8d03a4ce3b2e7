"""Two stacks: alignment by token, the shuffled baseline, CKA."""

import pytest
import torch

from src.geometry.layers.kernel_alignment import AlignmentSums, unbiased_hsic
from src.geometry.layers.sites import Site
from src.geometry.layers.stacks import StackSums, align
from src.hook_points import HookPoint
from src.text import Keep
from tests.fixtures.text_blocks import text_block

SITES = tuple(Site.of(HookPoint("resid_post", layer)) for layer in range(2))


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decoder_block(first, start=99):
    """What a decoder is given: each text shifted right behind a start token."""
    ids = first.token_ids.roll(1)
    ids[first.position == 0] = start
    return text_block([int((first.text == text).sum()) for text in range(first.n_texts)], token_ids=ids)


def test_tokens_are_aligned_by_what_they_are_not_by_where_they_stand():
    # BUG C-1: the same position of encoder and decoder holds different tokens
    first = text_block([3, 1, 4])
    second = decoder_block(first)
    pairs = align(first, second, shift=1)
    assert pairs.first.tolist() == [0, 1, 4, 5, 6]
    assert torch.equal(first.token_ids[pairs.first], second.token_ids[pairs.second])
    assert pairs.text.tolist() == [0, 0, 2, 2, 2]
    with pytest.raises(ValueError, match="different tokens"):
        align(first, second, shift=0)


def test_only_tokens_that_count_in_both_stacks_are_paired():
    keep = torch.tensor([int(Keep.BOS), 0, 0, 0])
    other = torch.tensor([0, 0, int(Keep.SINK), 0])
    pairs = align(text_block([4], keep), text_block([4], other), shift=0)
    assert pairs.first.tolist() == pairs.second.tolist() == [1, 3]


def compared(lengths, first, second, weights=None, same_width=True):
    """first, second: the states of two layers of each stack."""
    block = text_block(lengths, weights=weights)
    sums = StackSums(SITES, SITES, same_width, len(block.weights), seed=0)
    sums.begin(align(block, text_block(lengths), shift=0))
    for stack, states in enumerate((first, second)):
        for site, rows in zip(SITES, states, strict=True):
            sums.take(stack, site, rows)
    sums.end()
    return sums.comparison()


def test_cosines_are_of_the_same_token_and_the_baseline_of_all_others_of_its_text():
    lengths = [3, 1, 5]
    first, second = gaussian(2, 9, 4), gaussian(2, 9, 4, seed=1) + gaussian(2, 9, 4)
    weights = torch.tensor([[1.0, 1, 1], [2, 5, 0]], dtype=torch.float64)
    found = compared(lengths, first, second, weights)
    assert found.cosine is not None
    assert found.shuffled_cosine is not None
    text = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))
    for i in range(2):
        for j in range(2):
            cosines = torch.nn.functional.cosine_similarity(first[i][:, None], second[j][None], dim=-1)
            others = (text[:, None] == text) & ~torch.eye(9, dtype=torch.bool)
            # states are held in float32
            assert float(found.cosine[0, i, j]) == pytest.approx(float(cosines.diagonal().mean()), abs=1e-6)
            assert float(found.shuffled_cosine[0, i, j]) == pytest.approx(float(cosines[others].mean()), abs=1e-6)
            assert float(found.shuffled_cosine[1, i, j]) == pytest.approx(
                float(cosines[:3, :3][others[:3, :3]].mean()), abs=1e-6
            )
    assert found.n_pairs == 9


def hsic_by_definition(k, m):
    """Song et al. 2012: the mean of h over all ordered quadruples of different rows."""
    n, total, count = len(k), 0.0, 0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
                        count += 1
    return total / count


def test_hsic_is_the_u_statistic_of_its_definition():
    x, y = gaussian(7, 3), gaussian(7, 2, seed=1) + gaussian(7, 3)[:, :2]
    k, m = x @ x.T, y @ y.T
    found = unbiased_hsic(k[None], m[None])
    assert float(found[0, 0]) == pytest.approx(float(hsic_by_definition(k, m)), rel=1e-10)


def alignment(first, second, n_groups=4):
    sums = AlignmentSums(len(first), len(second), n_groups, torch.device("cpu"))
    draws = torch.Generator().manual_seed(0)
    for group, rows in enumerate(torch.arange(len(first[0])).chunk(n_groups)):
        shuffled = torch.randperm(len(rows), generator=draws)
        sums.add([x[rows] for x in first], [y[rows] for y in second], shuffled, group, draws)
    return sums.cka()


def test_cka_does_not_see_rotations_scale_or_shifts_and_is_0_for_unrelated_rows():
    x = gaussian(2000, 20) * torch.arange(1, 21)
    turned = 3 * x @ torch.linalg.qr(gaussian(20, 20, seed=2)).Q + 100
    cka, shuffled = alignment([x], [turned, gaussian(2000, 20, seed=3)])
    assert float(cka[0, 0, 0]) == pytest.approx(1, abs=1e-4)
    assert abs(float(cka[0, 0, 1])) < 0.02
    assert abs(float(shuffled[0, 0, 0])) < 0.02
    assert cka.shape == (5, 1, 2)


def test_cka_of_blocks_is_close_to_that_of_all_rows():
    x = gaussian(2000, 10)
    y = x[:, :6] @ gaussian(6, 8, seed=1) + 2 * gaussian(2000, 8, seed=2)
    centred = [z - z.mean(0) for z in (x, y)]
    products = [(a.T @ b).square().sum() for a, b in ((centred[0], centred[1]), (centred[0],) * 2, (centred[1],) * 2)]
    whole = float(products[0] / (products[1] * products[2]).sqrt())
    assert float(alignment([x], [y])[0][0, 0, 0]) == pytest.approx(whole, abs=0.02)


def test_stacks_of_different_widths_have_a_cka_alone():
    found = compared([30, 30], gaussian(2, 60, 4), gaussian(2, 60, 3, seed=1), same_width=False)
    assert found.cosine is None
    assert found.n_pairs == 60
    assert found.n_cka_rows == 60
    assert bool(found.cka.isfinite().all())
