"""Loading from local folders, and what is said when it fails."""

import json
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import capture, layers_in_config, load_model, load_tokenizer, wrap_model
from src.models import loading as loading_module
from tests.fixtures.tiny_models import N_LAYERS, model_config, ragged_batch, tiny_model

POINTS = [HookPoint(hook, layer) for hook in ("resid_pre", "resid_post") for layer in range(N_LAYERS)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "t5"])
def test_round_trip_through_a_folder(family: str, tmp_path: Path) -> None:
    module = tiny_model(family)
    module.save_pretrained(tmp_path)
    loaded = load_model(model_config(name="ignored/when-path-is-set", path=str(tmp_path)), "cpu")
    batch = ragged_batch([6, 3])
    expected = capture(wrap_model(module, model_config()), *batch, POINTS)
    for point, state in capture(loaded, *batch, POINTS).items():
        torch.testing.assert_close(state, expected[point], atol=0, rtol=0)
    assert type(loaded.module) is type(module)
    assert (loaded.device, loaded.dtype) == (torch.device("cpu"), torch.float32)
    assert not loaded.module.training
    assert not any(weight.requires_grad for weight in loaded.module.parameters())


def test_the_body_of_another_architecture_is_loaded_without_its_head(tmp_path: Path) -> None:
    """BERT's pooler is missing from a masked LM's checkpoint, and no hidden state depends on it."""
    keys = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertForMaskedLM(BertConfig(**keys, intermediate_size=24)).save_pretrained(tmp_path / "bert")
    assert load_model(model_config(path=str(tmp_path / "bert")), "cpu").n_layers == 2
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=60, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4))
    t5.save_pretrained(tmp_path / "t5")
    assert type(load_model(model_config(path=str(tmp_path / "t5")), "cpu").module).__name__ == "T5Model"


def test_dtype_is_the_checkpoints_own_or_the_one_asked_for(tmp_path: Path) -> None:
    tiny_model("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    assert load_model(model_config(path=str(tmp_path)), "cpu").dtype == torch.bfloat16
    assert load_model(model_config(path=str(tmp_path), dtype="float32"), "cpu").dtype == torch.float32


def test_attention_implementation(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    model = load_model(model_config(path=str(tmp_path), attention="eager"), "cpu")
    assert model.module.config._attn_implementation == "eager"
    with pytest.raises(StrataError, match="no_such_attention"):
        load_model(model_config(path=str(tmp_path), attention="no_such_attention"), "cpu")


def test_relative_paths_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir()
    tiny_model("llama").save_pretrained(project / "models" / "one")
    monkeypatch.setattr(loading_module, "PROJECT_ROOT", project)
    monkeypatch.chdir(elsewhere)
    assert load_model(model_config(path="models/one"), "cpu").n_layers == N_LAYERS
    tiny_model("llama", num_hidden_layers=1).save_pretrained(elsewhere / "models" / "one")
    assert load_model(model_config(path="models/one"), "cpu").n_layers == 1  # the working directory wins


def test_the_project_root_is_the_folder_of_the_configs() -> None:
    assert (loading_module.PROJECT_ROOT / "configs" / "model" / "testbed.yaml").is_file()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StrataError, match=rf"model\.path={tmp_path}/nothing: no such folder .*model\.path=null"):
        load_model(model_config(path=str(tmp_path / "nothing")), "cpu")


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(StrataError, match=r"holds no config\.json.*save_pretrained"):
        load_model(model_config(path=str(tmp_path)), "cpu")


def test_folder_without_weights(tmp_path: Path) -> None:
    tiny_model("llama").config.save_pretrained(tmp_path)
    with pytest.raises(StrataError, match=r"model\.path=.*can't be loaded \(OSError.*model\.safetensors"):
        load_model(model_config(path=str(tmp_path)), "cpu")


def test_folder_with_damaged_weights(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(StrataError, match=r"model\.path=.*can't be loaded \(SafetensorError"):
        load_model(model_config(path=str(tmp_path)), "cpu")


def test_folder_of_an_unknown_type(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_family"}))
    with pytest.raises(StrataError, match="no_such_family"):
        load_model(model_config(path=str(tmp_path)), "cpu")


@pytest.mark.parametrize(
    ("family", "dropped"),
    [("llama", "model.layers.1.mlp.up_proj.weight"), ("bert", "encoder.layer.2.output.dense.bias")],
)
def test_checkpoint_that_lacks_weights(family: str, dropped: str, tmp_path: Path) -> None:
    tiny_model(family).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[dropped]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StrataError, match=rf"lacks 1 weights .*\({dropped}\), so they would be random"):
        load_model(model_config(path=str(tmp_path)), "cpu")


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for load in (lambda config: load_model(config, "cpu"), load_tokenizer):
        with pytest.raises(StrataError, match=r"model\.name=strata-tests/no-such-model .*set model\.path=FOLDER"):
            load(model_config(name="strata-tests/no-such-model"))


def test_tokenizer_round_trip(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "days": 2, "friday": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(model_config(path=str(tmp_path)))
    assert tokenizer.is_fast
    assert tokenizer("days friday noon")["input_ids"] == [2, 3, 1]


def test_folder_without_tokenizer(tmp_path: Path) -> None:
    tiny_model("llama").config.save_pretrained(tmp_path)
    with pytest.raises(StrataError, match=r"model\.path=.*holds no tokenizer; save it there"):
        load_tokenizer(model_config(path=str(tmp_path)))


def test_identity_tells_models_apart(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "one")
    tiny_model("llama", seed=1).save_pretrained(tmp_path / "retrained")
    one = load_model(model_config(path=str(tmp_path / "one")), "cpu").identity()
    again = wrap_model(tiny_model("llama"), model_config(path=str(tmp_path / "one"))).identity()
    retrained = load_model(model_config(path=str(tmp_path / "retrained")), "cpu").identity()
    wider = wrap_model(tiny_model("llama", rms_norm_eps=1e-3), model_config()).identity()
    assert json.loads(json.dumps(one)) == one
    assert (one["dtype"], one["path"]) == ("float32", str(tmp_path / "one"))
    assert one["weights"] == again["weights"] != retrained["weights"]
    assert one["architecture"] == retrained["architecture"] != wider["architecture"]


def test_identity_of_predictions_knows_an_untied_head() -> None:
    untied = [wrap_model(tiny_model("llama", tie_word_embeddings=False), model_config()) for _ in range(2)]
    with torch.no_grad():
        untied[1].module.get_output_embeddings().weight[0, 0] += 1
    assert untied[0].identity() == untied[1].identity()  # hidden states are the same
    assert untied[0].identity_of_predictions() != untied[1].identity_of_predictions()
    tied = wrap_model(tiny_model("llama", tie_word_embeddings=True), model_config())
    assert tied.identity_of_predictions() == tied.identity()


def test_identity_holds_what_was_found_where_the_config_left_it_open(tmp_path: Path) -> None:
    tiny_model("llama").to(torch.bfloat16).save_pretrained(tmp_path / "llama")
    tiny_model("t5").save_pretrained(tmp_path / "t5")

    def identity(name: str, **keys: str) -> dict:
        found = load_model(model_config(path=str(tmp_path / name), **keys), "cpu").identity()
        return {key: found[key] for key in ("dtype", "blocks", "stack", "attention")}

    open_config = identity("llama")
    assert open_config == {"dtype": "bfloat16", "blocks": "model.layers", "stack": None, "attention": "sdpa"}
    assert identity("llama", blocks="model.layers", dtype="bfloat16", attention="sdpa") == open_config
    assert identity("llama", attention="eager") == open_config | {"attention": "eager"}
    assert identity("llama", dtype="float32") == open_config | {"dtype": "float32"}
    assert identity("t5") == identity("t5", stack="encoder")
    assert identity("t5")["stack"] == "encoder"
    assert (identity("t5", stack="decoder")["stack"], identity("t5", stack="decoder")["blocks"]) == (
        "decoder",
        "decoder.block",
    )


def test_the_number_of_layers_is_known_without_the_weights(tmp_path: Path) -> None:
    for family in ("gpt2", "llama", "gemma2", "bert"):
        tiny_model(family).config.save_pretrained(tmp_path / family)
        assert layers_in_config(model_config(path=str(tmp_path / family))) == N_LAYERS
    tiny_model("t5").config.save_pretrained(tmp_path / "t5")
    assert layers_in_config(model_config(path=str(tmp_path / "t5"))) is None  # two stacks
