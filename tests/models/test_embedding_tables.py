"""Which tensors the embeddings of a model are."""

import torch

from src.models.checkpoint import weights_of
from src.models.embedding_tables import read_embeddings
from tests.fixtures.tiny_models import tiny_model


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
    assert torch.equal(tables.output, module.get_output_embeddings().weight)


def test_a_change_of_either_changes_the_digest():
    module = tiny_model("llama", tie_word_embeddings=False)
    before = read_embeddings(weights_of(module)).digest
    with torch.no_grad():
        module.get_output_embeddings().weight[3, 3] += 1
    assert read_embeddings(weights_of(module)).digest != before
