"""The attention layers of a model, head by head, as maps from and to the raw residual stream."""

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from src.models.checkpoint.matrices import Attention, Matrix, NormPlace, Role, Stack, read_matrix
from src.models.checkpoint.norms import is_norm, norm_place
from src.models.checkpoint.rotary import Rotary, rotary_of
from src.models.checkpoint.weights import Weights

# path of a layer
_IN_LAYER = re.compile(r"((?:^|.*?\.)(?:layers|layer|h|blocks?|resblocks)\.\d+)\..*")


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """One attention layer, in float64.

    Logits of a query x and a key y (raw residuals) at the same position are

        logit_scale * (q x / n(x) + q_bias) . (k y / n(y) + k_bias)

    with n(x) what the norm before attention divides by (1 where there is none). Folded into q, k and v: the gains of
    that norm, the removal of the mean (`centred`) and, into the biases, its shift; into q and k the gains of norms of
    queries and keys (`normed`: these divide once more, after the biases) and the scale of rotary positions; into o the
    gains of norms and layer scales of what attention gives. Query head i reads kv head i // (heads / kv_heads).

    module: path of the attention module. Keys and values of cross-attention
    read the encoder's states before its final norm.
    """

    stack: Stack
    layer: int
    attention: Attention
    module: str
    q: Float[Tensor, "head d_head d_model"]
    k: Float[Tensor, "kv_head d_head d_source"]
    v: Float[Tensor, "kv_head d_value d_source"]
    o: Float[Tensor, "head d_model d_value"]
    q_bias: Float[Tensor, "head d_head"] | None
    k_bias: Float[Tensor, "kv_head d_head"] | None
    logit_scale: float
    centred: bool
    normed: bool
    rotary: Rotary | None

    @property
    def repeats(self) -> int:
        """Query heads that share a key head."""
        return len(self.q) // len(self.k)

    @property
    def label(self) -> str:
        """Of the layer, for readers: `3`, `encoder 3`, `decoder 3 cross`."""
        return f"{self.stack} {self.layer}" + (" cross" if self.attention == "cross" else "")


@dataclass(frozen=True)
class _Norm:
    """The norm in a place: its gains and shifts (None = it has none), and whether it removes the mean."""

    gain: Float[Tensor, "feature"] | None
    shift: Float[Tensor, "feature"] | None
    centred: bool


def attention_layers(
    weights: Weights, matrices: Sequence[Matrix], device: torch.device | str = "cpu"
) -> Iterator[AttentionWeights]:
    """The softmax attention layers of a model, one at a time, in order.

    Layers that lack one of q, k, v, o (attention through a latent state, linear attention) are left out.
    """
    for stack, layer, attention in attention_places(matrices):
        of_layer = [each for each in matrices if each.stack == stack and each.layer == layer]
        yield _Assembly(weights, matrices, of_layer, attention, torch.device(device)).assembled()


def attention_places(matrices: Sequence[Matrix]) -> list[tuple[Stack, int, Attention]]:
    """Stack, layer and kind of each attention with one q, k, v and o."""
    roles: dict[tuple[Stack, int, Attention], list[Role]] = {}
    for matrix in matrices:
        if matrix.layer is not None and matrix.attention is not None and matrix.role in ("q", "k", "v", "o"):
            roles.setdefault((matrix.stack, matrix.layer, matrix.attention), []).append(matrix.role)
    return [place for place, found in roles.items() if sorted(found) == ["k", "o", "q", "v"]]


def raw_queries_and_keys(
    weights: Weights, matrices: Sequence[Matrix], layer: AttentionWeights
) -> tuple[Float[Tensor, "query_unit d_model"], Float[Tensor, "key_unit d_model"]]:
    """The projections of a layer as they are stored, nothing folded, [out, in]."""
    found = {
        matrix.role: read_matrix(weights, matrix)
        for matrix in matrices
        if matrix.role in ("q", "k")
        and (matrix.stack, matrix.layer, matrix.attention) == (layer.stack, layer.layer, layer.attention)
    }
    return found["q"], found["k"]


@dataclass(frozen=True)
class _Assembly:
    weights: Weights
    matrices: Sequence[Matrix]
    of_layer: Sequence[Matrix]
    attention: Attention
    device: torch.device

    def assembled(self) -> AttentionWeights:
        parts = {role: self._only(role) for role in ("q", "k", "v", "o")}
        read = {role: self._read(matrix) for role, matrix in parts.items()}
        heads = {role: matrix.heads or 1 for role, matrix in parts.items()}
        first = parts["q"]
        module = re.sub(r"\.[^.]+\.[^.]+$", "", first.parameter)  # without the projection, and its weight
        reading = self._norm(("attention", "attention_and_mlp") if self.attention == "self" else ("cross_attention",))
        source = reading if self.attention == "self" else self._final_norm_of_encoder()
        biases = {role: self._bias(role) for role in ("q", "k")}

        factors = {}
        for role, norm in (("q", reading), ("k", source), ("v", source)):
            rows = read[role]
            if role in biases:
                biases[role] = _shifted(rows, norm, biases[role])
            factors[role] = _folded(rows, norm).unflatten(0, (heads[role], -1))
        shaped = {role: None if bias is None else bias.unflatten(0, (heads[role], -1)) for role, bias in biases.items()}
        normed = False
        for role in ("q", "k"):
            norm = self._norm((role,))
            if norm is not None:
                normed = True
                factors[role], shaped[role] = _both(
                    lambda rows, norm=norm: _normed(rows, norm), factors[role], shaped[role]
                )
        d_head = factors["q"].shape[1]
        rotary = rotary_of(self.weights.skeleton, module, d_head) if self.attention == "self" else None
        if rotary is not None and rotary.scale != 1:
            for role in ("q", "k"):
                factors[role], shaped[role] = _both(rotary.scaled, factors[role], shaped[role])
        return AttentionWeights(
            first.stack, first.layer or 0, self.attention, module,
            factors["q"], factors["k"], factors["v"],
            self._gained(read["o"]).unflatten(1, (heads["q"], -1)).movedim(1, 0),
            shaped["q"], shaped["k"],
            logit_scale=_logit_scale(self.weights.skeleton.get_submodule(module), d_head),
            centred=reading is not None and reading.centred,
            normed=normed,
            rotary=rotary,
        )  # fmt: skip

    def _only(self, role: Role) -> Matrix:
        return next(each for each in self.of_layer if each.role == role and each.attention == self.attention)

    def _bias(self, role: Role) -> Float[Tensor, "row"] | None:
        found = [m for m in self.of_layer if m.role == "bias" and m.of == role and m.attention == self.attention]
        return self._read(found[0]) if found else None

    def _read(self, matrix: Matrix) -> Tensor:
        return read_matrix(self.weights, matrix).to(self.device, torch.float64)

    def _norm(self, places: tuple[NormPlace, ...]) -> _Norm | None:
        """The norm of this layer in one of these places."""
        found = [m for m in self.of_layer if m.place in places and m.attention in (self.attention, None)]
        return self._as_norm(found) if found else self._norm_without_parameters(places)

    def _norm_without_parameters(self, places: tuple[NormPlace, ...]) -> _Norm | None:
        """As in olmo: the catalogue does not have it."""
        skeleton = self.weights.skeleton
        block = skeleton.get_submodule(_IN_LAYER.sub(r"\1", self._only("q").parameter))
        norms = {path: module for path, module in block.named_modules() if path and is_norm(module)}
        for path, module in norms.items():
            bare = not any(True for _ in module.parameters())
            if bare and norm_place(self.weights.architecture, path, True, norms) in places:
                return _Norm(None, None, removes_mean(module))
        return None

    def _final_norm_of_encoder(self) -> _Norm | None:
        return self._as_norm([m for m in self.matrices if m.stack == "encoder" and m.place == "final"])

    def _as_norm(self, found: Sequence[Matrix]) -> _Norm | None:
        gain = next((m for m in found if m.role == "norm"), None)
        if gain is None:
            return None
        shift = next((m for m in found if m.role == "bias"), None)
        module = self.weights.skeleton.get_submodule(gain.parameter.rpartition(".")[0])
        return _Norm(self._read(gain), None if shift is None else self._read(shift), removes_mean(module))

    def _gained(self, o: Float[Tensor, "d_model value"]) -> Float[Tensor, "d_model value"]:
        """The output projection with the gains of what stands between it and the residual stream."""
        norm = self._norm(("attention_output",)) if self.attention == "self" else None
        if norm is not None and norm.gain is not None:
            o = norm.gain[:, None] * (o - o.mean(0) if norm.centred else o)
        for matrix in self.of_layer:
            if matrix.role == "layer_scale" and re.search(r"(?:layer_scale|ls|gamma_)1\b", matrix.parameter):
                o = self._read(matrix)[:, None] * o
        return o


def _folded(rows: Float[Tensor, "row d_model"], norm: _Norm | None) -> Float[Tensor, "row d_model"]:
    if norm is None:
        return rows
    rows = rows if norm.gain is None else rows * norm.gain
    return rows - rows.mean(-1, keepdim=True) if norm.centred else rows


def _shifted(
    rows: Float[Tensor, "row d_model"], norm: _Norm | None, bias: Float[Tensor, "row"] | None
) -> Float[Tensor, "row"] | None:
    """The bias with what the norm's shift adds to it."""
    if norm is None or norm.shift is None:
        return bias
    added = rows @ norm.shift
    return added if bias is None else bias + added


def _normed(rows: Float[Tensor, "head d_head column"], norm: _Norm) -> Float[Tensor, "head d_head column"]:
    """Rows of queries or keys under a norm of each head, or of all heads at once, but for its division."""
    if norm.gain is None:
        return rows
    if norm.centred:
        rows = rows - rows.mean(1, keepdim=True)
    return rows * norm.gain.reshape(-1, rows.shape[1], 1)


def _both(
    change: Callable[[Tensor], Tensor],
    rows: Float[Tensor, "head d_head d_model"],
    bias: Float[Tensor, "head d_head"] | None,
) -> tuple[Tensor, Tensor | None]:
    """A change of the features of heads, made to a projection and to its bias."""
    return change(rows), None if bias is None else change(bias[..., None])[..., 0]


def _logit_scale(attention: Any, d_head: int) -> float:
    for name in ("scaling", "inv_norm_factor", "softmax_scale", "scale"):
        if isinstance(found := getattr(attention, name, None), int | float):
            return float(found)
    return 1.0 if type(attention).__name__.startswith("GPTNeoSelf") else d_head**-0.5


def removes_mean(norm: nn.Module) -> bool:
    """Whether a norm gives the same for x and for x plus a constant (layer norms do, RMS norms do not); tried out."""
    if not is_norm(norm):
        return False
    weight = getattr(norm, "weight", None)
    width = len(weight) if isinstance(weight, Tensor) else getattr(norm, "normalized_shape", (8,))[-1]
    trial = copy.deepcopy(norm).to(torch.float32).to_empty(device="cpu")
    x = torch.linspace(-1, 1, width)[None, None] ** 3
    with torch.no_grad():
        for parameter in trial.parameters():
            parameter.fill_(0.5)
        try:
            return bool(torch.allclose(trial(x), trial(x + 1.0), atol=1e-4))
        except (TypeError, RuntimeError):
            return isinstance(norm, nn.LayerNorm)
