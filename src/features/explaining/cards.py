"""What is known of a feature, and of the features of a layer: the contents of feature cards."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from jaxtyping import Int
from torch import Tensor

from src.features.explaining.contexts import FeatureActivity
from src.features.explaining.explanations import Explanation
from src.features.scores.logit_lens import PromotedTokens


@dataclass(frozen=True)
class FeatureCard:
    """All that is known of one feature. activity: None where no store was read."""

    feature: int
    explanations: tuple[Explanation, ...] = ()
    activity: FeatureActivity | None = None
    promoted: PromotedTokens | None = None
    neighbours: tuple[tuple[int, float], ...] = ()
    scores: dict[str, float] = field(default_factory=dict)

    def token_ids(self) -> Iterator[int]:
        """Every token that the card shows."""
        if self.activity is not None:
            yield from (it.token_id for it in self.activity.tokens)
            for context in self.activity.contexts:
                yield from context.token_ids
        if self.promoted is not None:
            yield from (token for token, _ in (*self.promoted.promoted, *self.promoted.suppressed))


@dataclass(frozen=True, eq=False)
class LayerCards:
    """The cards of a layer. sae: its name for users. hook: where it reads. firings: of all its features, if counted."""

    layer: int
    cards: list[FeatureCard]
    sae: str = ""
    hook: str = ""
    firings: Int[Tensor, " feature"] | None = None
    n_tokens: int = 0
