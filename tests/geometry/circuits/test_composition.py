import pytest
import torch

from src.geometry.circuits.composition import composition, sides


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scores_are_those_of_the_dense_circuits():
    """Elhage et al. 2021: V-composition |W_OV2 W_OV1|, K-composition |W_QK2 W_OV1|, over the product of norms."""
    d_model = 18
    o1, v1, o2, v2 = draw(2, d_model, 4), draw(2, 4, d_model, seed=1), draw(3, d_model, 4, seed=2), draw(3, 4, d_model)
    q2, k2 = draw(3, 5, d_model, seed=4), draw(3, 5, d_model, seed=5)
    writers = sides(o1.mT, v1, torch.float64)
    for readers, circuits in ((sides(v2, o2.mT, torch.float64), o2 @ v2), (sides(k2, q2, torch.float64), q2.mT @ k2)):
        found = composition(readers, writers).score
        for i, reader in enumerate(circuits):
            for j, writer in enumerate(o1 @ v1):
                expected = (reader @ writer).norm() / (reader.norm() * writer.norm())
                assert float(found[i, j]) == pytest.approx(float(expected))


def test_ratio_and_z_under_random_rotations():
    d_model, n = 10, 4000
    k, q, o, v = draw(1, 3, d_model), draw(1, 3, d_model, seed=1), draw(1, d_model, 3, seed=2), draw(1, 3, d_model)
    rotations = torch.linalg.qr(draw(n, d_model, d_model, seed=9))[0]
    # signs make the decomposition's rotations uniform
    rotations = rotations * draw(n, 1, d_model, seed=10).sign()
    writers = sides((rotations @ o).mT, v.expand(n, -1, -1), torch.float64)
    found = composition(sides(k, q, torch.float64), writers)
    assert float(found.ratio.mean()) == pytest.approx(1, abs=0.03)
    assert float(found.z.mean()) == pytest.approx(0, abs=0.06)
    assert float(found.z.std()) == pytest.approx(1, abs=0.06)


def test_a_head_that_reads_what_another_writes_stands_out():
    d_model = 64
    o1, v1 = draw(1, d_model, 4), draw(1, 4, d_model, seed=1)
    q2 = draw(2, 4, d_model, seed=2)
    k2 = torch.stack([o1[0].T, draw(4, d_model, seed=3)])
    found = composition(sides(k2, q2, torch.float32), sides(o1.mT, v1, torch.float32))
    assert float(found.z[0, 0]) > 20
    assert abs(float(found.z[1, 0])) < 4
