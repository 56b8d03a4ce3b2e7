"""What is stored against plain torch: one sequence at a time, no padding, hooks of the test's own."""

import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.activations import collect, job
from src.activations.collect import CollectSettings, batches_of_like_length, mark_sinks, sequences_per_part
from src.activations.parts import PartData, read_manifest
from src.activations.store import ActivationStore, StoreLayout
from src.activations.workers import Worker
from src.artifacts import Plan, open_artifact
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel, wrap_model
from src.text import DocumentCounts, Keep, SequenceTable, TokenSequence, write_sequence_table
from tests.fixtures.stores import PROVENANCE
from tests.fixtures.tiny_models import D_MODEL, FAMILIES, N_LAYERS, N_VOCAB, model_config, tiny_model
from tests.models.test_blocks import BLOCK_PATHS

LENGTHS = [9, 4, 1, 7, 9, 2, 5, 8, 3, 6, 9]
ALL_HOOKS = ("resid_pre", "attn_out", "mlp_out", "resid_post")
SETTINGS = CollectSettings(batch_size=4, sink_norm=None, non_finite="error")


def points_of(*hooks: str) -> tuple[HookPoint, ...]:
    return tuple(HookPoint(hook, layer) for hook in hooks for layer in range(N_LAYERS))


def write_table(folder: Path, lengths: list[int] = LENGTHS, poison: int | None = None) -> SequenceTable:
    """Random tokens 3.. (poison: the last token of sequence 5 alone); token 1 first, with the role BOS.

    Every second document has two sequences.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(0)
    sequences = []
    for index, length in enumerate(lengths):
        ids = draws.integers(3, N_VOCAB - 1, length).astype(np.int32)
        ids[0] = 1
        if poison is not None and index == 5:
            ids[-1] = poison
        roles = np.full(length, Keep.COUNTED, np.uint8)
        roles[0] = Keep.BOS
        sequences.append(TokenSequence(2 * index // 3, ids, roles))
    write_sequence_table(folder, sequences, DocumentCounts(), "made")
    return SequenceTable(folder)


def fill(
    folder: Path,
    model: LanguageModel,
    table: SequenceTable,
    points: tuple[HookPoint, ...],
    settings: CollectSettings = SETTINGS,
    storage_dtype: str = "float32",
    per_part: int = 4,
) -> ActivationStore:
    layout = StoreLayout(
        points, model.d_model, model.n_layers, storage_dtype, table.n_sequences, table.n_tokens, per_part
    )
    plan = Plan(folder, "activations", "store", {"layout": layout.as_json(), "settings": vars(settings)})
    with job.filling(plan, Worker(0, 1), overwrite=False):
        done: list[int] = []
        parts = range(layout.n_parts)
        collect.collect_parts(model, table, plan.path, layout, settings, parts, plan.fingerprint, done.append)
        assert sum(done) == table.n_tokens
        assert job.finish(plan.path, layout, plan, PROVENANCE, None, lambda _draft: None)
    return ActivationStore(open_artifact(plan.path, "activations"))


def rows(store: ActivationStore, point: HookPoint) -> Tensor:
    return torch.cat([part.activations(point) for part in store])


def plain_forward(module: Any, blocks: Any, table: SequenceTable, increments: tuple[str, str] | None) -> dict:
    """Rows of every hook point from forward passes of the whole model, one sequence each, without padding."""
    seen: dict[HookPoint, list[Tensor]] = {}

    def note(point: HookPoint, value: Any) -> None:
        value = value[0] if isinstance(value, tuple) else value
        seen.setdefault(point, []).append(value.detach().reshape(-1, value.shape[-1]).clone())

    def after(point: HookPoint) -> Any:
        return lambda _module, _args, output: note(point, output)

    handles = []
    for layer, block in enumerate(blocks):

        def around(_module: nn.Module, args: tuple, kwargs: dict, output: Any, layer: int = layer) -> None:
            note(HookPoint("resid_pre", layer), args[0] if args else kwargs["hidden_states"])
            note(HookPoint("resid_post", layer), output)

        handles.append(block.register_forward_hook(around, with_kwargs=True))
        for hook, name in zip(("attn_out", "mlp_out"), increments or (), strict=False):
            handles.append(block.get_submodule(name).register_forward_hook(after(HookPoint(hook, layer))))
    with torch.no_grad():
        for sequence in table.read(0, table.n_sequences):
            ids = torch.from_numpy(sequence.token_ids).long()[None]
            extra = {"decoder_input_ids": ids} if module.config.is_encoder_decoder else {}
            module(input_ids=ids, **extra)
    for handle in handles:
        handle.remove()
    return {point: torch.cat(values) for point, values in seen.items()}


def assert_equal_to_1e6(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    size = max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) <= 1e-6 * size


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_layers_equal_the_blocks_outputs_in_every_family(tmp_path, family):
    module = tiny_model(family)
    table = write_table(tmp_path / "table")
    expected = plain_forward(module, module.get_submodule(BLOCK_PATHS.get(family, "model.layers")), table, None)
    model = wrap_model(module, model_config())
    for batch_size in (1, 8):
        settings = replace(SETTINGS, batch_size=batch_size)
        store = fill(tmp_path / str(batch_size), model, table, points_of("resid_post"), settings, per_part=8)
        for point in points_of("resid_post"):
            assert_equal_to_1e6(rows(store, point), expected[point])


@pytest.mark.parametrize("batch_size", [1, 8])
def test_all_hooks_equal_plain_torch(tmp_path, batch_size):
    module = tiny_model("llama")
    table = write_table(tmp_path / "table")
    expected = plain_forward(module, module.model.layers, table, ("self_attn", "mlp"))
    settings = replace(SETTINGS, batch_size=batch_size)
    store = fill(tmp_path, wrap_model(module, model_config()), table, points_of(*ALL_HOOKS), settings)
    assert set(expected) == set(store.layout.hook_points)
    for point in points_of(*ALL_HOOKS):
        assert_equal_to_1e6(rows(store, point), expected[point])


@pytest.fixture(scope="module")
def llama():
    return wrap_model(tiny_model("llama"), model_config())


@pytest.mark.parametrize(("storage_dtype", "bits"), [("bfloat16", torch.int16), ("float16", torch.int16)])
def test_half_precision_holds_the_rounded_values_to_the_bit(tmp_path, llama, storage_dtype, bits):
    table = write_table(tmp_path / "table")
    exact = fill(tmp_path / "exact", llama, table, points_of("resid_post", "mlp_out"))
    store = fill(tmp_path, llama, table, points_of("resid_post", "mlp_out"), storage_dtype=storage_dtype)
    for point in store.layout.hook_points:
        found = rows(store, point)
        assert found.dtype == getattr(torch, storage_dtype)
        assert torch.equal(found.view(bits), rows(exact, point).to(found.dtype).view(bits))


def test_rows_lie_in_the_order_of_the_table_with_all_that_is_known_of_them(tmp_path, llama):
    table = write_table(tmp_path / "table")
    store = fill(tmp_path, llama, table, points_of("resid_post"))
    sequences = table.read(0, table.n_sequences)
    parts = list(store)
    assert [len(part.sequence_start) - 1 for part in parts] == [4, 4, 3]
    assert [part.sequence_start.tolist() for part in parts] == [[0, 9, 13, 14, 21], [0, 9, 11, 16, 24], [0, 3, 9, 18]]
    assert np.concatenate([p.token_ids for p in parts]).tolist() == [i for s in sequences for i in s.token_ids.tolist()]
    assert np.concatenate([p.position for p in parts]).tolist() == [i for length in LENGTHS for i in range(length)]
    assert np.concatenate([p.keep for p in parts]).tolist() == [r for s in sequences for r in s.roles.tolist()]
    assert np.concatenate([p.sequence for p in parts]).tolist() == np.repeat(range(11), LENGTHS).tolist()
    assert [p.document.tolist() for p in parts] == [[0, 0, 1, 2], [2, 3, 4, 4], [5, 6, 6]]


def test_counts_of_manifests_and_meta(tmp_path, llama):
    store = fill(tmp_path, llama, write_table(tmp_path / "table"), points_of("resid_post"))
    manifests = [read_manifest(store.path, part, store.artifact.meta.fingerprint) for part in range(3)]
    described = [
        (m.part, m.first_sequence, m.n_sequences, m.n_tokens, m.keep["counted"], m.keep["bos"]) for m in manifests
    ]
    assert described == [(0, 0, 4, 21, 17, 4), (1, 4, 4, 24, 20, 4), (2, 8, 3, 18, 15, 3)]
    nothing = {"special": 0, "sink": 0, "non_finite": 0, "first": 0}
    assert store.artifact.meta.summary["keep"] == {"counted": 52, "bos": 11, **nothing}
    assert store.artifact.meta.summary["layout"]["n_tokens"] == 63


def test_the_order_in_which_parts_are_made_does_not_matter(tmp_path, llama):
    table = write_table(tmp_path / "table")
    store = fill(tmp_path, llama, table, points_of("resid_post"))
    alone = collect.compute_part(llama, table, store.layout, SETTINGS, 1, lambda _n: None)
    for point in points_of("resid_post"):
        assert torch.equal(list(store)[1].activations(point), alone.activations[point])


def test_batches_hold_sequences_of_like_length():
    lengths = np.array(LENGTHS)
    batches = batches_of_like_length(lengths, 4)
    assert sorted(np.concatenate(batches).tolist()) == list(range(11))
    assert [lengths[batch].tolist() for batch in batches] == [[9, 9, 9, 8], [7, 6, 5, 4], [3, 2, 1]]


def test_parts_are_whole_batches_and_one_at_least():
    assert sequences_per_part(bytes_per_token=100, max_length=10, part_bytes=9_999, batch_size=4) == 8
    assert sequences_per_part(bytes_per_token=100, max_length=10, part_bytes=1, batch_size=4) == 4


POISON = N_VOCAB - 1  # a token whose embedding is changed


@pytest.fixture
def poisoned(tmp_path):
    """A model one of whose embeddings is as the test says, and a table where it is in sequence 5 (2 tokens) alone."""

    def make(value: float) -> tuple[LanguageModel, SequenceTable]:
        module = tiny_model("llama")
        with torch.no_grad():
            module.model.embed_tokens.weight[POISON, 3] = value
        return wrap_model(module, model_config()), write_table(tmp_path / "table", poison=POISON)

    return make


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_values_stop_the_collection(tmp_path, poisoned, value):
    model, table = poisoned(value)
    with pytest.raises(StrataError) as error:
        fill(tmp_path, model, table, points_of("resid_post"))
    message = str(error.value)
    assert message.startswith("resid_post.0 is NaN or infinite")
    assert "at sequence 5, position " in message
    assert "model.dtype=float32" in message
    assert "non_finite=mask" in message


def test_masked_non_finite_tokens_are_kept_with_their_reason(tmp_path, poisoned):
    model, table = poisoned(float("nan"))
    store = fill(tmp_path, model, table, (HookPoint("resid_pre", 0),), replace(SETTINGS, non_finite="mask"))
    keep = np.concatenate([part.keep for part in store])
    assert np.flatnonzero(keep == Keep.NON_FINITE).tolist() == [sum(LENGTHS[:6]) - 1]
    assert int((keep == Keep.BOS).sum()) == len(LENGTHS)
    assert store.artifact.meta.summary["keep"]["non_finite"] == 1
    assert bool(rows(store, HookPoint("resid_pre", 0))[sum(LENGTHS[:6]) - 1].isnan().any())


def test_non_finite_wins_over_every_other_reason(tmp_path):
    """Also a BOS that is NaN is NaN: what scores BOS rows must not meet it."""
    module = tiny_model("llama")
    with torch.no_grad():
        module.model.embed_tokens.weight[[1, POISON]] = float("nan")
    table = write_table(tmp_path / "table", poison=POISON)
    everything = list(table.read(0, table.n_sequences))
    roles = np.concatenate([sequence.roles for sequence in everything])
    poisoned_row = sum(LENGTHS[:6]) - 1
    for first, role in ((0, Keep.BOS), (1, Keep.FIRST), (2, Keep.SPECIAL)):
        everything[5].roles[-1] = role
        folder = tmp_path / f"table {first}"
        folder.mkdir()
        write_sequence_table(folder, everything, DocumentCounts(), "made")
        model, settings = wrap_model(module, model_config()), replace(SETTINGS, non_finite="mask")
        store = fill(tmp_path / str(first), model, SequenceTable(folder), (HookPoint("resid_pre", 0),), settings)
        keep = np.concatenate([part.keep for part in store])
        expected = np.where(roles == Keep.BOS, Keep.NON_FINITE, roles)
        expected[poisoned_row] = Keep.NON_FINITE
        assert keep.tolist() == expected.tolist()


def test_a_model_that_fails_names_the_batch_and_leaves_no_part(tmp_path):
    module = tiny_model("llama")
    model = wrap_model(module, model_config())

    def fail(_module: nn.Module, args: tuple) -> None:
        if args[0].shape[0] == 3:  # the last batch
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    module.model.layers[2].mlp.register_forward_pre_hook(fail)
    with pytest.raises(StrataError, match=r"a batch of 3 sequences of up to 9 tokens is too much .*smaller batch_size"):
        fill(tmp_path, model, write_table(tmp_path / "table"), points_of("resid_post"))
    assert not list(tmp_path.glob("activations/store/part-00002*"))


def test_tokens_of_another_model_are_refused(tmp_path):
    model = wrap_model(tiny_model("llama"), model_config())
    table = write_table(tmp_path / "table", poison=50_000)
    with pytest.raises(StrataError, match=r"token 50000 is beyond the vocabulary of tiny, which has 97 tokens"):
        fill(tmp_path, model, table, points_of("resid_post"))


@pytest.mark.parametrize("non_finite", ["error", "mask"])
def test_a_value_that_float16_cannot_hold_names_the_layer_and_the_remedy(tmp_path, poisoned, non_finite):
    model, table = poisoned(70_000.0)
    settings = replace(SETTINGS, non_finite=non_finite)
    with pytest.raises(StrataError) as error:
        fill(tmp_path, model, table, points_of("resid_pre"), settings, storage_dtype="float16")
    message = str(error.value)
    assert message.startswith("resid_pre.0 reaches 7e+04, which float16 can't hold (at most 6.55e+04)")
    assert "storage_dtype=bfloat16 or float32" in message
    assert f"sequence 5, position {LENGTHS[5] - 1}" in message
    fill(tmp_path / "wider", model, table, points_of("resid_pre"), settings, storage_dtype="bfloat16")


def test_large_values_that_fit_are_stored(tmp_path, poisoned):
    model, table = poisoned(65_000.0)  # the norm of a batch exceeds what float16 holds, no value does
    store = fill(tmp_path, model, table, points_of("resid_pre"), storage_dtype="float16")
    assert float(rows(store, HookPoint("resid_pre", 0)).max()) == 64_992.0  # the nearest float16


def test_sinks_are_counted_tokens_far_above_the_median_norm():
    keep = np.array([Keep.BOS, *[Keep.COUNTED] * 5, Keep.SPECIAL], np.uint8)
    norms = {"a": [900, 1, 2, 3, 29, 31, 900], "b": [1, 100, 1, 1, 1, 1, 1]}
    activations = {
        HookPoint("resid_post", layer): torch.tensor(values)[:, None] * torch.tensor([[0.6, -0.8]])
        for layer, values in enumerate(norms.values())
    }
    ids = np.zeros(7, np.int32)
    data = PartData(ids, ids, keep, np.array([0, 7]), np.array([0]), activations)
    mark_sinks(data, sink_norm=10.0)  # medians of counted tokens: 3 and 1
    counted, sink = Keep.COUNTED, Keep.SINK
    assert data.keep.tolist() == [Keep.BOS, sink, counted, counted, counted, sink, Keep.SPECIAL]


def test_sinks_are_found_on_the_way(tmp_path, poisoned):
    model, table = poisoned(1000.0)
    store = fill(tmp_path, model, table, points_of("resid_pre"), replace(SETTINGS, sink_norm=20.0))
    keep = np.concatenate([part.keep for part in store])
    assert np.flatnonzero(keep == Keep.SINK).tolist() == [sum(LENGTHS[:6]) - 1]
    assert store.artifact.meta.summary["keep"]["sink"] == 1


def test_memory_holds_two_parts_at_most(tmp_path, llama, monkeypatch):
    alive: weakref.WeakSet = weakref.WeakSet()
    most = []
    compute, write = collect.compute_part, collect.write_part

    def watched(*arguments: Any) -> PartData:
        most.append(len(alive))  # while a part is computed, one may be waiting or being written
        data = compute(*arguments)
        alive.add(data)
        return data

    def slow(*arguments: Any) -> Any:
        time.sleep(0.1)
        return write(*arguments)

    monkeypatch.setattr(collect, "compute_part", watched)
    monkeypatch.setattr(collect, "write_part", slow)
    fill(tmp_path, llama, write_table(tmp_path / "table"), points_of("resid_post"), per_part=2)
    assert most == [0, 1, 1, 1, 1, 1]


def test_an_error_of_the_writer_comes_out(tmp_path, llama, monkeypatch):
    def full(*_arguments: Any) -> None:
        raise StrataError("the disk is full")

    monkeypatch.setattr(collect, "write_part", full)
    with pytest.raises(StrataError, match="the disk is full"):
        fill(tmp_path, llama, write_table(tmp_path / "table"), points_of("resid_post"))


def test_the_hooks_agree_with_transformers_on_the_first_batch(tmp_path, llama):
    table = write_table(tmp_path / "table")
    check = job.self_test(llama, table, batch_size=4)
    assert check is not None
    assert check.layers_compared == N_LAYERS - 1
    assert check.max_difference < 1e-5
    assert llama.d_model == D_MODEL
