"""Read a YAML file that somebody else may have written: no code, no key twice, no unfolding of aliases without end."""

from pathlib import Path
from typing import Any

import yaml

from src.errors import StrataError

# values of a file, with aliases (*name) written out
_MOST_VALUES = 1_000_000


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file (1.1, safe tags alone).

    Raises StrataError if it can't be read or is no YAML, if a mapping has a key twice (the first one would be lost
    silently), or if its aliases unfold to more than a million values ("billion laughs") or hold themselves.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return None
        _n_values(node, {})
        return loader.construct_document(node)
    except OSError as error:
        raise StrataError(f"{path} can't be read ({error.strerror}): give a scenario file (YAML)") from None
    except RecursionError:
        raise StrataError(f"{path} is no YAML that can be read: it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise StrataError(f"{path} is no YAML: {error}: save it as UTF-8") from None
    except yaml.YAMLError as error:
        hint = "a text that holds ? : # , [ ] { } or begins with another sign needs quotes"
        raise StrataError(f"{path} is no YAML: {' '.join(str(error).split())}; {hint}") from None
    except ValueError as error:  # of aliases and keys, and of tags such as the date 2020-13-45
        raise StrataError(f"{path} is no YAML: {' '.join(str(error).split())}") from None


def _n_values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for; each is looked at once, however often an alias names it."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise ValueError("an alias holds itself")
        return known[id(node)]
    known[id(node)] = 0
    count = 1
    if isinstance(node, yaml.MappingNode):
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            double = next(key for place, key in enumerate(keys) if key in keys[:place])[1]
            raise ValueError(f"line {node.start_mark.line + 1}: {double!r} is there twice in one mapping")
        count += sum(_n_values(part, known) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_n_values(part, known) for part in node.value)
    if count > _MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {_MOST_VALUES:,} values")
    known[id(node)] = count
    return count
