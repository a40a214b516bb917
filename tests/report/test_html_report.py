"""The inspection report, in a browser: what a person sees, and that nothing else happens."""

import csv
import io
import re
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from skanomaly import create_model, evaluate_split, write_report
from skanomaly._results.scored import ScoredImages, scored_images
from skanomaly.datasets import make_surfaces, read_mvtec
from skanomaly.metrics import image_recall_at_zero_fpr
from skanomaly.metrics._costs import expected_cost_curve

NAMES = ("chromium", "chromium-browser", "google-chrome")  # of the system, whichever there is
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
ARGUMENTS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
    --disable-background-networking --disable-component-update --disable-dev-shm-usage""".split()

HOSTILE = "<img src=x onerror=alert(1)>.png"
HOSTILE_TYPE = "<b onclick=alert(2)>spot"
FORMULA_TYPE = '=HYPERLINK("evil","x")'


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """An evaluation on 24 images, with names that a stranger chose."""
    root = tmp_path_factory.mktemp("parts")
    made = make_surfaces(20, 12, surface="fabric", image_size=48, random_state=0)
    kinds = {"dent": HOSTILE_TYPE, "stain": FORMULA_TYPE}
    for i, (image, mask, kind) in enumerate(
        zip(made.images, made.masks, made.defect_types, strict=True)
    ):
        kind = kinds.get(kind, kind)
        folder = root / ("train" if i < 8 else "test") / kind
        folder.mkdir(parents=True, exist_ok=True)
        name = HOSTILE if i == 25 else f"part {i:02d}.png"
        Image.fromarray(image[:40]).save(folder / name)
        if mask[:40].any():
            folder = root / "ground_truth" / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask[:40]).save(folder / name.replace(".png", "_mask.png"))
        elif i >= 20:  # the defect was cut off
            (root / "test" / kind / name).unlink()
    model = create_model("filterbank", scorer="knn", image_size=64, contamination=0.2)
    return evaluate_split(model, read_mvtec(root))


@pytest.fixture(scope="module")
def file(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(result, path)
    return path


@pytest.fixture
def opened(browser):
    """Opens a page; at the end there was no error, no dialog, and no request but for the file."""
    contexts, faults = [], []

    def open_page(path, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()

        def note(request):
            if request.url != path.as_uri() and not request.url.startswith(("data:", "blob:")):
                faults.append(f"request of {request.url[:200]}")

        page.on("request", note)
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (faults.append("dialog"), dialog.dismiss()))
        page.goto(path.as_uri())
        page.wait_for_selector(".card")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def slide(page, place):
    """Move the slider, as a pointer does."""
    code = "(slider, at) => { slider.value = at; slider.dispatchEvent(new Event('input')); }"
    page.eval_on_selector("#slider", code, place)


def counts(page):
    return [int(page.inner_text(f"#count-{name}")) for name in ("tp", "fn", "fp", "tn")]


def expected(result, threshold):
    flagged, bad = result.scores < threshold, result.y == -1
    return [
        int((flagged & bad).sum()),
        int((~flagged & bad).sum()),
        int((flagged & ~bad).sum()),
        int((~flagged & ~bad).sum()),
    ]


def until(page, condition):
    """Wait; Playwright's own way evaluates text in the page, which its policy does not allow."""
    end = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def threshold_of(page):
    """The exact one; the field shows it rounded."""
    return float(page.get_attribute("#threshold", "data-exact"))


def names(page):
    cards = "document.querySelectorAll('.card:not([hidden]) .card-name')"
    return page.evaluate(f"[...{cards}].map((name) => name.textContent)")


def test_counts_are_those_of_the_evaluation(result, file, opened):
    page = opened(file)
    assert threshold_of(page) == result.threshold
    assert counts(page) == [
        result.true_positives,
        result.false_negatives,
        result.false_positives,
        result.true_negatives,
    ]
    seen = set()
    for place in np.linspace(0, 500, 26).astype(int).tolist():
        slide(page, place)
        threshold = threshold_of(page)
        found = counts(page)
        assert found == expected(result, threshold)
        assert page.inner_text("#count-tp-share") == f"{100 * found[0] / sum(found[:2]):.1f}%"
        assert page.inner_text("#count-fp-share") == f"{100 * found[2] / sum(found[2:]):.1f}%"
        badges = page.locator(".card .badge").all_inner_texts()
        labels = ("Found", "Missed", "False alarm", "Passed")
        assert [badges.count(label) for label in labels] == found
        seen.add(tuple(found))
    n_bad, n_good = result.n_anomalous, result.n_normal
    assert {(0, n_bad, 0, n_good), (n_bad, 0, n_good, 0)} <= seen and len(seen) > 5


def test_threshold_at_each_score_is_exact(result, file, opened):
    """Of a score itself: not flagged. The page compares the same 64 bits."""
    page = opened(file)
    for score in np.sort(result.scores)[::3]:
        for threshold in (score, np.nextafter(score, np.inf), np.nextafter(score, -np.inf)):
            page.fill("#threshold", repr(float(threshold)))
            assert counts(page) == expected(result, threshold)


def test_threshold_by_keys_buttons_and_pointer(result, file, opened):
    page = opened(file)
    page.focus("#slider")
    page.keyboard.press("ArrowLeft")
    lower = threshold_of(page)
    assert lower < result.threshold and counts(page) == expected(result, lower)
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert threshold_of(page) > lower
    page.keyboard.press("0")
    assert threshold_of(page) == result.threshold
    page.click("#preset-zero")
    tp, fn, fp, _ = counts(page)
    assert fp == 0 and tp / (tp + fn) == image_recall_at_zero_fpr(result.y, result.scores)
    page.click("#preset-calibrated")
    assert threshold_of(page) == result.threshold
    box = page.locator("#histogram svg").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 40)
    page.mouse.up()
    assert threshold_of(page) < result.threshold
    assert counts(page) == expected(result, threshold_of(page))
    page.fill("#threshold", "-0.5")  # and a click that leaves the field still counts
    page.click("#preset-calibrated")
    assert threshold_of(page) == result.threshold
    page.fill("#threshold", "none")
    assert page.get_attribute("#threshold", "aria-invalid") == "true"


def test_cost(result, file, opened):
    page = opened(file)
    page.fill("#cost-miss", "20")
    page.fill("#cost-alarm", "3")
    page.fill("#prevalence", "2")
    costs = {"cost_miss": 20, "cost_false_alarm": 3, "prevalence": 0.02}
    _, cost, *_ = expected_cost_curve(result.y, result.scores, **costs)
    page.click("#preset-cheapest")
    least = float(page.inner_text("#cost").replace(",", "")) / 1000
    assert least == pytest.approx(cost.min(), abs=1e-5)
    tp, fn, fp, tn = counts(page)
    assert 0.02 * 20 * fn / (tp + fn) + 0.98 * 3 * fp / (fp + tn) == pytest.approx(cost.min())
    page.fill("#prevalence", "101")
    assert page.get_attribute("#prevalence", "aria-invalid") == "true"


def test_filters_search_and_order(result, file, opened):
    page = opened(file)
    assert len(names(page)) == len(result.y)
    page.click("#preset-zero")
    for outcome, number in zip(("found", "missed", "alarm", "passed"), counts(page), strict=True):
        page.click(f"#chips [data-filter={outcome}]")
        assert len(names(page)) == number
        assert page.locator("#empty").is_visible() == (number == 0)
    page.click("#chips [data-filter=all]")
    page.select_option("#type", HOSTILE_TYPE)
    assert len(names(page)) == result.test.defect_types.count(HOSTILE_TYPE)
    page.select_option("#type", "")
    page.fill("#search", "SCRATCH part")
    assert len(names(page)) == result.test.defect_types.count("scratch")
    page.fill("#search", "no such image")
    assert page.locator("#empty").is_visible()
    page.click("#clear")
    files = [path.name for path in result.test.images]
    ranked = [files[i] for i in np.argsort(result.scores, kind="stable")]
    assert [name.rpartition("/")[2] for name in names(page)] == ranked
    page.select_option("#sort", "normal")
    assert [name.rpartition("/")[2] for name in names(page)] == ranked[::-1]
    page.select_option("#sort", "name")
    assert set(names(page)) and [n.split("/")[0] for n in names(page)][-1] == "spot"


def test_keyboard(result, file, opened):
    page = opened(file)
    opacity = "getComputedStyle(document.querySelector('.map')).opacity"
    until(page, f"{opacity} === '0.6'")
    page.keyboard.press("m")
    until(page, f"{opacity} === '0'")
    page.keyboard.press("]")
    until(page, f"{opacity} === '0.7'")
    assert page.is_checked("#map") and page.input_value("#opacity") == "70"
    page.keyboard.press("Shift+M")  # as with caps lock
    assert not page.is_checked("#map")
    page.keyboard.press("m")
    outline = page.locator(".card .outline").first
    assert outline.is_visible()
    page.keyboard.press("o")
    assert not outline.is_visible()
    page.keyboard.press("2")
    assert len(names(page)) == counts(page)[0]
    page.keyboard.press("1")
    page.keyboard.press("/")
    page.keyboard.type("m1t?")  # text while a name is typed
    assert page.input_value("#search") == "m1t?" and page.is_checked("#map")
    page.fill("#search", "")
    page.locator(".card").first.focus()
    focused = "document.activeElement.querySelector('.card-name').textContent"
    columns = "getComputedStyle(document.getElementById('grid')).gridTemplateColumns"
    steps = {"ArrowRight": 1, "ArrowDown": len(page.evaluate(columns).split()), "ArrowLeft": -1}
    at = 0
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
        at += steps[key]
        assert page.evaluate(focused) == names(page)[at]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    page.locator(".card").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#detail-name") == names(page)[1]
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#detail-name") == names(page)[2]
    assert page.inner_text("#detail-place") == f"3 of {len(result.y)}"
    page.keyboard.press("End")
    assert page.inner_text("#detail-name") == names(page)[-1] and page.is_disabled("#next")
    page.keyboard.press("Home")
    assert page.inner_text("#detail-name") == names(page)[0] and page.is_disabled("#previous")
    assert page.is_enabled("#next")
    page.click("#next")
    page.click("#next")
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()
    assert page.evaluate(focused) == names(page)[2]
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.focus("#tab-images")
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-performance").is_visible()
    assert not page.locator("#panel-images").is_visible()


def test_hostile_names_are_text(file, opened):
    page = opened(file)
    shown = next(name for name in names(page) if "onerror" in name)
    assert shown == f"{HOSTILE_TYPE}/{HOSTILE}"
    page.locator(".card", has_text="onerror").click()
    assert page.inner_text("#detail-name") == shown
    page.keyboard.press("Escape")
    page.click("#tab-performance")
    assert HOSTILE_TYPE in page.locator(".type-name").all_inner_texts()
    page.click("#tab-provenance")
    assert page.locator("[onerror], [onclick]").count() == 0
    assert page.locator("img[src]:not([src^='data:image/'])").count() == 0
    assert page.locator("script").count() == 2  # the data, and the page's own


def test_the_policy_stops_what_would_slip_through(file, browser):
    page = browser.new_page()
    page.goto(file.as_uri())
    page.evaluate(
        """() => {
        document.body.insertAdjacentHTML("beforeend",
          "<img src='https://example.com/x.png' onerror='window.hit = 1'>");
        const script = document.createElement("script");
        script.textContent = "window.hit = 2";
        document.body.append(script);
        }"""
    )
    page.wait_for_timeout(100)
    assert page.evaluate("window.hit") is None
    page.close()


def test_csv_of_verdicts(result, file, opened):
    page = opened(file)
    page.click("#preset-zero")
    threshold = threshold_of(page)
    with page.expect_download() as download:
        page.click("#csv")
    name = re.sub(r"[^\w]+", "-", result.name).strip("-")
    assert download.value.suggested_filename == f"{name}-decisions.csv"
    text = download.value.path().read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    shown = [f"{path.parent.name}/{path.name}" for path in result.test.images]
    assert [row["image"] for row in rows] == [
        f"'{name}" if name.startswith("=") else name for name in shown
    ]
    for i, row in enumerate(rows):
        assert float(row["score"]) == result.scores[i]
        assert float(row["threshold"]) == threshold
        assert float(row["p_value"]) == result.p_values[i]
        assert row["decision"] == ("flagged" if result.scores[i] < threshold else "passed")
        assert row["known"] == {1: "good", -1: "defective"}[result.y[i]]
        kind = result.test.defect_types[i] if result.y[i] == -1 else ""
        assert row["defect_type"] == (f"'{kind}" if kind == FORMULA_TYPE else kind)
    assert any(row["defect_type"].startswith("'=") for row in rows)


def test_recall_by_type_and_curves(result, file, opened):
    page = opened(file)
    page.click("#tab-performance")
    for kind, share in result.recall_by_type.items():
        row = page.locator(".type-row", has=page.get_by_text(kind, exact=True))
        assert row.locator(".type-share").inner_text() == f"{100 * share:.0f}%"
    for name in ("roc", "pro", "calibration"):
        assert page.locator(f"#{name} .curve").is_visible()
    assert f"{result.metrics['aupro_0.3']:.4f}" in page.inner_text("#pro-number")
    page.click("#tab-provenance")
    page.locator("details.fold > summary", has_text="Parameters").click()
    text = page.inner_text("#panel-provenance")
    assert "FilterBankPatches" in page.inner_text(".diagram") and "knn__contamination" in text
    assert re.search(r"\b[0-9a-f]{64}\b", text) and str(result.threshold) in text
    page.locator(".diagram label", has_text="PatchKNNScorer").click()
    page.locator(".diagram summary", has_text="Parameters").last.click()
    assert "contamination" in page.inner_text(".diagram")


def test_light_and_dark(file, opened):
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = (opened(file, color_scheme=scheme) for scheme in ("light", "dark"))
    by_day, by_night = light.evaluate(ground), dark.evaluate(ground)
    assert by_day != by_night
    light.keyboard.press("t")
    dark.click("#theme")
    assert (light.evaluate(ground), dark.evaluate(ground)) == (by_night, by_day)


def test_print(file, opened):
    page = opened(file, color_scheme="dark")
    page.keyboard.press("t")
    page.keyboard.press("t")  # dark again, by choice
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for name in ("images", "performance", "provenance"):
        assert page.locator(f"#panel-{name}").is_visible()
    assert not page.locator(".toolbar").is_visible() and not page.locator("#csv").is_visible()
    assert page.pdf()[:5] == b"%PDF-"
    loaded = "[...document.querySelectorAll('.card .photo')].every((image) => image.src)"
    assert page.evaluate(loaded)


@pytest.mark.parametrize("width", [320, 390, 768, 1440, 3840])
def test_any_width(file, opened, width):
    page = opened(file, viewport={"width": width, "height": 800})
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    for name in ("images", "performance", "provenance"):
        page.click(f"#tab-{name}")
        closed = page.locator("details.fold:not([open]) > summary:visible")
        while closed.count():
            closed.first.click()
        assert page.evaluate(overflow) == 0
    page.click("#tab-images")
    page.locator(".card").first.click()
    assert page.locator("#detail .photo").is_visible()
    box = page.locator("#detail").bounding_box()
    assert 0 <= box["x"] and box["x"] + box["width"] <= width


def test_without_labels(result, opened, tmp_path):
    files = list(result.test.images)
    scored = scored_images(result.estimator, files, name="today's <parts>")
    write_report(scored, tmp_path / "report.html")
    page = opened(tmp_path / "report.html")
    assert page.inner_text("h1") == "today's <parts>"
    for place in (0, 120, 250, 333, 500):
        slide(page, place)
        flagged = int((scored.scores < threshold_of(page)).sum())
        assert int(page.inner_text("#count-flagged")) == flagged
        assert int(page.inner_text("#count-passed")) == len(files) - flagged
    assert page.locator("#cost-panel, #type, #outline, #preset-zero").count() == 0
    page.click("#chips [data-filter=flagged]")
    assert len(names(page)) == len(files)
    assert "no labels" in page.inner_text("#basis")
    assert page.locator("#tab-performance").count() == 0
    assert page.inner_text("#finding") == f"{len(files)} of {len(files)} images flagged."


def box_of(page, selector):
    box = page.locator(selector).first.bounding_box()
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


@pytest.mark.parametrize("size", [(360, 740), (390, 844), (414, 896), (768, 1024)])
def test_image_at_large_on_a_phone(file, opened, size):
    page = opened(file, viewport={"width": size[0], "height": size[1]})
    page.locator(".card").first.click()
    stage, body = box_of(page, "#detail .stage"), box_of(page, "#detail-body")
    head, foot = box_of(page, "#detail .detail-head"), box_of(page, "#detail .detail-foot")
    assert 0 <= head[1] and head[3] <= stage[1] and stage[3] <= body[1] and foot[3] <= size[1]
    page.click("#next")
    page.evaluate("document.getElementById('detail').scrollTop = 1e6")
    page.wait_for_timeout(50)
    page.click("#detail [data-close]", timeout=3000)  # nothing lies over it, wherever it is read
    assert not page.locator("#detail").is_visible()


@pytest.mark.parametrize("size", [(1280, 800), (1440, 900), (1280, 600), (844, 390)])
def test_image_at_large_fits_the_screen(file, opened, size):
    page = opened(file, viewport={"width": size[0], "height": size[1]})
    page.locator(".card").first.click()
    for part in ("#detail", "#detail .stage", "#detail [data-close]", "#previous", "#next"):
        left, top, right, bottom = box_of(page, part)
        assert 0 <= left and 0 <= top and right <= size[0] and bottom <= size[1], part
    scrolls = "(node) => node.scrollHeight > node.clientHeight + 1"
    assert not page.eval_on_selector("#detail", scrolls)
    stage, side = box_of(page, "#detail .stage"), box_of(page, "#detail-body")
    assert stage[2] <= side[0]


def test_fingers_can_press_it(file, opened):
    page = opened(file, viewport={"width": 390, "height": 844}, has_touch=True)
    for fold in page.locator("details.fold > summary:visible").all():
        fold.click()
    page.locator(".card").first.scroll_into_view_if_needed()
    controls = ".button, .chip, .preset, .cell, .switch, [role=tab], summary, input, select"
    small = """(nodes) => nodes.filter((node) => node.type !== "checkbox" && node.checkVisibility()
        && node.getBoundingClientRect().height < 43.5).map((node) => node.outerHTML.slice(0, 99))"""
    assert page.eval_on_selector_all(f":is({controls}):not(.diagram *)", small) == []
    page.locator(".card").first.click()
    assert page.eval_on_selector_all(f"#detail :is({controls})", small) == []
    left, top, right, bottom = box_of(page, "#detail [data-close]")
    assert right - left > 43 and bottom - top > 43


def test_images_come_first_on_a_phone(result, file, opened):
    page = opened(file, viewport={"width": 390, "height": 844})
    assert not page.locator("#slider").is_visible() and not page.locator("#cost-miss").is_visible()
    page.click("#cell-tn")
    assert page.get_attribute("#cell-tn", "aria-pressed") == "true"
    assert page.get_attribute("#cell-tp", "aria-pressed") == "false"
    assert 0 <= box_of(page, "#images")[1] < 20
    assert len(names(page)) == counts(page)[3]


def test_what_was_found_in_a_sentence(result, file, opened):
    page = opened(file)
    n_bad, n_good, n = result.n_anomalous, result.n_normal, len(result.y)
    page.fill("#threshold", "1e9")
    assert page.inner_text("#finding") == (
        f"{n} of {n} images flagged. All {n_bad} defective parts found; all {n_good} good parts "
        "flagged by mistake."
    )
    page.fill("#threshold", "-1e9")
    assert page.inner_text("#finding") == (
        f"None of {n} images flagged. No defective part found, {n_bad} missed; no good part "
        "flagged by mistake."
    )
    assert "bad" in page.get_attribute("#tile-missed", "class").split()
    page.click("#preset-zero")
    tp, fn, fp, _ = counts(page)
    found = f"{tp} of {n_bad}" if fn else f"All {n_bad}"
    assert f"{found} defective parts found" in page.inner_text("#finding") and fp == 0
    assert page.inner_text("#tile-zero-value") == str(fn)
    assert "zero overkill" in page.get_attribute("#tile-zero", "title")
    for name, number in zip(("tp", "fn", "fp", "tn"), counts(page), strict=True):
        assert page.get_attribute(f"#cell-{name}", "aria-label").startswith(f"{number} of ")
        assert ("none" in page.get_attribute(f"#cell-{name}", "class").split()) == (number == 0)


def test_numbers_as_people_write_them(result, file, opened):
    page = opened(file)
    for text, number in (("-6,5", -6.5), ("−0.25", -0.25), (" .5", 0.5), ("-1e-3", -0.001)):
        page.fill("#threshold", text)
        assert threshold_of(page) == number and counts(page) == expected(result, number)
    for text in ("", "0x10", "-6,5,1", "Infinity", "nan"):
        page.fill("#threshold", text)
        assert page.locator("#threshold-problem").is_visible(), text
        assert threshold_of(page) == -0.001
    page.click("#preset-calibrated")
    assert not page.locator("#threshold-problem").is_visible()
    assert threshold_of(page) == result.threshold
    page.fill("#cost-miss", "2,5")
    assert not page.locator("#cost-miss-problem").is_visible()
    for field, text in (("cost-miss", "1,000"), ("cost-alarm", "-1"), ("prevalence", "120")):
        page.fill(f"#{field}", text)
        assert page.get_attribute(f"#{field}", "aria-invalid") == "true"
        assert page.locator(f"#{field}-problem").is_visible()


def test_one_preset_at_a_time(file, opened):
    page = opened(file)
    for preset in ("zero", "cheapest", "calibrated"):
        page.click(f"#preset-{preset}")
        pressed = "[...document.querySelectorAll('.preset[aria-pressed=true]')].map((n) => n.id)"
        assert page.evaluate(pressed) == [f"preset-{preset}"]


def test_empty_lists_say_why(file, opened):
    page = opened(file)
    page.fill("#threshold", "1e9")
    page.click("#chips [data-filter=missed]")
    assert page.inner_text("#empty-says") == "No defect is missed at this threshold."
    page.click("#clear")
    assert page.evaluate("document.activeElement.id") == "search"
    page.fill("#search", "no such image")
    assert page.inner_text("#empty-says") == "No image fits these filters."
    offered = page.locator("#type option").all_inner_texts()
    assert "good" not in offered and HOSTILE_TYPE in offered


def test_of_one_image_without_mask(result, opened, tmp_path):
    scored = scored_images(result.estimator, list(result.test.images)[:1], name="one")
    write_report(scored, tmp_path / "report.html")
    page = opened(tmp_path / "report.html")
    assert not page.locator("#histogram").is_visible() and page.locator("#threshold").is_visible()
    assert page.locator("#outline, #detail-outline").count() == 0
    assert page.inner_text("#shown") == "1 image"
    page.click("#help-button")
    assert "outlines" not in page.inner_text("#help")


def test_why_is_in_words(file, opened):
    page = opened(file)
    page.locator(".card").first.click()
    assert page.locator(".says").first.inner_text().startswith("Most unusual spot: ")
    assert not page.locator(".numbers .note").first.is_visible()
    page.click(".numbers summary")
    assert "distance" in page.inner_text(".numbers")
    page.keyboard.press("End")
    assert "Only the most unusual" in page.inner_text("#detail-near")


def test_colours_are_remembered(file, opened):
    page = opened(file, color_scheme="light")
    assert page.get_attribute("#theme", "aria-pressed") == "false"
    page.click("#theme")
    page.reload()
    page.wait_for_selector(".card")
    assert page.get_attribute("#theme", "aria-pressed") == "true"


def test_printed(result, file, opened):
    page = opened(file)
    page.click("#chips [data-filter=found]")
    page.emulate_media(media="print")
    page.wait_for_timeout(100)
    assert "Shown: defects found, most unusual first." in page.inner_text("#printed")
    assert "(calibrated)" in page.inner_text("#printed")
    assert page.locator(".print-only .legend").is_visible()
    left, _, right, _ = box_of(page, "#histogram")
    assert right - left < 300


@pytest.mark.slow
def test_thousand_images(result, opened, tmp_path):
    rng = np.random.default_rng(0)
    n = 1000
    images = list(rng.integers(0, 255, (n, 200, 200, 3), dtype=np.uint8))  # noise: the worst case
    scored = ScoredImages(
        name="many",
        images=images,
        scores=-rng.gamma(2.0, 3.0, n),
        p_values=None,
        threshold=-12.0,
        patch_scores=list(rng.gamma(2.0, 1.0, (n, 8, 8)).astype(np.float32)),
        estimator=result.estimator,
        contamination=0.05,
    )
    write_report(scored, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 50e6
    page = opened(tmp_path / "report.html")
    loaded = "document.querySelectorAll('.card .photo[src]').length"
    until(page, f"{loaded} > 0")
    assert page.evaluate(loaded) < 200
    page.eval_on_selector(
        "#slider",
        "(slider) => { for (let place = 0; place <= 500; place += 25) {"
        " slider.value = place; slider.dispatchEvent(new Event('input')); } }",
    )
    assert page.inner_text("#count-flagged") == "1,000"
    page.locator(".card").last.scroll_into_view_if_needed()
    until(page, "document.querySelector('.card:last-child .photo').complete")
    until(page, "document.querySelector('.card:last-child .photo').naturalWidth > 0")


def test_refuses_what_is_no_result(tmp_path):
    with pytest.raises(TypeError, match="EvaluationResult"):
        write_report(SimpleNamespace(), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
