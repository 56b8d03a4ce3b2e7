"""The committed SAEs of the testbed: every layer's loads, and reconstructs held-out text as testbed/README.md says."""

import numpy as np
import pytest
import torch

from src.activations.collect import right_padded
from src.config.shared import ModelConfig
from src.features.sae import load_sae
from src.features.training.reconstruction import ReconstructionSums
from src.hook_points import HookPoint
from src.models import load_model, load_tokenizer, run_with_hooks
from tests.fixtures.saes import sae_config
from tests.fixtures.tiny_models import model_config
from tests.testbed.conftest import TESTBED

LAYERS = range(6)
N_DOCUMENTS = 200


@pytest.fixture(scope="module")
def saes():
    config = sae_config(path="testbed/saes/layer_{layer}")
    return {layer: load_sae(config, layer=layer) for layer in LAYERS}


@pytest.fixture(scope="module")
def scores(saes, heldout):
    config: ModelConfig = model_config(path=str(TESTBED / "models" / "base"), dtype="float32", name="testbed")
    model, tokenizer = load_model(config, "cpu"), load_tokenizer(config)
    special = torch.tensor(tokenizer.all_special_ids)
    points = {HookPoint("resid_post", layer): layer for layer in LAYERS}
    sums = {(read, of): ReconstructionSums() for read in LAYERS for of in LAYERS if abs(read - of) <= 1}
    texts = [document["text"] for document in heldout[:N_DOCUMENTS]]
    for start in range(0, len(texts), 50):
        ids, mask = right_padded([np.array(tokenizer(text)["input_ids"]) for text in texts[start : start + 50]])
        counted = mask.bool() & ~torch.isin(ids, special)
        document = start + counted.nonzero()[:, 0]

        def receive(point, rows, counted=counted, document=document):
            for read, of in sums:
                if read == points[point]:
                    sums[read, of].add(saes[of], rows[counted], document)

        run_with_hooks(model, ids, mask, list(points), receive)
    return {pair: total.result() for pair, total in sums.items()}


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_s_sae_reconstructs_held_out_text(scores, saes, layer):
    found = scores[layer, layer]
    assert found.n_rows > 15_000
    assert found.fvu.value <= 0.05
    assert found.l0.value <= 20
    assert found.dead <= 0.02
    sae = saes[layer]
    assert (sae.point, sae.d_model, sae.model_name) == (HookPoint("resid_post", layer), 128, "testbed")


@pytest.mark.parametrize("layer", LAYERS)
def test_no_neighbour_s_sae_fits_as_well(scores, layer):
    own = scores[layer, layer].fvu.value
    assert all(scores[layer, other].fvu.value > 3 * own for other in (layer - 1, layer + 1) if other in LAYERS)
    assert all(scores[other, layer].fvu.value > 3 * own for other in (layer - 1, layer + 1) if other in LAYERS)


def test_they_are_small_enough_for_a_repository():
    files = [path for path in (TESTBED / "saes").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6e6
    assert not [path for path in files if path.suffix not in (".json", ".safetensors")]
