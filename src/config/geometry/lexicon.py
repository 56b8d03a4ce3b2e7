"""measure_geometry.py analysis=lexicon."""

from pydantic import Field

from src.config.schema import Schema


class LexiconConfig(Schema):
    """Cosines of words against their distances in a taxonomy (lexicon.*)."""

    taxonomy: str = Field(
        min_length=1,
        description="a JSON taxonomy, a folder of WordNet's database files, or wordnet = where this machine has them",
    )
