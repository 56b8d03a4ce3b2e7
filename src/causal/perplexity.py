"""What interventions do to next-token predictions: scores per token, from one clean pass and stacked replays."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.activations.products import exact_products
from src.causal.interventions import CleanStates, Intervention, edited_tokens, is_selective, place_of_operator
from src.causal.scores import EditProof, TokenScores
from src.causal.suffix import CleanPass, SuffixReplay, Write, suitable_rows
from src.errors import StrataError
from src.hook_points import HookPoint, refuse_shifted
from src.models import LanguageModel, VocabularyHead
from src.models.head import suitable_chunk

_HELD_BYTES = 2**28  # of final hidden states


@dataclass(frozen=True)
class Condition:
    """An intervention at a hook point, at some positions (None: at all) of every sequence that reaches them.

    A token is edited if it may be, and so may the token at the offset of each of the intervention's sources: a
    prediction from BOS, or from before the first token, is never written.

    Raises:
        StrataError: positions that can't be, a target with an offset, or an operator that was fitted for another place.
    """

    name: str
    intervention: Intervention
    target: HookPoint
    positions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.positions is not None and (not self.positions or min(self.positions) < 0):
            raise StrataError(
                f"condition {self.name}: positions must be counted from 0, and at least one named; got {self.positions}"
            )
        refuse_shifted([self.target])
        if (place := place_of_operator(self.intervention)) not in (None, self.target):
            raise StrataError(
                f"condition {self.name}: its operator predicts {place}, and would be written at {self.target}: write "
                "it where it belongs, or fit another"
            )

    @property
    def choice(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What decides which tokens are edited: positions (none: all), and the offsets of sources."""
        return self.positions or (), tuple(sorted({point.offset for point in self.intervention.sources} - {0}))

    @property
    def tokens(self) -> tuple[tuple[int, ...], tuple[int, ...], str]:
        """What two conditions share if they edit the same tokens: their choice, unless it depends on activations."""
        return *self.choice, self.name if is_selective(self.intervention) else ""

    def edited(self, editable: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
        """Which of the tokens that may be edited this condition edits; a selective intervention: at most."""
        edited, (_, offsets) = editable.clone(), self.choice
        for offset in offsets:
            # False beyond both ends, where there is no token
            padded = torch.nn.functional.pad(editable, (abs(offset), abs(offset)), value=False)
            edited &= padded[:, abs(offset) + offset :][:, : editable.shape[1]]
        if self.positions is not None:
            chosen = torch.zeros_like(editable)
            chosen[:, [position for position in self.positions if position < editable.shape[1]]] = True
            edited &= chosen
        return edited


class ConditionScorer:
    """Scores batches under a set of conditions: all of them share one clean pass, those of a target share its replays.

    rows_per_pass: sequences times conditions in one replay. chunk_bytes: of the log-probabilities that are held at a
    time; the peak is about three times as much, and 256 MB for hidden states that wait to be scored. None: what suits
    the model's device (8 rows and 32 MB on a CPU, whose caches larger pieces leave; 128 rows and 512 MB elsewhere).

    Raises:
        StrataError: no conditions, two of one name, a hook point that the model does not have, or a model that does not
            predict the next token.
    """

    def __init__(
        self,
        model: LanguageModel,
        conditions: Sequence[Condition],
        rows_per_pass: int | None = None,
        chunk_bytes: int | None = None,
    ) -> None:
        names = [condition.name for condition in conditions]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled or not names:
            raise StrataError(f"conditions need names of their own: {', '.join(doubled) or 'there is none'}")
        self.model, self.conditions = model, tuple(conditions)
        self._targets = {condition.target for condition in conditions}
        self._sources = {point.at(0) for condition in conditions for point in condition.intervention.sources}
        model.check_hook_points(self._targets | self._sources)
        self.suffix = SuffixReplay(model, suitable_rows(model.device) if rows_per_pass is None else rows_per_pass)
        self.head = VocabularyHead(model, self.suffix.skipper)
        self.chunk_bytes = suitable_chunk(model.device) if chunk_bytes is None else chunk_bytes

    def score(
        self,
        input_ids: Int[Tensor, "batch pos"],
        attention_mask: Int[Tensor, "batch pos"],
        editable: Bool[Tensor, "batch pos"] | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> TokenScores:
        """Scores of one batch, padded on the right.

        editable: tokens that may be edited (to leave out BOS, on which operators were not fitted); all if None.
        advance: is told the number of sequences times conditions done.

        Raises:
            StrataError: padding or tokens that the model can't have, an intervention that fails, or a failing pass.
        """
        with exact_products():
            is_token = attention_mask.to(self.model.device).bool()
            may_edit = is_token if editable is None else is_token & editable.to(is_token.device)
            latest = self._latest_first_edit(may_edit)
            clean = self.suffix.clean(input_ids, attention_mask, self._targets, self._sources, latest)
            batch = _Batch(self, clean, is_token, may_edit)
            for group in self._groups(clean.input_ids):
                batch.take(group)
                advance(len(group) * len(is_token))
            return batch.finished()

    def _latest_first_edit(self, may_edit: Bool[Tensor, "batch pos"]) -> int | None:
        """The latest position at which a condition begins to edit a sequence; None: it may be any."""
        if any(is_selective(condition.intervention) for condition in self.conditions):
            return None
        of_choice = {condition.choice: condition for condition in self.conditions}.values()
        return max(int(condition.edited(may_edit).int().argmax(1).max()) for condition in of_choice)

    def _groups(self, input_ids: Int[Tensor, "batch pos"]) -> Iterator[list[int]]:
        """Indices of conditions of one target whose final states are held together; like tokens side by side."""

        def order(index: int) -> tuple[HookPoint, tuple[tuple[int, ...], tuple[int, ...], str]]:
            return self.conditions[index].target, self.conditions[index].tokens

        size = max(1, _HELD_BYTES // (input_ids.numel() * self.model.d_model * self.model.dtype.itemsize))
        for _, indices in groupby(sorted(range(len(self.conditions)), key=order), lambda index: order(index)[0]):
            of_target = list(indices)
            yield from (of_target[start : start + size] for start in range(0, len(of_target), size))


class _Batch:
    """The scores of one batch in the making; see TokenScores."""

    def __init__(
        self,
        scorer: ConditionScorer,
        clean: CleanPass,
        is_token: Bool[Tensor, "batch pos"],
        may_edit: Bool[Tensor, "batch pos"],
    ) -> None:
        self._scorer, self._clean, self._is_token, self._may_edit = scorer, clean, is_token, may_edit
        self._clean_final = clean.states[scorer.suffix.final]
        self._predicted = is_token[:, 1:]
        self._clean_nll = torch.zeros(self._predicted.shape, device=is_token.device)
        self._has_clean = torch.zeros_like(self._predicted)
        shape = len(scorer.conditions), *self._predicted.shape
        self._nll, self._kl = self._clean_nll.repeat(shape[0], 1, 1), self._clean_nll.repeat(shape[0], 1, 1)
        self._agrees = self._predicted.repeat(shape[0], 1, 1)
        self._affected = torch.zeros(shape, dtype=torch.bool, device=is_token.device)
        self._proofs: dict[str, EditProof] = {}
        self._edited: dict[str, Tensor] = {}

    def take(self, group: list[int]) -> None:
        """Replay some conditions of one target, and score the predictions that they can change."""
        conditions = [self._scorer.conditions[index] for index in group]
        writes = [self._write(condition) for condition in conditions]
        rerun = self._scorer.suffix.rerun(self._clean, conditions[0].target, writes)
        edited = torch.stack([write.edited for write in writes])
        names = [condition.name for condition in conditions]
        self._edited |= zip(names, edited.cpu(), strict=True)
        reached = edited.cumsum(-1) > 0
        self._affected[group] = reached[..., :-1] & self._predicted
        # those that edit the same tokens change the same predictions
        for _, members in groupby(range(len(group)), lambda place: conditions[place].tokens):
            places = list(members)
            indices = torch.tensor(group)[places].to(edited.device)
            for row, position, scores in self._compare(self._affected[indices[0]], rerun.final[places]):
                there = indices[:, None], row, position
                self._nll[there], self._kl[there], self._agrees[there] = scores.nll, scores.kl, scores.agrees
        size = self._clean_final.float().norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
        change = torch.stack([(final.float() - self._clean_final.float()).norm(dim=-1) / size for final in rerun.final])
        change = change.masked_fill(reached | ~self._is_token, 0).flatten(1).amax(1)
        tokens = edited.flatten(1).sum(1).tolist()
        proofs = zip(tokens, rerun.max_deviation.tolist(), change.tolist(), strict=True)
        self._proofs |= {name: EditProof(*proof) for name, proof in zip(names, proofs, strict=True)}

    def finished(self) -> TokenScores:
        """What was found, on the CPU."""
        for _ in self._compare(self._predicted & ~self._has_clean, self._clean_final[None][:0]):
            pass  # clean scores where no condition changes anything
        names = tuple(condition.name for condition in self._scorer.conditions)
        return TokenScores(
            conditions=names,
            predicted=self._predicted.cpu(),
            clean_nll=self._clean_nll.cpu(),
            nll=torch.where(self._affected, self._nll, self._clean_nll).cpu(),
            kl=self._kl.cpu(),
            agrees=self._agrees.cpu(),
            affected=self._affected.cpu(),
            proofs={name: self._proofs[name] for name in names},
            edited={name: self._edited[name] for name in names},
        )

    def _write(self, condition: Condition) -> Write:
        edited = condition.edited(self._may_edit)
        states = CleanStates(condition.target, self._clean.states, self._is_token, edited)
        edited = edited_tokens(condition.intervention, states)
        values = condition.intervention(replace(states, edited=edited))
        shape = int(edited.sum()), self._clean_final.shape[-1]
        if values.shape != shape:
            raise StrataError(
                f"condition {condition.name} writes {tuple(values.shape)} at {condition.target}, which takes {shape}: "
                "check that the operator, the directions or the dictionary belong to this model"
            )
        return Write(edited, values)

    def _compare(
        self, where: Bool[Tensor, "batch position"], final: Float[Tensor, "condition batch pos d_model"]
    ) -> Iterator[tuple[Int[Tensor, "token"], Int[Tensor, "token"], "_Comparison"]]:
        """Scores of the predictions at `where`, in chunks: sequences, positions, scores. Keeps the clean NLL."""
        next_ids = self._clean.input_ids[:, 1:]
        d_vocab = self._scorer.model.module.config.get_text_config().vocab_size
        size = max(1, self._scorer.chunk_bytes // (4 * d_vocab * (1 + len(final))))
        tokens = where.nonzero()
        for start in range(0, len(tokens), size):
            row, position = tokens[start : start + size].T
            stacked = torch.cat([self._clean_final[None, row, position], final[:, row, position]])
            logits = self._scorer.head(stacked.flatten(0, 1))
            dtype = torch.promote_types(logits.dtype, torch.float32)
            log_p = logits.view(*stacked.shape[:2], -1).log_softmax(-1, dtype)
            scores = _compared(log_p, next_ids[row, position])
            self._clean_nll[row, position] = scores.clean_nll
            self._has_clean[row, position] = True
            yield row, position, scores


@dataclass(frozen=True, eq=False)
class _Comparison:
    clean_nll: Float[Tensor, "token"]
    nll: Float[Tensor, "condition token"]
    kl: Float[Tensor, "condition token"]
    agrees: Bool[Tensor, "condition token"]


def _compared(
    log_p: Float[Tensor, "clean_and_conditions token d_vocab"], next_ids: Int[Tensor, "token"]
) -> _Comparison:
    """Scores from log-probabilities, whose first entry is the clean one."""
    nll = -log_p.gather(-1, next_ids.expand(len(log_p), -1)[..., None])[..., 0].float()
    best = log_p.argmax(-1)
    clean, probability = log_p[0], log_p[0].exp()
    # one condition at a time in one workspace [token, d_vocab]; rounding may leave a divergence of nothing below 0
    difference, kl = torch.empty_like(clean), []
    for other in log_p[1:]:
        torch.sub(clean, other, out=difference)
        kl.append(difference.mul_(probability).sum(-1).clamp(min=0).float())
    no_kl = nll.new_zeros(0, len(next_ids))
    return _Comparison(nll[0], nll[1:], torch.stack(kl) if kl else no_kl, best[1:] == best[0])
