import copy
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.config.shared import DatasetConfig
from src.errors import StrataError
from src.text import (
    DocumentCounts,
    Keep,
    read_documents,
    tokenization,
    tokenize_documents,
    tokenizer_identity,
)
from tests.text.conftest import word_tokenizer

PAD, UNK, BOS, EOS, USER, ASSISTANT, A, B, C, D, E = range(11)  # ids of the word tokenizers, see conftest.py

words = st.sampled_from(["a", "b", "c", "the", "dog", "<eos>", "<bos>", "<|endoftext|>", "zzz", "é", "\n", "   "])
texts = st.lists(words, max_size=12).map(" ".join)
corpora = st.lists(texts, max_size=8)


def tokenize(documents, tokenizer, max_length=100, **keys):
    return list(tokenize_documents(documents, tokenizer, max_length, **keys))


def ids(sequences):
    return [sequence.token_ids.tolist() for sequence in sequences]


def roles(sequence):
    return [Keep(role) for role in sequence.roles]


def has_text(text, tokenizer):
    return bool(text.strip()) and bool(tokenizer(text, add_special_tokens=False)["input_ids"])


# --- against transformers ---------------------------------------------------------------------------------------------


@given(corpus=corpora, max_length=st.integers(3, 9))
@settings(max_examples=60, deadline=None)
def test_truncation_is_that_of_transformers(any_tokenizer, corpus, max_length):
    expected = [
        any_tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
        for text in corpus
        if has_text(text, any_tokenizer)
    ]
    assert ids(tokenize(corpus, any_tokenizer, max_length)) == expected


@given(corpus=corpora, max_length=st.integers(3, 9))
@settings(max_examples=60, deadline=None)
def test_splitting_is_that_of_transformers(any_tokenizer, corpus, max_length):
    expected = [
        piece
        for text in corpus
        if has_text(text, any_tokenizer)
        for piece in any_tokenizer(
            [text], truncation=True, max_length=max_length, return_overflowing_tokens=True, stride=0
        )["input_ids"]
    ]
    assert ids(tokenize(corpus, any_tokenizer, max_length, long_documents="split")) == expected


@given(
    corpus=corpora,
    batch_documents=st.integers(1, 4),
    batch_characters=st.integers(1, 40),
    num_tokens=st.none() | st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_batches_give_what_one_document_at_a_time_gives(
    any_tokenizer, corpus, batch_documents, batch_characters, num_tokens
):
    def run(documents, characters):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenization, "BATCH_DOCUMENTS", documents)
            patch.setattr(tokenization, "BATCH_CHARACTERS", characters)
            counts = DocumentCounts()
            sequences = tokenize(corpus, any_tokenizer, 6, skip_documents=1, num_tokens=num_tokens, counts=counts)
        return [(s.document, s.token_ids.tolist(), s.roles.tolist()) for s in sequences], counts

    singly, counts = run(1, 1)
    several, counts_of_several = run(batch_documents, batch_characters)
    everything, counts_of_everything = run(256, 1_000_000)
    assert singly == several == everything
    assert (counts.read, counts.empty, counts.truncated) == (
        counts_of_several.read,
        counts_of_several.empty,
        counts_of_several.truncated,
    )
    assert counts == counts_of_everything


# --- roles ------------------------------------------------------------------------------------------------------------


def test_bos_and_special_tokens_are_marked(tokenizers_by_kind):
    (sequence,) = tokenize(["a <bos> zzz b"], tokenizers_by_kind["bos_eos"])
    assert sequence.token_ids.dtype == np.int32
    assert sequence.roles.dtype == np.uint8
    assert sequence.token_ids.tolist() == [BOS, A, BOS, UNK, B, EOS]
    assert roles(sequence) == [Keep.BOS, Keep.COUNTED, Keep.SPECIAL, Keep.SPECIAL, Keep.COUNTED, Keep.SPECIAL]


def test_special_token_that_has_no_name_is_special_too(chat_tokenizer):
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.backend_tokenizer.add_special_tokens(["<tool>"])
    assert tokenizer.convert_tokens_to_ids("<tool>") not in tokenizer.all_special_ids
    (sequence,) = tokenize(["a <tool> b"], tokenizer)
    assert roles(sequence) == [Keep.BOS, Keep.COUNTED, Keep.SPECIAL, Keep.COUNTED]


@pytest.mark.parametrize("kind", ["no_bos", "byte_level"])
def test_first_position_is_marked_where_there_is_no_bos(tokenizers_by_kind, kind):
    for sequence in tokenize(["a b c d", "b a d c"], tokenizers_by_kind[kind], 3, long_documents="split"):
        assert roles(sequence) == [Keep.FIRST] + [Keep.COUNTED] * (len(sequence.roles) - 1)


def test_special_token_in_first_place_is_special(tokenizers_by_kind):
    (sequence,) = tokenize(["a"], tokenizers_by_kind["cls_sep"])
    assert sequence.token_ids.tolist() == [USER, A, ASSISTANT]
    assert roles(sequence) == [Keep.SPECIAL, Keep.COUNTED, Keep.SPECIAL]


def test_pad_token_that_is_eos_takes_no_text_away(tokenizers_by_kind):
    (sequence,) = tokenize(["a <eos> b <eos>"], tokenizers_by_kind["pad_is_eos"])
    assert sequence.token_ids.tolist() == [BOS, A, EOS, B, EOS]
    assert roles(sequence) == [Keep.BOS, Keep.COUNTED, Keep.SPECIAL, Keep.COUNTED, Keep.SPECIAL]


# --- which documents, and how many ------------------------------------------------------------------------------------


def test_documents_are_numbered_skipped_and_counted(bos_tokenizer):
    counts = DocumentCounts()
    corpus = ["a", "", "b", " \n\t", "a b c d e", "c"]
    sequences = tokenize(corpus, bos_tokenizer, 4, skip_documents=1, counts=counts)
    assert [sequence.document for sequence in sequences] == [2, 4, 5]
    assert counts == DocumentCounts(skipped=1, read=5, empty=2, truncated=1)


def test_skipping_more_than_there_is_gives_nothing(bos_tokenizer):
    counts = DocumentCounts()
    assert tokenize(["a", "b"], bos_tokenizer, skip_documents=5, counts=counts) == []
    assert counts == DocumentCounts(skipped=2)


def test_splitting_keeps_every_token(bos_tokenizer):
    counts = DocumentCounts()
    sequences = tokenize(["a b c d e", "a"], bos_tokenizer, 3, long_documents="split", counts=counts)
    assert ids(sequences) == [[BOS, A, B], [BOS, C, D], [BOS, E], [BOS, A]]
    assert [sequence.document for sequence in sequences] == [0, 0, 0, 1]
    assert counts == DocumentCounts(read=2)


@given(corpus=corpora, num_tokens=st.integers(1, 80), split=st.booleans())
@settings(max_examples=80, deadline=None)
def test_stops_with_the_sequence_that_reaches_num_tokens(any_tokenizer, corpus, num_tokens, split):
    keys = {"long_documents": "split" if split else "truncate"}
    everything = ids(tokenize(corpus, any_tokenizer, 6, **keys))
    stopped = ids(tokenize(corpus, any_tokenizer, 6, num_tokens=num_tokens, **keys))
    assert stopped == everything[: len(stopped)]
    assert sum(map(len, stopped[:-1])) < num_tokens
    assert sum(map(len, stopped)) >= num_tokens or stopped == everything


@given(corpus=corpora, num_sequences=st.integers(1, 10))
@settings(max_examples=30, deadline=None)
def test_stops_after_num_sequences(any_tokenizer, corpus, num_sequences):
    everything = ids(tokenize(corpus, any_tokenizer, 4, long_documents="split"))
    stopped = ids(tokenize(corpus, any_tokenizer, 4, long_documents="split", num_sequences=num_sequences))
    assert stopped == everything[:num_sequences]


def test_an_endless_stream_is_read_only_as_far_as_needed(bos_tokenizer):
    drawn = itertools.count()
    documents = ("a b" for _ in drawn)
    assert len(tokenize(documents, bos_tokenizer, num_tokens=30)) == 10
    assert next(drawn) <= tokenization.BATCH_DOCUMENTS + 1


def test_half_a_surrogate_pair_in_json_does_not_stop_the_run(tmp_path, tokenizers_by_kind):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "dog \\ud83d log"}\n{"text": "\\ud83d\\ude00"}\n')
    keys = dict.fromkeys(("dataset_config", "dataset_data_dir", "dataset_revision", "dataset_split"))
    config = DatasetConfig(dataset_name=str(path), text_column_name="text", **keys)
    tokenizer = tokenizers_by_kind["byte_level"]
    decoded = [tokenizer.decode(sequence) for sequence in ids(tokenize(read_documents(config), tokenizer))]
    assert decoded == ["dog \ufffd log", "\U0001f600"]


def test_max_length_must_leave_room_for_text(tokenizers_by_kind):
    with pytest.raises(StrataError, match=r"max_length=2 leaves no room for text: the tokenizer adds 2 tokens"):
        tokenize_documents(["a"], tokenizers_by_kind["bos_eos"], 2)


# --- chats ------------------------------------------------------------------------------------------------------------


def chat(*contents):
    return [{"role": role, "content": text} for role, text in zip(itertools.cycle(["user", "assistant"]), contents)]


def test_chat_is_rendered_by_the_template_with_one_bos(chat_tokenizer):
    (sequence,) = tokenize([chat("a", "b c")], chat_tokenizer)
    assert sequence.token_ids.tolist() == [BOS, USER, A, EOS, ASSISTANT, B, C, EOS]
    assert sequence.token_ids.tolist() == chat_tokenizer.apply_chat_template(chat("a", "b c"))["input_ids"]
    counted = [role == Keep.COUNTED for role in sequence.roles]
    assert counted == [False, False, True, False, False, True, True, False]
    assert sequence.roles[0] == Keep.BOS


def test_template_without_bos_gets_none(tokenizers_by_kind):
    tokenizer = tokenizers_by_kind["pad_is_eos"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "chat_template", "{% for m in messages %}{{ m.content }} {% endfor %}", raising=False)
        (sequence,) = tokenize([chat("a", "b")], tokenizer)
    assert sequence.token_ids.tolist() == [A, B]
    assert roles(sequence) == [Keep.FIRST, Keep.COUNTED]


def test_each_sequence_of_a_split_chat_begins_with_its_bos(chat_tokenizer):
    sequences = tokenize([chat("a", "b c")], chat_tokenizer, 4, long_documents="split")
    assert ids(sequences) == [[BOS, USER, A, EOS], [BOS, ASSISTANT, B, C], [BOS, EOS]]
    assert ids(tokenize([chat("a", "b c")], chat_tokenizer, 4)) == [[BOS, USER, A, EOS]]


def test_chats_and_texts_may_be_mixed(chat_tokenizer):
    counts = DocumentCounts()
    sequences = tokenize(["a", chat("b"), [], chat("", None), "c"], chat_tokenizer, counts=counts)
    assert ids(sequences) == [[BOS, A], [BOS, USER, B, EOS], [BOS, C]]
    assert [sequence.document for sequence in sequences] == [0, 1, 4]
    assert counts == DocumentCounts(read=5, empty=2)


def test_chat_without_a_template(bos_tokenizer):
    with pytest.raises(StrataError, match=r"document 1 is a chat, and the tokenizer has no chat template: choose"):
        tokenize(["a", chat("b")], bos_tokenizer)


def test_chat_that_the_template_refuses(chat_tokenizer):
    with pytest.raises(StrataError, match=r"document 0 does not fit the tokenizer's chat template: no robots"):
        tokenize([json.loads('[{"role": "robot", "content": "a"}]')], chat_tokenizer)


# --- identity ---------------------------------------------------------------------------------------------------------


def test_tokenizer_identity_sees_what_changes_ids_or_roles():
    def identity(template="<bos> $A", split=False, chat=None, **tokens):
        tokenizer = word_tokenizer(template, **{"bos_token": "<bos>", "eos_token": "<eos>"} | tokens)
        tokenizer.split_special_tokens = split
        tokenizer.chat_template = chat
        return tokenizer_identity(tokenizer)

    same = [identity(), identity()]
    others = [
        identity("<bos> $A <eos>"),
        identity(None),
        identity(bos_token="<user>"),  # the same ids, and another role for the first of them
        identity(eos_token="a"),
        identity(pad_token="b"),
        identity(split=True),
        identity(chat="{{ messages }}"),
    ]
    assert json.loads(json.dumps(same[0])) == same[0] == same[1]
    for left, right in itertools.combinations([same[0], *others], 2):
        assert left != right
