from dataclasses import replace

import pytest
import torch

from src.errors import StrataError
from src.scenarios.state_images import Selection, count_images, state_images
from src.scenarios.states import Rows, Run
from tests.fixtures.scenario_runs import N_HEADS, random_conversation


def run_of(place: int = 1, **options) -> Run:
    return list(random_conversation(**options).runs())[place]


def test_each_step_of_each_layer_is_an_image():
    run = run_of(full=True)
    tokens = run.conversation.token_rows
    assert tokens is not None
    images = {(image.key.layer, image.key.frame): image for image in state_images(run, Selection("q", "steps"))}
    assert len(images) == count_images(run, Selection("q", "steps")) == 9
    # the prompt is read in one pass: a row for each token
    assert torch.equal(images[2, "step_000"].values, tokens.arrays["q"][2].float())
    assert images[2, "step_000"].row_names[3] == "3 t3"
    assert torch.equal(images[1, "step_002"].values, run.generation.rows.arrays["q"][1, 2:3].float())
    assert images[1, "step_002"].row_names == ["10  so"]


def test_without_every_token_the_prompt_is_its_last_token():
    run = run_of(0, full=True)  # the prompt of the first reply is another one than the conversation
    image = next(iter(state_images(run, Selection("resid_post", "steps", steps=[0]))))
    assert torch.equal(image.values, run.generation.rows.arrays["resid_post"][0, :1])
    assert image.row_names == ["4"]


def test_the_input_of_a_layer_is_the_output_of_the_one_before():
    run = run_of()
    images = list(state_images(run, Selection("resid_pre", "generation", layers=[2], steps=[0, 2])))
    assert len(images) == 1
    assert torch.equal(images[0].values, run.generation.rows.arrays["resid_post"][1, [0, 2]])
    assert images[0].row_names == ["0  so", "2  so"]


def test_attention_is_the_mean_over_heads_or_each_head_as_far_as_tokens_are_read():
    run = run_of()
    whole = run.generation.rows.arrays["attention"]
    mean = list(state_images(run, Selection("attention", "steps", layers=[1])))
    assert [image.values.shape for image in mean] == [(1, 9), (1, 10), (1, 11)]
    assert torch.equal(mean[0].values, whole[1, :1, :, :9].float().mean(1))
    heads = list(state_images(run, Selection("attention", "steps", steps=[1], per_head=True)))
    assert len(heads) == count_images(run, Selection("attention", "steps", steps=[1], per_head=True)) == 3 * N_HEADS
    assert torch.equal(heads[3].values, whole[1, 1:2, 1, :10].float())
    assert (heads[3].key.layer, heads[3].key.head) == (1, 1)


def test_messages_are_rows_the_reply_of_the_run_last():
    run = run_of(0)
    (image,) = state_images(run, Selection("k", "messages", layers=[0], messages=[0, 1]))
    # message 0, and of the two replies the one to it: rows 0 and 4 of the snapshots
    assert torch.equal(image.values, run.conversation.snapshot_rows.arrays["k"][0, [0, 4]].float())
    assert image.row_names == ["0 system", "1 assistant"]
    (attention,) = state_images(run, Selection("attention", "messages", layers=[0], messages=[0]))
    assert attention.values.shape == (1, 3)


def test_logits_have_no_layers():
    run = run_of()
    images = list(state_images(run, Selection("logits", "generation")))
    assert [image.key.layer for image in images] == [None]
    assert torch.equal(images[0].values, run.generation.rows.arrays["logits"][0].float())


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection("q", "steps", layers=[0, 7]), r"no states of layer 7; choose from 0, 1, 2"),
        (Selection("q", "steps", steps=[3]), "no step 3; choose from its steps 0 to 2"),
        (Selection("q", "messages", messages=[5]), "no message 5; choose from its messages 0 to 2"),
        (Selection("q", "messages", position="mean"), "no state at position=mean; choose from positions end, answer"),
        (Selection("q", "steps", per_head=True), "needs source=attention"),
        (Selection("logits", "steps", layers=[1]), "means nothing to source=logits"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(selection, message):
    run = run_of()
    with pytest.raises(StrataError, match=message):
        list(state_images(run, selection))


def test_a_source_that_was_not_captured_is_told_with_those_that_were():
    run = run_of()
    rows = Rows((0, 1, 2), {"resid_post": run.generation.rows.arrays["resid_post"]})
    bare = replace(run, generation=replace(run.generation, rows=rows))
    with pytest.raises(StrataError, match="q was not captured; choose from its sources: resid_post"):
        list(state_images(bare, Selection("q", "steps")))
