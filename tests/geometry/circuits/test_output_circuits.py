import pytest
import torch

from src.geometry.circuits.biases import bias_share
from src.geometry.circuits.output import output_statistics, paired_copying


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_statistics_are_those_of_the_dense_circuit():
    v, o = draw(2, 5, 24), draw(2, 24, 5, seed=1)
    found = output_statistics(v, o)
    for head, circuit in enumerate(o @ v):
        eigenvalues = torch.linalg.eigvals(circuit)
        singular = torch.linalg.svdvals(circuit)
        counted = eigenvalues[eigenvalues.abs() > 1e-9]
        assert float(found.copying[head]) == pytest.approx(float(counted.real.sum() / counted.abs().sum()), abs=1e-9)
        assert float(found.positive_fraction[head]) == float((counted.real > 0).double().mean())
        assert float(found.stable_rank[head]) == pytest.approx(float((singular**2).sum() / singular[0] ** 2))
        assert float(found.norm[head]) == pytest.approx(float(circuit.norm()))


def test_heads_that_copy_and_heads_that_write_the_opposite():
    v = draw(1, 4, 16)
    assert float(output_statistics(v, v.mT).copying) == pytest.approx(1)
    assert float(output_statistics(v, -v.mT).copying) == pytest.approx(-1)


def test_copying_through_embeddings_is_that_of_the_circuit_from_tokens_to_logits():
    v, o = draw(2, 3, 10), draw(2, 10, 3, seed=1)
    embeddings, unembeddings = draw(30, 10, seed=2), draw(30, 10, seed=3)
    found = paired_copying(v, o, torch.tensor([0, 1]), torch.tensor([1, 1]), embeddings.T @ unembeddings)
    for pair, (i, j) in enumerate([(0, 1), (1, 1)]):
        eigenvalues = torch.linalg.eigvals(unembeddings @ o[i] @ v[j] @ embeddings.T)
        assert float(found[pair]) == pytest.approx(float(eigenvalues.real.sum() / eigenvalues.abs().sum()), abs=1e-6)


def test_the_share_of_biases_is_a_ratio_of_standard_deviations():
    q, k, bias = draw(2, 3, 12), draw(2, 3, 12, seed=1), draw(2, 3, seed=2)
    x, y = draw(20000, 12, seed=3), draw(20000, 12, seed=4)
    content = torch.einsum("ti,hai,haj,tj->ht", x, q, k, y)
    preference = torch.einsum("ha,haj,tj->ht", bias, k, y)
    found = bias_share(bias, k, (q.mT @ k).norm(dim=(1, 2)))
    torch.testing.assert_close(found, preference.std(1) / content.std(1), rtol=0.05, atol=0)
