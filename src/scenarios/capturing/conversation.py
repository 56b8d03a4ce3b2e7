"""One conversation of a scenario: read, gone on with, its states kept."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.models import LanguageModel
from src.scenarios.capturing.arrays import Arrays, joined, picked
from src.scenarios.capturing.decoding import Continued, Decoder, TokenNames
from src.scenarios.capturing.keeping import Keeper
from src.scenarios.capturing.passes import Reader
from src.scenarios.capturing.places import Branch, Place, Wanted, find_places
from src.scenarios.capturing.reading import ReadConversation, in_order, read_branches, read_conversation
from src.scenarios.capturing.templates import (
    Renderer,
    Script,
    TemplateRefusal,
    left_out,
    readable,
    wanted_state,
    write_script,
)
from src.scenarios.scenario import CaptureSettings, GenerationSettings, Prompt
from src.scenarios.states import LOGITS, Conversation, Generation, Rows, Snapshot, SpokenMessage, Step

# tokens that a template puts after a reply, to make room for
_TAIL = 16


def capture_conversation(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    prompt: Prompt,
    generation: GenerationSettings,
    capture: CaptureSettings,
    *,
    order: list[int] | None = None,
    generate: bool = True,
    on_steps: Callable[[int, list[Step]], None] | None = None,
) -> Conversation:
    """One conversation, read once, with the model's own continuation (one after each message if the prompt says so).

    Generations go on from the keys and values of that pass; the states of messages are those that a pass over each
    beginning of the conversation of its own would give, to rounding. Where a model can't do that (state-space models,
    texts beyond what its positions scale to), or a template writes a beginning otherwise than the whole, such passes
    are run. What could not be captured is in `notes`: left_out (beginnings that the template refuses), not_offered
    (sources), not_finite (counts of values by source and layer), kept_in_float32 (too large for capture.store_dtype),
    and fields of generation_config that shaped which tokens were chosen.

    order: of its turns, if they were shuffled; it is only noted. generate: false reads the conversation alone.
    on_steps: is told the number of a generation and steps of it, a chunk at a time, while it runs.

    Raises:
        StrataError: layers that the model does not have, a model without a vocabulary head, a conversation that the
            template refuses or that has no token, a pass that fails, nothing finite to sample from.
    """
    renderer, names = Renderer(tokenizer), TokenNames(tokenizer)
    spoken = [SpokenMessage(message.role, readable(message.content), message.label) for message in prompt.messages]
    script = write_script(renderer, spoken, name)
    with Reader(model, capture) as reader:
        work = _Work(reader, renderer, Decoder(reader, tokenizer, names, generation, capture), spoken, script, capture)
        afters = work.afters(prompt.run_at_each_message) if generate else []
        made, tokens = work.run(afters, on_steps)
        notes = {**script.notes, **reader.notes}
    replies = [SpokenMessage("assistant", one.text, generated=True) for one in made]
    return Conversation(
        name=name,
        messages=[*spoken, *replies],
        token_ids=script.ids,
        tokens=names.of(script.ids),
        message_ends=script.message_ends,
        snapshots=work.snapshots,
        snapshot_rows=work.keeper.rows(),
        generations=made,
        token_rows=tokens,
        control=prompt.control,
        order=order,
        notes=notes,
    )


@dataclass(frozen=True, eq=False)
class _Work:
    reader: Reader
    renderer: Renderer
    decoder: Decoder
    spoken: list[SpokenMessage]
    script: Script
    capture: CaptureSettings
    snapshots: list[Snapshot] = field(default_factory=list)
    keeper: Keeper = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keeper", self._keeper(exact=True))

    def afters(self, at_each: bool) -> list[int]:
        """After how many messages the model goes on."""
        n = len(self.spoken)
        return [after for after in range(1, n + 1) if self.script.answers[after - 1]] if at_each else [n]

    def run(
        self, afters: list[int], on_steps: Callable[[int, list[Step]], None] | None
    ) -> tuple[list[Generation], Rows | None]:
        """The generations, and the states of every token under preset full; snapshots are left in `keeper`."""
        reader, n = self.reader, len(self.spoken)
        wanted = self._of_messages()
        starts = [Wanted(self.script.answers[after - 1] or self.script.ids) for after in afters]
        every_token = self._keeper(exact=False) if self.capture.preset == "full" else None
        room = self.decoder.settings.max_new_tokens + _TAIL if afters else 0
        read = read_conversation(reader, self.script.ids, [*wanted, *starts], room, every_token)
        made, replies = [], []
        last = _Reply([], [])
        for number, after in enumerate(afters):
            start, cache = read.begin(reader, len(wanted) + number, room, number == len(afters) - 1)
            hear = None if on_steps is None else partial(on_steps, number)
            found = self.decoder.go_on(starts[number].ids, start, cache, after, self.script.notes, hear)
            made.append(found.generation)
            reply = self._reply(found, after, n + number)
            if cache is not None and cache is read.cache:
                last = reply  # is read together with the branches of messages
            else:
                replies.append(read_branches(reader, cache, reply.branches, reply.places))
        self._keep(self._snapshots(read, len(wanted), last, replies))
        self.keeper.note(self.script.notes, "snapshots")
        if every_token is not None:
            every_token.note(self.script.notes, "tokens")
        return made, None if every_token is None else every_token.rows()

    def _snapshots(self, read: ReadConversation, n_wanted: int, last: "_Reply", replies: list[Arrays]) -> Arrays:
        """The rows of all snapshots, in order: of messages, of replies, of the reply that the main cache goes on to."""
        places = read.places[:n_wanted]
        of_reply = [replace(place, branch=len(read.branches) + (place.branch or 0)) for place in last.places]
        branches, branched = [*read.branches, *last.branches], [*places, *of_reply]
        n_main, n_places = sum(place.branch is None for place in places), len(places)
        found = read_branches(self.reader, read.cache, branches, branched)
        n_branched = n_places - n_main
        messages = in_order(picked(read.states, range(n_main)), picked(found, range(n_branched)), places)
        return joined([messages, *replies, picked(found, range(n_branched, n_branched + len(of_reply)))])

    def _of_messages(self) -> list[Wanted]:
        """The states of the conversation's own messages; `snapshots` tells which is which."""
        if self.capture.preset == "last_token":
            return []
        found = []
        for message in range(len(self.spoken)):
            for position in self.capture.positions:
                state = self.script.wanted(message, position)
                if state is not None:
                    self._note_snapshot(message, position, state)
                    found.append(state)
        return found

    def _reply(self, made: Continued, after: int, message: int) -> "_Reply":
        """Where the states of the model's own reply are, behind the tokens of its generation."""
        wanted = []
        if self.capture.preset != "last_token":
            end, answer = self._reply_ids(made, after)
            for position in self.capture.positions:
                state = wanted_state(end, answer, self.script.ends[after - 1], position)
                if state is not None:
                    self._note_snapshot(message, position, state)
                    wanted.append(state)
        if not wanted:
            return _Reply([], [])
        n_cached = min(len(made.read), *(len(state.ids) - 1 for state in wanted))  # so that all are in branches
        places, branches = find_places(made.read, wanted, self.reader.known.causal, made.cache is not None, n_cached)
        return _Reply(places, branches)

    def _reply_ids(self, made: Continued, after: int) -> tuple[list[int] | None, list[int] | None]:
        """The tokens up to the end of a reply, and with the header behind it."""
        generation = made.generation
        if self.renderer.plain:  # nothing stands between the conversation and what the model adds to it
            n_said = len(generation.token_ids) - generation.ended
            said = [*made.read, generation.token_ids[-1]][: len(made.read) + 1 - generation.ended]
            assert len(said) == len(made.read) + 1 - len(generation.token_ids) + n_said
            return said, said
        messages = [*self.spoken[:after], SpokenMessage("assistant", generation.text, generated=True)]
        found: list[list[int] | None] = []
        for header in (False, True):
            try:
                found.append(self.renderer.ids(messages, header) or None)
            except TemplateRefusal as refusal:
                found.append(None)
                what = "a header for an answer after " if header else ""
                left_out(
                    self.script.notes, f"the template refuses {what}the reply after messages 0..{after - 1} ({refusal})"
                )
        return found[0], found[1]

    def _note_snapshot(self, message: int, position: str, state: Wanted) -> None:
        token = None if position == "mean" else len(state.ids) - 1
        self.snapshots.append(Snapshot(message, position, token))

    def _keep(self, states: Arrays) -> None:
        self.keeper.add({name: array for name, array in states.items() if name != LOGITS or self.capture.logits})

    def _keeper(self, exact: bool) -> Keeper:
        return Keeper(self.reader.layers, getattr(torch, self.capture.store_dtype), exact)


@dataclass(frozen=True)
class _Reply:
    """Where the states of a reply are, behind what was read for its generation."""

    places: list[Place]
    branches: list[Branch]
