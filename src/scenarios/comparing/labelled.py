"""Do messages that are known to express a label show it?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.errors import StrataError
from src.scenarios.comparing.centring import centre, centred_cosines
from src.scenarios.comparing.directions import contrast_directions
from src.scenarios.comparing.pair_metrics import precise
from src.scenarios.comparing.randomisation import permutation_p, shuffled_spells
from src.scenarios.comparing.to_references import label_means, label_weights, reference_rows
from src.scenarios.comparing.turns import Turns, turns_of
from src.scenarios.states import RESIDUAL_SOURCES, Conversation, References

Centre = Literal["references", "conversation"]
# conversations that a bootstrap over conversations needs at least; below 20 its intervals are too narrow
FEWEST_CONVERSATIONS, FEW_CONVERSATIONS = 5, 20
_FEWEST_TURNS = 3
STATISTICS = ("accuracy", "auc", "excess")


@dataclass(frozen=True, eq=False)
class Tested:
    """A statistic at each layer. p: of the layer alone; p_corrected: for all layers and sources tested together.

    low, high: 95 % bootstrap interval over conversations, NaN with fewer than FEWEST_CONVERSATIONS.
    null_mean: with labels shuffled.
    """

    value: Float[Tensor, "layer"]
    low: Float[Tensor, "layer"]
    high: Float[Tensor, "layer"]
    null_mean: Float[Tensor, "layer"]
    p: Float[Tensor, "layer"]
    p_corrected: Float[Tensor, "layer"]


@dataclass(frozen=True, eq=False)
class SourceLabelled:
    """accuracy: share of messages whose nearest label (largest centred cosine) is their own; ties of k count 1/k.

    auc: for each label, the probability that a message of the label lies further along its direction (label - rest)
        than one of another label; mean over labels. low and high are NaN: it compares messages of all conversations.
    excess: projection on the own label's direction less the mean of those on the other labels', in units of the
        spread between reference texts; mean over messages.
    cosine, projection: of each message with each label.
    """

    accuracy: Tested
    auc: Tested
    excess: Tested
    cosine: Float[Tensor, "layer message label"]
    projection: Float[Tensor, "layer message label"]


@dataclass(frozen=True, eq=False)
class LabelledMessages:
    """Messages of one role, read at one position.

    messages: (name of the conversation, index of the message) of each. truth: index of its label.
    reason: why nothing could be tested. notes: what to keep in mind.
    """

    position: str
    role: str
    centre: Centre
    layers: tuple[int, ...]
    labels: list[str]
    messages: list[tuple[str, int]]
    truth: Int[Tensor, "message"]
    chance: float
    draws: int
    by_source: Mapping[str, SourceLabelled]
    reason: str | None
    notes: list[str]


def labelled_messages(
    conversations: Sequence[Conversation],
    references: References,
    position: str,
    sources: Sequence[str] = RESIDUAL_SOURCES,
    *,
    role: str = "user",
    centre_on: Centre = "references",
    draws: int = 999,
    seed: int = 0,
) -> LabelledMessages:
    """How well the states of labelled messages show their label, with directions from the references alone.

    A message shows its label also because its words are in the text that the state is made of.

    centre_on: what is subtracted from a message's state: the references' centre, or the mean of the other messages of
        the role in its conversation, which takes out what the conversation's length and manner have in common.
    Null: labels shuffled within each conversation, neighbours of one label as one (`shuffled_spells`). Neutral
    conversations and shuffled orders are left out.

    Raises StrataError if the position was not captured.
    """
    rows = reference_rows(references, position)
    labels = references.labels
    natural = [c for c in conversations if not c.control and c.order is None]
    turns = [turns_of(conversation, labels, role) for conversation in natural]
    fewest = _FEWEST_TURNS if centre_on == "conversation" else 1
    turns = [one for one in turns if len(one) >= fewest and any(label >= 0 for label in one.labels)]
    places = [(one, place) for one in turns for place, label in enumerate(one.labels) if label >= 0]
    truth = torch.tensor([one.labels[place] for one, place in places], dtype=torch.long)
    notes = [f"a state at a message's {position} has read the message: its own words may show the label"]
    reason, found = None, {}
    if len(labels) < 2:
        reason = "it takes reference states of two labels"
    elif len(set(truth.tolist())) < 2:
        reason = f"it takes {role} messages of two labels that are among the references' (label: in the scenario file)"
    else:
        shuffles = _shuffles(turns, draws, seed)
        boot = _conversation_weights(turns, draws, seed)
        if boot is None:
            notes.append(f"no intervals: fewer than {FEWEST_CONVERSATIONS} conversations; p is within conversations")
        elif len({one.family for one in turns}) < FEW_CONVERSATIONS:
            notes.append("few conversations: bootstrap intervals are too narrow")
        scored: dict[str, tuple[Tensor, Tensor]] = {}
        for source in sources:
            if source in rows and all(source in one.conversation.snapshot_rows for one in turns):
                scored[source] = _scores(turns, references, source, position, centre_on)
        values = {source: _statistics(*scores, shuffles) for source, scores in scored.items()}
        tests = {}
        for name in STATISTICS if values else ():
            stacked = torch.stack([statistics[name] for statistics in values.values()], 1)
            tests[name] = (stacked, *permutation_p(stacked[0], stacked[1:]))
        for place, (source, scores) in enumerate(scored.items()):
            replicates = {} if boot is None else _resampled(*scores, truth, boot)
            tested = {
                name: _tested(stacked[:, place], p[place], together[place], replicates.get(name))
                for name, (stacked, p, together) in tests.items()
            }
            found[source] = SourceLabelled(**tested, cosine=scores[0].float(), projection=scores[1].float())
    return LabelledMessages(
        position,
        role,
        centre_on,
        rows.layers,
        labels,
        [(one.conversation.name, one.messages[place]) for one, place in places],
        truth,
        1 / max(len(labels), 1),
        draws,
        found,
        reason,
        notes,
    )


def _scores(
    turns: Sequence[Turns], references: References, source: str, position: str, centre_on: Centre
) -> tuple[Float[Tensor, "layer message label"], Float[Tensor, "layer message label"]]:
    """Centred cosines with the labels' means, and projections on their directions, of all labelled turns."""
    layers, texts = references.rows[position].layers, precise(references.rows[position].get(source))
    middle = centre(references, texts)
    means = label_means(texts, label_weights(references, references.labels))
    directions = contrast_directions(layers, references, texts)
    cosines, projections = [], []
    for one in turns:
        if one.conversation.snapshot_rows.layers != layers:
            raise StrataError(f"{one.conversation.name} and the references have different layers: capture them alike")
        states = precise(one.states(source, position))
        if centre_on == "conversation":
            # the others' mean takes the place of the references' centre
            others = (states.sum(1, keepdim=True) - states) / (len(one) - 1)
            states = states - others + middle
        kept = [place for place, label in enumerate(one.labels) if label >= 0]
        # the statistics of some hundred numbers are made on the CPU
        cosines.append(centred_cosines(states, means, middle)[:, kept].double().cpu())
        projections.append(directions.project(states)[:, kept].double().cpu())
    return torch.cat(cosines, 1), torch.cat(projections, 1)


def _shuffles(turns: Sequence[Turns], draws: int, seed: int) -> Int[Tensor, "draw+1 message"]:
    generator = torch.Generator().manual_seed(seed)
    parts = [shuffled_spells(one.labels, draws, generator) for one in turns]
    return torch.cat([part[:, part[0] >= 0] for part in parts], 1)


def _conversation_weights(turns: Sequence[Turns], draws: int, seed: int) -> Float[Tensor, "draw message"] | None:
    """How often each message is drawn when conversations are drawn anew; None if there are too few."""
    families = {family: place for place, family in enumerate(dict.fromkeys(one.family for one in turns))}
    n = len(families)
    if n < FEWEST_CONVERSATIONS:
        return None
    drawn = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed + 1))
    counts = torch.zeros(draws, n).scatter_add_(1, drawn, torch.ones(draws, n))
    return counts[:, [families[one.family] for one in turns for label in one.labels if label >= 0]].double()


def _own_cells(
    cosine: Float[Tensor, "layer message label"], projection: Float[Tensor, "layer message label"]
) -> tuple[Float[Tensor, "layer message label"], Float[Tensor, "layer message label"]]:
    """What accuracy and excess are means of: a message's entry for the label that is held for its own."""
    n_labels = cosine.shape[-1]
    best = cosine >= cosine.max(-1, keepdim=True).values - 1e-9
    credit = best.to(cosine) / best.sum(-1, keepdim=True)
    excess = (projection - projection.mean(-1, keepdim=True)) * n_labels / (n_labels - 1)
    return credit.masked_fill(cosine.isnan().any(-1, keepdim=True), float("nan")), excess


def _statistics(
    cosine: Float[Tensor, "layer message label"],
    projection: Float[Tensor, "layer message label"],
    labellings: Int[Tensor, "labelling message"],
) -> dict[str, Float[Tensor, "labelling layer"]]:
    """All three statistics under every labelling: sums over the cells that it points to."""
    n_labels = cosine.shape[-1]
    member = torch.nn.functional.one_hot(labellings, n_labels).to(cosine)
    accuracy, excess = (
        torch.einsum("dml,vml->dv", member, cells) / member.shape[1] for cells in _own_cells(cosine, projection)
    )
    # Mann and Whitney: the rank sum of a label's messages
    below = projection[:, :, None] > projection[:, None]
    equal = projection[:, :, None] == projection[:, None]
    ranks = (below.sum(2) + (equal.sum(2) + 1) / 2).to(cosine)
    ranks = ranks.masked_fill(projection.isnan().any(1, keepdim=True), float("nan"))
    count = member.sum(1)[:, None]
    rest = member.shape[1] - count
    sums = torch.einsum("dml,vml->dvl", member, ranks)
    auc = (sums - count * (count + 1) / 2) / (count * rest)
    known = ((count > 0) & (rest > 0)).expand_as(auc)
    auc = torch.where(known, auc, 0.0).sum(-1) / known.sum(-1)
    return {"accuracy": accuracy, "auc": auc, "excess": excess}


def _resampled(
    cosine: Float[Tensor, "layer message label"],
    projection: Float[Tensor, "layer message label"],
    truth: Int[Tensor, "message"],
    weights: Float[Tensor, "draw message"],
) -> dict[str, Float[Tensor, "draw layer"]]:
    """Accuracy and excess with conversations drawn anew."""
    own = truth[None, :, None].expand(len(cosine), -1, 1)
    cells = [cells.gather(-1, own)[..., 0] for cells in _own_cells(cosine, projection)]
    weights = weights.to(cosine)
    accuracy, excess = (weights @ one.mT / weights.sum(1, keepdim=True) for one in cells)
    return {"accuracy": accuracy, "excess": excess}


def _tested(
    values: Float[Tensor, "labelling layer"],
    p: Float[Tensor, "layer"],
    together: Float[Tensor, "layer"],
    replicates: Float[Tensor, "draw layer"] | None,
) -> Tested:
    if replicates is None:
        low = high = torch.full_like(values[0], float("nan"))
    else:
        low, high = replicates.quantile(torch.tensor([0.025, 0.975]).to(replicates), dim=0)
    return Tested(values[0].float(), low.float(), high.float(), values[1:].mean(0).float(), p, together)
