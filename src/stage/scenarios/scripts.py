"""Conversations and reference texts of a scenario as token ids: what can be told of them without a model."""

from dataclasses import dataclass

from src.errors import StrataError
from src.models import positions_in_config
from src.scenarios.capturing.capture import Reading, readings_of
from src.scenarios.capturing.templates import Renderer, Script, TemplateRefusal, write_script
from src.scenarios.scenario import Scenario
from src.stage.scenarios.planning import PlannedScenario


@dataclass(frozen=True)
class ScriptedReading:
    """A conversation in one order of its turns, as token ids."""

    reading: Reading
    script: Script

    @property
    def row(self) -> str:
        """Where tables tell of it: all random orders of a conversation have one row."""
        name = self.reading.name
        return name if self.reading.order is None else f"{name.rpartition('_order_')[0]}, other orders"

    @property
    def afters(self) -> list[int]:
        """After how many messages the model goes on, for each of its runs."""
        if not self.reading.generate:
            return []
        n = len(self.reading.prompt.messages)
        at_each = self.reading.prompt.run_at_each_message
        return [after for after in range(1, n + 1) if self.script.answers[after - 1]] if at_each else [n]

    @property
    def n_runs(self) -> int:
        """How many times the model goes on with it."""
        return len(self.afters)

    @property
    def read_apart(self) -> list[int]:
        """Messages up to which the template writes the beginning otherwise in the whole conversation."""
        ends = zip(self.script.ends, self.script.message_ends, strict=True)
        return [index for index, (end, place) in enumerate(ends) if end is not None and place < 0]


@dataclass(frozen=True)
class Scripts:
    """All that is read. references: by label, the number of tokens of each text."""

    conversations: list[ScriptedReading]
    references: dict[str, list[int]]


def write_scripts(planned: PlannedScenario, seed: int) -> Scripts:
    """Render all of a scenario. seed: of random orders.

    Raises:
        StrataError: the template does not take a conversation, a text is longer than the model can read, or two
            conversations have one name.
    """
    renderer, scenario = Renderer(planned.tokenizer), planned.scenario
    conversations = [
        ScriptedReading(reading, write_script(renderer, reading.prompt.messages, reading.name))
        for reading in all_readings(scenario, seed)
    ]
    references = _reference_lengths(renderer, scenario)
    longest = positions_in_config(planned.model)
    if longest is not None:
        _refuse_long(planned, conversations, references, longest)
    return Scripts(conversations, references)


def all_readings(scenario: Scenario, seed: int) -> list[Reading]:
    """Every conversation that is read; seed: of random orders. Raises StrataError if two have one name."""
    prompts = zip(scenario.prompt, scenario.prompt_names, strict=True)
    readings = [reading for prompt, name in prompts for reading in readings_of(prompt, name, seed)]
    names = [reading.name for reading in readings]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise StrataError(f"prompt.name: {', '.join(doubles)} is also the name of a random order: choose another name")
    return readings


def _reference_lengths(renderer: Renderer, scenario: Scenario) -> dict[str, list[int]]:
    header = "answer" in scenario.capture.positions
    lengths: dict[str, list[int]] = {}
    for state in scenario.reference_states:
        try:
            lengths[state.label] = [len(renderer.ids(messages, header)) for messages in state.conversations]
        except TemplateRefusal as refusal:
            raise StrataError(
                f"reference state {state.label!r}: the chat template of the model does not take this text ({refusal}): "
                "change its roles, or choose another model"
            ) from None
    return lengths


def _refuse_long(
    planned: PlannedScenario, conversations: list[ScriptedReading], references: dict[str, list[int]], longest: int
) -> None:
    for scripted in conversations:
        length = len(scripted.script.ids)
        new = planned.scenario.generation.max_new_tokens if scripted.n_runs else 1
        if length + new - 1 > longest:  # the last token is generated, and not read
            room = longest + 1 - length
            remedy = f"generation.max_new_tokens={room}" if room > 0 else "leave messages out"
            raise StrataError(
                f"{scripted.reading.name} has {length} tokens, and up to {new} are generated, but "
                f"{planned.model.name} was made for {longest}: {remedy}"
            )
    for label, lengths in references.items():
        if max(lengths) > longest:
            raise StrataError(
                f"a text of reference state {label!r} has {max(lengths)} tokens, and {planned.model.name} was made for "
                f"{longest}: leave messages out"
            )
