"""Which modulator, and how it begins (configs/modulator/)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from src.config.schema import Schema
from src.config.stages import Layers

Share = Annotated[float, Field(gt=0, lt=1)]
Init = Literal["random", "simplices", "relational", "lexicon"]


class ResidualConfig(Schema):
    """modulator.residual.*: r' = (1 - alpha) r + alpha target(token)."""

    width: int = Field(
        ge=2, description="dimensions of a token's vector (of a field with init=lexicon: directions that experts read)"
    )
    per_layer: bool = Field(description="each layer has a strength of its own; false = one for all")
    match_norms: bool = Field(description="targets take the length of the residual stream that they are mixed with")
    train_table: bool = Field(description="tokens' vectors are trained too; false = only projection and strengths")


class FieldConfig(Schema):
    """modulator.field.*: the residual stream places simplices, whose shapes gate it."""

    dimensions: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(
        description="k of each expert's simplices"
    )
    width: int = Field(ge=1, description="dimensions of the space in which simplices lie, at least the largest k")
    lowest: Share = Field(description="what a strength can't fall below")
    highest: Share = Field(description="what a strength can't exceed")
    null_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="share of the residual stream's dimensions that is never touched"
    )
    null_place: Literal["tail", "random"] = Field(description="which ones: the last, or drawn with the seed")
    deformation: Annotated[float, Field(gt=0)] = Field(
        description="how far a unit of an expert's output moves a vertex"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if max(self.dimensions) > self.width:
            raise ValueError(f"a simplex of dimension {max(self.dimensions)} does not fit into width={self.width}")
        if self.lowest >= self.highest:
            raise ValueError(f"lowest={self.lowest:g} is not below highest={self.highest:g}")
        return self


class ModulatorConfig(Schema):
    """The modulator (modulator.*)."""

    kind: Literal["residual", "field"] = Field(description="residual = tokens' vectors mixed in; field = simplex gates")
    init: Init = Field(
        description="where it begins: random; simplices = tokens' vectors from simplices of embeddings; relational = "
        "from the taxonomy's similarities; lexicon = these, turned onto the residual stream by Procrustes on anchors. "
        "field: random or lexicon (what its experts read)"
    )
    layers: Layers = Field(description="before whose blocks it stands")
    alpha: Share = Field(description="strength at the start")
    residual: ResidualConfig
    field: FieldConfig

    @model_validator(mode="after")
    def _begins(self) -> Self:
        if self.kind == "field":
            if self.init not in ("random", "lexicon"):
                raise ValueError(f"modulator.init={self.init} is for modulator=residual; of field: random or lexicon")
            if not self.field.lowest < self.alpha < self.field.highest:
                raise ValueError(
                    f"modulator.alpha={self.alpha:g} is not between modulator.field.lowest={self.field.lowest:g} and "
                    f"highest={self.field.highest:g}"
                )
        return self


class AnchorsConfig(Schema):
    """lexicon.*: the words whose relations tokens' vectors are made from."""

    taxonomy: str = Field(min_length=1, description="a JSON taxonomy, or wordnet, or a folder of WordNet's database")
    pos: Literal["n", "v"] = Field(description="nouns or verbs: only they have a hierarchy")
    similarity: Literal["wu_palmer", "path"] = Field(description="of words in the taxonomy")
    max_anchors: int = Field(ge=8, description="words drawn as anchors at most")
    held_out: Share = Field(
        description="share of the matched words, whole synsets, that evaluation is on: no part in the vectors"
    )
    neighbours: int = Field(ge=1, description="anchors that the vector of another token is interpolated from")
    temperature: Annotated[float, Field(gt=0)] = Field(description="weights of neighbours: softmax(cosine times this)")
