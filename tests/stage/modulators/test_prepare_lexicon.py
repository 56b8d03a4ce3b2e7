"""The words of lexicon.* of the testbed."""

from src.config.modulators.modulator import AnchorsConfig
from src.config.shared import ModelConfig
from src.models.loading import load_tokenizer
from src.stage.modulators.lexicon import Lexicon, prepare_lexicon
from tests.fixtures.tiny_models import model_config

_MODEL = model_config(path="testbed/models/base", name="testbed")


def _prepare(model: ModelConfig, held_out: float = 0.3, seed: int = 0) -> Lexicon:
    config = AnchorsConfig(
        taxonomy="testbed/taxonomy.json",
        pos="n",
        similarity="wu_palmer",
        max_anchors=60,
        held_out=held_out,
        neighbours=5,
        temperature=10.0,
    )
    return prepare_lexicon(config, model, seed)


def test_words_stand_for_their_tokens() -> None:
    found, tokenizer = _prepare(_MODEL), load_tokenizer(_MODEL)
    assert (len(found.split.anchors), len(found.split.evaluated), len(found.split.others)) == (60, 33, 17)
    for word in found.split.words:
        assert tokenizer.decode(list(word.token_ids)).strip() == word.text
        assert word.text in {lemma.lower() for lemma in found.taxonomy.lemmas[word.senses[0]]}


def test_the_digest_names_the_words() -> None:
    first = _prepare(_MODEL)
    assert first.digest == _prepare(_MODEL).digest
    assert first.digest != _prepare(_MODEL, seed=1).digest
    assert first.digest != _prepare(_MODEL, held_out=0.4).digest
