"""What a direction adds to the logits: read from the model, against each family's own weights."""

import pytest
import torch

from src.errors import NotApplicableError
from src.models import wrap_model
from src.models.unembedding import read_unembedding
from tests.fixtures.tiny_models import D_MODEL, model_config, tiny_model

DIRECTIONS = torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(0))


def centred(rows: torch.Tensor) -> torch.Tensor:
    return rows - rows.mean(-1, keepdim=True)


# family: what a direction becomes before the head
FOLDED = {
    "llama": lambda module, x: x * module.model.norm.weight,
    "gemma2": lambda module, x: x * (1 + module.model.norm.weight),  # with a soft cap on logits, too
    "gpt2": lambda module, x: centred(x) * module.transformer.ln_f.weight,
    "gpt_neox": lambda module, x: centred(x) * module.gpt_neox.final_layer_norm.weight,
    "opt_post_norm": lambda module, x: x @ module.model.decoder.project_out.weight.T,  # no norm at all
}


@pytest.mark.parametrize("family", FOLDED)
def test_direct_logits_are_those_of_the_models_own_weights(family):
    module = tiny_model(family)
    found = read_unembedding(wrap_model(module, model_config())).logits(DIRECTIONS)
    expected = FOLDED[family](module, DIRECTIONS) @ module.get_output_embeddings().weight.T
    torch.testing.assert_close(found, expected.detach(), rtol=2e-4, atol=2e-4)


def test_half_precision_agrees_to_its_own_rounding():
    module = tiny_model("llama").bfloat16()
    found = read_unembedding(wrap_model(module, model_config())).logits(DIRECTIONS)
    expected = FOLDED["llama"](module, DIRECTIONS.bfloat16()).float() @ module.lm_head.weight.float().T
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_an_encoder_has_no_logits():
    with pytest.raises(NotApplicableError, match="no vocabulary head"):
        read_unembedding(wrap_model(tiny_model("bert"), model_config()))
