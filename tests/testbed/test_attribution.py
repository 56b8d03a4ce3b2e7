"""Integrated gradients rank features of the testbed's SAEs as exact ablation does, and better than first orders."""

import numpy as np
import pytest
import torch

from src.causal.ablation import ablate_features
from src.causal.attribution import attribute_features
from src.features.sae import load_sae, require_point
from src.features.scores.scoring import rank_correlation
from src.models import load_model, load_tokenizer
from src.text import TokenSequence
from src.text.keep import Keep
from tests.fixtures.saes import sae_config
from tests.fixtures.tiny_models import model_config
from tests.testbed.conftest import TESTBED


@pytest.mark.parametrize("layer", [2, 4])
def test_estimated_effects_have_the_ranks_of_exact_ones(heldout, layer):
    config = model_config(path=str(TESTBED / "models" / "base"), dtype="float32", name="testbed")
    model, tokenizer = load_model(config, "cpu"), load_tokenizer(config)
    sae = load_sae(sae_config(path="testbed/saes/layer_{layer}"), layer=layer)
    sequences = []
    for number, document in enumerate(heldout[:16]):
        ids = np.array(tokenizer(document["text"])["input_ids"], np.int32)
        special = np.isin(ids, tokenizer.all_special_ids)
        sequences.append(TokenSequence(number, ids, np.where(special, Keep.SPECIAL, Keep.COUNTED).astype(np.uint8)))
    subject, text = (model, require_point(sae), sae), (sequences, np.arange(len(sequences)))
    first = attribute_features(*subject, *text, steps=0).per_token.mean()
    live = (first != 0).nonzero()[:, 0]
    some = live[torch.randperm(len(live), generator=torch.Generator().manual_seed(1))[:60]]
    exact = ablate_features(*subject, some.tolist(), *text).per_token.mean()
    found = attribute_features(*subject, *text, features=some.tolist(), groups=4, steps=2).per_token.mean()
    assert rank_correlation(found, exact) >= 0.8
    assert rank_correlation(found, exact) > rank_correlation(first[some], exact)
