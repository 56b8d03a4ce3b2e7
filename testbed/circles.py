"""The circles of the calendar: where weekdays and months lie in the residual stream.

For each layer, the centroid of every word of a cycle is its mean `resid_post` (the output of the decoder block, taken
with a hook) over held-out text. Two principal components of the centroids show whether the words lie on a circle in
the order of the calendar; where something else takes one of the first two, the circle may lie in the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from testbed.lexicon import MONTHS, WEEKDAYS

CYCLES: dict[str, tuple[str, ...]] = {"weekdays": WEEKDAYS, "months": MONTHS}


@torch.no_grad()
def centroids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    cycles: Mapping[str, Sequence[str]],
    batch: int = 64,
) -> dict[int, dict[str, NDArray[np.float64]]]:
    """Layer -> cycle -> mean resid_post of each word over all places where it stands in `texts`: (word, d_model)."""
    words = [word for members in cycles.values() for word in members]
    index = torch.full((len(tokenizer),), -1)
    index[torch.tensor(tokenizer.convert_tokens_to_ids(words))] = torch.arange(len(words))
    blocks: list[nn.Module] = list(model.model.layers)
    sums = torch.zeros(len(blocks), len(words), model.config.hidden_size, dtype=torch.float64)
    counts = torch.zeros(len(words), dtype=torch.float64)
    seen: dict[int, Tensor] = {}

    def keeper(layer: int):  # noqa: ANN202
        def keep(module: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> None:
            seen[layer] = output if isinstance(output, Tensor) else output[0]

        return keep

    handles = [block.register_forward_hook(keeper(layer)) for layer, block in enumerate(blocks)]
    try:
        ordered = sorted(texts, key=len)
        for start in range(0, len(ordered), batch):
            tokens = tokenizer(ordered[start : start + batch], return_tensors="pt", padding=True).input_ids
            model.model(tokens)  # padding is on the right and of no word of a cycle
            which = index[tokens]
            found = which >= 0
            counts += torch.bincount(which[found], minlength=len(words))
            for layer in range(len(blocks)):
                sums[layer].index_add_(0, which[found], seen[layer][found].double())
    finally:
        for handle in handles:
            handle.remove()
    means = (sums / counts[None, :, None]).numpy()
    split = np.cumsum([len(members) for members in cycles.values()])[:-1]
    return {layer: dict(zip(cycles, np.split(means[layer], split), strict=True)) for layer in range(len(blocks))}


PLANES = ((0, 1), (0, 2), (1, 2))  # pairs among the first three principal components, the two first before the others


def plane(points: NDArray[np.float64], axes: tuple[int, int] = (0, 1)) -> NDArray[np.float64]:
    """Two principal components (counted from 0) of points (point, dimension): (point, 2)."""
    u, s, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    return (u * s)[:, list(axes)]


def explained(points: NDArray[np.float64], axes: tuple[int, int] = (0, 1)) -> float:
    """The share of the points' variance in a plane of principal components."""
    power = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) ** 2
    return float(power[list(axes)].sum() / power.sum())


def in_calendar_order(points: NDArray[np.float64], axes: tuple[int, int] = (0, 1)) -> bool:
    """Whether the points, in a plane of principal components, go once around the centre in their order.

    Either sense of rotation counts, and any starting point: each step to the next point (the last to the first) must
    turn the same way, and all steps together one full turn.
    """
    flat = plane(points, axes)
    angles = np.arctan2(flat[:, 1], flat[:, 0])
    steps = np.angle(np.exp(1j * (np.roll(angles, -1) - angles)))  # in (-pi, pi]
    turns = round(float(steps.sum()) / (2 * np.pi))
    return abs(turns) == 1 and bool(np.all(steps * turns > 0))


def circle_plane(points: NDArray[np.float64]) -> tuple[int, int] | None:
    """The first of `PLANES` in which the points lie in calendar order, or None.

    Three planes are tried, for a cycle may share the first components with other structure (months also alternate
    between even and odd). By chance 12 points are in order in one of them once in seven million times.
    """
    return next((axes for axes in PLANES if in_calendar_order(points, axes)), None)


def frequencies(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of the variance of points (point, dimension) at each frequency 1 ... n // 2 around their cycle.

    A perfect circle is all at frequency 1; points in no order have about 2 / (n - 1) there.
    """
    power = (np.abs(np.fft.fft(points, axis=0)) ** 2).sum(axis=1)[1:]
    folded = [power[k - 1] + (power[len(points) - k - 1] if 2 * k != len(points) else 0) for k in _orders(points)]
    return np.array(folded) / power.sum()


def _orders(points: NDArray[np.float64]) -> range:
    return range(1, len(points) // 2 + 1)


def report(clouds: Mapping[int, Mapping[str, NDArray[np.float64]]]) -> str:
    """A Markdown table: for each cycle and layer the plane of the circle and the variance at each frequency."""
    lines = ["| cycle | layer | in calendar order in components | variance there | at frequencies 1, 2, ... |"]
    lines.append("|---|---|---|---|---|")
    for cycle in CYCLES:
        for layer, found in clouds.items():
            axes = circle_plane(found[cycle])
            where = f"{axes[0] + 1} and {axes[1] + 1} | {explained(found[cycle], axes):.0%}" if axes else "none | "
            shares = ", ".join(f"{share:.0%}" for share in frequencies(found[cycle]))
            lines.append(f"| {cycle} | {layer} | {where} | {shares} |")
    return "\n".join(lines)


def draw(clouds: Mapping[int, Mapping[str, NDArray[np.float64]]], folder: Path) -> None:
    """Write circles.png: a row for each cycle, a column for each layer; points joined in calendar order."""
    import altair as alt

    def chart(cycle: str, layer: int) -> alt.LayerChart | alt.FacetChart:
        words, points = CYCLES[cycle], clouds[layer][cycle]
        flat = plane(points)
        flat = flat / np.abs(flat).max()
        order = [*range(len(words)), 0]
        rows = [{"x": flat[i, 0], "y": flat[i, 1], "word": words[i][:3], "step": n} for n, i in enumerate(order)]
        scale = alt.Scale(domain=[-1.35, 1.35])
        base = alt.Chart(alt.Data(values=rows)).encode(
            x=alt.X("x:Q", scale=scale, axis=None), y=alt.Y("y:Q", scale=scale, axis=None)
        )
        ordered = in_calendar_order(points)
        line = base.mark_line(color="#2b6cb0" if ordered else "#c3cad4", strokeWidth=1.5).encode(order="step:Q")
        once = base.transform_filter(f"datum.step < {len(words)}")
        dots = once.mark_circle(size=45, opacity=1, color="#1f2937")
        names = once.mark_text(dy=-10, fontSize=11).encode(text="word:N")
        title = alt.Title(
            f"{cycle}, layer {layer}{': in order' if ordered else ''}",
            subtitle=f"components 1, 2: {explained(points):.0%} of the variance",
            fontSize=12,
        )
        return alt.layer(line, dots, names).properties(width=190, height=190, title=title)

    rows = [alt.hconcat(*(chart(cycle, layer) for layer in sorted(clouds))) for cycle in CYCLES]
    figure = alt.vconcat(*rows).configure_view(stroke="#e3e6ea").configure(background="white")
    folder.mkdir(exist_ok=True)
    figure.save(folder / "circles.png", ppi=110)
