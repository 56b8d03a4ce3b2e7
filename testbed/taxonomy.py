"""The kinds of the testbed's language as a JSON taxonomy (docs/artifacts.md), with definitions in its own words."""

from __future__ import annotations

from testbed.lexicon import KIND_OF, PARENT, PART, ancestors, article

TOP = "thing"
# as coarse as WordNet's lexicographer files: what a member is, above its kind
CLASSES = ("animal", "plant", "artefact")


def as_taxonomy() -> dict[str, object]:
    """What `taxonomy.json` holds: 90 members, 15 kinds and the five above them."""
    senses: dict[str, object] = {TOP: {"class": TOP}}
    for noun, parent in (PARENT | KIND_OF).items():
        above = [noun, *ancestors(noun)]
        part = PART.get(noun) or PART.get(parent)
        senses[noun] = {
            "parents": [parent],
            "class": next((kind for kind in above if kind in CLASSES), TOP),
            "definition": f"{article(parent)} that has {part}" if part else f"a kind of {parent}",
        }
    return {"name": "testbed", "senses": senses}
