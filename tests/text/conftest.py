"""Small tokenizers, one for each way in which real ones treat special tokens."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

WORDS = ["a", "b", "c", "d", "e"]
SPECIALS = ["<pad>", "<unk>", "<bos>", "<eos>", "<user>", "<assistant>"]
VOCABULARY = {word: i for i, word in enumerate([*SPECIALS, *WORDS])}


def word_tokenizer(template: str | None, **tokens: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template is not None:
        used = [(word, VOCABULARY[word]) for word in template.split() if word in VOCABULARY]
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **tokens)


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the cat sat on the mat, and the dog sat on the log"] * 4, trainer)
    # like gpt2: one token is BOS, EOS and UNK at once, and none of it is added to text
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end, unk_token=end)


TOKENIZERS = {
    "bos": word_tokenizer("<bos> $A", bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"),
    "bos_eos": word_tokenizer("<bos> $A <eos>", bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"),
    "pad_is_eos": word_tokenizer("<bos> $A", bos_token="<bos>", eos_token="<eos>", pad_token="<eos>"),
    "no_bos": word_tokenizer(None, eos_token="<eos>"),
    "cls_sep": word_tokenizer("<user> $A <assistant>", cls_token="<user>", sep_token="<assistant>"),
    "byte_level": byte_level_tokenizer(),
}


@pytest.fixture(scope="session", params=sorted(TOKENIZERS))
def any_tokenizer(request):
    return TOKENIZERS[request.param]


@pytest.fixture(scope="session")
def bos_tokenizer():
    return TOKENIZERS["bos"]


@pytest.fixture(scope="session")
def tokenizers_by_kind():
    return TOKENIZERS


@pytest.fixture(scope="session")
def chat_tokenizer():
    tokenizer = word_tokenizer(
        "<bos> $A", bos_token="<bos>", eos_token="<eos>", additional_special_tokens=["<user>", "<assistant>"]
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message.role == 'robot' %}{{ raise_exception('no robots') }}{% endif %}"
        "<{{ message.role }}> {{ message.content }} {{ eos_token }}{% endfor %}"
    )
    return tokenizer
