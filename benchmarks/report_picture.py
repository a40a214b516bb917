"""The picture of the inspection report in the README, from generated surfaces alone.

``python -m benchmarks.report_picture`` makes it again; it needs Chromium and Playwright.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from skanomaly import create_model, evaluate_split, write_report
from skanomaly.datasets import read_mvtec
from skanomaly.datasets._surfaces import write_surfaces

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "report.png"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def screenshot(path: Path, width: int, height: int, scheme: str) -> Image.Image:
    """A report as a browser shows it.

    Parameters
    ----------
    path : Path
        The report.
    width, height : int
        Of the window, in pixels.
    scheme : {"light", "dark"}
        What the system is set to.

    Returns
    -------
    PIL.Image.Image
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        )
        size = {"width": width, "height": height}
        page = browser.new_page(viewport=size, color_scheme=scheme)
        page.goto(path.resolve().as_uri())
        page.wait_for_timeout(1000)
        picture = page.screenshot()
        browser.close()
    return Image.open(io.BytesIO(picture)).convert("RGB")


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PICTURE)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        data = Path(folder, "turned disc")
        write_surfaces(data, "disc", 60, 384, 0, n_good=50, n_defective=50)
        model = create_model("filterbank", scorer="knn", contamination=0.05)
        result = evaluate_split(model, read_mvtec(data))
        write_report(result, Path(folder, "report.html"))
        picture = screenshot(Path(folder, "report.html"), 1280, 800, "light")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    # Few colours, the rare ones among them, and no dither, whose noise would not compress.
    small = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    small.save(options.output, optimize=True)
    print(f"{options.output}: {options.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
