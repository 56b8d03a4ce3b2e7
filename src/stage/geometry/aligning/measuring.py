"""From two models' spaces to what align_models.py shows of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import false_discovery_control
from torch import Tensor

from src.artifacts import Parent, label
from src.config.geometry.alignment import AlignmentConfig
from src.geometry.alignment.alignment import Alignment, align, check_counts, n_steps
from src.geometry.alignment.fitting import AlignmentSettings
from src.geometry.alignment.leaving_out import left_one_out
from src.geometry.alignment.maps import Method, method_of
from src.geometry.alignment.notebook import notebook_alignment
from src.geometry.alignment.ordered import OrderedAgreement, mean_rows, ordered_agreement
from src.geometry.alignment.rows import Group
from src.geometry.alignment.scores import held_out
from src.geometry.simplices.joint import JointStatistics, joint_statistics
from src.geometry.simplices.profile import SimplexSettings
from src.report.finding import Finding
from src.report.geometry.alignment.finding import alignment_finding
from src.report.geometry.alignment.records import OCCURRENCES, ONE_BY_ONE, TOGETHER, Aligned, OrderedResult
from src.stage.context import Stage
from src.stage.geometry.aligning.spaces import PreparedSpaces, Spaces
from src.stage.geometry.aligning.states import prepare_states
from src.stage.geometry.aligning.tables import prepare_tables


@dataclass(frozen=True, eq=False)
class Work:
    """Two spaces that are to be aligned."""

    config: AlignmentConfig
    spaces: PreparedSpaces

    @property
    def title(self) -> str:
        """Of the report."""
        return f"{self.spaces.names[0]} aligned with {self.spaces.names[1]}"

    @property
    def label(self) -> str:
        """Of the artifact."""
        names = [self.config.model.name, self.config.target.name, self.config.space]
        return label(*names)

    @property
    def parents(self) -> list[Parent]:
        """Stores that are read."""
        return self.spaces.parents

    def identity(self) -> dict[str, Any]:
        """What decides the content, beside the parents."""
        keys = {"space", "method", "compat", "split", "alphas", "shuffles", "bootstrap", "curve_points"}
        keys |= {"permutations", "retrieval", "n_simplices", "seed"}
        return {**self.config.model_dump(mode="json", include=keys), **self.spaces.identity()}

    def summary(self) -> Mapping[str, Any]:
        """For meta.json."""
        return {"source": self.spaces.names[0], "target": self.spaces.names[1], "space": self.config.space}


def prepare(config: AlignmentConfig, stage: Stage) -> Work:
    """Find both spaces. Raises StrataError if one of them is not there, or both are the same."""
    spaces = prepare_states(config, stage) if config.space == "activations" else prepare_tables(config)
    return Work(config, spaces)


def measure(work: Work, stage: Stage) -> Finding:
    """Pair, fit, judge, and say it.

    Raises:
        StrataError: too few tokens in common, or too few anchors for every method that was asked for.
    """
    spaces = work.spaces.read(stage)
    settings, left_out = _settings(work.config, spaces, stage)
    with stage.progress("fitting maps", n_steps(settings), "maps") as advance:
        found = align(spaces.rows, settings, stage.device, advance)
    notebook = None if spaces.tables is None else notebook_alignment(*spaces.tables)
    return alignment_finding(
        Aligned(
            names=work.spaces.names,
            space=work.config.space,
            alignment=found,
            ordered=ordered_results(found, spaces, work.config, stage),
            ordered_are_new=spaces.ordered_are_new,
            volumes=_volumes(found, spaces, work.config, stage),
            labels=[spaces.rows.labels[pair] for pair in found.test.tolist()],
            source_ids=spaces.source_ids[found.test],
            target_ids=spaces.target_ids[found.test],
            coverage=spaces.coverage,
            pairing=spaces.pairing,
            unit=spaces.unit,
            widths=(spaces.rows.source.shape[1], spaces.rows.target.shape[1]),
            left_out=left_out,
            notebook=notebook,
            settings={**work.identity(), "dtypes": [str(spaces.rows.source.dtype), str(spaces.rows.target.dtype)]},
        )
    )


def _settings(config: AlignmentConfig, spaces: Spaces, stage: Stage) -> tuple[AlignmentSettings, list[str]]:
    """With method=all, rotations are left out where anchors do not determine them, and the user is told."""
    counts = {group.name.lower(): len(spaces.rows.of(group)) for group in Group}
    check_counts(counts)
    width = min(spaces.rows.source.shape[1], spaces.rows.target.shape[1])
    methods: tuple[Method, ...] = config.methods
    left_out: list[str] = []
    if config.method == "all" and counts["train"] <= width:
        left_out = [method for method in methods if method in ("orthogonal", "scaled")]
        methods = tuple(method for method in methods if method not in left_out)
        stage.warn(
            f"{' and '.join(left_out)} are left out: {counts['train']} anchors do not determine a rotation in {width} "
            "dimensions"
        )
    settings = AlignmentSettings(
        methods=methods,
        alphas=tuple(config.alphas),
        shuffles=config.shuffles,
        bootstrap=config.bootstrap,
        curve_points=config.curve_points,
        queries=config.retrieval.queries,
        candidates=config.retrieval.candidates,
        seed=config.seed,
    )
    return settings, left_out


def ordered_results(found: Alignment, spaces: Spaces, config: AlignmentConfig, stage: Stage) -> list[OrderedResult]:
    """Every ordered set after the best map, and each of its words by a map that knows the others.

    p-values are corrected over sets, tests and both ways (Benjamini and Hochberg).
    """
    best = found.maps[found.best].map
    alone = _each_alone(found, spaces, stage)
    agreements: list[tuple[OrderedAgreement, str]] = []
    for ordered in spaces.ordered:
        rows = spaces.rows.take(np.concatenate(ordered.members))
        ends = np.cumsum([len(member) for member in ordered.members])
        places = [range(end - len(member), end) for end, member in zip(ends.tolist(), ordered.members, strict=True)]
        predicted, true = (mean_rows(side, places) for side in held_out(rows, best))
        source = mean_rows(rows.source.to(best.weight.device).double() - best.source_centre, places)
        ways = {TOGETHER if spaces.ordered_are_new else OCCURRENCES: predicted}
        if alone:
            ways[ONE_BY_ONE] = torch.stack([alone[int(member[0])] for member in ordered.members])
        for way, rows_of_way in ways.items():
            agreement = ordered_agreement(
                ordered.name,
                ordered.words,
                ordered.cycle,
                ordered.distances,
                source,
                rows_of_way,
                true,
                config.permutations,
                config.seed,
            )
            agreements.append((agreement, way))
    tests = ("cosine_p", "at_home_p", "structure_p", "steps_p")
    p = [getattr(each, test) for each, _ in agreements for test in tests]
    q = iter(false_discovery_control(p).tolist() if p else [])
    return [OrderedResult(each, way, {test.removesuffix("_p"): next(q) for test in tests}) for each, way in agreements]


def _each_alone(found: Alignment, spaces: Spaces, stage: Stage) -> dict[int, Tensor]:
    """Of each pair of an ordered set, what a map predicts that was fitted on all anchors and the set's other words."""
    if not spaces.ordered_are_new or not spaces.ordered:
        return {}
    best = found.maps[found.best].map
    tokens = np.unique(np.concatenate([member for each in spaces.ordered for member in each.members]))
    # what was chosen without these words stays
    alphas = (best.settings.get("alpha", 0.0),)
    predicted = left_one_out(spaces.rows, tokens, method_of(best), alphas, best.target_centre, stage.device)
    return dict(zip(tokens.tolist(), predicted, strict=True))


def _volumes(found: Alignment, spaces: Spaces, config: AlignmentConfig, stage: Stage) -> JointStatistics | None:
    """Simplices of held-out tokens, as the best map puts them and as they are (spec F7)."""
    if not config.n_simplices:
        return None
    predicted, true = held_out(spaces.rows.take(found.test), found.maps[found.best].map)
    settings = SimplexSettings(n_simplices=config.n_simplices, resamples=config.bootstrap)
    return joint_statistics(predicted, true, settings, config.shuffles, config.seed, device=predicted.device)
