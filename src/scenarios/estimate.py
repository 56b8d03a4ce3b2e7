"""What a scenario costs, told before it is run: tokens that are read, and bytes on the disk.

Bytes are counted as the run folder keeps them: residual sources in float32 (of preset full's tokens in store_dtype),
all else in store_dtype, attention without the keys that follow a token. A model that has no gate in its MLPs, or lets
end tokens come early, needs less.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from src.models.sizes import ModelSizes
from src.scenarios.capturing.places import Wanted, find_places
from src.scenarios.capturing.templates import Script
from src.scenarios.scenario import CaptureSettings
from src.scenarios.states import kept_resid_pre

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# of a step in JSON: by itself, and for each of its likeliest tokens
_STEP_JSON, _TOKEN_JSON = 260, 55
# of a message and of a token in JSON
_MESSAGE_JSON, _ID_JSON = 200, 18
# about what is read behind a reply: its last token, the end of the message, a header
_TAIL = 4


@dataclass(frozen=True)
class Cost:
    """What one item costs.

    tokens_read: that go through the model, new ones included. tokens_by_prefix: that would, if every state had a pass
    of its own. n_bytes: states by part (messages, steps, tokens, references), and text (JSON, roughly).
    """

    tokens_read: int
    tokens_by_prefix: int
    n_bytes: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.n_bytes.values())


def conversation_cost(
    script: Script, afters: Sequence[int], max_new_tokens: int, sizes: ModelSizes, capture: CaptureSettings
) -> Cost:
    """The cost of one conversation. afters: after how many messages the model goes on, for each of its runs."""
    states, tokens_by_prefix, read_in_branches = _message_states(script, capture)
    starts = [len(script.answers[after - 1] or script.ids) for after in afters]
    n_whole = len(script.ids)
    parts = {"messages": _row_bytes(sizes, capture, states)}
    json = _MESSAGE_JSON * (len(script.ends) + len(afters)) + _ID_JSON * (n_whole + sum(starts) // 3)
    if afters:
        of_steps = [start + step for start in starts for step in range(max_new_tokens)]
        parts["steps"] = _row_bytes(sizes, capture, of_steps)
        json += len(of_steps) * (_STEP_JSON + _TOKEN_JSON * capture.top_k_probs)
        if capture.preset != "last_token":
            ends = [start + max_new_tokens for start in starts for _ in capture.positions]
            parts["messages"] += _row_bytes(sizes, capture, ends)
            tokens_by_prefix += _passes(capture) * sum(start + max_new_tokens for start in starts)
            read_in_branches += _TAIL * len(starts)
    if capture.preset == "full":
        parts["tokens"] = _row_bytes(sizes, capture, range(1, n_whole + 1), exact=False, logits=False)
    new = len(afters) * (max_new_tokens - 1)  # the last token is not read
    return Cost(
        n_whole + read_in_branches + new, tokens_by_prefix + (sum(starts) or n_whole) + new, parts | {"text": json}
    )


def references_cost(lengths: Sequence[int], sizes: ModelSizes, capture: CaptureSettings) -> Cost:
    """The cost of reference texts of so many tokens."""
    rows = [length for length in lengths for _ in capture.positions]
    parts = {"references": _row_bytes(sizes, capture, rows), "text": _MESSAGE_JSON * len(lengths)}
    return Cost(sum(lengths), _passes(capture) * sum(lengths), parts)


def _passes(capture: CaptureSettings) -> int:
    """Passes that the positions of one message take, where each prefix has a pass of its own."""
    return ("answer" in capture.positions) + bool({"end", "mean"} & set(capture.positions))


def _message_states(script: Script, capture: CaptureSettings) -> tuple[list[int], int, int]:
    """Keys that each state of a message sees; tokens of a pass for each; tokens of the branches that do instead."""
    if capture.preset == "last_token":
        return [], 0, 0
    places = [(message, position) for message in range(len(script.ends)) for position in capture.positions]
    wanted = [state for place in places if (state := script.wanted(*place)) is not None]
    passes = {tuple(state.ids) for state in wanted}
    branches = find_places(script.ids, [Wanted(list(ids)) for ids in passes], causal=True, cached=True)[1]
    return [len(state.ids) for state in wanted], sum(map(len, passes)), sum(len(branch.ids) for branch in branches)


def _row_bytes(
    sizes: ModelSizes, capture: CaptureSettings, n_keys: Sequence[int], *, exact: bool = True, logits: bool = True
) -> int:
    """Bytes of rows that see so many keys each."""
    layers = list(range(sizes.n_layers)) if capture.layers == "all" else sorted(capture.layers)
    size, n_rows = _BYTES[capture.store_dtype], len(n_keys)
    total = 0
    if capture.hidden_states:
        total += (3 * len(layers) + len(kept_resid_pre(layers))) * sizes.d_model * (4 if exact else size) * n_rows
    if capture.qkv:
        total += len(layers) * (sizes.d_query + 2 * sizes.d_key) * size * n_rows
    if capture.mlp:
        total += len(layers) * 3 * sizes.d_mlp * size * n_rows
    if capture.attention_weights:
        total += len(layers) * sizes.n_heads * size * sum(n_keys) + 8 * n_rows  # and how many keys each row has
    if capture.logits and logits:
        total += sizes.d_vocab * size * n_rows
    return total
