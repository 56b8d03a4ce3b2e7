import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.report.heatmaps.colours import (
    NOT_FINITE,
    ColourScale,
    colour_scale,
    colour_table,
    coloured,
    reduced,
    value_range,
)
from src.report.heatmaps.drawing import binned, framed, tick_places
from src.report.heatmaps.ink import plain
from src.report.heatmaps.sheet import contact_sheet

GREYS = colour_table("greys")


# matplotlib 3.10's colours at 0, 1/2 and 1
@pytest.mark.parametrize(
    ("name", "ends", "middle"),
    [
        ("viridis", ("440154", "fde725"), "21918c"),
        ("magma", ("000004", "fcfdbf"), "b73779"),
        ("inferno", ("000004", "fcffa4"), "bc3754"),
        ("plasma", ("0d0887", "f0f921"), "cc4778"),
        ("cividis", ("00224e", "fee838"), "7d7c78"),
        ("greys", ("ffffff", "000000"), "808080"),
        ("redblue", ("67001f", "053061"), "f7f7f7"),
    ],
)
def test_colour_maps_are_the_known_ones(name, ends, middle):
    table = colour_table(name).astype(int)
    assert table.shape == (256, 3)
    for place, word in ((0, ends[0]), (255, ends[1])):
        assert bytes(table[place].astype(np.uint8)).hex() == word
    assert np.abs(table[127:129].mean(0) - list(bytes.fromhex(middle))).max() < 8


IMAGE, OVERALL = (-2.0, 6.0), (-10.0, 20.0)


@pytest.mark.parametrize(
    ("normalize", "never_negative", "expected"),
    [
        ("none", False, (-1, 1)),
        ("none", True, (0, 1)),
        ("per_image", False, (-2, 6)),
        ("signed", False, (-6, 6)),
        ("global", False, (-10, 20)),
    ],
)
def test_each_normalization_has_its_own_scale(normalize, never_negative, expected):
    assert colour_scale(normalize, IMAGE, OVERALL, never_negative) == ColourScale(*expected)


def test_one_value_alone_and_none_at_all_have_a_scale_too():
    assert coloured(np.full((1, 2), 3.0), colour_scale("per_image", (3, 3), (3, 3), False), GREYS).tolist() == [
        [[127, 127, 127]] * 2
    ]
    nothing = value_range(np.full((2, 2), np.nan))
    pixels = coloured(np.full((2, 2), np.nan), colour_scale("signed", nothing, nothing, False), GREYS)
    assert (pixels == NOT_FINITE).all()


def test_values_are_coloured_in_order_and_clipped():
    values = np.array([[-5.0, 0.0, 0.5, 1.0, 9.0, np.nan, np.inf]])
    pixels = coloured(values, ColourScale(0.0, 1.0), GREYS)[0]
    assert pixels[:5, 0].tolist() == [255, 255, 127, 0, 0]
    assert (pixels[5:] == NOT_FINITE).all()
    assert reduced(values, "abs")[0, 0] == 5
    assert value_range(values) == (-5, 9)


@given(st.integers(1, 5000))
def test_ticks_are_few_and_round(count):
    ticks = tick_places(count)
    assert 1 <= len(ticks) <= 6
    assert ticks[-1] < count


def test_a_picture_has_a_block_of_pixels_for_each_value():
    pixels = coloured(np.arange(6.0).reshape(2, 3), ColourScale(0, 5), GREYS)
    picture = np.asarray(framed(pixels, "t", "s", ["a", "b"], "dimension", 3, ColourScale(0, 5), GREYS))
    found = {tuple(colour) for colour in picture.reshape(-1, 3)}
    assert {tuple(colour) for colour in pixels.reshape(-1, 3)} <= found
    # blocks of one size: 760 // 3 wide, 26 high
    for colour in pixels[1]:
        assert (picture[-45:-41] == colour).all(2).sum(1).min() >= 253


def test_values_beyond_the_screen_keep_their_extremes():
    values = np.zeros((3, 10_000))
    values[1, 7_777] = -8
    values[2, 5] = np.nan
    small = binned(values)
    assert small.shape == (3, 2400)
    assert small.min() == -8 or np.nanmin(small) == -8
    assert np.isnan(small[2]).sum() == 1
    assert binned(values[:, :2400]).shape == (3, 2400)


def test_a_sheet_has_every_image_at_its_place():
    red, blue = (np.full((1, 4, 3), colour, np.uint8) for colour in ([255, 0, 0], [0, 0, 255]))
    images = {("step 0", "L0"): red, ("step 1", "L1"): blue}
    sheet = np.asarray(contact_sheet("all", images, ["L0", "L1"], ["step 0", "step 1"])).astype(int)
    rows, columns = np.nonzero((sheet == [255, 0, 0]).all(2))
    below, right = np.nonzero((sheet == [0, 0, 255]).all(2))
    assert rows.max() < below.min()
    assert columns.max() < right.min()


def test_a_sheet_of_many_images_shows_some_of_them():
    images = {(f"step {row}", f"L{column}"): np.zeros((1, 2, 3), np.uint8) for row in range(60) for column in range(70)}
    rows, columns = ([f"{word}{place}" for place in range(n)] for word, n in (("step ", 60), ("L", 70)))
    sheet = contact_sheet("all", images, columns, rows)
    assert isinstance(sheet, Image.Image)
    assert max(sheet.size) < 1700


@pytest.mark.parametrize(
    ("text", "shown"), [("so", "so"), ("a\nb\x1b", "a\\nb\\x1b"), ("日", "\\u65e5"), ("x" * 30, "x" * 21 + "...")]
)
def test_words_in_pictures_are_what_the_font_has(text, shown):
    assert plain(text) == shown
