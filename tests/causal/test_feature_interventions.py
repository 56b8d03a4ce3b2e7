"""What edits of SAE features write, against SAELens' own decoder, and in the running model against plain hooks."""

import pytest
import torch
from torch import Tensor

from src.causal.feature_codes import FeatureCodes
from src.causal.feature_interventions import AblateFeatures, AblateOthers, AlongLatents, MeanFeatures
from src.causal.interventions import CleanStates, CopySource, OnTokensWith, edited_tokens, is_selective
from src.causal.perplexity import Condition, ConditionScorer
from src.features.sae import Sae
from src.hook_points import HookPoint
from src.models import attach, capture, wrap_model
from tests.fixtures.loaded_saes import random_sae
from tests.fixtures.tiny_models import D_MODEL, model_config, ragged_batch, tiny_model

SOURCE, TARGET = HookPoint("resid_post", 0), HookPoint("resid_post", 1)
FEATURES = (7, 0, 31, 12)
KINDS = [
    ("standard", {}),
    ("topk", {"rescale_acts_by_decoder_norm": True}),
    ("jumprelu", {"normalize_activations": "layer_norm"}),
]


def clean_states(edited: Tensor | None = None, seed: int = 0) -> CleanStates:
    draws = torch.Generator().manual_seed(seed)
    is_token = torch.arange(6)[None] < torch.tensor([6, 3, 5])[:, None]
    states = {point: torch.randn(*is_token.shape, D_MODEL, generator=draws) for point in (SOURCE, TARGET)}
    return CleanStates(TARGET, states, is_token, is_token if edited is None else edited & is_token)


def decoded_difference(sae: Sae, x: Tensor, z_new: Tensor) -> Tensor:
    """What SAELens' decoder makes of other features of the same rows, less what it makes of their own."""
    _, own = sae.reconstruct(x)
    sae.encode(x)  # SAEs that normalise rows decode what they have encoded last
    return sae.module.decode(z_new) - own


@pytest.mark.parametrize(("architecture", "keys"), KINDS)
def test_what_is_written_is_what_the_decoder_makes_of_the_changed_latents(architecture: str, keys: dict) -> None:
    sae = random_sae(TARGET, architecture, **keys)
    codes, clean = FeatureCodes(sae, FEATURES), clean_states()
    chosen = [FEATURES[0], FEATURES[3]]
    means = torch.tensor([0.5, 1.0, 2.0, 0.25])
    y, x = clean.activations[TARGET], clean.activations[SOURCE]
    z, z_source = sae.encode(y), sae.encode(x)
    fires, fires_there = ((codes[..., chosen] != 0).any(-1) & clean.is_token for codes in (z, z_source))
    edits = {
        AblateFeatures(codes, (0, 3)): (torch.zeros_like(z), fires),
        AlongLatents(codes, (0, 3), CopySource(SOURCE)): (z_source, fires | fires_there),
        MeanFeatures(codes, (0, 3), means): (torch.zeros_like(z).index_fill_(2, torch.tensor(7), 0.5), clean.is_token),
    }
    edits[list(edits)[2]][0][..., 12] = 0.25
    for intervention, (new, where) in edits.items():
        edited = edited_tokens(intervention, clean)
        assert torch.equal(edited, where)
        assert 0 < int(edited.sum()) <= int(clean.is_token.sum())
        narrow = CleanStates(TARGET, clean.activations, clean.is_token, edited)
        changed = z.clone()
        changed[..., chosen] = new[..., chosen]
        expected = y[edited] + decoded_difference(sae, y[edited], changed[edited])
        torch.testing.assert_close(intervention(narrow), expected, atol=1e-5, rtol=1e-5)


def test_as_many_others_are_ablated_as_of_the_given_ones_fire() -> None:
    sae = random_sae(TARGET)
    codes, clean = FeatureCodes(sae, FEATURES), clean_states()
    it = AblateOthers(codes, (0, 1, 2), seed=3)
    edited = edited_tokens(it, clean)
    narrow = CleanStates(TARGET, clean.activations, clean.is_token, edited)
    y = clean.activations[TARGET][edited]
    z = sae.encode(y)
    written = it(narrow)
    assert torch.equal(written, AblateOthers(codes, (0, 1, 2), seed=3)(narrow))
    assert not torch.equal(written, AblateOthers(codes, (0, 1, 2), seed=4)(narrow))
    given = [7, 0, 31]
    for row, (before, after) in enumerate(zip(y, written, strict=True)):
        active = [f for f in z[row].nonzero()[:, 0].tolist() if f not in given]
        contributions = z[row, active, None] * sae.decoder[active]
        # which ones: the coefficients that give the difference (at most 15 directions in 16 dimensions)
        assert len(active) < D_MODEL
        taken = torch.linalg.lstsq(contributions.T, (before - after)[:, None]).solution[:, 0]
        torch.testing.assert_close(taken, taken.round(), atol=1e-3, rtol=0)
        n_given = int((z[row, given] != 0).sum())
        assert int(taken.round().sum()) == min(n_given, len(active)) > 0


def test_a_batch_is_encoded_once_for_all_conditions() -> None:
    sae = random_sae(TARGET)
    calls: list[int] = []
    encode = sae.module.encode
    sae.module.encode = lambda x: calls.append(len(x)) or encode(x)  # type: ignore[method-assign, assignment]
    codes, inner = FeatureCodes(sae, FEATURES), CopySource(SOURCE)
    interventions = [AblateFeatures(codes, (place,)) for place in range(4)]
    interventions += [AlongLatents(codes, (place,), inner) for place in range(4)]
    for seed in (0, 1):
        clean = clean_states(seed=seed)
        calls.clear()
        found = [edited_tokens(it, clean) for it in interventions]
        assert calls == [14, 14]  # the tokens at the target, and at the source
        fires = sae.encode(clean.activations[TARGET])[..., 0] != 0
        assert torch.equal(found[1], fires & clean.is_token)


def test_with_an_offset_only_tokens_with_a_source_are_edited() -> None:
    sae, clean = random_sae(TARGET), clean_states()
    codes, source = FeatureCodes(sae, FEATURES), SOURCE.at(-1)
    transported, ablated = AlongLatents(codes, (0, 1, 2, 3), CopySource(source)), AblateFeatures(codes, (0, 1, 2, 3))
    new = codes.written(CopySource(source), clean)
    assert new[:, 0].abs().max() == 0
    before = sae.encode(clean.activations[SOURCE][:, :-1])[..., list(FEATURES)]
    torch.testing.assert_close(new[0, 1:], before[0])
    both = [OnTokensWith(source, ablated), transported]
    assert all(map(is_selective, both))
    assert not is_selective(OnTokensWith(source, CopySource(SOURCE)))
    condition = Condition("x", both[0], TARGET)
    assert not condition.edited(clean.is_token)[:, 0].any()


def test_in_the_running_model_only_sequences_and_positions_with_the_feature_change() -> None:
    model, sae = wrap_model(tiny_model("llama"), model_config()), random_sae(TARGET)
    ids, mask = ragged_batch([9, 4, 12, 7])
    codes = FeatureCodes(sae, (3, 9))
    sae.module.b_enc.data -= 1.5  # features become rare
    conditions = [Condition(str(place), AblateFeatures(codes, (place,)), TARGET) for place in (0, 1)]
    conditions.append(Condition("late", AblateFeatures(codes, (0, 1)), TARGET, (5, 6)))
    scores = ConditionScorer(model, conditions).score(ids, mask)
    y = capture(model, ids, mask, [TARGET])[TARGET]
    z = sae.encode(y)[..., [3, 9]] * mask[..., None]
    for index, (condition, places) in enumerate(zip(conditions, ([0], [1], [0, 1]), strict=True)):
        fires = (z[..., places] != 0).any(-1)
        if condition.positions is not None:
            fires &= torch.isin(torch.arange(12), torch.tensor([5, 6]))[None]
        assert torch.equal(scores.edited[condition.name], fires)
        assert 0 < int(fires.sum()) < int(mask.sum()) / 2
        reached = (fires.cumsum(1) > 0)[:, :-1] & mask[:, 1:].bool()
        assert torch.equal(scores.affected[index], reached)
        assert scores.proofs[condition.name].tokens == int(fires.sum())
        assert scores.proofs[condition.name].holds
        new = y - fires[..., None] * z[..., places] @ sae.decoder[[[3, 9][place] for place in places]]
        handle = attach(model, TARGET, lambda _state, new=new: new)
        with torch.no_grad():
            log_p = model.module(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
        handle.remove()
        expected = -log_p.gather(-1, ids[:, 1:, None])[..., 0]
        predicted = mask[:, 1:].bool()
        torch.testing.assert_close(scores.nll[index][predicted], expected[predicted], atol=1e-4, rtol=1e-5)
