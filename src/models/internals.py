"""What a block computes on the way to its increments: where queries, keys, values and neurons are."""

from dataclasses import dataclass

from transformers import PreTrainedModel

from src.errors import StrataError
from src.models.attention_rows import rows_follow_sdpa
from src.models.blocks import Blocks
from src.models.increments import Increments
from src.models.inner import InnerModel
from src.models.neurons import ROLES, find_neurons
from src.models.projections import AttentionSites, Roles, find_attention


@dataclass(frozen=True, eq=False)
class Internals:
    """Of each block, in order; a string in place of something says why it can't be read.

    attention: the attention module, and where q, k and v are. neurons: where mlp_gate, mlp_up and mlp_act are.
    rows_follow_sdpa: under sdpa, the attention weights can be computed from what it is given.
    """

    attention: tuple[AttentionSites | str, ...]
    neurons: tuple[Roles, ...]
    rows_follow_sdpa: bool


def find_internals(
    module: PreTrainedModel, inner: InnerModel, blocks: Blocks, increments: Increments | StrataError
) -> Internals:
    """Search all blocks, in a few forward (and small backward) passes of ten tokens.

    increments: of the model, or why it has none (then its MLPs can't be told from the rest).
    """
    attention = find_attention(module, inner, blocks)
    paths = [None if isinstance(found, str) else found.path for found in attention]
    if isinstance(increments, StrataError):
        missing: Roles = {role: str(increments) for role in ROLES}
        neurons = [missing] * len(paths)
    else:
        neurons = find_neurons(module, inner, blocks, increments, paths)
    return Internals(
        attention=tuple(attention),
        neurons=tuple(neurons),
        rows_follow_sdpa=rows_follow_sdpa(module, inner, blocks, attention),
    )
