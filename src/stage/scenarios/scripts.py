"""Conversations and reference texts of a scenario as token ids, and what can be told of them without a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.errors import StrataError
from src.models import positions_in_config
from src.scenarios.capturing.templates import Renderer, Script, write_script
from src.scenarios.scenario import Message
from src.stage.scenarios.planning import PlannedScenario


@dataclass(frozen=True)
class Scripts:
    """conversations: by name. references: by label, one for each of its texts."""

    conversations: dict[str, Script]
    references: dict[str, list[Script]]


def write_scripts(planned: PlannedScenario) -> Scripts:
    """Render all of a scenario.

    Raises:
        StrataError: the template does not take a conversation, or a text is longer than the model can read.
    """
    renderer, scenario = Renderer(planned.tokenizer), planned.scenario
    keeps_snapshots = scenario.capture.preset != "last_token"
    conversations = {
        name: write_script(renderer, prompt.messages, name, keeps_snapshots or prompt.run_at_each_message)
        for name, prompt in zip(scenario.prompt_names, scenario.prompt, strict=True)
    }
    references = {
        state.label: [
            write_script(renderer, messages, f"reference state {state.label}", keep_all=False)
            for messages in state.conversations
        ]
        for state in scenario.reference_states
    }
    longest = positions_in_config(planned.model)
    if longest is not None:
        _refuse_long(planned, conversations, references, longest)
    return Scripts(conversations, references)


def _refuse_long(
    planned: PlannedScenario, conversations: dict[str, Script], references: dict[str, list[Script]], longest: int
) -> None:
    new = planned.scenario.generation.max_new_tokens
    for name, script in conversations.items():
        length = len(script.ids)
        if length + new - 1 > longest:  # the last token is generated and not read
            room = longest + 1 - length
            remedy = f"generation.max_new_tokens={room}" if room > 0 else "leave messages out"
            raise StrataError(
                f"{name} has {length} tokens, and up to {new} are generated, but {planned.model.name} was made for "
                f"{longest}: {remedy}"
            )
    for label, scripts in references.items():
        length = max(len(script.ids) for script in scripts)
        if length > longest:
            raise StrataError(
                f"a text of reference state {label} has {length} tokens, and {planned.model.name} was made for {longest}"
            )


def peculiarities(name: str, messages: Sequence[Message], script: Script) -> list[str]:
    """What its reader should know of how a template writes a conversation; nothing of the usual kind."""
    found = [f"{name}: {key}: {value}" for key, value in script.notes.items() if key != "left_out"]
    reasons = script.notes.get("left_out", [])
    assert isinstance(reasons, list)
    found += [f"{name}: left out: {reason}" for reason in reasons]
    apart = [
        f"{index} ({message.role})"
        for index, (message, end, place) in enumerate(zip(messages, script.ends, script.message_ends, strict=False))
        if end is not None and place < 0
    ]
    if apart:
        found.append(
            f"{name}: the template writes the beginning up to message {', '.join(apart)} otherwise in the whole "
            "conversation (it is not prefix-stable): such snapshots are of the beginning alone, each in a pass of its own"
        )
    return found
