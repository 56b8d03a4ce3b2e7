"""Every parameter of a model with what it is for: fused projections split, transposed ones turned, experts apart."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from src.models.checkpoint.fused import Rows, fused_layout, gate_up_rows, head_counts, query_gate_rows
from src.models.checkpoint.matrices import Matrix, Role, Stack
from src.models.checkpoint.names import FUSED_GATE_UP, FUSED_QKV, NamedParameter, named_parameter
from src.models.checkpoint.norms import gain_offset, is_norm, norm_place
from src.models.checkpoint.weights import Weights

# vectors that are parameters in their own right
_NO_BIAS = ("special_token", "position", "layer_scale", "sink", "scalar", "linear_attention")


def catalogue(weights: Weights) -> list[Matrix]:
    """Every parameter of a model, in the model's order; what is not recognised has role `other`."""
    model = _Model(weights)
    return [matrix for name, shape in weights.shapes.items() for matrix in model.matrices(name, shape)]


@dataclass(frozen=True)
class _Model:
    weights: Weights

    @cached_property
    def owners(self) -> Mapping[str, nn.Module]:
        """The module of each parameter."""
        modules = dict(self.weights.skeleton.named_modules(remove_duplicate=False))
        return {name: modules[name.rpartition(".")[0]] for name in self.weights.shapes}

    @cached_property
    def norms(self) -> Mapping[tuple[str, int | None], list[str]]:
        """The paths of the norms of each layer of each stack."""
        found: dict[tuple[str, int | None], list[str]] = defaultdict(list)
        for name, owner in self.owners.items():
            if is_norm(owner) and name.endswith("weight"):
                found[self.stack(name), named_parameter(name).layer].append(named_parameter(name).path)
        return found

    @cached_property
    def offsets(self) -> dict[type[nn.Module], float]:
        return {}

    def matrices(self, name: str, shape: tuple[int, ...]) -> Iterator[Matrix]:
        """The matrices that a parameter holds."""
        named, owner = named_parameter(name), self.owners[name]
        stack = self.stack(name)
        whole = Matrix(name, name, "other", shape, stack, named.layer, named.attention, expert=named.expert)
        whole = replace(whole, shared=named.shared, transposed=isinstance(owner, Conv1D) and len(shape) == 2)
        if named.role == "linear_attention":
            yield replace(whole, role="linear_attention", attention=None)
        elif is_norm(owner):
            yield self._norm(whole, named, owner)
        elif named.role in (FUSED_QKV, FUSED_GATE_UP) or named.role in ("q", "gate", "up", "down") or len(shape) == 3:
            yield from self._projections(whole, named, owner)
        else:
            yield self._with_heads(self._single(whole, named))

    def _norm(self, whole: Matrix, named: NamedParameter, owner: nn.Module) -> Matrix:
        siblings = self.norms[whole.stack, whole.layer]
        place = norm_place(self.config(whole.stack), named.path, named.layer is not None, siblings)
        attention = whole.attention if place in ("q", "k") else None
        placed = replace(whole, place=place, attention=attention)
        if named.leaf == "bias":
            return replace(placed, role="bias", of="norm")
        if type(owner) not in self.offsets:
            self.offsets[type(owner)] = gain_offset(owner)
        return replace(placed, role="norm", offset=self.offsets[type(owner)])

    def _single(self, whole: Matrix, named: NamedParameter, role: str | None = None) -> Matrix:
        """A parameter that is one matrix, or its bias."""
        given: Role = role or named.role  # pyright: ignore[reportAssignmentType]
        shape = whole.shape[::-1] if whole.transposed else whole.shape
        if given in ("position", "special_token") and len(shape) == 3:
            shape = shape[1:]
        if named.leaf == "bias" and given not in _NO_BIAS:
            return replace(whole, role="bias", of=given, shape=shape)
        return replace(whole, role=given, shape=shape)

    def _projections(self, whole: Matrix, named: NamedParameter, owner: nn.Module) -> Iterator[Matrix]:
        """One or several matrices of attention or MLP, of every expert."""
        if len(whole.shape) == (2 if named.leaf == "bias" else 3) and named.expert is None and "expert" in named.path:
            transposed = bool(getattr(owner, "is_transposed", False)) and named.leaf != "bias"
            for expert in range(whole.shape[0]):
                part = replace(whole, name=f"{whole.name}[{expert}]", shape=whole.shape[1:], expert=expert)
                yield from self._parts(replace(part, transposed=transposed), named, owner)
        else:
            yield from self._parts(whole, named, owner)

    def _parts(self, whole: Matrix, named: NamedParameter, owner: nn.Module) -> Iterator[Matrix]:
        n_rows = whole.shape[-1] if whole.transposed else whole.shape[0]
        rows, heads = self._rows(named, owner, whole.stack, n_rows)
        if not rows:
            unsplit = "other" if named.role in (FUSED_QKV, FUSED_GATE_UP) else named.role
            yield self._with_heads(self._single(whole, named, unsplit))
        for role, of_part in rows.items():
            single = self._single(whole, named, role)
            name, shape = f"{whole.name}[{role}]", (len(of_part), *single.shape[1:])
            part = replace(single, name=name, shape=shape, rows=tuple(of_part.tolist()))
            yield replace(part, heads=heads.get(role))

    def _rows(
        self, named: NamedParameter, owner: nn.Module, stack: Stack, n_rows: int
    ) -> tuple[Mapping[str, Rows], Mapping[str, int]]:
        """The rows of each part, and its heads; nothing of a projection that is one matrix."""
        config = self.config(stack)
        n_heads, n_kv_heads = head_counts(config, stack == "encoder")
        if named.role == FUSED_GATE_UP:
            return gate_up_rows(n_rows, bool(getattr(owner, "is_concatenated", True))), {}
        if named.role == FUSED_QKV and n_heads and n_kv_heads:
            layout = fused_layout(config, named.path, n_heads, n_kv_heads)
            try:
                return layout.rows(n_rows), layout.heads
            except ValueError:
                return {}, {}  # is listed as not recognised
        if named.role == "q" and n_heads and self._attended_width(named) * 2 == n_rows:
            return query_gate_rows(n_rows, n_heads), {"q": n_heads, "output_gate": n_heads}
        return {}, {}

    def _attended_width(self, named: NamedParameter) -> int:
        """The width that the output projection of the same attention takes; 0 if there is none."""
        prefix = named.name[: named.name.rindex(named.path.rpartition(".")[2])]
        for name, shape in self.weights.shapes.items():
            if name.startswith(prefix) and name.endswith("weight") and named_parameter(name).role == "o":
                return shape[0] if isinstance(self.owners[name], Conv1D) else shape[-1]
        return 0

    def _with_heads(self, matrix: Matrix) -> Matrix:
        role = matrix.of if matrix.role == "bias" else matrix.role
        n_heads, n_kv_heads = head_counts(self.config(matrix.stack), matrix.stack == "encoder")
        if role in ("k", "v"):
            return replace(matrix, heads=n_kv_heads)
        return replace(matrix, heads=n_heads) if role == "q" or matrix.role == "o" else matrix

    def config(self, stack: Stack) -> PreTrainedConfig:
        """The config of a stack: models of several kinds of input have one for each."""
        whole = self.weights.architecture
        part = getattr(whole, "vision_config", None) if stack == "vision" else getattr(whole, "text_config", None)
        if isinstance(part, PreTrainedConfig):
            return part
        return whole if stack == "vision" else whole.get_text_config(decoder=False)

    def stack(self, name: str) -> Stack:
        """Which stack of blocks a parameter belongs to."""
        return _stack(name, self.default_stack, self.weights.architecture.is_encoder_decoder)

    @cached_property
    def default_stack(self) -> Stack:
        architecture, skeleton = self.weights.architecture, self.weights.skeleton
        if getattr(skeleton, "main_input_name", "") == "pixel_values":
            return "vision"
        if architecture.is_encoder_decoder or (hasattr(architecture, "vision_config")):
            return "shared"
        if "clip_text" in architecture.model_type:
            return "text"
        masked = architecture.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        return "encoder" if masked and not getattr(architecture, "is_decoder", False) else "decoder"


_STACKS: Sequence[tuple[str, Stack]] = (
    ("vision_model", "vision"),
    ("vision_tower", "vision"),
    ("visual", "vision"),
    ("visual_projection", "vision"),
    ("text_model", "text"),
    ("text_projection", "text"),
    ("language_model", "decoder"),
)


def _stack(name: str, default: Stack, is_encoder_decoder: bool) -> Stack:
    parts = name.split(".")
    for part, stack in _STACKS:
        if part in parts:
            return stack
    if is_encoder_decoder:
        return "encoder" if "encoder" in parts else "decoder" if "decoder" in parts else "shared"
    return default
