"""measure_geometry.py analysis=lexicon."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from src.config.schema import Schema

WordRepresentation = Literal["static", "carrier", "contexts", "definition_mean", "definition_last"]


class LexiconConfig(Schema):
    """Cosines of words against their distances in a taxonomy (lexicon.*)."""

    taxonomy: str = Field(
        min_length=1,
        description="a JSON taxonomy, a folder of WordNet's database files, or wordnet = where this machine has them",
    )
    pos: Literal["n", "v"] = Field(description="n = nouns, v = verbs; nothing connects the two, so they are not mixed")
    sense: Literal["frequent", "any"] = Field(
        description="what a word means: its most frequent sense, or any (the least distance over pairs of senses)"
    )
    min_count: int = Field(ge=0, description="least count of a word's sense in the taxonomy's tagged text")
    max_words: Annotated[int, Field(ge=8)] | None = Field(
        description="words at most, the most frequent ones; null = all that match"
    )
    representations: list[WordRepresentation] = Field(
        min_length=1,
        description="static (embedding rows), carrier (the word's tokens in a carrier sentence), contexts (the same in "
        "running text), definition_mean and definition_last (tokens of its definition)",
    )
    layers: Literal["all"] | list[Annotated[int, Field(ge=0)]] = Field(
        description="layers whose resid_post is read, in one forward pass; all, or a list"
    )
    carriers: list[str] = Field(min_length=1, description="sentences with {word} in them; averaged if several")
    definition_template: str = Field(description="text around {definition}, which is read and not averaged")
    contexts: int = Field(ge=1, description="occurrences of each word at most")
    documents: Annotated[int, Field(ge=1)] | None = Field(
        description="documents of the dataset that are searched for contexts; null = all"
    )
    activations: str | None = Field(
        min_length=1, description="name or path of a store: contexts are read from it, and not from the dataset"
    )
    max_length: int = Field(ge=2, description="tokens of a text at most")
    batch_size: int = Field(ge=1, description="texts in one forward pass")
    transform: Literal["raw", "centred", "whitened"] = Field(
        description="before cosines: nothing, the words' mean removed, or also equal variance in all directions"
    )
    permutations: int = Field(ge=19, description="of words, for the Mantel test; the smallest p is 1 / (this + 1)")
    class_permutations: int = Field(ge=19, description="of class labels, for each layer")
    min_class: int = Field(ge=2, description="words that a class must have")
    neighbours: int = Field(ge=1, description="nearest words whose classes are compared")
    seeds: int = Field(
        ge=0, description="repeat on parts of the words as the published notebook does (it: 50); 0 = don't"
    )

    @model_validator(mode="after")
    def _placeholders(self) -> "LexiconConfig":
        if any("{word}" not in carrier for carrier in self.carriers):
            raise ValueError("carriers: each needs {word} in it")
        if "{definition}" not in self.definition_template:
            raise ValueError("definition_template: needs {definition} in it")
        return self
