"""Activation Lab's folders are written here by hand, as its documentation and its files have them."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from src.artifacts import Plan, Provenance, create_artifact, open_artifact
from src.errors import StrataError
from src.scenarios.scenario import Scenario
from src.scenarios.states import Conversation, References, Rows
from src.scenarios.storage.activation_lab.boundaries import guessed_message_ends
from src.scenarios.storage.activation_lab.npz import LabTensors
from src.scenarios.storage.activation_lab.reading import read_lab_scenario
from src.scenarios.storage.activation_lab.writing import write_lab_scenario
from src.scenarios.storage.run_folder import (
    CapturedScenario,
    read_captured,
    write_conversation,
    write_references,
    write_run,
    write_scenario,
)
from tests.fixtures.scenario_runs import D_MODEL, random_conversation, random_references

N_LAYERS, N_HEADS, N_KV, D_MLP, N_VOCAB = 2, 2, 1, 5, 13
D_HEAD = D_MODEL // N_HEADS
# <|im_start|> role text <|im_end|>, then <|im_start|> assistant
START, END, SYSTEM, USER, ASSISTANT = 1, 2, 3, 4, 5
HEADER = [START, ASSISTANT]
TEXTS = [[START, SYSTEM, 8, END], [START, USER, 9, 10, END], [START, ASSISTANT, 11, END]]
MESSAGES = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hello there"},
    {"role": "assistant", "content": "hi"},
]


def forward(n_tokens: int, n_read: int, seed: int) -> dict[str, np.ndarray]:
    """Tensors of one forward pass over the last tokens of so many, as HEAD names and shapes them."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=(1, n_tokens, *shape)).astype(np.float16)

    tensors = {"logits": normal(N_VOCAB)}
    stream = normal(D_MODEL)
    tensors["embeddings"] = stream
    for layer in range(N_LAYERS):
        attention = random.random((1, N_HEADS, n_tokens, n_read)).astype(np.float16)
        later = np.arange(n_read) > np.arange(n_read - n_tokens, n_read)[:, None]
        gate = normal(D_MLP)
        made = {
            "hidden_in": stream,
            "hidden_out": (stream := normal(D_MODEL)),
            "attn_out": normal(D_MODEL),
            "mlp_down_out": normal(D_MODEL),
            "q": normal(N_HEADS * D_HEAD),
            "k": normal(N_KV * D_HEAD),
            "v": normal(N_KV * D_HEAD),
            "attn_weights": np.where(later, 0, attention).astype(np.float16),
            "mlp_gate": gate,
            "mlp_up": normal(D_MLP),
            "mlp_act": gate,
            "mlp_down_in": normal(D_MLP),
        }
        tensors |= {f"layer_{layer:02d}/{name}": array for name, array in made.items()}
    return tensors


def of_snapshot(tensors: dict[str, np.ndarray], old: bool) -> dict[str, np.ndarray]:
    """A snapshot has no values and a qkv_last; the old one holds last tokens of a few kinds."""
    if old:
        kinds = ("hidden_in", "hidden_out", "attn_out", "mlp_down_out", "q", "k")
        return {key: array[0, -1] for key, array in tensors.items() if key.rpartition("/")[2] in kinds}
    kept = {key: array for key, array in tensors.items() if not key.endswith("/v")}
    return kept | {"qkv_last": np.zeros((N_LAYERS, 3), np.float32)}


def write_json(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def savez(path: Path, tensors: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **tensors)


def write_lab_run(folder: Path, n_messages: int, *, old: bool = False, n_steps: int = 3) -> None:
    ids = [token for text in TEXTS[:n_messages] for token in text] + HEADER
    scenario = {
        "name": "greeting",
        "model": {"id": "lab/tiny", "gguf_file": None, "dtype": "float16", "device": "mps", "trust_remote_code": False},
        "prompt": [{"messages": MESSAGES[:n_messages], "run_at_each_message": False}],
        "generation": {
            "max_new_tokens": 8,
            "do_sample": False,
            "temperature": 0.0,
            "top_k": None,
            "top_p": None,
            "seed": 42,
        },
        "capture": {
            "hidden_states": True,
            "attention_weights": True,
            "qkv": True,
            "mlp": True,
            "logits": True,
            "top_k_probs": 2,
            "layers": "all",
            "store_dtype": "float16",
        },
        "output": {"dir": "./runs", "format": "json+npz"},
        "reference_states": [
            {"label": "joy", "messages": [{"role": "user", "content": "first"}]},
            {"label": "joy", "messages": [{"role": "user", "content": "what a day"}]},
        ],
    }
    arch = {
        "num_layers": N_LAYERS,
        "hidden_size": D_MODEL,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_KV,
        "vocab_size": N_VOCAB,
        "layer_module_path": "model.layers",
    }
    run = {
        "scenario": scenario,
        "model": {"id": "lab/tiny", "arch": arch},
        "tokenizer": {"id": "lab/tiny", "vocab_size": N_VOCAB, "bos_token_id": None, "eos_token_id": END},
        "prompt_token_ids": ids,
        "prompt_tokens": [f"t{token}" for token in ids],
        "env": {"python": "3.11", "device": "mps"},
        "created_at": "2026-04-30T00:00:00Z",
    }
    write_json(folder / "run.json", run)
    steps = []
    for step in range(n_steps):
        tensors = forward(1 if step else len(ids), len(ids) + step, seed=100 * n_messages + step)
        savez(folder / "tensors" / f"step_{step:03d}.npz", tensors)
        token = END if step == n_steps - 1 else 7
        steps.append(
            {
                "step": step,
                "kind": "decode" if step else "prefill",
                "input_token_ids": [7] if step else ids,
                "generated_token_id": token,
                "generated_token": "<end>" if token == END else " so",
                "logit_argmax_id": token,
                "logit_argmax_logprob": -0.25,
                "top_k": [{"id": 7, "token": " so", "logprob": -0.5}],
                # one too high while decoding, as Activation Lab has it
                "seq_len": len(ids) + step + (1 if step else 0),
                "logit_stats": {"entropy": 1.5, "effective_vocab": 4.5, "top1_prob": None},
                "tensors_file": f"tensors/step_{step:03d}.npz",
                "tensor_index": {},
            }
        )
    write_json(folder / "steps.json", {"steps": steps})
    texts = [*TEXTS[:n_messages], [START, ASSISTANT, 7, 7, END]]
    shots = []
    for index in range(n_messages + 1):
        prefix = [token for text in texts[: index + 1] for token in text] + HEADER
        tensors = of_snapshot(forward(len(prefix), len(prefix), seed=1000 + index + n_messages), old)
        role = "assistant" if index == n_messages else MESSAGES[index]["role"]
        name = f"snapshot_{index:02d}_{role}.npz"
        savez(folder / "conversation_snapshots" / name, tensors)
        shots.append(
            {
                "index": index,
                "role": role,
                "content_preview": "",
                "input_token_ids": prefix,
                "input_tokens": [],
                "seq_len": len(prefix),
                "tensors_file": f"conversation_snapshots/{name}",
                "tensor_index": {},
                "generated": index == n_messages,
            }
        )
    write_json(folder / "conversation_snapshots" / "index.json", {"snapshots": shots})


def write_lab_references(folder: Path, *, old: bool = False) -> None:
    write_json(folder / "index.json", {"labels": ["joy"]})
    savez(folder / "ref_joy.npz", of_snapshot(forward(6, 6, seed=77), old))


@pytest.fixture
def head(tmp_path) -> Path:
    folder = tmp_path / "greeting_2026-04-30T00-00-00Z"
    write_lab_run(folder / "prompt_0", 2)
    for after in (1, 2, 3):
        write_lab_run(folder / f"prompt_1_msg{after}of3", after)
    write_json(folder / "scenario.json", {})
    write_lab_references(folder / "references")
    return folder


def last(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array[0, -1])


def test_the_layout_with_every_token_is_read(head):
    lab = read_lab_scenario(head)
    assert (
        [conversation.name for conversation in lab.conversations]
        == lab.scenario.prompt_names
        == ["prompt_0", "prompt_1"]
    )
    conversation = lab.conversations[0]
    written = forward(11, 11, seed=200)
    rows = conversation.token_rows
    assert rows is not None
    assert rows.layers == (0, 1)
    assert rows.arrays["resid_pre"].shape == (1, 11, D_MODEL)  # of layer 1 it is resid_post of layer 0
    for theirs, ours in (
        ("hidden_in", "resid_pre"),
        ("mlp_down_out", "mlp_out"),
        ("mlp_down_in", "mlp_act"),
        ("v", "v"),
    ):
        expected = np.stack([written[f"layer_{layer:02d}/{theirs}"][0] for layer in range(N_LAYERS)])
        assert torch.equal(rows.get(ours), torch.from_numpy(expected).float())
    expected = np.stack([written[f"layer_{layer:02d}/attn_weights"][0] for layer in range(N_LAYERS)])
    assert torch.equal(rows.arrays["attention"], torch.from_numpy(expected).transpose(1, 2))
    assert torch.equal(rows.arrays["logits"][0], torch.from_numpy(written["logits"][0]))


def test_its_steps_are_read_and_their_lengths_mended(head):
    generation = read_lab_scenario(head).conversations[0].generations[0]
    assert [step.seq_len for step in generation.steps] == [11, 12, 13]
    assert (generation.text, generation.ended, generation.token_ids) == (" so so", True, [7, 7, END])
    # from the likeliest tokens where it is among them, else it was the likeliest of all
    assert [step.logprob for step in generation.steps] == [-0.5, -0.5, -0.25]
    assert np.isnan(generation.steps[0].top1_prob)
    decode = forward(1, 12, seed=201)
    assert torch.equal(generation.rows.arrays["q"][1, 1], last(decode["layer_01/q"]))
    attention = generation.rows.arrays["attention"]
    assert attention.shape == (N_LAYERS, 3, N_HEADS, 13)
    assert torch.equal(attention[0, 1, :, :12], torch.from_numpy(decode["layer_00/attn_weights"][0, :, 0]))
    assert not attention[0, 1, :, 12:].any()


def test_runs_after_each_message_are_one_conversation(head):
    conversation = read_lab_scenario(head).conversations[1]
    assert [generation.after for generation in conversation.generations] == [1, 2, 3]
    assert [run.name for run in conversation.runs()] == [f"prompt_1_msg{after}of3" for after in (1, 2, 3)]
    assert conversation.message_ends == [3, 8, 12]
    assert [(shot.message, shot.position, shot.token) for shot in conversation.snapshots] == [
        (0, "answer", 5),
        (1, "answer", 10),
        (2, "answer", 14),
        (3, "answer", 10),
        (4, "answer", 15),
        (5, "answer", 19),
    ]
    second = next(run for run in conversation.runs() if run.generation.after == 2)
    states = second.snapshots("resid_post", "answer")
    # messages 0 and 1 of the longest run, the reply of its own
    for place, seed, n_tokens in ((0, 1003, 6), (1, 1004, 11), (2, 1004, 16)):
        assert torch.equal(states[1, place], last(forward(n_tokens, n_tokens, seed)["layer_01/hidden_out"]).float())


def test_runs_of_which_one_is_missing_stay_apart(head):
    for file in (head / "prompt_1_msg2of3").rglob("*"):
        if file.is_file():
            file.unlink()
    names = [conversation.name for conversation in read_lab_scenario(head).conversations]
    assert names == ["prompt_0", "prompt_1_msg1of3", "prompt_1_msg3of3"]


def test_references_and_model_are_read(head):
    lab = read_lab_scenario(head)
    assert lab.references is not None
    assert [(text.label, text.preview, text.n_tokens) for text in lab.references.texts] == [("joy", "what a day", 6)]
    assert torch.equal(lab.references.rows["answer"].arrays["k"][0, 0], last(forward(6, 6, seed=77)["layer_00/k"]))
    assert {key: lab.model[key] for key in ("name", "n_layers", "d_model", "n_heads", "n_kv_heads", "d_head")} == {
        "name": "lab/tiny",
        "n_layers": 2,
        "d_model": D_MODEL,
        "n_heads": 2,
        "n_kv_heads": 1,
        "d_head": D_HEAD,
    }


@pytest.mark.parametrize("label", ["l'amour", "joy&fear", "freude=glück", "a<b>"])
def test_references_of_any_label_are_read(head, label):
    folder = head / "references"
    (folder / "ref_joy.npz").rename(folder / f"ref_{label}.npz")
    write_json(folder / "index.json", {"labels": [label]})
    lab = read_lab_scenario(head)
    assert lab.references is not None
    assert lab.references.labels == [label]


def test_the_layout_of_last_tokens_is_read(tmp_path):
    folder = tmp_path / "greeting_2026"
    write_lab_run(folder, 2, old=True)
    write_lab_references(folder / "references", old=True)
    lab = read_lab_scenario(folder)
    rows = lab.conversations[0].snapshot_rows
    expected = forward(6, 6, seed=1002)
    assert set(rows.arrays) == {"resid_pre", "resid_post", "attn_out", "mlp_out", "q", "k"}
    assert torch.equal(rows.get("resid_pre")[1, 0], last(expected["layer_01/hidden_in"]).float())
    assert lab.references is not None
    assert len(lab.references.rows["answer"]) == 1


def artifact_of(root: Path, captured: tuple[Scenario, list[Conversation], object, dict, dict]) -> CapturedScenario:
    scenario, conversations, references, model, tokenizer = captured
    plan = Plan(root, "scenario_run", "greeting", {})
    with create_artifact(plan, Provenance({}, 0, "cpu", {"torch": "2"}, None, "2026-11-21T10:00:00+00:00")) as draft:
        write_scenario(draft.path, scenario)
        write_run(draft.path, model, tokenizer)
        for conversation in conversations:
            (draft.path / conversation.name).mkdir()
            write_conversation(draft.path / conversation.name, conversation)
        if references is not None:
            (draft.path / "references").mkdir()
            write_references(draft.path / "references", references)
        draft.summary = {"conversations": [conversation.name for conversation in conversations], "model": model}
    return read_captured(open_artifact(plan.path, "scenario_run"))


def equal(one: Rows, two: Rows, sources: tuple[str, ...] = ()) -> bool:
    names = sources or tuple(two.arrays)
    return one.layers == two.layers and all(
        torch.equal(one.arrays[name].float(), two.arrays[name].float()) for name in names
    )


def test_what_was_imported_is_exported_to_the_same_members(head, tmp_path):
    lab = read_lab_scenario(head)
    captured = artifact_of(
        tmp_path / "artifacts", (lab.scenario, lab.conversations, lab.references, lab.model, lab.tokenizer)
    )
    (folder,) = write_lab_scenario(captured, tmp_path / "export")
    assert folder.name == "greeting_2026-11-21T10-00-00Z"
    for run in ("prompt_0", "prompt_1_msg1of3", "prompt_1_msg3of3"):
        for step in (0, 2):
            ours = dict(np.load(folder / run / "tensors" / f"step_{step:03d}.npz"))
            theirs = dict(np.load(head / run / "tensors" / f"step_{step:03d}.npz"))
            if step == 0 and run == "prompt_1_msg1of3":  # of a shorter prompt the last token alone is kept
                theirs = {key: array[:, :, -1:] if "weights" in key else array[:, -1:] for key, array in theirs.items()}
            assert set(ours) == {key for key in theirs if not key.endswith("mlp_act")}
            for key, array in ours.items():
                np.testing.assert_array_equal(array, theirs[key], err_msg=f"{run} {step} {key}")
        told, expected = (json.loads((place / run / "run.json").read_text()) for place in (folder, head))
        assert told["prompt_token_ids"] == expected["prompt_token_ids"]
        assert told["prompt_tokens"] == expected["prompt_tokens"]
        assert told["model"]["arch"].items() >= expected["model"]["arch"].items()
        assert told["scenario"]["prompt"][0]["messages"] == expected["scenario"]["prompt"][0]["messages"]
    again = read_lab_scenario(folder)
    for ours, theirs in zip(again.conversations, lab.conversations, strict=True):
        assert ours.message_ends == theirs.message_ends
        assert ours.snapshots == theirs.snapshots
        assert equal(ours.snapshot_rows, theirs.snapshot_rows)
        assert [made.text for made in ours.generations] == [made.text for made in theirs.generations]


def test_no_reference_is_written_over_another(head, tmp_path):
    lab = read_lab_scenario(head)
    assert lab.references is not None
    texts = [("joy", 0), ("joy", 1), ("joy", 2), ("joy_2", 0)]
    references = References(
        [replace(lab.references.texts[0], label=label, example=example) for label, example in texts],
        {position: rows.take([0] * 4) for position, rows in lab.references.rows.items()},
    )
    captured = artifact_of(
        tmp_path / "artifacts", (lab.scenario, lab.conversations, references, lab.model, lab.tokenizer)
    )
    (folder,) = write_lab_scenario(captured, tmp_path / "export")
    written = sorted(path.name for path in (folder / "references").glob("*.npz"))
    assert written == ["ref_joy.npz", "ref_joy_2.npz", "ref_joy_3.npz", "ref_joy_4.npz"]
    again = read_lab_scenario(folder).references
    assert again is not None
    assert again.labels[-1] == "joy_2"


def test_last_tokens_are_exported_as_the_old_layout(tmp_path):
    layers = (0, 1, 2)
    scenario = Scenario.model_validate(
        {
            "name": "weather",
            "model": {"id": "tiny"},
            "prompt": [{"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}],
            "reference_states": [
                {"label": "sad", "examples": [{"messages": [{"role": "user", "content": text}]} for text in "ab"]},
                {"label": "plain", "neutral": True, "messages": [{"role": "user", "content": "c"}]},
            ],
        }
    )
    conversation = random_conversation(layers=layers)
    model, tokenizer = {"name": "tiny", "n_heads": 2}, {"d_vocab": 11, "eos_token_id": 99}
    # one whose turns were shuffled has no replies, and Activation Lab no place for it
    shuffled = replace(conversation, name="shuffled", generations=[], messages=conversation.messages[:2], snapshots=[])
    shuffled = replace(shuffled, snapshot_rows=Rows((), {}))
    conversations = [shuffled, conversation]
    captured = artifact_of(tmp_path, (scenario, conversations, random_references(layers), model, tokenizer))
    folders = write_lab_scenario(captured, tmp_path / "export")
    assert [folder.name for folder in folders] == [
        f"weather_prompt_0_msg{after}of2_2026-11-21T10-00-00Z" for after in (1, 2)
    ]
    told = json.loads((folders[1] / "references" / "index.json").read_text())
    assert (told["labels"], told["position"]) == (["sad", "sad_2", "plain"], "answer")
    vector = np.load(folders[1] / "conversation_snapshots" / "snapshot_01_user.npz")["layer_02/hidden_out"]
    np.testing.assert_array_equal(vector, conversation.snapshot_rows.arrays["resid_post"][2, 3].numpy())
    lab = read_lab_scenario(folders[1])
    back = lab.conversations[0]
    assert back.token_rows is None
    assert equal(back.generations[0].rows, conversation.generations[1].rows)
    assert equal(
        back.snapshot_rows, conversation.snapshot_rows.take([1, 3, 7]), ("resid_post", "attn_out", "mlp_out", "q", "k")
    )
    assert [shot.token for shot in back.snapshots] == [4, 8, 14]
    assert back.message_ends == conversation.message_ends
    assert lab.references is not None
    assert lab.references.texts == random_references(layers).texts
    assert [(state.label, len(state.conversations), state.neutral) for state in lab.scenario.reference_states] == [
        ("sad", 2, False),
        ("plain", 1, True),
    ]
    assert lab.scenario.capture.preset == "message_ends"
    assert equal(lab.references.rows["answer"], random_references(layers).rows["answer"], ("resid_post", "v"))
    with pytest.raises(StrataError, match="there already"):
        write_lab_scenario(captured, tmp_path / "export")


@pytest.mark.parametrize(
    ("prefixes", "n_messages", "bos", "ends"),
    [
        # the roles are tokens of their own that nothing opens: <user> a <end> <assistant>
        ([[4, 9, 2, 5], [4, 9, 2, 5, 8, 2, 5], [4, 9, 2, 5, 8, 2, 4, 7, 2, 5]], 3, None, [2, 5, 8]),
        ([[4, 9, 2, 5], [4, 9, 2, 5, 8, 2, 5]], 1, None, [1]),  # nothing tells the end token from the header
        ([[0, 1, 4, 9, 2, 1, 5], [0, 1, 4, 9, 2, 1, 5, 8, 2, 1, 5]], 1, 0, [4]),
        ([[4, 9, 2]], 1, None, [2]),
    ],
)
def test_message_ends_are_guessed_from_ids(prefixes, n_messages, bos, ends):
    assert guessed_message_ends(prefixes, n_messages, bos) == ends


def edit_member(name: str, content: bytes):
    def edit(folder: Path) -> None:
        with zipfile.ZipFile(folder / "prompt_0" / "tensors" / "step_001.npz", "a") as archive:
            archive.writestr(name, content)

    return edit


def edit_json(file: str, change):
    def edit(folder: Path) -> None:
        path = folder / "prompt_0" / file
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return edit


def header(shape: str, dtype: str = "<f2") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit_member("../../evil.npy", b""), "no tensor of Activation Lab"),
        (edit_member("layer_00/soul.npy", header("(1,)") + b"00"), "no tensor of Activation Lab"),
        (edit_member("layer_00/q", header("(1,)") + b"00"), "no tensor of Activation Lab"),
        (edit_member("layer_00/q.npy", header("(1,)") + b"00"), "holds a name twice"),
        (edit_member("layer_07/q.npy", header("(99999999999,)")), "can't be read as npz"),
        (edit_member("layer_07/q.npy", header("(1,)", "|O") + b"00000000"), "can't be read as npz"),
        (edit_member("layer_07/q.npy", b"no header"), "can't be read as npz"),
        (edit_member("layer_07/q.npy", header("(1,)") + b"00"), r"has layers \[0, 1, 7\]"),
        (edit_json("steps.json", lambda v: v["steps"][1].update(tensors_file="../../../etc/passwd")), "names a file"),
        (edit_json("steps.json", lambda v: v["steps"].pop(0)), "steps are missing"),
        (edit_json("steps.json", lambda v: v.update(steps="none")), "steps.json is none of"),
        (edit_json("run.json", lambda v: v["prompt_tokens"].pop()), "differ in number"),
        (edit_json("run.json", lambda v: v["model"]["arch"].update(num_layers=10**9)), "num_layers=1000000000, and"),
        (edit_json("run.json", lambda v: v["model"]["arch"].update(hidden_size=-1)), "hidden_size=-1, and the states"),
        (edit_json("run.json", lambda v: v["scenario"].pop("prompt")), "holds no scenario .*prompt"),
        (edit_json("run.json", lambda v: v["scenario"].update(name="../up")), "holds no scenario .*name"),
        (edit_json("conversation_snapshots/index.json", lambda v: v["snapshots"].reverse()), "not those of 2 messages"),
        (lambda folder: (folder / "prompt_0" / "steps.json").unlink(), "steps.json can't be read"),
        (lambda folder: (folder / "prompt_0/tensors/step_002.npz").write_bytes(b"PK"), "can't be read as npz"),
        (lambda folder: write_json(folder / "references" / "index.json", {"labels": ["../joy"]}), "labels"),
    ],
)
def test_foreign_and_hostile_files_are_refused(head, damage, message):
    damage(head)
    with pytest.raises(StrataError, match=message):
        read_lab_scenario(head)


def test_a_bomb_is_refused_before_it_expands(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        zeros = bytes(80_000_000)
        archive.writestr("layer_00/q.npy", header("(40000000,)") + zeros)
    assert (tmp_path / "bomb.npz").stat().st_size < 200_000
    with pytest.raises(StrataError, match=r"would expand to 0\.08 GB"):
        LabTensors(tmp_path / "bomb.npz")


def test_a_folder_of_something_else_is_told(tmp_path):
    with pytest.raises(StrataError, match="no run of Activation Lab"):
        read_lab_scenario(tmp_path)
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.json").write_text("{}")
    with pytest.raises(StrataError, match="one at a time: one"):
        read_lab_scenario(tmp_path / "runs")
