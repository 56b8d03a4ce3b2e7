import math
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from src.config.schema import Schema, fingerprint, flat_keys, parse_config
from src.errors import StrataError


class Inner(Schema):
    layers: Annotated[int, Field(ge=0)] | Annotated[list[int], Field(min_length=1)] | str = Field(
        description="which layers"
    )
    rate: float = Field(gt=0, description="a rate")


class Outer(Schema):
    seed: int = Field(ge=0, description="the seed")
    flag: bool = Field(description="a flag")
    inner: Inner


GOOD = {"seed": 1, "flag": True, "inner": {"layers": [0, 1], "rate": 0.5}}


def with_value(key: str, value: object) -> dict:
    values = {**GOOD, "inner": dict(GOOD["inner"])}
    target = values["inner"] if key.startswith("inner.") else values
    target[key.removeprefix("inner.")] = value
    return values


def test_good_values_become_a_frozen_object():
    config = parse_config(Outer, GOOD)
    assert config.inner.layers == [0, 1]
    assert config.inner.rate == 0.5
    with pytest.raises(Exception, match="frozen"):
        config.seed = 2


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", "3", ["seed", "'3'", "int >= 0", "the seed"]),
        ("seed", -1, ["seed", "-1", "greater than or equal to 0"]),
        ("seed", True, ["seed", "True"]),
        ("flag", 1, ["flag", "1", "bool"]),
        ("inner.rate", 0, ["inner.rate", "0", "greater than 0"]),
        ("inner.rate", math.nan, ["inner.rate", "nan"]),
        ("inner.layers", None, ["inner.layers", "None", "int >= 0 | list of int with length >= 1 | str"]),
        ("inner.layers", [], ["inner.layers", "[]", "list of int with length >= 1", "which layers"]),
        ("inner.layers", -1, ["inner.layers", "-1", "greater than or equal to 0"]),
        ("inner.rat", 1.0, ["inner.rat", "unknown key", "did you mean inner.rate"]),
        ("sede", 1, ["sede", "unknown key", "did you mean seed"]),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(key, value, words):
    with pytest.raises(StrataError) as error:
        parse_config(Outer, with_value(key, value))
    for word in words:
        assert word in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_all_problems_are_told_at_once():
    values = {"seed": "x", "inner": {"layers": 1, "rate": -1.0}}
    with pytest.raises(StrataError) as error:
        parse_config(Outer, values)
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["seed", "flag", "inner.rate"]


def test_flat_keys_tell_type_limits_and_meaning():
    keys = dict(flat_keys(Outer))
    assert list(keys) == ["seed", "flag", "inner.layers", "inner.rate"]
    assert keys["seed"].allowed == "int >= 0"
    assert keys["inner.rate"].help == "a rate"


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), plain, max_size=4), st.randoms())
def test_fingerprint_ignores_the_order_of_keys_and_nothing_else(values, random):
    keys = list(values)
    random.shuffle(keys)
    assert fingerprint({key: values[key] for key in keys}) == fingerprint(values)
    assert fingerprint({**values, "one more key": 1}) != fingerprint(values)


def test_fingerprint_is_the_sha256_of_canonical_json():
    import hashlib

    assert fingerprint({"b": [1, None], "a": "é"}) == hashlib.sha256('{"a":"é","b":[1,null]}'.encode()).hexdigest()
