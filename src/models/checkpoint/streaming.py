"""The parameters of a checkpoint, read from its files one at a time, under the names that Transformers gives them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from src.models.checkpoint.files import StoredTensor
from src.models.checkpoint.weights import digest_of, tied_names


@dataclass
class _Recipe:
    """A parameter's source: one tensor as it is, or several that a converter of Transformers makes it of."""

    target: str
    converter: WeightConverter | None = None
    parts: list[tuple[str, StoredTensor]] = field(default_factory=list)  # with the converter's pattern of each

    def read(self, name: str, skeleton: PreTrainedModel) -> Tensor:
        if self.converter is None:
            return self.parts[0][1].read()
        converter = deepcopy(self.converter)
        for pattern, stored in self.parts:
            converter.add_tensor(self.target, stored.key, pattern, cast(Any, stored.read()))
        made = converter.convert(self.target, model=skeleton, config=skeleton.config)[name]
        return made[0] if isinstance(made, list) else made


class StreamedWeights:
    """The parameters of a checkpoint that stays on disk: what is in memory is what was read last."""

    def __init__(self, skeleton: PreTrainedModel, stored: Mapping[str, StoredTensor]) -> None:
        """skeleton: the model on the meta device, tied as its config says.

        Raises ValueError if a tensor has another shape than the model.
        """
        self.architecture, self.skeleton = skeleton.config, skeleton
        self._recipes, unread = _recipes(skeleton, stored)
        groups = [group for names in tied_names(skeleton) for group in self._untied(names)]
        self.shapes: Mapping[str, tuple[int, ...]] = {
            names[0]: tuple(skeleton.get_parameter(names[0]).shape) for names in groups if self._source(names)
        }
        self._sources = {names[0]: source for names in groups if (source := self._source(names))}
        self.tied: Mapping[str, str] = {other: names[0] for names in groups for other in names[1:]}
        self.missing = tuple(names[0] for names in groups if not self._source(names))
        self.unread = tuple(key for key in unread if not _is_ignored(skeleton, key))
        self.notes: tuple[str, ...] = ()
        self._last: tuple[str, Tensor] | None = None
        self._check_shapes()

    def read(self, name: str) -> Tensor:
        """One parameter on the CPU, in the dtype in which it is stored."""
        if self._last is None or self._last[0] != name:
            source = self._sources[name]
            self._last = None
            self._last = name, self._recipes[source].read(source, self.skeleton)
        return self._last[1]

    def digest(self, names: Iterable[str]) -> str:
        """sha256 of the contents of some parameters, in hex."""
        return digest_of(self, names)

    def _source(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if name in self._recipes), None)

    def _untied(self, names: list[str]) -> Iterator[list[str]]:
        """Names that a config ties, apart if the checkpoint holds different values for them (as Transformers does)."""
        there = [name for name in names if name in self._recipes]
        kept = [name for name in names if name not in there[1:]]
        for other in there[1:]:
            if torch.equal(
                self._recipes[there[0]].read(there[0], self.skeleton), self._recipes[other].read(other, self.skeleton)
            ):
                kept.append(other)
            else:
                yield [other]
        yield sorted(kept, key=names.index)

    def _check_shapes(self) -> None:
        for name, source in self._sources.items():
            recipe = self._recipes[source]
            if recipe.converter is None and recipe.parts[0][1].shape != self.shapes[name]:
                stored = recipe.parts[0][1]
                raise ValueError(
                    f"{stored.key} is of shape {list(stored.shape)}, but config.json makes it {list(self.shapes[name])}"
                )


def _recipes(skeleton: PreTrainedModel, stored: Mapping[str, StoredTensor]) -> tuple[dict[str, _Recipe], list[str]]:
    """How each parameter is made, and the keys that none is made of: the steps of `from_pretrained`."""
    transforms = get_model_conversion_mapping(skeleton)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    state, prefix = cast(dict[str, Tensor], skeleton.state_dict()), skeleton.base_model_prefix
    recipes: dict[str, _Recipe] = {}
    unread = []
    for key in sorted(stored, key=dot_natural_key):
        name, pattern = rename_source_key(key, renamings, converters, prefix, state)
        if name not in state and key in state:
            name, pattern = rename_source_key(key, [], [], prefix, state)
        if name not in state:
            unread.append(key)
        elif pattern is None:
            recipes[name] = _Recipe(name, None, [("", stored[key])])
        else:
            recipe = recipes.setdefault(name, _Recipe(name, by_pattern[pattern]))
            recipe.parts.append((pattern, stored[key]))
            targets = by_pattern[pattern].target_patterns
            others = [name.replace(targets[0], other) for other in targets[1:]]
            recipes |= {other: recipe for other in others if other in state}
    return recipes, unread


def _is_ignored(skeleton: PreTrainedModel, key: str) -> bool:
    """Whether the model class says of a key that old checkpoints may hold it in vain (masks, positions)."""
    patterns = [*(skeleton._keys_to_ignore_on_load_unexpected or ()), r"(^|\.)position_ids$", r"rotary_emb\.inv_freq$"]
    return any(re.search(pattern, key) for pattern in patterns)
