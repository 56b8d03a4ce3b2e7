"""What is kept of one training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.modulators.training.cost import StepCost
from src.modulators.training.strengths import Strength


@dataclass(frozen=True)
class TrainingRecord:
    """One training at its end.

    Attributes:
        name: of the run.
        n_parameters: that were trained.
        n_steps: that were asked for.
        history: records by step: `step`, `reach` (of the logits of strengths), the mean `loss` of the step's batch
            (not at step 0), where val examples were evaluated their mean loss `val`, and what the modulator's own
            `health` tells.
        trajectory: records of strengths by step: `step`, `layer`, `part`, `alpha`, `lowest` and `highest` within reach.
        part_names: of each `part`.
        best_step: of the evaluation whose state was kept.
        frozen: mean loss of the frozen model on the same val examples.
        cost: of a step.
    """

    name: str
    n_parameters: int
    n_steps: int
    history: Sequence[Mapping[str, Any]]
    trajectory: Sequence[Mapping[str, Any]]
    part_names: Sequence[str]
    best_step: int
    frozen: float
    cost: StepCost

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """The records with a loss on val examples."""
        return [record for record in self.history if "val" in record]

    @property
    def best(self) -> Mapping[str, Any]:
        """The evaluation whose state was kept."""
        return next(record for record in self.evaluations if record["step"] == self.best_step)

    @property
    def steps_done(self) -> int:
        """Fewer than were asked for where it stopped early."""
        return int(self.history[-1]["step"])

    def strengths(self, step: int) -> list[Strength]:
        """As they were at a step that was recorded."""
        return [
            Strength(**{key: value for key, value in record.items() if key != "step"})
            for record in self.trajectory
            if record["step"] == step
        ]


def best_evaluation(values: Sequence[float]) -> int:
    """The index of the lowest loss, of equal ones the first; NaN is never the lowest but where all are."""
    return min(range(len(values)), key=lambda place: (values[place] != values[place], values[place]))


def is_out_of_patience(values: Sequence[float], patience: int | None) -> bool:
    """Whether so many evaluations in a row have not been better than the best before them."""
    return patience is not None and len(values) - 1 - best_evaluation(values) >= patience
