"""Every parameter of every family has a role, and the parts are those that the running model uses."""

import functools
from collections import Counter, defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from src.models import wrap_model
from src.models.checkpoint import Matrix, Weights, catalogue, read_matrix, weights_of
from src.models.checkpoint.fused import FusedLayout
from src.models.internals import Internals
from tests.fixtures.tiny_models import FAMILIES, MORE_FAMILIES, WEIGHT_FAMILIES, model_config, ragged_batch, tiny_model

EVERY = (*FAMILIES, *MORE_FAMILIES, *WEIGHT_FAMILIES)
RUNNING = tuple(sorted({*FAMILIES, *MORE_FAMILIES, "roberta", "mixtral", "qwen3_5"} - {"deepseek_v3"}))
LATENT = "deepseek_v3"  # queries, keys and values come through a narrow state

_weights = functools.cache(lambda family: weights_of(tiny_model(family, seed=1)))
_catalogue = functools.cache(lambda family: catalogue(_weights(family)))


@functools.cache
def _internals(family: str) -> tuple[Any, Internals]:
    model = wrap_model(_weights(family).skeleton, model_config())
    return model, model.internals


@pytest.mark.parametrize("family", EVERY)
def test_everything_is_recognised(family: str) -> None:
    matrices = _catalogue(family)
    assert [matrix.name for matrix in matrices if matrix.role == "other"] == []
    assert len({matrix.name for matrix in matrices}) == len(matrices)
    assert sum(matrix.numel for matrix in matrices) == sum(p.numel() for p in _weights(family).skeleton.parameters())
    for matrix in matrices:
        values = read_matrix(_weights(family), matrix)
        assert tuple(values.shape) == matrix.shape, matrix.name
        assert (matrix.place is not None) == (matrix.role == "norm" or matrix.of == "norm"), matrix.name


@pytest.mark.parametrize("family", EVERY)
def test_every_layer_has_what_it_must_have(family: str) -> None:
    """One q, k, v and o for each attention (BUG E-1: vit and dinov2 had four "o"; BUG E-3: fused ones had none)."""
    of_layer: dict[tuple[str, int], list[Matrix]] = defaultdict(list)
    for matrix in _catalogue(family):
        if matrix.layer is not None:
            of_layer[matrix.stack, matrix.layer].append(matrix)
    for (stack, layer), matrices in of_layer.items():
        roles = Counter((matrix.role, matrix.attention) for matrix in matrices)
        kinds = {m.attention for m in matrices if m.attention is not None and m.role in ("q", "k", "v", "o")}
        linear = any(matrix.role == "linear_attention" for matrix in matrices)
        if family != LATENT and not linear:
            has_cross = stack == "decoder" and family.startswith(("t5", "bart"))
            assert kinds == ({"self", "cross"} if has_cross else {"self"})
            assert all(roles[role, kind] == 1 for kind in kinds for role in ("q", "k", "v", "o")), (stack, layer)
        ups, downs = ([m for m in matrices if m.role == role] for role in ("up", "down"))
        assert [(m.expert, m.shared) for m in ups] == [(m.expert, m.shared) for m in downs], (stack, layer)
        assert len(ups) >= 1
        for up, down in zip(ups, downs, strict=True):
            assert up.shape == down.shape[::-1]
        gates = [m for m in matrices if m.role == "gate"]
        assert len(gates) in (0, len(ups))


def test_layers_and_stacks() -> None:
    def layers(family: str) -> dict[str, int]:
        found = {(m.stack, m.layer) for m in _catalogue(family) if m.layer is not None}
        return dict(Counter(stack for stack, _ in found))

    assert layers("clip") == {"vision": 3, "text": 3}
    assert layers("t5_gated") == {"encoder": 3, "decoder": 3}
    assert layers("bart") == {"encoder": 3, "decoder": 2}
    assert layers("vit") == layers("dinov2_swiglu") == {"vision": 3}
    assert layers("bert") == layers("roberta") == {"encoder": 3}
    assert layers("gpt2") == layers("opt") == {"decoder": 3}
    # the two gates of a gated T5 are not mixed up: the one that goes through the activation is wi_0
    gates = {m.parameter.split(".")[-2] for m in _catalogue("t5_gated") if m.role == "gate"}
    assert gates == {"wi_0"}


def test_tied_embeddings_are_counted_once() -> None:
    for family, roles in (("gemma2", ["embedding"]), ("llama", ["embedding", "unembedding"]), ("bart", ["embedding"])):
        assert [m.role for m in _catalogue(family) if m.role in ("embedding", "unembedding")] == roles


def _weight(owner: nn.Module) -> Tensor:
    weight: Any = owner.weight
    return weight.detach().T if isinstance(owner, Conv1D) else weight.detach()


@pytest.mark.parametrize("family", [family for family in RUNNING if not family.startswith("t5")])
def test_queries_keys_and_values_are_those_of_the_running_model(family: str) -> None:
    """Which columns of a projection are what is found by derivatives (src/models/projections.py)."""
    model, internals = _internals(family)
    checked = 0
    for layer in range(model.n_layers):
        attention = internals.attention[layer]
        if isinstance(attention, str):
            assert any(m.role == "linear_attention" and m.layer == layer for m in _catalogue(family)), attention
            continue
        assert attention.n_heads == 4
        for role in ("q", "k", "v"):
            site = attention.sites[role]
            (matrix,) = [m for m in _catalogue(family) if m.layer == layer and m.role == role]
            if isinstance(site, str):  # qwen3.5: a gate comes out of the projection of the queries
                assert role == "q"
                assert family in ("qwen3_next", "qwen3_5")
                continue
            owner = model.blocks[layer].get_submodule(site.path)
            expected = _weight(owner) if site.columns is None else _weight(owner)[site.columns]
            torch.testing.assert_close(read_matrix(_weights(family), matrix), expected, rtol=0, atol=0)
            for bias in (m for m in _catalogue(family) if m.layer == layer and m.of == role):
                whole: Any = owner.bias
                given = whole if site.columns is None else whole[site.columns]
                torch.testing.assert_close(read_matrix(_weights(family), bias), given.detach(), rtol=0, atol=0)
                assert bias.heads == matrix.heads
            assert matrix.heads is not None
            assert matrix.shape[0] // matrix.heads == 4
            checked += 1
    assert checked > 0


@pytest.mark.parametrize("family", ["qwen3_next", "qwen3_5"])
def test_the_gate_of_heads_is_apart_from_their_queries(family: str) -> None:
    """q is what the norm of queries takes."""
    model, _ = _internals(family)
    block, seen = model.blocks[1], {}
    hooks = [
        block.self_attn.q_proj.register_forward_hook(lambda _m, args, _o: seen.__setitem__("given", args[0])),
        block.self_attn.q_norm.register_forward_hook(lambda _m, args, _o: seen.__setitem__("queries", args[0])),
    ]
    ids, mask = ragged_batch([5, 5])
    with torch.inference_mode():
        model.inner(ids, mask)
    for hook in hooks:
        hook.remove()
    (q,) = [m for m in _catalogue(family) if m.layer == 1 and m.role == "q"]
    expected = (seen["given"] @ read_matrix(_weights(family), q).T).unflatten(-1, (4, -1))
    torch.testing.assert_close(seen["queries"].reshape(expected.shape), expected)


@pytest.mark.parametrize("family", RUNNING)
def test_norms_stand_where_they_are_said_to(family: str) -> None:
    """What attention and MLP take is the output of the norm before them (if there is one), and of no other."""
    module, matrices = _weights(family).skeleton, _catalogue(family)
    owner = {name: module.get_submodule(name.rpartition(".")[0]) for name in _weights(family).shapes}
    outputs: dict[int, str] = {}  # of norms: identity of the tensor -> name
    taken: dict[str, str | None] = {}
    kept = []
    with torch.inference_mode():
        hooks = []
        for matrix in matrices:
            if matrix.role == "norm":

                def note(_m: nn.Module, _a: Any, output: Tensor, name: str = matrix.name) -> None:
                    kept.append(output)
                    outputs[output.data_ptr()] = name

                hooks.append(owner[matrix.parameter].register_forward_hook(note))
            elif matrix.role in ("q", "gate", "up") and matrix.expert is None:

                def take(_m: nn.Module, args: Any, name: str = matrix.name) -> None:
                    kept.append(args[0])
                    taken[name] = outputs.get(args[0].data_ptr())

                hooks.append(owner[matrix.parameter].register_forward_pre_hook(take))
        if family == "t5":
            ids, mask = ragged_batch([5, 4])
            module(input_ids=ids, attention_mask=mask, decoder_input_ids=ids)
        else:
            model, _ = _internals(family)
            model.inner(*ragged_batch([5, 4]))
        for hook in hooks:
            hook.remove()
    assert taken
    by_name = {matrix.name: matrix for matrix in matrices}
    places = {"q": ("attention", "cross_attention", "attention_and_mlp"), "up": ("mlp", "attention_and_mlp")}
    for name, norm in taken.items():
        matrix = by_name[name]
        wanted = places["q" if matrix.role == "q" else "up"]
        before = [m for m in matrices if m.role == "norm" and m.place in wanted]
        before = [m.name for m in before if (m.stack, m.layer) == (matrix.stack, matrix.layer)]
        if norm is None or by_name[norm].layer != matrix.layer or by_name[norm].place in ("after_attention",):
            assert not before or matrix.attention == "cross", name
        else:
            assert norm in before, name
            cross = by_name[norm].place == "cross_attention"
            assert (matrix.attention == "cross") == cross


@pytest.mark.parametrize("family", RUNNING)
def test_gains_are_what_norms_multiply_by(family: str) -> None:
    module, checked = _weights(family).skeleton, 0
    for matrix in _catalogue(family):
        if matrix.role != "norm":
            continue
        norm = module.get_submodule(matrix.parameter.rpartition(".")[0])
        given = torch.linspace(-2, 2, matrix.shape[0])  # of mean 0: a layer norm and an RMS norm do the same
        bias = getattr(norm, "bias", None)
        with torch.no_grad():
            output = norm(given[None, None])[0, 0] - (0 if bias is None else bias)
        expected = output / (given / given.square().mean().sqrt())
        torch.testing.assert_close(read_matrix(_weights(family), matrix), expected, rtol=1e-3, atol=1e-4)
        checked += 1
    assert checked or family == "olmo"  # its norms have no gains


def test_gains_in_bfloat16_are_added_to_1_in_float32() -> None:
    module = tiny_model("gemma2").to(torch.bfloat16)
    gain: Any = module.get_parameter("model.norm.weight")
    with torch.no_grad():
        gain.fill_(1e-4)  # 1.0001 is no bfloat16
    weights: Weights = weights_of(module)
    (final,) = [matrix for matrix in catalogue(weights) if matrix.place == "final"]
    values = read_matrix(weights, final)
    assert values.dtype == torch.float32
    assert float(values[0]) == pytest.approx(1.0001, abs=1e-6)


def test_rows_that_cannot_be_shared_out_are_refused() -> None:
    with pytest.raises(ValueError, match="13 rows"):
        FusedLayout(4, 2).rows(13)
