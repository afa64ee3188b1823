"""Picture files become the numbers of a model's input."""

import numpy as np
import pytest
from PIL import Image

from service.pictures import Layout, PictureError, find_layout, read_picture


@pytest.fixture
def grey(tmp_path):
    """A grey picture, 2 high and 3 wide, and its levels."""
    levels = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
    Image.fromarray(levels).save(tmp_path / "grey.png")
    return tmp_path / "grey.png", levels


@pytest.mark.parametrize(
    ("dims", "layout"),
    [
        ((64,), Layout("flat", 8, 8)),
        ((28, 20), Layout("hw", 28, 20)),
        ((1, 28, 20), Layout("chw", 28, 20)),
        ((3, 28, 20), Layout("chw", 28, 20, 3)),
        ((28, 20, 3), Layout("hwc", 28, 20, 3)),
        ((3, -1, -1), Layout("chw", 2, 3, 3)),
    ],
)
def test_find_layout_follows_the_declared_dimensions(dims, layout):
    """Open ones take the picture's own size, here 2 by 3."""
    assert find_layout(dims, 2, 3) == layout


@pytest.mark.parametrize("dims", [(), (63,), (-1,), (2, 28, 28), (1, 3, 28, 28)])
def test_find_layout_refuses_what_is_no_picture(dims):
    """The text shows the dimensions."""
    with pytest.raises(PictureError, match=r"given \["):
        find_layout(dims, 2, 3)


def test_read_picture_scales_levels_between_black_and_white(grey):
    """Any two numbers, also the other way round, for dark ink on paper."""
    path, levels = grey
    np.testing.assert_allclose(read_picture(path, (2, 3), (0, 1)), levels / 255)
    np.testing.assert_allclose(read_picture(path, (2, 3), (16, 0)), 16 - levels / 255 * 16)


def test_read_picture_puts_channels_where_the_model_has_them(tmp_path):
    """Colours before or after the pixels; grey from colours and colours from grey."""
    colours = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    Image.fromarray(colours).save(tmp_path / "colours.png")
    np.testing.assert_allclose(read_picture(tmp_path / "colours.png", (2, 3, 3), (0, 255)), colours)
    np.testing.assert_allclose(read_picture(tmp_path / "colours.png", (3, 2, 3), (0, 255)), colours.transpose(2, 0, 1))
    assert read_picture(tmp_path / "colours.png", (1, 2, 3), (0, 255)).shape == (1, 2, 3)


def test_read_picture_resizes_to_what_the_model_takes(grey):
    """A model of 16 inputs gets 4 by 4 pixels, row by row."""
    pixels = read_picture(grey[0], (16,), (0, 1))
    assert pixels.shape == (16,)
    assert pixels[0] < 0.2
    assert pixels[-1] > 0.8


def test_read_picture_names_a_file_that_is_none(tmp_path):
    """Missing, and not a picture."""
    with pytest.raises(PictureError, match=r"absent\.png: No such file"):
        read_picture(tmp_path / "absent.png", (64,), (0, 1))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(PictureError, match="cannot identify"):
        read_picture(tmp_path / "text.png", (64,), (0, 1))
