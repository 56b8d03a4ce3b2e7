"""What was found of layers, in sentences; every number stands beside what chance would give."""

from collections.abc import Sequence

from src.geometry.layers.norms import SINK
from src.report.geometry.layers.records import Record
from src.report.geometry.layers.tables import site_name
from src.report.tables import format_number
from src.transport.bootstrap import FEW_DOCUMENTS


def stack_sentences(sites: Sequence[Record], updates: Sequence[Record], left_out: Sequence[Record]) -> list[str]:
    """Sentences on one stack; the first one is the finding."""
    streams = [record for record in sites if record["kind"] == "stream"] or list(sites)
    first, last = streams[0], streams[-1]
    found = [_norms_and_cosines(first, last)]
    final = [record for record in sites if record["kind"] == "final_norm"]
    if final:
        found.append(
            f"The final norm turns a median norm of {_short(last['norm_median'])} into "
            f"{_short(final[0]['norm_median'])}: rows before and after it are not comparable."
        )
    found += [_participation(streams), _massive(streams)]
    found += _updates(updates) + _sinks(streams, left_out)
    return found


def _norms_and_cosines(first: Record, last: Record) -> str:
    if first is last:
        grows = f"At {site_name(last)} the median norm is {_short(last['norm_median'])}"
    else:
        verb = "grows" if last["norm_median"] > first["norm_median"] else "falls"
        grows = (
            f"The median norm {verb} from {_short(first['norm_median'])} ({site_name(first)}) to "
            f"{_short(last['norm_median'])} ({site_name(last)})"
        )
    across = f"{_short(last['cosine_across'])}{_interval(last, 'cosine_across')}"
    within = f"{_short(last['cosine_within'])}{_interval(last, 'cosine_within')}"
    if last["cosine_across"] != last["cosine_across"]:
        return (
            f"{grows}; there, tokens of the one text have a mean cosine of {within}, where 0 means no common direction."
        )
    if last["cosine_within"] != last["cosine_within"]:
        return f"{grows}; no text has two counted tokens, so there is no cosine within texts (across texts {across})."
    return (
        f"{grows}; there, tokens of one text have a mean cosine of {within} and tokens of different texts {across}, "
        "where 0 means no common direction."
    )


def _participation(sites: Sequence[Record]) -> str:
    known = [record for record in sites if record["participation_unbiased"] == record["participation_unbiased"]]
    if not known:
        return "There are too few tokens for a participation ratio."
    least = min(known, key=lambda record: record["participation_unbiased"])
    most = max(known, key=lambda record: record["participation_unbiased"])
    span = f"{_short(least['participation_unbiased'])} ({site_name(least)})"
    if least is not most:
        span += f" to {_short(most['participation_unbiased'])} ({site_name(most)})"
    return f"The variance is shared by {span} of {least['d_model']} dimensions (participation ratio)."


def _massive(sites: Sequence[Record]) -> str:
    having = [record for record in sites if record["n_massive"]]
    if not having:
        return "No dimension carries more of the squared norm than dimensions of a random basis would."
    top = max(having, key=lambda record: record["top_share"])
    return (
        f"{len(having)} of {len(sites)} sites have dimensions that carry more of the squared norm than a random basis "
        f"would give any: the most is {top['top_share']:.1%} in dimension {top['top_dimension']} of {site_name(top)} "
        f"(chance: up to {top['random_share']:.1%}; even shares: {1 / top['d_model']:.1%})."
    )


def _updates(updates: Sequence[Record]) -> list[str]:
    if not updates:
        return []
    largest = max(updates, key=lambda record: record["size"])
    smallest = min(updates, key=lambda record: record["size"])
    erasing = [str(record["layer"]) for record in updates if record["direction_high"] < 0]
    text = (
        f"Blocks change the stream by {_short(smallest['size'])} (block {smallest['layer']}) to "
        f"{_short(largest['size'])} (block {largest['layer']}) of its norm."
    )
    if erasing:
        text += f" Those of {', '.join(erasing)} take away from what is there (cos(x, Δ) below 0)."
    return [text]


def _sinks(sites: Sequence[Record], left_out: Sequence[Record]) -> list[str]:
    streams = {record["site"] for record in sites}
    ratios = [record for record in left_out if record["site"] in streams]
    found = []
    if ratios:
        most = max(ratios, key=lambda record: record["ratio"])
        found.append(
            f"Tokens left out have norms of up to {_short(most['ratio'])} times the median (mean of {most['n']:,} "
            f"{most['reason']} tokens at {site_name(most)})."
        )
    share = max(record["sink_share"] for record in sites)
    found.append(
        f"No counted token has {SINK:g} times the median norm."
        if share == 0
        else f"Up to {share:.2%} of the counted tokens have more than {SINK:g} times the median norm (sinks)."
    )
    return found


def comparison_sentence(records: Sequence[Record], first: str, second: str) -> str:
    """The finding on two stacks: their last layers, beside shuffled positions."""
    streams = [record for record in records if "final_norm" not in (record["first"], record["second"])]
    ends = [record for record in streams if record["first"] == record["second"]] or streams
    begin, last = ends[0], ends[-1]
    text = f"The same token in {first} and {second} has "
    if "cosine" in last:
        text += (
            f"a cosine of {_short(begin['cosine'])} at {site_name(_of(begin))} and of {_short(last['cosine'])}"
            f"{_interval(last, 'cosine')} at {site_name(_of(last))} (other tokens of its text: "
            f"{_short(begin['shuffled_cosine'])} and {_short(last['shuffled_cosine'])}); "
        )
    text += (
        f"CKA is {_short(begin['cka'])} and {_short(last['cka'])} (shuffled: {_short(begin['shuffled_cka'])} and "
        f"{_short(last['shuffled_cka'])})."
    )
    return text


def _of(record: Record) -> Record:
    return {"stack": "", "site": record["first"]}


def few_documents(n_documents: int) -> list[str]:
    """A warning where intervals are too narrow."""
    if n_documents >= FEW_DOCUMENTS:
        return []
    if n_documents == 1:
        return ["There is one document, so there are no intervals."]
    return [f"There are only {n_documents} documents: the intervals are too narrow."]


def _short(value: float) -> str:
    return f"{value:.3g}" if 1e-3 < abs(value) < 1e5 else format_number(value)


def _interval(record: Record, name: str) -> str:
    low, high = record[f"{name}_low"], record[f"{name}_high"]
    return f" [{_short(low)}, {_short(high)}]" if low == low and high == high else ""
