"""SAEs of every architecture and from every place, against SAELens itself."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sae_lens
import torch
from omegaconf import OmegaConf

from src.config.sae import SaeConfig
from src.config.schema import flat_keys, parse_config
from src.errors import StrataError
from src.features.sae import load_sae, require_point
from src.hook_points import HookPoint
from src.stage.entry import CONFIGS, compose
from src.stage.saes import find_saes
from tests.fixtures.saes import D, F, gemma_scope_weights, sae_config, standard_sae, write_gemma_scope

K = {"k": 4}
ARCHITECTURES = {
    "standard": (sae_lens.StandardSAE, sae_lens.StandardSAEConfig, {}),
    "layer_norm": (sae_lens.StandardSAE, sae_lens.StandardSAEConfig, {"normalize_activations": "layer_norm"}),
    "gated": (sae_lens.GatedSAE, sae_lens.GatedSAEConfig, {}),
    "jumprelu": (sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig, {"apply_b_dec_to_input": False}),
    "topk": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig, K),
    "topk_rescaled": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig, K | {"rescale_acts_by_decoder_norm": True}),
    "abstopk": (sae_lens.AbsTopKSAE, sae_lens.AbsTopKSAEConfig, K),
    "jumprelu_training": (sae_lens.JumpReLUTrainingSAE, sae_lens.JumpReLUTrainingSAEConfig, {}),
    "topk_training": (sae_lens.TopKTrainingSAE, sae_lens.TopKTrainingSAEConfig, K),
}


def randomised(sae):
    draws = torch.Generator().manual_seed(0)
    for weight in sae.parameters():
        # thresholds and gates' magnitudes must matter, and stay moderate
        weight.data = torch.rand(weight.shape, generator=draws) * 0.6 - (0.3 if weight.ndim == 2 else 0.0)
    return sae


def made(name, **metadata):
    sae_class, config_class, settings = ARCHITECTURES[name]
    metadata = {"hook_name": "blocks.5.hook_resid_post", "model_name": "tiny", **metadata}
    config = config_class(d_in=D, d_sae=F, metadata=sae_lens.saes.sae.SAEMetadata(**metadata), **settings)
    return randomised(sae_class(config))


@pytest.fixture(scope="module")
def rows():
    return torch.randn(50, D, generator=torch.Generator().manual_seed(1)) + 0.5


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_encode_and_reconstruction_are_saelens_own(name, tmp_path, rows):
    original = made(name)
    original.save_model(tmp_path)
    sae = load_sae(sae_config(path=str(tmp_path)))
    with torch.no_grad():
        expected = sae_lens.SAE.load_from_disk(tmp_path).encode(rows)
        torch.testing.assert_close(expected, original.encode(rows), rtol=0, atol=1e-6)
        decoded = original.decode(expected)
    features, reconstruction = sae.reconstruct(rows)
    torch.testing.assert_close(sae.encode(rows), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(reconstruction, decoded, rtol=0, atol=1e-6)
    assert 0 < (features != 0).float().mean() < 1
    assert (sae.d_model, sae.n_features, sae.point, sae.model_name) == (D, F, HookPoint("resid_post", 5), "tiny")
    assert not any(weight.requires_grad for weight in sae.module.parameters())


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "layer_norm"])
def test_decoder_holds_what_a_feature_adds(name, tmp_path, rows):
    made(name).save_model(tmp_path)
    sae = load_sae(sae_config(path=str(tmp_path)))
    features, reconstruction = sae.reconstruct(rows)
    torch.testing.assert_close(features @ sae.decoder + sae.module.b_dec, reconstruction, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:\\s*This SAE has non-empty")
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", ["none", "layer_norm", "constant_norm_rescale"])
def test_contribution_scale_is_what_a_feature_adds_to_each_row(kind, centred, tmp_path, rows):
    raw = {"model_from_pretrained_kwargs": {"center_writing_weights": True}} if centred else {}
    saved = made("standard", **raw)
    saved.cfg.normalize_activations = kind
    saved.save_model(tmp_path)
    sae = load_sae(sae_config(path=str(tmp_path)))
    features, whole = sae.reconstruct(rows)
    feature = int((features > 0).sum(0).argmax())
    without = features.clone()
    without[:, feature] = 0
    sae.encode(rows)  # what normalises rows decodes what it encoded last
    rest = sae.module.decode(without) + (rows.mean(1, keepdim=True) if centred else 0)
    added = features[:, feature, None] * sae.contribution_scale(rows) * sae.decoder[feature]
    assert (features[:, feature] > 0).sum() > 5
    torch.testing.assert_close(added, whole - rest, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["BatchTopK", "MatryoshkaBatchTopK"])
def test_checkpoints_of_batchtopk_become_what_saelens_makes_of_them(kind, tmp_path, rows):
    widths = {"matryoshka_widths": [4, F]} if kind.startswith("Matryoshka") else {}
    config = getattr(sae_lens, f"{kind}TrainingSAEConfig")(d_in=D, d_sae=F, k=4.0, **widths)
    config.metadata.hook_name = "blocks.1.hook_mlp_out"
    trained = randomised(getattr(sae_lens, f"{kind}TrainingSAE")(config))
    trained.topk_threshold.fill_(0.7)
    trained.save_model(tmp_path / "checkpoint")
    trained.save_inference_model(tmp_path / "inference")
    expected = sae_lens.SAE.load_from_disk(tmp_path / "inference").encode(rows)
    sae = load_sae(sae_config(path=str(tmp_path / "checkpoint")))
    torch.testing.assert_close(sae.encode(rows), expected.detach(), rtol=0, atol=1e-6)
    assert (sae.architecture, sae.point) == ("jumprelu", HookPoint("mlp_out", 1))
    # a row's features don't depend on the rows beside it
    torch.testing.assert_close(sae.encode(rows[:1]), expected[:1].detach(), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:\\s*This SAE has non-empty")
def test_centred_writing_weights(tmp_path, rows):
    made("standard", model_from_pretrained_kwargs={"center_writing_weights": True}).save_model(tmp_path)
    sae = load_sae(sae_config(path=str(tmp_path)))
    centred = rows - rows.mean(1, keepdim=True)
    with pytest.warns(UserWarning, match="model_from_pretrained_kwargs"):
        peer = sae_lens.SAE.load_from_disk(tmp_path)
    torch.testing.assert_close(sae.encode(rows), peer.encode(centred).detach(), rtol=0, atol=1e-6)
    expected = peer.decode(peer.encode(centred)).detach() + rows.mean(1, keepdim=True)
    torch.testing.assert_close(sae.reconstruct(rows)[1], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("spelling", ["W_", "w_"])
def test_gemma_scope_is_a_jumprelu_by_its_formula(spelling, tmp_path, rows):
    folder = tmp_path / "gemma-scope-2b-pt-res" / "layer_7" / "width_16k" / "average_l0_70"
    weights = gemma_scope_weights()
    write_gemma_scope(folder, {name.replace("W_", spelling): values for name, values in weights.items()})
    path = f"{folder.parents[2]}/layer_{{layer}}/width_{{width}}/average_l0_70"
    sae = load_sae(sae_config(path=path, width="16k"), layer=7)
    before = rows.numpy() @ weights["W_enc"] + weights["b_enc"]
    expected = np.where(before > weights["threshold"], np.maximum(before, 0), 0)
    np.testing.assert_allclose(sae.encode(rows).numpy(), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        sae.reconstruct(rows)[1].numpy(), expected @ weights["W_dec"] + weights["b_dec"], rtol=0, atol=1e-4
    )
    assert (sae.architecture, sae.point, sae.n_features) == ("jumprelu", HookPoint("resid_post", 7), F)
    assert load_sae(sae_config(path=str(folder / "params.npz"))).identity == sae.identity


def test_gemma_scope_hooks(tmp_path):
    write_gemma_scope(tmp_path / "gemma-scope-9b-pt-mlp-canonical" / "layer_3")
    write_gemma_scope(tmp_path / "gemma-scope-2b-pt-att" / "layer_3")
    write_gemma_scope(tmp_path / "mine")
    mlp = load_sae(sae_config(path=f"{tmp_path}/gemma-scope-9b-pt-mlp-canonical/layer_3"))
    assert mlp.point == HookPoint("mlp_out", 3)
    heads = load_sae(sae_config(path=f"{tmp_path}/gemma-scope-2b-pt-att/layer_3"))
    with pytest.raises(StrataError, match=r"reads blocks\.3\.attn\.hook_z; Strata knows resid_pre, .*sae\.hook"):
        require_point(heads)
    with pytest.raises(StrataError, match="does not say what it reads"):
        require_point(load_sae(sae_config(path=f"{tmp_path}/mine")))
    assert load_sae(sae_config(path=f"{tmp_path}/mine", hook="attn_out", layer=2)).point == HookPoint("attn_out", 2)


@pytest.mark.parametrize(
    ("hook_name", "point"),
    [
        ("blocks.5.hook_resid_post", HookPoint("resid_post", 5)),
        ("blocks.0.hook_resid_pre", HookPoint("resid_pre", 0)),
        ("blocks.11.hook_mlp_out", HookPoint("mlp_out", 11)),
        ("blocks.2.hook_attn_out", HookPoint("attn_out", 2)),
        ("blocks.2.mlp.hook_in", None),
        ("blocks.2.hook_resid_mid", None),
        (None, None),
    ],
)
def test_hook_names(hook_name, point, tmp_path):
    standard_sae(hook_name).save_model(tmp_path)
    assert load_sae(sae_config(path=str(tmp_path))).point == point


def test_identity_is_of_the_weights_and_settings_alone(tmp_path):
    for name in ("a", "b"):
        made("topk").save_model(tmp_path / name)
    other = made("topk")
    other.W_enc.data[3, 2] += 1e-3
    other.save_model(tmp_path / "c")
    a, b, c = (load_sae(sae_config(path=str(tmp_path / name))).identity for name in "abc")
    assert a == b != c
    assert a["settings"]["k"] == 4


def test_a_path_is_filled_and_its_layer_must_be_the_sae_s_own(tmp_path):
    made("standard").save_model(tmp_path / "layer_5")
    made("standard").save_model(tmp_path / "layer_6")
    config = sae_config(path=f"{tmp_path}/layer_{{layer}}")
    assert load_sae(config, layer=5).point == HookPoint("resid_post", 5)
    with pytest.raises(StrataError, match=r"reads blocks\.5\.hook_resid_post, and sae\.layer=6"):
        load_sae(config, layer=6)
    with pytest.raises(StrataError, match=r"needs sae\.layer: set it"):
        load_sae(config)
    with pytest.raises(StrataError, match=r"\{layer\.__class__\} has no meaning"):
        load_sae(sae_config(path=f"{tmp_path}/{{layer.__class__}}"), layer=1)


def broken(folder: Path, kind: str) -> Path:
    made("standard").save_model(folder)
    weights, config = folder / "sae_weights.safetensors", folder / "cfg.json"
    match kind:
        case "cut off":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "no json":
            config.write_text("{")
        case "unknown architecture":
            config.write_text(config.read_text().replace('"standard"', '"crystal"'))
        case "another shape":
            config.write_text(config.read_text().replace(f'"d_sae": {F}', '"d_sae": 7'))
        case "no weights":
            weights.unlink()
    return folder


@pytest.mark.parametrize("kind", ["cut off", "no json", "unknown architecture", "another shape", "no weights"])
def test_damaged_folders(kind, tmp_path):
    with pytest.raises(StrataError, match=r"sae\.path=.*(can't be loaded|lacks sae_weights)"):
        load_sae(sae_config(path=str(broken(tmp_path / "sae", kind))))


def test_damaged_gemma_scope(tmp_path):
    file = write_gemma_scope(tmp_path / "a")
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(StrataError, match=r"params\.npz can't be read"):
        load_sae(sae_config(path=str(file)))
    weights = gemma_scope_weights()
    with pytest.raises(StrataError, match=r"holds .*W_enc \[d_model, feature\]"):
        load_sae(sae_config(path=str(write_gemma_scope(tmp_path / "b", weights | {"b_dec": weights["b_enc"]}))))
    del weights["threshold"]
    with pytest.raises(StrataError, match="threshold"):
        load_sae(sae_config(path=str(write_gemma_scope(tmp_path / "c", weights))))


def test_pickles_are_not_read(tmp_path):
    evil = gemma_scope_weights() | {"threshold": np.array([Trap()], dtype=object)}
    file = write_gemma_scope(tmp_path / "a", evil)
    with pytest.raises(StrataError, match="can't be read"):
        load_sae(sae_config(path=str(file)))
    assert not Trap.sprung


class Trap:
    sprung = False

    def __setstate__(self, state):
        Trap.sprung = True

    def __getstate__(self):
        return {"some": "state"}


def test_no_such_place(tmp_path):
    with pytest.raises(StrataError, match=r"no such file or folder \(looked at .*absent"):
        load_sae(sae_config(path="absent"))
    made("standard").save_model(tmp_path / "layer_5")
    with pytest.raises(StrataError, match=r"is no SAE of SAELens .*below it are .*layer_5"):
        load_sae(sae_config(path=str(tmp_path)))


def test_the_layers_that_there_are_saes_of_are_named(tmp_path):
    for layer in (2, 11):
        made("standard").save_model(tmp_path / f"layer_{layer}")
    with pytest.raises(StrataError, match=r"layer_3: no such file or folder; of .*layer_\{layer\} there are .* 2, 11$"):
        load_sae(sae_config(path=f"{tmp_path}/layer_{{layer}}"), layer=3)


def test_an_sae_that_is_there_and_damaged_is_no_layer_without_one(tmp_path):
    for layer in (0, 2):
        made("standard").save_model(tmp_path / f"layer_{layer}")
    config = sae_config(path=f"{tmp_path}/layer_{{layer}}", hook="resid_post")
    stage: Any = SimpleNamespace(device="cpu")
    assert list(find_saes(stage, config, "all", range(4))) == [0, 2]
    weights = tmp_path / "layer_2" / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(StrataError, match="layer_2 can't be loaded"):
        find_saes(stage, config, "all", range(4))


def test_what_does_not_reconstruct_a_row_is_refused(tmp_path):
    config = sae_lens.TranscoderConfig(d_in=D, d_sae=F, d_out=D, apply_b_dec_to_input=False)
    sae_lens.Transcoder(config).save_model(tmp_path / "transcoder")
    scaled = made("standard")
    scaled.cfg.normalize_activations = "expected_average_only_in"
    scaled.save_model(tmp_path / "scaled")
    with pytest.raises(StrataError, match="is a transcoder"):
        load_sae(sae_config(path=str(tmp_path / "transcoder")))
    with pytest.raises(StrataError, match="scale is not folded"):
        load_sae(sae_config(path=str(tmp_path / "scaled")))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, r"set either sae\.release .* or sae\.path"),
        ({"release": "a/b", "sae_id": "c", "path": "d"}, "set either"),
        ({"release": "gemma"}, "set both or neither"),
        ({"release": "../a", "sae_id": "c"}, "neither a release"),
        ({"release": "a/b", "sae_id": "../../etc"}, "leaves its release"),
        ({"release": "a/b", "sae_id": "/etc"}, "leaves its release"),
        ({"release": "a/b", "sae_id": "x\\..\\y"}, "leaves its release"),
        ({"path": "a", "force_download": True}, "means nothing"),
        ({"path": "a", "width": "../x"}, "width"),
    ],
)
def test_unsafe_and_contradictory_configs(keys, message):
    with pytest.raises(StrataError, match=message):
        sae_config(**keys)


OPTIONS = sorted(path.stem for path in (CONFIGS / "sae").glob("[!_]*.yaml"))


def composed(option, *overrides):
    values = OmegaConf.to_container(compose("collect_activations", [f"+sae={option}", *overrides]).sae, resolve=True)
    return parse_config(SaeConfig, values)


@pytest.mark.parametrize("option", OPTIONS)
def test_config_files_pass_the_schema(option):
    config = composed(option, *(["sae.path=some/folder"] if option == "local" else []))
    assert config.max_fvu == 0.5
    assert all(info.help for _, info in flat_keys(SaeConfig))


def test_the_issue_s_config_groups_are_there():
    assert {"gemma_scope_res", "gemma_scope_mlp", "gemma_scope_att", "gpt2_res_jb"} <= set(OPTIONS)
    assert {"testbed", "local"} <= set(OPTIONS)


@pytest.mark.parametrize("option", [name for name in OPTIONS if name.startswith(("gemma", "gpt2"))])
@pytest.mark.parametrize("layer", [0, 11])
def test_releases_are_known_to_saelens_and_offline_is_told(option, layer):
    # HF_HUB_OFFLINE is set for all tests: what is asked for is known, and can't be had
    with pytest.raises(StrataError, match=r"can't be loaded from the Hugging Face hub \(.*sae\.path=FOLDER"):
        load_sae(composed(option), layer=layer)


def test_unknown_names_come_with_near_ones():
    with pytest.raises(
        StrataError, match=r"gemma-scope-2b-pt-ress: SAELens has none .* among them gemma-scope-2b-pt-res"
    ):
        load_sae(sae_config(release="gemma-scope-2b-pt-ress", sae_id="layer_0/width_16k/canonical"))
    with pytest.raises(
        StrataError, match=r"sae\.sae_id=layer_26/width_16k/canonical: release .* among them .*layer_25"
    ):
        load_sae(composed("gemma_scope_res"), layer=26)
