"""Logits from the output of the last block: the final norm and the vocabulary head, as the model itself does them."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.errors import NotApplicableError
from src.hook_points import HookPoint
from src.models.capture import attach, capture, forward_pass
from src.models.inner import probe_tokens, rounding_epsilon, rounding_units
from src.models.language_model import LanguageModel
from src.models.skipping import BlockSkipper

_LIMIT = 8.0
# Relative error of logits in units of the dtype's epsilon: other batch shapes round otherwise at each product.
_HEAD_LIMIT = 64.0
_CPU_CHUNK, _GPU_CHUNK = 2**25, 2**29


def suitable_chunk(device: torch.device) -> int:
    """Bytes of log-probabilities to hold at a time: 32 MB on a CPU, whose caches larger pieces leave; else 512 MB."""
    return _CPU_CHUNK if device.type == "cpu" else _GPU_CHUNK


class VocabularyHead:
    """The model with all of its blocks skipped, token by token.

    What it does after its blocks (a final norm, a projection, scaling or soft-capping of logits) its own code does.
    """

    def __init__(self, model: LanguageModel, skipper: BlockSkipper | None = None) -> None:
        """Checks on a few tokens that the model is causal, and that its logits are those of its blocks' output.

        Raises:
            NotApplicableError: the model has no vocabulary head, later tokens change what is predicted at earlier ones,
                or its logits need more than the output of the last block.
        """
        self._model, self._skipper = model, skipper or BlockSkipper(model)
        self._whole = replace(model.inner, module=model.module)
        self._name = f"{type(model.module).__name__} ({model.config.name})"
        if model.module.get_output_embeddings() is None:
            raise NotApplicableError(
                f"{self._name} has no vocabulary head, so it predicts no tokens: choose a causal LM"
            )
        self._refuse_non_causal()
        self._check_logits()

    def __call__(self, final: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_vocab"]:
        """Logits in the model's dtype, as the model gives them. Raises StrataError if they outgrow the memory."""
        with torch.inference_mode():
            return self.logits(final)

    def logits(self, final: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_vocab"]:
        """The same where autograd is to follow."""
        ids = torch.zeros(len(final), 1, dtype=torch.long, device=final.device)
        state = final[:, None].clone()
        with forward_pass(self._model, ids.shape), self._skipper.skipped(self._model.n_layers, state):
            return self._whole(ids, torch.ones_like(ids)).logits[:, 0]

    def nll(
        self, final: Float[Tensor, "token d_model"], next_ids: Int[Tensor, "token"], chunk_bytes: int | None = None
    ) -> Float[Tensor, "token"]:
        """-log P of the token after each, in nats and in float32 at least.

        chunk_bytes: of the log-probabilities that are held at a time (a few times as much at the peak); None: what
        suits the device. Raises StrataError if they outgrow the memory.
        """
        size = self.tokens_at_once(chunk_bytes)
        parts = zip(final.split(size), next_ids.split(size), strict=True)
        found = [next_token_nll(self(rows), ids) for rows, ids in parts]
        return torch.cat(found) if found else final.new_zeros(0, dtype=torch.float32)

    def tokens_at_once(self, chunk_bytes: int | None = None) -> int:
        """How many tokens' log-probabilities fit into a chunk, counted in float32."""
        d_vocab = self._model.module.config.get_text_config().vocab_size
        return max(1, (chunk_bytes or suitable_chunk(self._model.device)) // (4 * d_vocab))

    def _refuse_non_causal(self) -> None:
        ids = probe_tokens(self._model.module)
        changed = ids.clone()
        changed[:, -1] = ids[:, 0]
        point = HookPoint("resid_post", self._model.n_layers - 1)
        # in passes of their own, since two rows of one batch may be rounded differently by several threads
        one, other = (
            capture(self._model, tokens, torch.ones_like(tokens), [point])[point][:, :-1].float()
            for tokens in (ids, changed)
        )
        scale = one.abs() + one.abs().mean(-1, keepdim=True)
        if rounding_units(one - other, scale, self._model.dtype) > _LIMIT:
            raise NotApplicableError(
                f"{self._name} is not causal: a later token changes the hidden states of earlier ones, so the "
                "prediction of the next token means nothing. Choose a causal LM"
            )

    def _check_logits(self) -> None:
        ids = probe_tokens(self._model.module)
        seen: list[Tensor] = []
        handle = attach(
            self._model, HookPoint("resid_post", self._model.n_layers - 1), lambda state: seen.append(state.clone())
        )
        try:
            with forward_pass(self._model, ids.shape), torch.inference_mode():
                expected = self._whole(ids, torch.ones_like(ids)).logits.flatten(0, 1).float()
        finally:
            handle.remove()
        found = self(seen[0].flatten(0, 1)).float()
        limit = _HEAD_LIMIT * rounding_epsilon(self._model.dtype)
        if not bool(((found - expected).norm(dim=1) <= limit * expected.norm(dim=1)).all()):
            raise NotApplicableError(
                f"the logits of {self._name} can't be computed from the output of its last block alone, token by "
                "token: causal evaluation is not offered for this architecture"
            )


def next_token_nll(logits: Float[Tensor, "token d_vocab"], next_ids: Int[Tensor, "token"]) -> Float[Tensor, "token"]:
    """-log softmax(logits)[next], computed in float32 at least."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return -logits.log_softmax(-1, dtype).gather(-1, next_ids[:, None])[:, 0]
