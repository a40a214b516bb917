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
    return float(page.input_value("#threshold"))


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
    until(page, f"{opacity} === '0.7'")
    page.keyboard.press("m")
    until(page, f"{opacity} === '0'")
    page.keyboard.press("]")
    until(page, f"{opacity} === '0.8'")
    assert page.is_checked("#map") and page.input_value("#opacity") == "80"
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
    assert download.value.suggested_filename == "verdicts.csv"
    text = download.value.path().read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["image"] for row in rows] == [str(path) for path in result.test.images]
    for i, row in enumerate(rows):
        assert float(row["score"]) == result.scores[i]
        assert float(row["threshold"]) == threshold
        assert float(row["p_value"]) == result.p_values[i]
        assert row["verdict"] == ("anomalous" if result.scores[i] < threshold else "normal")
        assert row["label"] == {1: "normal", -1: "anomalous"}[result.y[i]]
        kind = result.test.defect_types[i]
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
    page.click("#tab-performance")
    assert "no labels" in page.inner_text("#panel-performance")


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
    start = time.perf_counter()
    page = opened(tmp_path / "report.html")
    assert time.perf_counter() - start < 20  # far less on a machine with nothing else to do
    loaded = "document.querySelectorAll('.card .photo[src]').length"
    until(page, f"{loaded} > 0")
    assert page.evaluate(loaded) < 200
    start = time.perf_counter()
    page.eval_on_selector(
        "#slider",
        "(slider) => { for (let place = 0; place <= 500; place += 25) {"
        " slider.value = place; slider.dispatchEvent(new Event('input')); } }",
    )
    assert time.perf_counter() - start < 10
    assert int(page.inner_text("#count-flagged")) == n
    page.locator(".card").last.scroll_into_view_if_needed()
    until(page, "document.querySelector('.card:last-child .photo').complete")
    until(page, "document.querySelector('.card:last-child .photo').naturalWidth > 0")


def test_refuses_what_is_no_result(tmp_path):
    with pytest.raises(TypeError, match="EvaluationResult"):
        write_report(SimpleNamespace(), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
