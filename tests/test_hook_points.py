import pytest

from src.errors import StrataError
from src.hook_points import HookPoint, refuse_shifted


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("resid_post.5", HookPoint("resid_post", 5)),
        ("resid_post.5@+1", HookPoint("resid_post", 5, 1)),
        ("mlp_out.12@-30", HookPoint("mlp_out", 12, -30)),
    ],
)
def test_names_are_read_as_they_are_written(text, point):
    assert HookPoint.parse(text) == point
    assert str(point) == text


def test_transformer_lens_spelling():
    assert HookPoint.parse("blocks.3.hook_resid_pre") == HookPoint("resid_pre", 3)


@pytest.mark.parametrize("text", ["resid_post", "resid_post.5@1", "resid_post.5@+", "resid_post.-1", "5.resid_post"])
def test_what_is_no_hook_point(text):
    with pytest.raises(StrataError, match="is no hook point"):
        HookPoint.parse(text)


def test_offsets_are_no_places():
    point = HookPoint("resid_post", 5)
    assert point.at(2).at(0) == point
    refuse_shifted([point])
    with pytest.raises(StrataError, match=r"resid_post\.5@\+2: an offset has a meaning .* know resid_post\.5"):
        refuse_shifted([point, point.at(2)])
