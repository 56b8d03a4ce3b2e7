"""What was found about captured runs: what the tables and the page are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Bool
from torch import Tensor

from src.scenarios.comparing.attended_messages import AttendedMessages
from src.scenarios.comparing.centring import Similarities
from src.scenarios.comparing.fading import Fading
from src.scenarios.comparing.labelled import LabelledMessages
from src.scenarios.comparing.pair_metrics import PairMetrics
from src.scenarios.comparing.qkv import QkvMetrics
from src.scenarios.comparing.runs import ComparedRun, RunComparisons
from src.scenarios.comparing.separability import Separability
from src.scenarios.comparing.to_references import ReferenceComparison
from src.scenarios.states import Run
from src.scenarios.storage.run_folder import CapturedScenario

# below this corrected p the references of a layer can be told apart
LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class RunReferences:
    """The messages of a run against reference labels at one position.

    similarities: cosines with labels' mean states, raw and centred. plain: Activation Lab's metrics. qkv: if captured.
    separability: of the references at that position, if it was tested.
    """

    position: str
    similarities: Similarities
    plain: ReferenceComparison
    qkv: QkvMetrics | None = None
    separability: Separability | None = None

    def separable(self, source: str) -> Bool[Tensor, "layer"] | None:
        """The layers where the references themselves can be told apart; None where that was not tested."""
        tested = self.separability.by_source.get(source) if self.separability is not None else None
        return None if tested is None else tested.p_corrected <= LEVEL


@dataclass(frozen=True, eq=False)
class ScenarioFindings:
    """A captured scenario.

    separability: of its references, at each position. labelled, fading: of messages with a label, at each position.
    problems: what could not be compared, and why.
    """

    captured: CapturedScenario
    separability: list[Separability] = field(default_factory=list)
    labelled: list[LabelledMessages] = field(default_factory=list)
    fading: list[Fading] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its artifact."""
        return self.captured.artifact.path.name


@dataclass(frozen=True, eq=False)
class RunFindings:
    """One run. key: R1, R2, ..., by which matrices name it. within: first against last step, by source."""

    key: str
    compared: ComparedRun
    scenario: ScenarioFindings
    within: Mapping[str, PairMetrics]
    attended: AttendedMessages | None
    references: Sequence[RunReferences] = ()

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.compared.run

    @property
    def name(self) -> str:
        """Unique among the compared runs."""
        return self.compared.name

    @property
    def anchor(self) -> str:
        """Its place on the page."""
        return f"run-{self.key[1:]}"


@dataclass(frozen=True, eq=False)
class ComparedRuns:
    """All of it. sources: in the order of the user. pair_cards: runs at most for which each pair has a card."""

    scenarios: Sequence[ScenarioFindings]
    runs: Sequence[RunFindings]
    between: RunComparisons
    sources: Sequence[str]
    positions: Sequence[str]
    pair_cards: int

    @property
    def problems(self) -> list[str]:
        """What could not be compared."""
        return [f"{scenario.name}: {problem}" for scenario in self.scenarios for problem in scenario.problems]
