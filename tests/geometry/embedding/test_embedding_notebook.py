"""The notebook's numbers are computed as it does, mistakes included, and differ from ours where it is wrong."""

import numpy as np
import pytest
import torch

from src.geometry.embedding import notebook
from src.geometry.embedding.notebook import QWEN, T5, Variant, as_the_notebook, first_pieces
from tests.fixtures.chatml_model import chatml_tokenizer
from tests.fixtures.tiny_tokenizers import unigram_tokenizer

CPU = torch.device("cpu")


def random_table(n, d=16, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + 0.3


def test_first_pieces_of_digits_are_one_row():
    """BUG A-1."""
    tokenizer = unigram_tokenizer()
    boundary = tokenizer.convert_tokens_to_ids("▁")
    assert first_pieces(tokenizer, ["5", "7"]) == [boundary, tokenizer.convert_tokens_to_ids("▁7")]
    found = as_the_notebook(T5, random_table(13), None, tokenizer, CPU)
    assert found["digits"]["tokens"].count(boundary) == 9


def test_digits_that_are_one_row_correlate_with_nothing():
    class Boundary:
        pad_token_id = eos_token_id = unk_token_id = None

        def encode(self, _text, add_special_tokens):
            assert not add_special_tokens
            return [3, 7]

    found = as_the_notebook(QWEN, random_table(200), None, Boundary(), CPU)  # pyright: ignore[reportArgumentType]
    assert found["digits"]["pearson"] is None
    assert found["digits"]["adjacent"] == pytest.approx(1)


def test_padding_rows_are_counted():
    table = random_table(300)
    table[250:] = 0.01
    found = as_the_notebook(QWEN, table, None, chatml_tokenizer(), CPU)
    assert found["rows"] == 300
    norms = table.double().norm(dim=1).numpy()
    assert found["norms"]["mean"] == pytest.approx(norms.mean())
    assert found["norms"]["mean"] < norms[:250].mean() - 0.1


def test_classes_are_fixed_ids():
    """BUG A-2."""
    table = random_table(400)
    found = as_the_notebook(QWEN, table, None, chatml_tokenizer(), CPU)["categories"]
    assert {name: each["n"] for name, each in found.items()} == {
        "ASCII digits": 10, "ASCII upper case": 26, "ASCII lower case": 26, "special tokens (tail)": 100,
    }  # fmt: skip
    unit = torch.nn.functional.normalize(table[48:58].double(), dim=1)
    truth = (unit @ unit.T)[np.triu_indices(10, 1)].mean()
    assert found["ASCII digits"]["cosine"] == pytest.approx(float(truth))


def test_eigenvalues_of_all_rows_or_of_a_sample():
    table = random_table(120, d=8)
    for variant, divisor in ((T5, 120), (QWEN, 119)):
        found = as_the_notebook(variant, table, None, chatml_tokenizer(), CPU)["spectrum"]
        centred = (table - table.mean(0)).double()
        assert found["total_variance"] == pytest.approx(float(centred.square().sum()) / divisor, rel=1e-6)
        assert len(found["top"]) == min(variant.top_eigenvalues, 8)
    small = Variant("qwen", (0.0,), 50, 3)
    drawn = table[torch.from_numpy(np.random.default_rng(42).choice(120, 50, replace=False))].double()
    sampled = as_the_notebook(small, table, None, chatml_tokenizer(), CPU)["spectrum"]
    assert sampled["rows"] == 50
    assert sampled["total_variance"] == pytest.approx(float(drawn.var(0).sum()))


def test_cosines_are_of_rows_of_seed_42(monkeypatch):
    assert (notebook.COSINE_ROWS, notebook.DISTANCE_ROWS) == (5000, 2000)
    monkeypatch.setattr(notebook, "COSINE_ROWS", 500)
    table = random_table(530, d=4)
    found = as_the_notebook(T5, table, None, unigram_tokenizer(), CPU)["cosines"]
    drawn = torch.from_numpy(np.random.default_rng(42).choice(530, 500, replace=False))
    unit = torch.nn.functional.normalize(table[drawn].double(), dim=1)
    total = float(unit.sum(0).square().sum())
    assert found["mean"] == pytest.approx((total - 500) / (500 * 499), abs=1e-9)
    assert set(found["share_within_0.01"]) == {"0.0", "0.19471", "0.29514", "0.5"}


def test_special_tokens_and_the_output_table():
    tokenizer = unigram_tokenizer()
    table, output = random_table(13), random_table(13, seed=1)
    found = as_the_notebook(T5, table, output, tokenizer, CPU)
    assert found["special_tokens"]["tokens"] == [0, 1, 2, 12, 11]
    assert found["input_output"]["tied"] is False
    truth = torch.nn.functional.cosine_similarity(table.double(), output.double())
    assert found["input_output"]["cosine"]["mean"] == pytest.approx(float(truth.mean()))
    assert as_the_notebook(T5, table, table, tokenizer, CPU)["input_output"]["relative_difference"] == 0
