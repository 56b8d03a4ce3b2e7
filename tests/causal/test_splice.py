"""Loss recovered, against a run of the model by hand: reconstructions in place of a block's output."""

from typing import Any

import numpy as np
import pytest
import torch

from src.causal.splice import loss_recovered
from src.errors import NotApplicableError
from src.features.sae import load_sae
from src.hook_points import HookPoint
from src.models import wrap_model
from src.text import Keep, TokenSequence
from tests.fixtures.saes import sae_config, standard_sae
from tests.fixtures.tiny_models import D_MODEL, N_VOCAB, model_config, tiny_model

POINTS = (HookPoint("resid_post", 0), HookPoint("resid_post", 1))


@pytest.fixture(scope="module")
def model():
    return wrap_model(tiny_model("llama"), model_config())


@pytest.fixture(scope="module")
def saes(tmp_path_factory):
    made = {}
    for point in POINTS:
        torch.manual_seed(point.layer)
        folder = tmp_path_factory.mktemp("sae")
        standard_sae(point.transformer_lens, D_MODEL).save_model(folder)
        made[point] = load_sae(sae_config(path=str(folder)))
    return made


@pytest.fixture(scope="module")
def sequences():
    draws = np.random.default_rng(0)
    made = []
    for document, length in enumerate([9, 14, 5, 11, 7, 3]):
        roles = np.zeros(length, np.uint8)
        roles[0], roles[length // 2] = Keep.BOS, Keep.SPECIAL
        made.append(TokenSequence(document // 2, draws.integers(3, N_VOCAB, length).astype(np.int32), roles))
    return made


MEANS = {point: torch.linspace(-1, 1, D_MODEL) * (1 + point.layer) for point in POINTS}


def losses_by_hand(model, sequences, point, replaced):
    """Per document: the losses of the predictions at counted tokens, where those tokens were replaced."""
    per_document = {}
    for it in sequences:
        counted = torch.from_numpy(it.roles == Keep.COUNTED)

        def edit(_module, _inputs, output, counted=counted):
            state = output[0] if isinstance(output, tuple) else output
            new = torch.where(counted[None, :, None], replaced(state), state)
            return (new, *output[1:]) if isinstance(output, tuple) else new

        handle = model.blocks[point.layer].register_forward_hook(edit)
        ids = torch.from_numpy(it.token_ids).long()[None]
        with torch.no_grad():
            logits = model.module(ids).logits.double()
        handle.remove()
        nll = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")
        per_document.setdefault(it.document, []).append(nll[counted[:-1]])
    return [torch.cat(parts) for _, parts in sorted(per_document.items())]


def test_every_number_is_that_of_a_run_by_hand(model, saes, sequences):
    effects = loss_recovered(model, saes, MEANS, sequences, batch_size=4)
    for point, sae in saes.items():
        replaced = {
            "clean": lambda x: x,
            "spliced": lambda x, sae=sae: sae.reconstruct(x)[1],
            "zero": torch.zeros_like,
            "mean": lambda x, point=point: MEANS[point].expand_as(x),
        }
        by_hand = {name: losses_by_hand(model, sequences, point, function) for name, function in replaced.items()}
        nll = {name: float(torch.cat(parts).mean()) for name, parts in by_hand.items()}
        found = effects[point]
        for name, value in nll.items():
            assert getattr(found, f"nll_{name}").value == pytest.approx(value, abs=1e-5)
        for name in ("zero", "mean"):
            share = (nll[name] - nll["spliced"]) / (nll[name] - nll["clean"])
            assert getattr(found, f"recovered_{name}").value == pytest.approx(share, rel=1e-3)
        assert (found.n_documents, found.n_predictions) == (3, sum(len(part) for part in by_hand["clean"]))
        sums = torch.tensor([part.sum() for part in by_hand["spliced"]])
        counts = torch.tensor([len(part) for part in by_hand["spliced"]])
        deviation = sums - nll["spliced"] * counts
        error = (deviation.square().sum() * 3 / 2).sqrt() / counts.sum()
        width = found.nll_spliced.high - found.nll_spliced.low
        assert width == pytest.approx(2 * 1.96 * float(error), rel=1e-3)


def test_a_perfect_reconstruction_recovers_all_and_the_mean_nothing(model, sequences):
    class Fixed:
        def __init__(self, function):
            self.reconstruct = lambda x: (x, function(x))

    point = POINTS[1]
    for function, zero, mean in ((lambda x: x, 1, 1), (lambda x: MEANS[point].expand_as(x), None, 0)):
        sae: Any = Fixed(function)
        effect = loss_recovered(model, {point: sae}, MEANS, sequences, batch_size=3)[point]
        assert effect.recovered_mean.value == pytest.approx(mean, abs=1e-5)
        if zero is not None:
            assert effect.recovered_zero.value == pytest.approx(zero, abs=1e-5)


def test_models_that_predict_nothing_are_told(saes, sequences):
    bert = wrap_model(tiny_model("bert"), model_config())
    with pytest.raises(NotApplicableError):
        loss_recovered(bert, saes, MEANS, sequences, batch_size=2)
