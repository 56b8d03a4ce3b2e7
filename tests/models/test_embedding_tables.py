"""Which tensors the embeddings of a model are."""

import pytest
import torch

from src.errors import NotApplicableError
from src.models.checkpoint import weights_of
from src.models.embedding_tables import read_embeddings
from tests.fixtures.tiny_models import D_MODEL, N_VOCAB, tiny_model


def test_tied_embeddings_are_one_tensor():
    module = tiny_model("llama", tie_word_embeddings=True)
    tables = read_embeddings(weights_of(module))
    assert tables.tied
    assert tables.output is tables.input
    assert tables.positions is None
    assert torch.equal(tables.input, module.get_input_embeddings().weight)


def test_untied_embeddings_are_two():
    module = tiny_model("llama", tie_word_embeddings=False)
    tables = read_embeddings(weights_of(module))
    assert not tables.tied
    assert tables.output is not None
    assert torch.equal(tables.output, module.get_output_embeddings().weight)


def test_stacks_that_share_their_embeddings_predict_nothing_by_that():
    """A T5 without head: encoder and decoder are tied to the shared table, which is no unembedding."""
    tables = read_embeddings(weights_of(tiny_model("t5")))
    assert tables.output is None
    assert not tables.tied
    assert tables.input.shape == (N_VOCAB, D_MODEL)


def test_a_change_of_either_changes_the_digest():
    module = tiny_model("llama", tie_word_embeddings=False)
    before = read_embeddings(weights_of(module)).digest
    with torch.no_grad():
        module.get_output_embeddings().weight[3, 3] += 1
    assert read_embeddings(weights_of(module)).digest != before


def test_a_tied_head_is_another_model_than_none():
    """The same table, with and without a head that is tied to it: what is found of the output differs."""
    module = tiny_model("llama", tie_word_embeddings=True)
    whole, headless = (read_embeddings(weights_of(each)) for each in (module, module.base_model))
    assert torch.equal(whole.input, headless.input)
    assert (whole.tied, headless.tied) == (True, False)
    assert whole.digest != headless.digest


@pytest.mark.parametrize(("family", "unused"), [("gpt2", 0), ("bert", 0), ("opt", 2), ("roberta", 2)])
def test_row_i_of_the_position_table_is_what_position_i_gets(family, unused):
    """OPT's and RoBERTa's tables begin with rows that no position has: run the model and look which row it takes."""
    module = tiny_model(family)
    positions = read_embeddings(weights_of(module)).positions
    assert positions is not None
    [table] = [
        part for name, part in module.named_modules() if name.endswith(("wpe", "position_embeddings", "positions"))
    ]
    assert len(table.weight) - len(positions) == unused
    rows = []
    handle = table.register_forward_hook(lambda _module, _inputs, output: rows.append(output))
    module(input_ids=torch.tensor([[5, 6, 7]]), attention_mask=torch.ones(1, 3, dtype=torch.long))
    handle.remove()
    torch.testing.assert_close(rows[0].reshape(-1, D_MODEL)[:3], positions[:3])


def test_a_vision_model_has_no_token_embeddings():
    with pytest.raises(NotApplicableError, match="no token embeddings"):
        read_embeddings(weights_of(tiny_model("vit")))
