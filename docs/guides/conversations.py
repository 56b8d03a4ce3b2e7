"""The tables and figures of the guide "What a conversation leaves in a model's states".

  python docs/guides/conversations.py artifacts/scenario_run/talks artifacts/scenario_run/fading FOLDER

prints, from two captured scenarios of the testbed (testbed/scenarios/talks.yaml and fading.yaml): how many messages
about a feeling lie nearest to its references, by layer, position and centring, with neutral conversations in their
stead as a control; what is left of a feeling in the states of later turns; and how often the chat model still answers
rightly, by the number of turns about facts. Figures are written into FOLDER.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # run as a script, the repository's root is not on the path

from src.artifacts import open_artifact  # noqa: E402
from src.config.shared import ModelConfig  # noqa: E402
from src.models import load_model, load_tokenizer  # noqa: E402
from src.report.charts import save_chart  # noqa: E402
from src.report.figures.theme import BLUE, FAINT_INK, GREY, ORANGE, data, panels, themed  # noqa: E402
from src.scenarios.capturing.capture import capture_conversation  # noqa: E402
from src.scenarios.comparing.centring import centre, centred_cosines, cosines  # noqa: E402
from src.scenarios.comparing.directions import contrast_directions  # noqa: E402
from src.scenarios.comparing.randomisation import permutation_p  # noqa: E402
from src.scenarios.comparing.to_references import label_means, label_weights  # noqa: E402
from src.scenarios.comparing.turns import Turns, turns_of  # noqa: E402
from src.scenarios.scenario import CaptureSettings, GenerationSettings, Prompt  # noqa: E402
from src.scenarios.states import Conversation, References  # noqa: E402
from src.scenarios.storage.run_folder import CapturedScenario, read_captured  # noqa: E402
from testbed.lexicon import EMOTIONS  # noqa: E402

Row = dict[str, Any]
# where states are read: role, position, source
PLACES = (
    ("user", "answer", "attn_out"),
    ("user", "answer", "resid_post"),
    ("user", "mean", "resid_post"),
    ("assistant", "end", "attn_out"),
    ("assistant", "end", "resid_post"),
    ("assistant", "mean", "resid_post"),
)
CENTRINGS = ("raw", "centred on the references", "centred on the conversation")
SETS, FACTS = 3, 9  # of the scenario `fading`: sets of conversations; 0 to 8 turns about facts
DRAWS = 999
ANSWER, END = ("user", "answer", "attn_out"), ("assistant", "end", "resid_post")


def main() -> None:
    """Print the tables, write the figures."""
    talks, fading = (read_captured(open_artifact(Path(path), "scenario_run")) for path in sys.argv[1:3])
    folder = Path(sys.argv[3])
    named = named_feelings(talks)
    by = ("place", "centring")
    print_rows("Share of messages that are nearest to their own feeling", named, by, "layer", "value")
    print_rows("The same of neutral conversations", named, by, "layer", "control")
    later = [row for place in (END, ANSWER) for row in later_turns(fading, place)]
    asked, answered = when_asked(fading)
    by = ("place", "layer")
    print_rows("What is left of the first turn's feeling", [*later, *asked], by, "facts", "value")
    print_rows("p, corrected for layers and turns", [*later, *asked], by, "facts", "p")
    print_rows("Length of the difference that the first turn makes / length of the state", later, by, "facts", "size")
    print_rows("First turn told by the states of the other sets", later, by, "facts", "told")
    print_rows("Right answers", answered, ("place",), "facts", "value")
    save_chart(named_figure(named), folder / "conversation_feelings")
    shown = [row for row in [*later, *asked] if (row["place"], row["layer"]) in SHOWN]
    save_chart(fading_figure(shown, answered), folder / "conversation_fading")


# --- does a message show the feeling that it is about? ---------------------------------------------------------------
def named_feelings(talks: CapturedScenario) -> list[Row]:
    """Share of messages whose nearest reference label is their own, by place, centring and layer.

    Intervals: bootstrap over conversations. control: the same share of the neutral conversations' messages, each held
    for what the talk that it was matched with expresses at the same turn.
    """
    references, rows = needed(talks), []
    for role, position, source in PLACES:
        turns = [turns_of(c, references.labels, role) for c in talks.conversations]
        natural = [one for one in turns if not one.conversation.control]
        controls = [one for one in turns if one.conversation.control]
        for centring in CENTRINGS:
            hits = [nearest_is(one, one.labels, references, position, source, centring) for one in natural]
            chance = [
                nearest_is(one, twin.labels, references, position, source, centring)
                for one, twin in zip(controls, natural, strict=False)
            ]
            low, high = bootstrap(hits)
            for layer, share in enumerate(torch.cat(hits, 1).mean(1).tolist()):
                control = float(torch.cat(chance, 1)[layer].mean())
                row = {"place": f"{role}, {position}, {source}", "centring": centring, "layer": layer}
                rows.append(
                    {**row, "value": share, "low": float(low[layer]), "high": float(high[layer]), "control": control}
                )
    return rows


def nearest_is(
    turns: Turns, labels: Sequence[int], references: References, position: str, source: str, centring: str
) -> Float[Tensor, "layer message"]:
    """1 where the nearest label of a labelled turn is its own."""
    texts, states = references.rows[position].get(source), turns.states(source, position)
    means = label_means(texts, label_weights(references, references.labels))
    middle = centre(references, texts)
    if centring == CENTRINGS[2]:
        # the mean of the other turns of its role takes the place of the references' mean
        states = states - (states.sum(1, keepdim=True) - states) / (len(turns) - 1) + middle
    found = cosines(states, means) if centring == CENTRINGS[0] else centred_cosines(states, means, middle)
    kept = [place for place, label in enumerate(labels) if label >= 0]
    return (found[:, kept].argmax(-1) == torch.tensor([labels[place] for place in kept])).float()


def bootstrap(items: Sequence[Float[Tensor, "row message"]]) -> tuple[Tensor, Tensor]:
    """95 % interval of the mean over messages, items (conversations, feelings) drawn anew."""
    sums = torch.stack([item.sum(1) for item in items])
    counts = torch.tensor([float(item.shape[1]) for item in items])
    drawn = torch.randint(len(items), (DRAWS, len(items)), generator=torch.Generator().manual_seed(0))
    means = sums[drawn].sum(1) / counts[drawn].sum(1, keepdim=True)
    low, high = means.quantile(torch.tensor([0.025, 0.975]), dim=0)
    return low, high


# --- does it fade? ---------------------------------------------------------------------------------------------------
def later_turns(fading: CapturedScenario, place: tuple[str, str, str]) -> list[Row]:
    """What is left of the first turn's feeling in the states of later turns, by layer and facts in between.

    size: length of a state's difference from the mean of its set, as a share of the state's length. told: share of
    states whose difference is nearest to that of the same first turn in the other sets.
    """
    role, position, source = place
    by_name = {c.name: c for c in fading.conversations}
    states = by_set(lambda name: turns_of(by_name[name], [], role).states(source, position)[:, :FACTS])
    difference = states - states.mean(1, keepdim=True)
    size = difference.norm(dim=-1).mean((0, 1)) / states.norm(dim=-1).mean((0, 1))
    told = torch.stack([told_from_others(difference, i) for i in range(SETS)]).mean(0)
    rows = left_of_feeling(states, needed(fading), position, source, ", ".join(place))
    return [
        {**row, "size": float(size[row["layer"], row["facts"]]), "told": float(told[row["layer"], row["facts"]])}
        for row in rows
    ]


def by_set(states_of: Callable[[str], Tensor]) -> Float[Tensor, "set feeling layer turn width"]:
    """The states of all conversations of the scenario `fading`, by name."""
    return torch.stack([torch.stack([states_of(f"{feeling}_{i}") for feeling in EMOTIONS]) for i in range(SETS)])


def left_of_feeling(
    states: Float[Tensor, "set feeling layer turn width"],
    references: References,
    position: str,
    source: str,
    name: str,
) -> list[Row]:
    """How much further states lie along the direction of their conversation's feeling than those of the others do.

    The others are the same turn in the conversations of the set that began with other feelings, so that place, length
    and text have no part in it. In units of the spread between reference texts; mean over sets and feelings. Interval:
    bootstrap over feelings. p: feelings exchanged, alike in all sets; corrected for all layers and turns.
    """
    assert references.labels == list(EMOTIONS)
    n = len(EMOTIONS)
    texts = references.rows[position]
    directions = contrast_directions(texts.layers, references, texts.get(source))
    along = torch.stack([torch.stack([directions.project(one) for one in of_set]) for of_set in states]).mean(0)
    about = (along - along.mean(0)) * n / (n - 1)  # feeling of the conversation, layer, turn, feeling of the direction
    orders = torch.rand(DRAWS, n, generator=torch.Generator().manual_seed(0)).argsort(1)
    drawn = torch.stack([about[range(n), ..., order].mean(0) for order in (torch.arange(n), *orders)])
    _, p = permutation_p(drawn[0], drawn[1:])
    own = about[range(n), ..., range(n)]
    low, high = (bound.reshape(own.shape[1:]) for bound in bootstrap([one.flatten()[:, None] for one in own]))
    arrays = {"value": own.mean(0), "low": low, "high": high, "p": p}
    return [
        {
            "place": name,
            "layer": layer,
            "facts": turn,
            **{key: float(array[layer, turn]) for key, array in arrays.items()},
        }
        for layer in range(own.shape[1])
        for turn in range(own.shape[2])
    ]


def told_from_others(difference: Float[Tensor, "set feeling layer turn width"], i: int) -> Float[Tensor, "layer turn"]:
    """Share of set i's states that are nearest, by cosine, to the mean of the same feeling in the other sets."""
    means = difference[[j for j in range(SETS) if j != i]].mean(0)
    cosine = torch.einsum("flth,glth->fglt", normalize(difference[i], dim=-1), normalize(means, dim=-1))
    return (cosine.argmax(1) == torch.arange(len(means))[:, None, None]).float().mean(0)


def when_asked(fading: CapturedScenario) -> tuple[list[Row], list[Row]]:
    """What is left when "how do i feel ?" is asked after 0 to 8 facts; and how often a word of the feeling answers.

    Intervals: bootstrap over feelings.
    """
    keys: Any = {"revision": None, "blocks": None, "attention": None, "stack": "auto", "trust_remote_code": False}
    config = ModelConfig(name="testbed_chat", path=str(ROOT / "testbed/models/chat"), dtype="float32", **keys)
    model, tokenizer = load_model(config, "cpu"), load_tokenizer(config)
    capture = CaptureSettings(positions=["answer"], attention_weights=False, qkv=False, mlp=False, logits=False)
    prompts = {prompt.name: prompt.messages for prompt in fading.scenario.prompt}

    def ask(name: str, facts: int) -> Conversation:
        prompt = Prompt(messages=[*prompts[name][: 3 + 2 * facts], prompts[name][-1]])
        return capture_conversation(model, tokenizer, name, prompt, GenerationSettings(), capture)

    asked = {(f"{feeling}_{i}", facts): ask(f"{feeling}_{i}", facts)
             for feeling in EMOTIONS for i in range(SETS) for facts in range(FACTS)}  # fmt: skip
    role, position, source = ANSWER
    states = by_set(
        lambda name: torch.cat(
            [turns_of(asked[name, facts], [], role).states(source, position)[:, -1:] for facts in range(FACTS)], 1
        )
    )
    left = left_of_feeling(states, needed(fading), position, source, f"{', '.join(ANSWER)}, asked")
    right = torch.tensor(
        [
            [[bool({*words} & {*asked[f"{feeling}_{i}", facts].messages[-1].content.split()}) for i in range(SETS)]
             for facts in range(FACTS)]
            for feeling, words in EMOTIONS.items()
        ]
    ).float()  # fmt: skip
    low, high = bootstrap(list(right))
    shares = right.mean((0, 2))
    rows = [
        {
            "place": "answers",
            "facts": facts,
            "value": float(shares[facts]),
            "low": float(low[facts]),
            "high": float(high[facts]),
        }
        for facts in range(FACTS)
    ]
    return left, rows


# --- what is shown ---------------------------------------------------------------------------------------------------
SHOWN = {
    (", ".join(END), 3): "end of the next answers, layer 3",
    (", ".join(ANSWER), 5): "about to answer the next questions, attention of layer 5",
    (f"{', '.join(ANSWER)}, asked", 5): "asked how do i feel ?, attention of layer 5",
}


def needed(captured: CapturedScenario) -> References:
    """The references of a scenario that has some."""
    if captured.references is None:
        sys.exit(f"{captured.artifact.path} has no reference states")
    return captured.references


def print_rows(title: str, rows: Sequence[Row], names: Sequence[str], across: str, field: str) -> None:
    """A table with a line for each value of `names` and a column for each of `across`."""
    columns = sorted({row[across] for row in rows})
    print(f"\n{title}\n{', '.join(names)}; {across}: {' '.join(str(column) for column in columns)}")
    for key in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        line = [row for row in rows if tuple(row[name] for name in names) == key]
        cells = [
            f"{row[field]:.2f} [{row['low']:.2f}, {row['high']:.2f}]" if field == "value" else f"{row[field]:.3f}"
            for row in sorted(line, key=lambda row: row[across])
        ]
        print(" | ".join([*map(str, key), *cells]))


def bands(base: alt.Chart, title: str, domain: tuple[float, float] | None = None) -> list[Any]:
    """A line with points, and its interval behind it."""
    y = alt.Y("value:Q", title=title, scale=alt.Scale(domain=domain) if domain else alt.Undefined)
    return [
        base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_line(point=True).encode(y=y),
    ]


def chance_line() -> Any:
    """Where a guess between the feelings is right."""
    return alt.Chart(data([{}])).mark_rule(color=FAINT_INK, strokeDash=[4, 3]).encode(y=alt.datum(1 / len(EMOTIONS)))


def named_figure(rows: Sequence[Row]) -> Any:
    """Shares by layer, a panel for each place."""
    colour = alt.Color(
        "centring:N",
        title=None,
        sort=list(CENTRINGS),
        scale=alt.Scale(range=[GREY, ORANGE, BLUE]),
        legend=alt.Legend(symbolOpacity=1),
    )
    base = alt.Chart().encode(x=alt.X("layer:O", title="layer"), color=colour)
    rule = alt.Chart().mark_rule(color=FAINT_INK, strokeDash=[4, 3]).encode(y=alt.datum(1 / len(EMOTIONS)))
    chart = panels([rule, *bands(base, "own feeling nearest", (0, 1))], rows, "place:N", "", 3, 220, 170)
    return themed(chart, "Is a message nearest to its own feeling?", "Dashed: chance. Bands: 95 %, over conversations.")


def fading_figure(left: Sequence[Row], answered: Sequence[Row]) -> Any:
    """What is left in the states, and what the model still answers, by the number of facts since."""
    rows = [{**row, "place": SHOWN[row["place"], row["layer"]]} for row in left]
    names = list(SHOWN.values())
    legend = alt.Legend(orient="bottom", direction="vertical", labelLimit=400, symbolOpacity=1)
    colour = alt.Color("place:N", title=None, sort=names, scale=alt.Scale(range=[BLUE, GREY, ORANGE]), legend=legend)
    x = alt.X("facts:O", title="turns about facts since the feeling")
    states = bands(alt.Chart(data(rows)).encode(x=x, color=colour), "spreads of reference texts")
    answers = bands(alt.Chart(data(answered)).encode(x=x, color=alt.value(ORANGE)), "right answers", (0, 1))
    charts = [alt.layer(*states), alt.layer(chance_line(), *answers)]
    both = alt.hconcat(*(chart.properties(width=330, height=220) for chart in charts), spacing=40)
    return themed(
        both,
        "What is left of a feeling",
        "In the states; and in answers to how do i feel ? Bands: 95 %, over feelings.",
    )


if __name__ == "__main__":
    main()
