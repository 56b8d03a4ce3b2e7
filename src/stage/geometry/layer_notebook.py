"""compat=notebook of analysis=layers: the notebook's numbers, from the model's own hidden states."""

from dataclasses import asdict
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from src.config.geometry.stage import GeometryConfig
from src.errors import StrataError
from src.geometry.layers.notebook import N_TEXTS, SOURCE, TARGET, NotebookLayer, NotebookStacks, evolution, stacks
from src.models.capture import forward_pass
from src.models.language_model import LanguageModel
from src.models.loading import load_model, load_tokenizer
from src.models.stack_states import Stacks, stacks_of
from src.report.finding import Finding
from src.report.tables import Cell, Table
from src.stage.context import Stage
from src.text import read_documents, tokenize_documents

# of a text, since the notebook's are short sentences
_MOST_TOKENS = 32


def notebook_finding(config: GeometryConfig, loaded: Stacks | None, stage: Stage) -> Finding:
    """The table of norms and cosines of ten texts, and encoder against decoder where there are both."""
    found = stacks_of(load_model(config.model, stage.device)) if loaded is None else loaded
    tokenizer = load_tokenizer(config.model)
    documents = islice(read_documents(config.dataset), N_TEXTS)
    texts = tokenize_documents(documents, tokenizer, _MOST_TOKENS)
    first = found.models[0]
    layers = evolution([_hidden_states(first, torch.from_numpy(text.token_ids).long()) for text in texts])
    tables = [_layer_table(layers)]
    values: dict[str, Any] = {"layers": [asdict(layer) for layer in layers]}
    if len(found.models) == 2:
        source, target = (torch.tensor(tokenizer(text)["input_ids"]) for text in (SOURCE, TARGET))
        both = stacks(*_both_stacks(found, source, target))
        tables.append(_stack_table(both))
        values["stacks"] = asdict(both)
    text = (
        f"As the notebook computes it, the mean norm of the first {N_TEXTS} texts goes from {layers[0].mean_norm:.3g} "
        f"to {layers[-1].mean_norm:.3g} (the last one after the final norm, all tokens, texts weighted alike)."
    )
    return Finding(text, tables=tables, files={"layers_notebook.json": values})


def _hidden_states(model: LanguageModel, ids: Tensor) -> list[Tensor]:
    """Transformers' own recording of one text: input of block 0, outputs of the blocks, the last after the norm."""
    ids = ids[None].to(model.device)
    with forward_pass(model, tuple(ids.shape)), torch.inference_mode():
        output = model.inner(ids, torch.ones_like(ids), output_hidden_states=True)
    recorded = getattr(output, "hidden_states", None)
    if recorded is None:
        raise StrataError(f"{model.config.name} returns no hidden states: leave out compat=notebook")
    return [states[0].float().cpu() for states in recorded]


def _both_stacks(found: Stacks, source: Tensor, target: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The target goes into the decoder as it is, not shifted: so the notebook does it."""
    model = found.models[-1]
    ids, other = source[None].to(model.device), target[None].to(model.device)
    model.check_token_ids(ids)
    model.check_token_ids(other)
    with forward_pass(model, tuple(ids.shape)), torch.inference_mode():
        output = model.inner.module(input_ids=ids, decoder_input_ids=other, output_hidden_states=True)
    recorded = output.encoder_hidden_states, output.decoder_hidden_states
    encoder, decoder = ([states[0].float().cpu() for states in of_stack] for of_stack in recorded)
    return encoder, decoder


def _layer_table(layers: list[NotebookLayer]) -> Table:
    rows: list[list[Cell]] = [list(asdict(layer).values()) for layer in layers]
    columns = ["entry", "mean norm", "std norm", "mean cosine", "std cosine"]
    caption = (
        f"Entries of hidden_states, plain averages over the first {N_TEXTS} texts (up to {_MOST_TOKENS} tokens each): "
        "all tokens, BOS and specials included; the last entry is after the final norm."
    )
    return Table("As the notebook computes it: norms and cosines", columns, rows, caption)


def _stack_table(both: NotebookStacks) -> Table:
    rows: list[list[Cell]] = [
        [entry, position, cosine] for entry, cosines in both.cosines.items() for position, cosine in enumerate(cosines)
    ]
    ends = both.encoder_norm, both.decoder_norm
    encoder, decoder = (f"{mean:.3g} ± {std:.3g}" for mean, std in ends)
    caption = (
        "Equal positions of different tokens (an English source, its German translation, not shifted), so entry 0 "
        f"compares unrelated embeddings. Final norms: encoder {encoder}, decoder {decoder}."
    )
    return Table("As the notebook computes it: encoder, decoder", ["entry", "position", "cosine"], rows, caption)
