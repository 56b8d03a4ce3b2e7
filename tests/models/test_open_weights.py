"""What is read from a checkpoint's files is what Transformers loads from them, and nothing is loaded for it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, PreTrainedModel, Qwen2ForSequenceClassification

from src.errors import StrataError
from src.models.checkpoint import catalogue, open_weights, weights_of
from src.models.checkpoint.streaming import StreamedWeights
from tests.fixtures.tiny_models import FAMILIES, MORE_FAMILIES, WEIGHT_FAMILIES, model_config, tiny_model

EVERY = (*FAMILIES, *MORE_FAMILIES, *WEIGHT_FAMILIES)


def _assert_same(folder: Path, module: PreTrainedModel) -> StreamedWeights:
    streamed, loaded = open_weights(model_config(path=str(folder))), weights_of(module)
    assert isinstance(streamed, StreamedWeights), streamed.notes
    assert dict(streamed.shapes) == dict(loaded.shapes)
    assert dict(streamed.tied) == dict(loaded.tied)
    assert (streamed.missing, streamed.unread, streamed.notes) == ((), (), ())
    assert all(parameter.is_meta for parameter in streamed.skeleton.parameters())
    for name in loaded.shapes:
        torch.testing.assert_close(streamed.read(name), loaded.read(name), rtol=0, atol=0)
    assert streamed.digest(streamed.shapes) == loaded.digest(loaded.shapes)
    assert [m.name for m in catalogue(streamed)] == [m.name for m in catalogue(loaded)]
    assert [m.offset for m in catalogue(streamed)] == [m.offset for m in catalogue(loaded)]
    return streamed


@pytest.mark.parametrize("family", EVERY)
def test_every_family_is_streamed(family: str, tmp_path: Path) -> None:
    """Mixtures of experts are merged, fused and split projections converted, as Transformers does it."""
    module = tiny_model(family, seed=3)
    module.save_pretrained(tmp_path)
    _assert_same(tmp_path, module)


def test_shards_and_half_precision(tmp_path: Path) -> None:
    module = tiny_model("gemma2").to(torch.bfloat16)
    module.save_pretrained(tmp_path, max_shard_size=3000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    streamed = _assert_same(tmp_path, module)
    assert {streamed.read(name).dtype for name in streamed.shapes} == {torch.bfloat16}


def test_pickled_checkpoints(tmp_path: Path) -> None:
    module = tiny_model("t5_gated")
    module.config.save_pretrained(tmp_path)
    module.config.architectures = ["T5ForConditionalGeneration"]
    module.config.save_pretrained(tmp_path)
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    _assert_same(tmp_path, module)


def test_old_pickled_checkpoints_are_loaded_whole_and_it_is_said(tmp_path: Path) -> None:
    module = tiny_model("gpt2")
    module.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    weights = open_weights(model_config(path=str(tmp_path)))
    assert "the whole model was loaded" in weights.notes[0]
    assert weights.digest(weights.shapes) == weights_of(module).digest(weights.shapes)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    class _Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    module = tiny_model("gpt2")
    module.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": _Harm()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(StrataError, match="code in them is not run"):
        open_weights(model_config(path=str(tmp_path)))
    assert not (tmp_path / "ran").exists()


def test_base_model_prefix_is_added_and_taken_off(tmp_path: Path) -> None:
    """A body's checkpoint for a model with a head, as on the hub for gpt2 (`h.0...`, and masks as buffers)."""
    module = tiny_model("gpt2")
    module.save_pretrained(tmp_path)
    body = {
        name.removeprefix("transformer."): value for name, value in load_file(tmp_path / "model.safetensors").items()
    }
    mask = torch.ones(1, 1, 4, 4)
    save_file(body | {"h.0.attn.bias": mask}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _assert_same(tmp_path, module)


def test_the_class_that_saved_a_checkpoint_decides(tmp_path: Path) -> None:
    tiny = tiny_model("bert").config
    module = BertForMaskedLM(tiny).eval()
    module.save_pretrained(tmp_path)
    streamed = _assert_same(tmp_path, module)
    roles = {matrix.role for matrix in catalogue(streamed)}
    assert "other" not in roles
    assert streamed.tied["cls.predictions.decoder.weight"] == "bert.embeddings.word_embeddings.weight"


def test_heads_of_tasks(tmp_path: Path) -> None:
    module = Qwen2ForSequenceClassification(tiny_model("qwen2").config).eval()
    module.save_pretrained(tmp_path)
    streamed = _assert_same(tmp_path, module)
    assert [m.role for m in catalogue(streamed) if m.name == "score.weight"] == ["projection"]


def test_embeddings_that_only_the_config_ties_are_two(tmp_path: Path) -> None:
    module = tiny_model("llama")  # untied
    module.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(config.replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    weights = open_weights(model_config(path=str(tmp_path)))
    assert weights.tied == {}
    torch.testing.assert_close(weights.read("lm_head.weight"), weights_of(module).read("lm_head.weight"))


def test_what_has_no_place_is_listed(tmp_path: Path) -> None:
    module = tiny_model("qwen3")
    module.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors") | {"mtp.head.weight": torch.ones(3)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert open_weights(model_config(path=str(tmp_path))).unread == ("mtp.head.weight",)


def test_missing_layers_are_refused(tmp_path: Path) -> None:
    module = tiny_model("qwen3")
    module.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StrataError, match=r"lacks 1 weights.*layers\.1\.mlp\.up_proj"):
        open_weights(model_config(path=str(tmp_path)))


def test_a_pooler_that_was_never_saved_is_left_out(tmp_path: Path) -> None:
    module = tiny_model("bert")
    module.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if not name.startswith("pooler")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    weights = open_weights(model_config(path=str(tmp_path)))
    assert weights.missing == ("pooler.dense.weight", "pooler.dense.bias")
    assert not any(name.startswith("pooler") for name in weights.shapes)


def test_shapes_that_the_config_does_not_make(tmp_path: Path) -> None:
    module = tiny_model("qwen3")
    module.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(config.replace('"intermediate_size": 24', '"intermediate_size": 32'))
    with pytest.raises(StrataError, match=r"of shape \[24, 16\], but config.json makes it \[32, 16\]"):
        open_weights(model_config(path=str(tmp_path)))


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    module = tiny_model("llama")
    module.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    module.config.save_pretrained(tmp_path)
    with pytest.raises(StrataError, match="quantised"):
        open_weights(model_config(path=str(tmp_path)))


def test_a_folder_without_weights(tmp_path: Path) -> None:
    tiny_model("llama").config.save_pretrained(tmp_path)
    with pytest.raises(StrataError, match="no file named"):
        open_weights(model_config(path=str(tmp_path)))
