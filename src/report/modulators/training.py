"""What one run of train_modulator.py shows: losses, strengths and their reach, cost."""

from collections.abc import Sequence
from dataclasses import asdict

from src.modulators.training.record import TrainingRecord
from src.modulators.training.strengths import NOTEBOOK_STRENGTHS, Strength
from src.report.artifact_report import NamedChart
from src.report.figures.modulator_training import training_panels
from src.report.finding import Finding
from src.report.tables import Cell, Table

# of a strength's reach: beyond it, more steps or a higher rate would have carried it on
_STILL_MOVING = 0.8
# nats of which four decimals would leave little
_SMALL = 0.001
_HISTORY = ("step", "reach", "loss", "val")


def training_finding(record: TrainingRecord) -> Finding:
    """Losses, strengths and cost of one training."""
    panels = training_panels(
        record.history,
        record.frozen,
        record.best_step,
        [{**each, "part": record.part_names[each["part"]]} for each in record.trajectory],
        _health(record),
        f"Training of {record.name}",
    )
    caption = (
        f"val loss: on the same examples every time, ringed at step {record.best_step:,}, whose state was kept; "
        "dashed: the frozen model there. batch loss: of each recorded step's own batch, which is another one every "
        "time."
    )
    if record.trajectory:
        caption += " alpha: the band is what the learning rates could reach by then, from where it began."
    if _health(record):
        caption += (
            " log volume: of V^2 over that of the regular simplex, its mean over positions and what 5 % are below; log "
            "edge ratio: of the longest over the shortest edge, its mean and what 5 % are above; running means over "
            "the steps, of all layers."
        )
    strengths = _strength_table(record)
    return Finding(
        "\n\n".join([_training_words(record), *_strength_words(record), cost_words(record)]),
        details=strengths,
        figures=[NamedChart("training", f"Training of {record.name}", panels, caption)],
        records={
            "history": [dict(each) for each in record.history],
            **({"strengths": [dict(each) for each in record.trajectory]} if record.trajectory else {}),
        },
        files={
            "training.json": {
                "run": record.name,
                "parameters": record.n_parameters,
                "steps": record.steps_done,
                "best_step": record.best_step,
                "val": record.best["val"],
                "val_frozen": record.frozen,
                "val_at_start": record.evaluations[0]["val"],
                "reach": record.history[-1]["reach"],
                "strengths_at_start": [asdict(each) for each in record.strengths(0)],
                "strengths": [asdict(each) for each in record.strengths(record.best_step)],
                "cost": asdict(record.cost)
                | {"time_ratio": record.cost.time_ratio, "memory_ratio": record.cost.memory_ratio},
            }
        },
        metrics={
            f"{record.name}/val": record.best["val"],
            f"{record.name}/less frozen on val": record.best["val"] - record.frozen,
            f"{record.name}/time of the bare pass": record.cost.time_ratio,
        },
    )


def training_summary(record: TrainingRecord) -> str:
    """One line for the terminal, with the reach of alpha beside where it is (spec K)."""
    words = [
        f"{record.name}: val loss {record.evaluations[0]['val']:.4f} to {record.best['val']:.4f} (frozen "
        f"{record.frozen:.4f}), best at step {record.best_step:,}"
    ]
    if ends := record.strengths(record.best_step):
        low, high = min(each.lowest for each in ends), max(each.highest for each in ends)
        words.append(f"alpha {_range([each.alpha for each in ends])}, within reach {low:.3g} to {high:.3g}")
    words.append(f"a step takes {record.cost.time_ratio:.2f} times the frozen model's own")
    return "; ".join(words)


def _training_words(record: TrainingRecord) -> str:
    best, begin = record.best["val"], record.evaluations[0]["val"]
    change = best - record.frozen
    size = f"{abs(change):.4f}" if abs(change) > _SMALL else f"{abs(change):.6f}"
    distance = f"{size} {'below' if change < 0 else 'above'}" if float(size) else "the same as"
    against = f"{distance} the frozen model's {record.frozen:.4f}"
    stopped = record.steps_done < record.n_steps
    ended = f", and training stopped at step {record.steps_done:,} of {record.n_steps:,}" if stopped else ""
    return (
        f"Training of {record.name} took the loss on val examples from {begin:.4f} to {best:.4f} nats per token, "
        f"{against}. It was lowest at step {record.best_step:,}, whose state is kept{ended}. {record.n_parameters:,} "
        "numbers were trained, and the model stayed as it is. Which state to keep was chosen on these examples: test "
        "examples say what it is worth."
    )


def cost_words(record: TrainingRecord) -> str:
    """Time and memory of a step beside those of the bare pass."""
    cost = record.cost
    what = "peak memory" if cost.measured_peak else "memory held for the backward pass"
    clock = "time" if cost.measured_peak else "CPU time"
    return (
        f"A forward and backward pass with it takes {cost.time_ratio:.2f} times the {clock} of the frozen model's own "
        f"({1000 * cost.seconds:.0f} and {1000 * cost.frozen_seconds:.0f} ms) and {cost.memory_ratio:.2f} times the "
        f"{what} ({cost.bytes / 2**20:.1f} and {cost.frozen_bytes / 2**20:.1f} MiB). Both go back to the input of the "
        f"same layer; {cost.n_sequences} examples of up to {cost.n_positions} tokens, medians of {cost.repeats} passes "
        "of each, in turns, before training."
    )


def _strength_words(record: TrainingRecord) -> list[str]:
    ends = record.strengths(record.best_step)
    if not ends:
        return []
    words = (
        f"Alpha is {_range([each.alpha for each in ends])} at step {record.best_step:,}, and began at "
        f"{_range([each.alpha for each in record.strengths(0)])}."
    )
    if not record.best["reach"]:
        return [words]
    low, high = min(each.lowest for each in ends), max(each.highest for each in ends)
    words += f" By then the learning rates could have carried it to {low:.3g} or {high:.3g}."
    moving = sum(_used(each, record) > _STILL_MOVING for each in ends)
    if moving:
        words += (
            f" {moving} of {len(ends)} used more than {_STILL_MOVING:.0%} of their reach: they say where training "
            "stopped, not where they were going. More steps, or a higher training.strength_lr, would tell."
        )
    return [words]


def _used(strength: Strength, record: TrainingRecord) -> float:
    """The share of the way to the end of its reach that a strength went."""
    start = next(
        each.alpha for each in record.strengths(0) if (each.layer, each.part) == (strength.layer, strength.part)
    )
    end = strength.highest if strength.alpha > start else strength.lowest
    return (strength.alpha - start) / (end - start) if end != start else 0.0


def _strength_table(record: TrainingRecord) -> list[Table]:
    ends = record.strengths(record.best_step)
    if not ends:
        return []
    starts = {(each.layer, each.part): each.alpha for each in record.strengths(0)}
    rows: list[Sequence[Cell]] = [
        [
            _place(each, record),
            starts[each.layer, each.part],
            each.alpha,
            each.lowest,
            each.highest,
            _used(each, record),
            *(each.alpha - number for number in NOTEBOOK_STRENGTHS),
        ]
        for each in ends
    ]
    columns = ["strength", "at start", "kept", "lowest", "highest", "of its reach"]
    columns += [f"less {number:g}" for number in NOTEBOOK_STRENGTHS]
    caption = (
        "lowest, highest: what the sum of the learning rates lets a strength reach by the step that was kept. The last "
        "columns are distances to numbers of the published notebook, which gives no derivation for them; nothing "
        "singles them out here."
    )
    return [Table(f"Strengths of {record.name}", columns, rows, caption)]


def _place(strength: Strength, record: TrainingRecord) -> str:
    part = record.part_names[strength.part]
    return f"layer {strength.layer}, {part}" if part else f"layer {strength.layer}"


def _health(record: TrainingRecord) -> list[dict]:
    return [
        # numbers of several parts are called "what, part"
        {"step": each["step"], "name": name.partition(", ")[0], "part": name.partition(", ")[2], "value": value}
        for each in record.history
        for name, value in each.items()
        if name not in _HISTORY and isinstance(value, int | float)
    ]


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"
