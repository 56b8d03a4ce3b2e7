"""Analyses that read states through the model's own head: the logit lens and direct logit attribution."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from src.models import BlockSkipper, LanguageModel, VocabularyHead, load_tokenizer
from src.models.unembedding import read_head, read_unembedding
from src.report.finding import Finding
from src.report.lenses.contributions import attribution_finding
from src.report.lenses.logit_lens import LOGIT, TRANSPORT, LensView, lens_finding
from src.scenarios.lenses.attribution import attribute, runners_up
from src.scenarios.lenses.decomposition import decompose
from src.scenarios.lenses.items import Items
from src.scenarios.lenses.logit_lens import Head, logits_in_chunks, read_lens
from src.scenarios.states import LOGITS
from src.stage.analysis.captured_model import load_captured_model
from src.stage.analysis.preparing import Work
from src.stage.context import Stage
from src.text.token_strings import token_strings
from src.transport.operator import TransportOperator


class Reader:
    """The model of a captured scenario with what reads its states; everything is loaded when it is first needed."""

    def __init__(self, work: Work, stage: Stage) -> None:
        self.model: LanguageModel = load_captured_model(work.captured, work.config, stage)
        self.skipper = BlockSkipper(self.model)
        self.head = VocabularyHead(self.model, self.skipper)
        self._work, self._tokenizer = work, load_tokenizer(self.model.config)

    def logits(self, states: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
        """What the model predicts of final states; moved to its device and dtype."""
        return self.head(states.to(self.model.device, self.model.dtype))

    def final_logits(self, items: Items) -> tuple[Float[Tensor, "row d_vocab"], float | None]:
        """What the model really gave, float32: of the last layer's state where it was captured, else as stored.

        (Stored logits may be rounded to half precision.) The second value: the largest difference between both.
        """
        last = self._work.n_layers - 1
        stored = items.get(LOGITS)[0] if LOGITS in items.rows else None
        if last not in items.rows.layers:
            assert stored is not None  # checked beforehand
            return stored, None
        found = logits_in_chunks(self.logits, items.get("resid_post", [last])[0], self.head.tokens_at_once())
        return found, None if stored is None or not len(stored) else float((found - stored).abs().max())

    def strings(self, ids: Sequence[int]) -> dict[int, str]:
        """The text of each token id."""
        return token_strings(self._tokenizer, ids)


def logit_lens(work: Work, reader: Reader, stage: Stage) -> Finding:
    """The logit lens, the transport lens or both, over steps and over messages."""
    readable = [items for items in work.items if items.kind == "steps" or items.n_keys is not None]
    maps = {
        layer: _mapped(saved.load().to(stage.device, torch.float32), reader) for layer, saved in work.operators.items()
    }
    last = work.n_layers - 1
    views, deviations = [], []
    lenses = [lens for lens in (LOGIT, TRANSPORT) if work.config.lens in (lens, "both")]
    with stage.progress("reading layers", len(readable) * len(lenses), "lenses") as advance:
        for items in readable:
            final, deviation = reader.final_logits(items)
            deviations.append(deviation)
            final_ids = final.argmax(-1)
            targets = final_ids.tolist() if items.targets is None else items.targets
            for lens in lenses:
                layers = work.layers
                if lens == TRANSPORT:  # the last layer needs no map
                    layers = [layer for layer in layers if layer in maps or layer == last]
                through = {place: maps[layer] for place, layer in enumerate(layers) if layer in maps}
                readings = read_lens(
                    reader.logits,
                    items.get("resid_post", layers),
                    final,
                    torch.tensor(targets),
                    work.config.top_k,
                    through if lens == TRANSPORT else None,
                    reader.head.tokens_at_once(),
                )
                views.append(LensView(lens, items, layers, readings, targets, final_ids.tolist()))
                advance(1)
    ids = {token for view in views for token in [*view.readings.top_ids.flatten().tolist(), *view.targets]}
    known = [deviation for deviation in deviations if deviation is not None]
    name = str(work.captured.model["name"])
    return lens_finding(views, reader.strings(sorted(ids)), name, work.position, max(known, default=None))


def _mapped(operator: TransportOperator, reader: Reader) -> Head:
    return lambda states: operator(states.to(reader.model.device, torch.float32))


def attribution(work: Work, reader: Reader) -> Finding:
    """Direct logit attribution of the token that each step chose, and of its lead over the runner-up."""
    items = work.steps
    parts = decompose(items.rows.take(items.places), work.n_layers)
    final, _ = reader.final_logits(items)
    head = read_head(reader.model, read_unembedding(reader.model, reader.skipper), parts.final, reader.skipper)
    tokens = torch.tensor(items.targets)
    others = runners_up(final, tokens)
    chosen, lead = (attribute(parts, head, final, tokens, instead) for instead in (None, others))
    strings = reader.strings([*tokens.tolist(), *others.tolist()])
    words = ([strings[token] for token in each.tolist()] for each in (tokens, others))
    return attribution_finding(items, parts.names, chosen, lead, *words)
