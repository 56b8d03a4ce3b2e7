"""What capturing has noticed of a conversation, in words."""

from collections.abc import Iterable, Mapping

from src.report.token_text import one_line

_NAMED = 3  # conversations that a note is told of
_LONGEST = 1000  # characters


def note_lines(notes: Mapping[str, Mapping[str, object]]) -> list[str]:
    """One line for each thing that was noticed, with the conversations that it was noticed of.

    notes: `Conversation.notes` by name of the conversation.
    """
    names: dict[str, list[str]] = {}
    for name, found in notes.items():
        for line in _lines(found):
            names.setdefault(line, []).append(name)
    # a template's refusal may quote a message
    return [one_line(f"{_listed(of)}: {line}", _LONGEST) for line, of in names.items()]


def _lines(notes: Mapping[str, object]) -> Iterable[str]:
    for key, value in notes.items():
        if key == "left_out" and isinstance(value, list):
            yield from (f"snapshots left out: {reason}" for reason in value)
        elif key == "not_offered" and isinstance(value, Mapping):
            # that an MLP has no gate is its shape and no loss
            missing = {source: reason for source, reason in value.items() if source != "mlp_gate" or len(value) > 1}
            yield from (f"the model does not offer {source}: {reason}" for source, reason in missing.items())
        elif key == "not_finite" and isinstance(value, Mapping):
            yield from (f"values that are not finite, {where}: {_counts(found)}" for where, found in value.items())
        elif key == "kept_in_float32" and isinstance(value, Mapping):
            for where, sources in value.items():
                yield f"too large for capture.store_dtype, so kept in float32, {where}: {', '.join(map(str, sources))}"
        else:
            yield f"{key}: {value}"


def _counts(found: object) -> str:
    """Numbers of values by source and layer, in words."""
    assert isinstance(found, Mapping)
    return "; ".join(
        f"{source} at layer {', '.join(f'{layer} ({count:,})' for layer, count in layers.items())}"
        for source, layers in found.items()
    )


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
