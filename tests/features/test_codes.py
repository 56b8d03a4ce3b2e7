"""Sparse codes: written from an SAE, read back in chunks of whole documents."""

import numpy as np
import pytest
import sae_lens
import torch

from src.errors import StrataError
from src.features import active
from src.features import codes as module
from src.features.codes import CodesWriter
from src.features.sae import Sae
from src.features.scores.coherence import token_coherence
from src.features.scores.firing import firing_statistics
from tests.fixtures.saes import D, F, standard_sae
from tests.fixtures.sparse_codes import codes_of, random_text


@pytest.fixture
def sae() -> Sae:
    torch.manual_seed(0)
    made = standard_sae("blocks.1.hook_resid_post")
    made.eval().requires_grad_(False)
    return Sae(made, "made", "blocks.1.hook_resid_post", None, False)


def test_what_is_read_back_is_what_sae_lens_encodes_at_counted_tokens(sae, tmp_path, monkeypatch):
    monkeypatch.setattr(active, "_NUMBERS_AT_ONCE", 5 * F)  # several pieces per batch
    monkeypatch.setattr(module, "_PRODUCTS_AT_ONCE", 3 * D)
    states, gradients = torch.randn(2, 3, 7, D)
    counted = torch.rand(3, 7) < 0.7
    with CodesWriter(tmp_path / "codes", sae, with_effect=True) as writer:
        writer.add(states[:2], gradients[:2], counted[:2])
        writer.add(states[2:], gradients[2:], counted[2:])
    per_sequence = counted.sum(1)
    start = torch.cat([torch.zeros(1, dtype=torch.int64), per_sequence.cumsum(0)])
    codes = writer.finished(torch.arange(int(counted.sum())), start)

    expected = sae.module.encode(states[counted])
    dense = torch.zeros_like(expected)
    row = torch.arange(codes.n_tokens).repeat_interleave(codes.entry_start.diff())
    dense[row, codes.feature.long()] = codes.activation
    assert (expected > 0).any()
    torch.testing.assert_close(dense, expected)
    effect = -expected * (gradients[counted] @ sae.module.W_dec.T)
    assert codes.effect is not None
    torch.testing.assert_close(codes.effect, effect[row, codes.feature.long()])


def test_the_negative_side_of_abstopk_does_not_fire(tmp_path):
    torch.manual_seed(0)
    made = sae_lens.AbsTopKSAE(sae_lens.AbsTopKSAEConfig(d_in=D, d_sae=F, k=6))
    made.eval().requires_grad_(False)
    both_sided = Sae(made, "made", "blocks.1.hook_resid_post", None, False)
    states = torch.randn(4, 5, D)
    with CodesWriter(tmp_path / "codes", both_sided, with_effect=False) as writer:
        writer.add(states, None, torch.ones(4, 5, dtype=torch.bool))
    codes = writer.finished(torch.arange(20) % 7, torch.arange(0, 21, 5))
    expected = made.encode(states.flatten(0, 1))
    assert (expected < 0).any()
    firing = firing_statistics(codes)
    torch.testing.assert_close(firing.n_active, (expected > 0).sum(0))
    entropy = token_coherence(codes, firing, prior=5.0).entropy.value
    assert entropy[~firing.is_dead].isfinite().all()


def test_nan_is_refused(sae, tmp_path):
    states = torch.zeros(1, 2, D)
    states[0, 1, 3] = torch.nan
    with CodesWriter(tmp_path / "codes", sae, with_effect=False) as writer:
        writer.add(states, None, torch.tensor([[True, False]]))
        with pytest.raises(StrataError, match="NaN or infinite"):
            writer.add(states, None, torch.tensor([[True, True]]))


@pytest.mark.parametrize("entries_at_once", [1, 40, 10**6])
def test_chunks_are_whole_documents_and_together_everything(entries_at_once, monkeypatch):
    monkeypatch.setattr(module, "_ENTRIES_AT_ONCE", entries_at_once)
    dense, ids, lengths = random_text()
    chunks = list(codes_of(dense, ids, lengths).chunks())
    assert (len(chunks) == 1) == (entries_at_once == 10**6)
    sums = torch.cat([chunk.per_document(chunk.activation) for chunk in chunks])
    expected = np.stack([part.sum(0) for part in np.split(dense, np.cumsum(lengths)[:-1])])
    np.testing.assert_allclose(sums.numpy(), expected, rtol=1e-12)
    assert torch.cat([chunk.tokens_per_document for chunk in chunks]).tolist() == lengths
    assert [chunk.first_document for chunk in chunks] == np.cumsum(
        [0, *(len(chunk.tokens_per_document) for chunk in chunks)]
    )[:-1].tolist()


def test_a_text_at_which_nothing_fires_has_no_entries(sae, tmp_path):
    sae.module.b_enc.fill_(-1e6)
    with CodesWriter(tmp_path / "codes", sae, with_effect=False) as writer:
        writer.add(torch.randn(1, 4, D), None, torch.ones(1, 4, dtype=torch.bool))
    codes = writer.finished(torch.arange(4), torch.tensor([0, 4]))
    (chunk,) = codes.chunks()
    assert len(chunk.feature) == 0
    assert chunk.per_document(chunk.activation).tolist() == [[0.0] * F]
