"""What goes into a report: plain values, pictures and a page in which no name is markup."""

import base64
import hashlib
import io
import json
import math
import os
import re
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchKNNScorer, write_report
from skanomaly._results.scored import scored_images
from skanomaly.core.maps import upsample_map
from skanomaly.datasets import ImageSet, make_surfaces
from skanomaly.inspection import color_limits, colour_table
from skanomaly.report._html_diagram import diagram_of
from skanomaly.report._html_page import is_own_page, json_text, page
from skanomaly.report._report_curves import calibration_curve
from skanomaly.report._report_data import card_side, report_data, shown_text, subject_of
from skanomaly.report._thumbnails import (
    colours_beyond,
    crop,
    deepest_score,
    jpeg,
    map_picture,
    outline_path,
)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Nine images with labels and masks, and a detector that was trained on others."""
    root = tmp_path_factory.mktemp("parts")
    made = make_surfaces(16, 3, surface="fabric", image_size=64, random_state=0)
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer(contamination=0.2))
    pipe.fit(made.images[:10])
    paths, masks = [], []
    for i in range(10, 19):
        path = root / made.defect_types[i] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(made.images[i]).save(path)
        paths.append(path)
        masks.append(None)
        if made.masks[i].any():
            masks[-1] = root / f"{i}_mask.png"
            Image.fromarray(made.masks[i]).save(masks[-1])
    test = ImageSet(paths, made.y[10:], masks, made.defect_types[10:], "fabric/test")
    return scored_images(pipe, test)


def picture_of(uri):
    head, data = uri.split(",", 1)
    assert re.fullmatch(r"data:image/(png|jpeg);base64", head)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_rows_are_what_was_scored(scored):
    data = report_data(subject_of(scored), cost_miss=3)
    json.dumps(data, allow_nan=False)
    assert data["threshold"] == scored.threshold and data["costs"] == {"miss": 3, "falseAlarm": 1}
    for i, row in enumerate(data["images"]):
        path = scored.images[i]
        assert row["name"] == f"{path.parent.name}/{path.name}"
        assert (row["score"], row["p"]) == (scored.scores[i], scored.p_values[i])
        assert (row["y"], row["type"]) == (scored.y[i], scored.defect_types[i])
        assert bool(row["outline"]) == (scored.y[i] == -1)
        photo = picture_of(row["photo"])
        assert photo.size == (row["width"], row["height"]) == (64, 64)
        with Image.open(path) as image:
            assert np.abs(np.asarray(photo, float) - np.asarray(image, float)).mean() < 6
    assert str(scored.images[0].parents[1]) not in json.dumps(data)  # folders of this machine
    digests = data["provenance"]["digests"]
    assert set(digests) == {"test images", "training images"}
    assert len(set(digests.values())) == 2
    scorer = scored.estimator[-1]
    assert data["trainScores"] == sorted(scorer.train_scores_)


def test_roc_by_a_plain_loop(scored):
    curve = report_data(subject_of(scored))["curves"]["roc"]
    bad, good = scored.scores[scored.y == -1], scored.scores[scored.y == 1]
    for x, y in zip(curve["x"], curve["y"], strict=True):
        thresholds = [*scored.scores, np.inf]
        shares = {(round((good < t).mean(), 5), round((bad < t).mean(), 5)) for t in thresholds}
        assert (x, y) in shares | {(0, 0)}


def test_calibration_by_a_plain_loop():
    rng = np.random.default_rng(0)
    train, good = rng.normal(size=12), rng.normal(size=30)
    nominal, actual = calibration_curve(train, good)
    for i, level in enumerate(sorted(train)):
        assert nominal[i] == (i + 1) / 13
        assert actual[i] == sum(score < level for score in good) / 30


def test_map_is_the_map_in_the_colours_of_all(scored):
    """Within the limits those of all heat maps; beyond them deeper with the logarithm."""
    low, high = color_limits(scored.estimator)
    grid = 30 * scored.patch_scores[-1]
    deepest = deepest_score([*scored.patch_scores, grid], (low, high))
    assert deepest == grid.max() > low + 8 * (high - low)
    picture = picture_of(map_picture(grid, (64, 64), (low, high), deepest))
    assert picture.size == (64, 64)
    scores, found = upsample_map(grid, (64, 64)).astype(float), np.asarray(picture.convert("RGBA"))
    table = colour_table(128)
    np.testing.assert_array_equal(colours_beyond()[:128], table)
    n_beyond = 0
    for score, colour in zip(scores.ravel(), found.reshape(-1, 4), strict=True):
        heat = (score - low) / (high - low)
        if heat <= 1:
            np.testing.assert_array_equal(colour, table[round(max(heat, 0) * 127)])
        else:
            step = round(96 * math.log(heat) / math.log((deepest - low) / (high - low)))
            np.testing.assert_array_equal(colour, colours_beyond()[127 + min(step, 96)])
            n_beyond += 1
    assert n_beyond > 10


def test_good_parts_alone_are_not_drawn_like_defects():
    usual = [np.full((3, 3), 1.5, dtype=np.float32)]
    assert deepest_score(usual, (1.0, 2.0)) == 9
    usual.append(np.full((3, 3), 20, dtype=np.float32))
    assert deepest_score(usual, (1.0, 2.0)) == 20
    (*_, opacity), (*_, deeper) = colours_beyond()[127], colours_beyond()[-1]
    assert opacity < deeper < 255


def test_a_fine_map_keeps_its_peak():
    """Of a detector of images, whose maps are larger than the picture."""
    grid = np.zeros((500, 300), dtype=np.float32)
    grid[333, 222] = 1000
    picture = picture_of(map_picture(grid, (1000, 600), (0, 1), 1000))
    assert picture.height == 128 and picture.width == 77
    opacity = np.asarray(picture.convert("RGBA"))[..., 3]
    y, x = np.unravel_index(opacity.argmax(), opacity.shape)
    assert (
        opacity.max() > 150 and abs(y / 128 - 333 / 500) < 0.02 and abs(x / 77 - 222 / 300) < 0.02
    )


def painted(path, size):
    """The pixels whose centre lies within a path, by the even-odd rule."""
    height, width = size
    rings = []
    for piece in filter(None, path.split("M")):
        points = piece.rstrip("Z").split("L")
        rings.append(np.array([point.split() for point in points], dtype=float) / 1000)
    out = np.zeros(size, dtype=bool)
    for y in range(height):
        for x in range(width):
            at_x, at_y, inside = (x + 0.5) / width, (y + 0.5) / height, False
            for ring in rings:
                for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                    if (y0 > at_y) != (y1 > at_y):
                        inside ^= at_x < x0 + (at_y - y0) / (y1 - y0) * (x1 - x0)
            out[y, x] = inside
    return out


@given(arrays(bool, (6, 7)))
def test_outline_encloses_the_mask(mask):
    np.testing.assert_array_equal(painted(outline_path(mask), mask.shape), mask)


def test_outline_of_a_large_mask_keeps_small_defects():
    mask = np.zeros((2000, 1000), dtype=bool)
    mask[1500, 700] = True
    path = outline_path(mask)
    assert path.count("M") == 1
    x, y = map(float, re.match(r"M([\d.]+) ([\d.]+)", path).groups())
    assert abs(x - 700) < 10 and abs(y - 750) < 10
    assert outline_path(np.zeros((9, 9), dtype=bool)) == ""


def test_crop_is_the_patch_and_what_is_around_it():
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    pixels[40:50, 60:70] = 255
    picture = picture_of(crop(pixels, (60, 40, 10, 10)))
    assert picture.size == (30, 30)
    assert np.asarray(picture)[13:17, 13:17].min() > 200
    assert picture_of(crop(pixels, (95, 95, 10, 10))).size == (15, 15)


def test_pictures_shrink_with_the_number_of_images():
    noise = np.random.default_rng(0).integers(0, 255, (600, 500, 3), dtype=np.uint8)
    sides = [card_side([noise] * n) for n in (1, 100, 1000, 3000)]
    assert sides == sorted(sides, reverse=True) and sides[0] == 480 and sides[-1] < 200
    for side, n in zip(sides, (1, 100, 1000, 3000), strict=True):
        assert n * len(jpeg(noise, side)) < 30e6


HOSTILE = ["</script><script>alert(1)</script>", "<!--", "&lt;", "\u2028", '"', "\udcff", "]]>"]


@given(st.lists(st.one_of(st.text(), st.sampled_from(HOSTILE)), min_size=1))
def test_json_stays_in_its_element(texts):
    text = json_text(texts)
    assert json.loads(text) == texts
    assert text.isascii() and not set("<>&") & set(text)


class Elements(HTMLParser):
    """Elements and attributes of a page, and what is in its styles and scripts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.raw, self.policy = [], {"style": [], "script": []}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]
        self.within = None if attrs.get("type") == "application/json" else tag

    def handle_data(self, data):
        if getattr(self, "within", None) in self.raw:
            self.raw[self.within].append(data)

    def handle_endtag(self, tag):
        self.within = None


def test_page_allows_its_own_script_alone(scored):
    hostile = HOSTILE[0]
    data = report_data(subject_of(scored))
    data["name"] = data["images"][0]["name"] = hostile
    data["provenance"]["parameters"][hostile] = hostile
    text = page(data, scored.estimator)
    found = Elements(text)
    allowed = set(re.findall(r"'sha256-[^']+'", found.policy))
    assert "default-src 'none'" in found.policy and "unsafe" not in found.policy
    inline = [text for texts in found.raw.values() for text in texts]
    digests = (hashlib.sha256(code.encode()).digest() for code in inline)
    assert {f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests} == allowed
    assert len(found.raw["script"]) == 1
    for tag, attrs in found.tags:
        assert not [name for name in attrs if name.startswith("on") or name == "style"], tag
        assert tag not in ("iframe", "object", "embed", "base", "form", "a") or tag == "a"
        for name in ("src", "href", "action", "xlink:href"):
            assert attrs.get(name) in (None, "data:,", "#images")
    assert text.count("<script") == 2 and hostile not in text


class Odd(BaseEstimator):
    def __init__(self, text="x"):
        self.text = text

    def fit(self, X, y=None):
        return self


def test_diagram_is_plain():
    text = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    diagram = diagram_of(make_pipeline(Odd(text), Odd("b")))
    found = Elements(diagram.body)
    assert {tag for tag, _ in found.tags} <= {
        *("div", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "label"),
        *("input", "span", "pre", "p", "b", "code", "br"),
    }
    names = {name for _, attrs in found.tags for name in attrs}
    assert names <= {"class", "id", "for", "type", "title", "colspan"}
    assert diagram.body.count("Odd") >= 2 and ".sk-" in diagram.style
    opened, closed = (len(re.findall(rf"<{end}div\b", diagram.body)) for end in ("", "/"))
    assert opened == closed


def test_names_that_are_no_text(scored, tmp_path):
    if os.name == "nt":
        pytest.skip("names are text here")
    name = os.fsdecode(b"cr\xe8me\n<b>.png")
    target = os.path.join(os.fspath(tmp_path), name)
    with open(scored.images[0], "rb") as file, open(target, "wb") as copy:
        copy.write(file.read())
    assert shown_text(name) == "cr\\udce8me\n<b>.png"
    write_report(scored_images(scored.estimator, [target]), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "cr\\\\udce8me\\n\\u003cb\\u003e.png" in text


def test_nothing_of_others_is_replaced(scored, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("<!doctype html> of somebody else")
    with pytest.raises(FileExistsError, match="overwrite"):
        write_report(scored, path)
    assert "somebody" in path.read_text()
    write_report(scored, path, overwrite=True)
    assert is_own_page(path)
    write_report(scored, path)  # an earlier report is
    before = scored.images[0].read_bytes()
    with pytest.raises(FileExistsError, match="input"):
        write_report(scored, scored.images[0], overwrite=True)
    assert scored.images[0].read_bytes() == before
    with pytest.raises(IsADirectoryError, match="report.html"):
        write_report(scored, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("cost", [-1, np.nan, np.inf, "1", True])
def test_costs_are_checked(scored, tmp_path, cost):
    with pytest.raises(ValueError, match="cost_miss"):
        write_report(scored, tmp_path / "report.html", cost_miss=cost)


def test_template_is_part_of_the_package():
    folder = files("skanomaly.report") / "template"
    names = {entry.name for entry in folder.iterdir()}
    assert {"report.html.j2", "report.css", "report.js", "charts.js"} <= names


def test_photograph_of_a_jpeg_is_small():
    noise = np.random.default_rng(0).integers(0, 255, (400, 800, 3), dtype=np.uint8)
    assert picture_of(jpeg(noise, 200)).size == (200, 100)
