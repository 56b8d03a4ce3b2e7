"""A loaded model with its blocks, and what may be asked of it."""

import hashlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from src.config.shared import ModelConfig
from src.errors import StrataError
from src.hook_points import HookPoint, refuse_shifted
from src.models.architecture import architecture_digest
from src.models.blocks import Blocks, find_blocks
from src.models.increments import Increments, find_increments
from src.models.inner import InnerModel, find_inner_model
from src.models.internals import Internals, find_internals
from src.models.sites import Place, find_overwritten


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A Hugging Face model in eval mode, its inner model, and its blocks in the order in which they run.

    module: the whole model, with its vocabulary head if it has one.
    inner: the part up to the last block, for forward passes that never compute logits.
    block_list: the blocks and where their list lies in `module`.
    """

    config: ModelConfig
    module: PreTrainedModel
    inner: InnerModel
    block_list: Blocks

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The blocks: layer L is `blocks[L]`."""
        return self.block_list.modules

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.block_list.d_model

    @property
    def embedding(self) -> Float[Tensor, "d_vocab d_model"]:
        """The rows that tokens are looked up in."""
        table = self.module.get_input_embeddings()
        assert isinstance(table.weight, Tensor)
        return table.weight

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.module.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.module.dtype

    @cached_property
    def increments(self) -> Increments:
        """Where attn_out and mlp_out are read; searched for when first asked (StrataError if there are none)."""
        return find_increments(self.module, self.inner, self.block_list)

    @cached_property
    def forward_arguments(self) -> frozenset[str]:
        """Names of the arguments of the whole model's forward pass."""
        return frozenset(inspect.signature(self.module.forward).parameters)

    @cached_property
    def internals(self) -> Internals:
        """Where q, k, v, attention and neurons are read, or why not; searched for when first asked."""
        try:
            increments = self.increments
        except StrataError as error:
            increments = error
        return find_internals(self.module, self.inner, self.block_list, increments)

    @cached_property
    def overwritten(self) -> frozenset[Place]:
        """What modules take or return and is changed in place later in the pass; searched for when first asked."""
        return find_overwritten(self.module, self.inner, self.block_list)

    def check_hook_points(self, points: Iterable[HookPoint]) -> None:
        """Raise StrataError for a layer that the model does not have, an offset, or an increment that can't be read."""
        points = list(points)
        refuse_shifted(points)
        for point in points:
            if point.layer >= self.n_layers:
                raise StrataError(f"{point}: the model has layers 0..{self.n_layers - 1}")
            if point.hook in ("attn_out", "mlp_out"):
                _ = self.increments

    def check_token_ids(self, input_ids: Int[Tensor, "batch pos"]) -> None:
        """Raise StrataError for tokens beyond the model's embedding (a GPU would only report that something failed)."""
        d_vocab = self.module.config.get_text_config().vocab_size
        largest = int(input_ids.max()) if input_ids.numel() else 0
        if largest >= d_vocab:
            raise StrataError(
                f"token {largest} is beyond the vocabulary of {self.config.name}, which has {d_vocab} tokens: the text "
                "was tokenised for another model; check that the tokenizer beside the model is its own"
            )

    def identity(self) -> dict[str, str | None]:
        """What tells this model from another in a fingerprint: plain values, the same on every machine and device.

        `revision` is the commit, where the hub told it. `weights` is the sha256 of all weights of the inner model, so
        that a retrained or edited local model is another one. What the config left to be found (dtype, blocks, stack,
        attention implementation) is here as it was found.
        """
        return {
            "name": self.config.name,
            "path": self.config.path,
            "revision": getattr(self.module.config, "_commit_hash", None) or self.config.revision,
            "dtype": str(self.dtype).removeprefix("torch."),
            "blocks": self.block_list.path,
            "stack": self.inner.stack,
            "attention": getattr(self.module.config, "_attn_implementation", None),
            "architecture": architecture_digest(self.module.config),
            "weights": self._weights_digest(),
        }

    def identity_of_predictions(self) -> dict[str, str | None]:
        """`identity`, and the sha256 of the weights outside of the inner model, if any: a vocabulary head of its own.

        For numbers that come from logits; hidden states do not depend on these weights.
        """
        inner = {id(weight) for weight in self.inner.module.parameters()}
        outside = [weight for weight in self.module.parameters() if id(weight) not in inner]
        return self.identity() | ({"head": _digest(outside)} if outside else {})

    def _weights_digest(self) -> str:
        return _digest(self.inner.module.parameters())


def _digest(weights: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def wrap_model(module: PreTrainedModel, config: ModelConfig) -> LanguageModel:
    """Find the blocks of a model that is in memory already, by running a few tokens through it.

    The model is put in eval mode and its weights need no gradients from here on. Its device and dtype stay as they are.

    Raises:
        StrataError: no blocks are found (the message lists what was tried), or config.stack or config.blocks does not
            fit.
    """
    module.eval().requires_grad_(False)
    inner = find_inner_model(module, config.stack)
    return LanguageModel(config, module, inner, find_blocks(module, inner, config.blocks))
