"""The colour scale of heat maps, measured: CIECAM16-UCS, CIELAB, and three kinds of dichromacy."""

import numpy as np
import pytest

from skanomaly.inspection import colour_table, overlay_map

# sRGB (IEC 61966-2-1), D65: from linear red, green and blue to XYZ.
TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], dtype=float
)
WHITE = TO_XYZ.sum(axis=1)

# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision
# deficiency", 2009: severity 1, on linear RGB.
VISIONS = {
    "trichromat": np.eye(3),
    "protanope": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranope": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanope": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def seen(rgb, vision):
    """XYZ of sRGB colours from 0 to 1, as a vision sees them."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.clip(linear @ np.transpose(VISIONS[vision]), 0, 1) @ TO_XYZ.T


def cielab(xyz):
    share = xyz / WHITE
    root = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def cam16_ucs(xyz):
    """CIECAM16-UCS (Li et al. 2017), of a screen in an office: average surround, 4 cd/m2, grey."""
    to_cones = np.array(
        [
            [0.401288, 0.650173, -0.051461],
            [-0.250268, 1.204414, 0.045854],
            [-0.002079, 0.048952, 0.953127],
        ]
    )
    adapting, surround, chromatic, full = 64 / np.pi / 5, 0.69, 1.0, 1.0
    k = 1 / (5 * adapting + 1)
    luminance = k**4 * adapting + 0.1 * (1 - k**4) ** 2 * np.cbrt(5 * adapting)
    ratio = 20 / 100
    base, background = 1.48 + np.sqrt(ratio), 0.725 * ratio**-0.2
    degree = full * (1 - np.exp((-adapting - 42) / 92) / 3.6)
    white = to_cones @ (WHITE * 100)
    gain = degree * 100 / white + 1 - degree

    def respond(cones):
        power = (luminance * np.abs(cones) * gain / 100) ** 0.42
        return np.sign(cones) * 400 * power / (power + 27.13) + 0.1

    r, g, b = np.moveaxis(respond(xyz * 100 @ to_cones.T), -1, 0)
    whites = respond(white)
    red, yellow = r - 12 * g / 11 + b / 11, (r + g - 2 * b) / 9
    hue = np.arctan2(yellow, red)
    signal = (2 * r + g + b / 20 - 0.305) * background
    most = (2 * whites[0] + whites[1] + whites[2] / 20 - 0.305) * background
    lightness = 100 * (signal / most) ** (surround * base)
    eccentricity = (np.cos(hue + 2) + 3.8) / 4
    t = 50000 / 13 * chromatic * background * eccentricity * np.hypot(red, yellow)
    t = t / (r + g + 1.05 * b)
    chroma = t**0.9 * np.sqrt(lightness / 100) * (1.64 - 0.29**ratio) ** 0.73
    strength = np.log(1 + 0.0228 * chroma * luminance**0.25) / 0.0228
    light = 1.7 * lightness / (1 + 0.007 * lightness)
    return np.stack([light, strength * np.cos(hue), strength * np.sin(hue)], axis=-1)


def test_the_oracle_is_right():
    """White and black of the appearance model; a published difference of CIELAB."""
    np.testing.assert_allclose(cam16_ucs(WHITE[None])[0, 0], 100, atol=1e-6)
    assert np.abs(cam16_ucs(WHITE[None])[0, 1:]).max() < 3  # D65 is adapted to but in part
    np.testing.assert_allclose(cielab(np.stack([WHITE, 0 * WHITE])), [[100, 0, 0], [0, 0, 0]])
    red = cielab(seen(np.array([1.0, 0, 0]), "trichromat"))
    np.testing.assert_allclose(red, [53.24, 80.09, 67.20], atol=0.05)
    for vision in VISIONS:  # nobody sees colour in grey
        grey = cielab(seen(np.full(3, 0.5), vision))
        np.testing.assert_allclose(grey, [53.39, 0, 0], atol=0.1)


@pytest.mark.parametrize("vision", VISIONS)
def test_lightness_falls_to_every_eye(vision):
    colours = colour_table(64)[:, :3] / 255
    for space in (cielab, cam16_ucs):
        lightness = space(seen(colours, vision))[:, 0]
        assert (np.diff(lightness) < 0).all()
        assert lightness[0] - lightness[-1] > 44


@pytest.mark.parametrize("space", [cielab, cam16_ucs])
def test_steps_are_equal_to_the_eye(space):
    """Between 32 colours, in a table of 8 bits: none is a third larger or smaller than the mean."""
    seen_as = space(seen(colour_table(32)[:, :3] / 255, "trichromat"))
    steps = np.linalg.norm(np.diff(seen_as, axis=0), axis=1)
    falls = -np.diff(seen_as[:, 0])
    for part in (steps, falls):
        assert part.max() < 1.33 * part.mean() and part.min() > 0.75 * part.mean()


@pytest.mark.parametrize("vision", [v for v in VISIONS if v != "trichromat"])
def test_no_step_is_lost_to_those_who_miss_a_kind_of_cones(vision):
    colours = colour_table(32)[:, :3] / 255
    steps = [
        np.linalg.norm(np.diff(cam16_ucs(seen(colours, name)), axis=0), axis=1)
        for name in (vision, "trichromat")
    ]
    assert steps[0].min() > 0.5 * steps[1].mean()


@pytest.mark.parametrize("vision", VISIONS)
def test_full_heat_stands_out_most_over_every_grey(vision):
    heat = np.linspace(0, 1, 65)[None]
    for level in range(0, 256, 15):
        behind = np.full((1, 65, 3), level, dtype=np.uint8)
        painted = overlay_map(behind, heat, (0, 1)) / 255
        difference = cam16_ucs(seen(painted, vision)) - cam16_ucs(seen(behind / 255, vision))
        distance = np.linalg.norm(difference[0], axis=1)
        assert distance[0] == 0
        assert distance.argmax() > 60 and distance[-1] > 20
        # To two kinds of eyes yellow turns to blue through grey: one heat may match what it covers.
        assert np.count_nonzero(distance[16:] < 3) <= 6


def test_table():
    table = colour_table(256)
    assert table.shape == (256, 4) and table.dtype == np.uint8
    np.testing.assert_allclose(table[:, 3], np.linspace(0, 0.75, 256) * 255, atol=0.51)
    np.testing.assert_array_equal(colour_table(52), table[::5])
    for n in (1, 0, True, 2.5):
        with pytest.raises(ValueError, match="n must be"):
            colour_table(n)


def test_pictures_take_their_colours_from_the_table():
    image = np.random.default_rng(0).integers(0, 256, (3, 256, 3)).astype(np.uint8)
    heat = np.broadcast_to(np.linspace(2, 5, 256), (3, 256))
    colours, opacity = colour_table(256)[:, :3], np.linspace(0, 0.75, 256)[:, None]
    expected = image * (1 - opacity) + colours * opacity
    np.testing.assert_allclose(overlay_map(image, heat, (2, 5)), expected, atol=1)
