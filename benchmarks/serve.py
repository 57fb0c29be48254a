"""A large slide and a million cells in the browser: how long until they are there, how they move.

    python benchmarks/serve.py [--side 50000] [--cells 1000000] [--folder viewer/]

Writes what benchmarks/viewer.py does (a generated pyramid, a result of so many cells; kept in
``--folder`` for the next time), starts ``cellseg serve`` in a process of its own, and opens its
page in headless Chromium, which draws without a GPU. The first view is there when the slide's and
the masks' tiles of the whole slide are drawn, counted from the page's own start; then the slide is
moved at full resolution over tiles that nobody asked for before, and frames are counted. Beside
the clock stands the processors' time, which a busy machine changes less. Limits: 2 s, 30 frames a
second.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import click
import psutil
from large import LargeScene, write_large
from playwright.sync_api import Page, sync_playwright
from viewer import write_result

FIRST_VIEW_S, FRAMES = 2.0, 30.0
PAN_S = 5
READY = "html[data-slide=shown][data-masks=shown]"
PAN = """async (seconds) => {
  const frames = [], begun = performance.now();
  view.viewport.zoomTo(state.about.width / view.viewport.getContainerSize().x, null, true);
  await new Promise((then) => setTimeout(then, 2000));
  const step = 12 / state.about.width;                       // 12 px of the slide a frame
  return new Promise((then) => {
    const first = performance.now();
    const next = (now) => {
      frames.push(now);
      if (now - first > seconds * 1000) return then(frames);
      view.viewport.panBy(new OpenSeadragon.Point(step, step / 3), true);
      requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  });
}"""

MARK = "(name) => performance.getEntriesByName(`cellseg ${name}`)[0].startTime"
ASK = """async (asked) => {
  const begun = performance.now();
  await ask(`0/${asked}`);
  return performance.now() - begun;
}"""


def cpu(processes: list[psutil.Process]) -> float:
    """Seconds of processors that these took so far."""
    total = 0.0
    for one in processes:
        try:
            times = one.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def peak_mb(server: psutil.Process) -> float:
    """Peak memory where the system tells it, what it takes now otherwise."""
    status = Path(f"/proc/{server.pid}/status")
    if status.is_file():
        (line,) = [one for one in status.read_text().splitlines() if one.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e6
    return server.memory_info().rss / 1e6


def looked_at(page: Page, url: str, server: psutil.Process) -> dict[str, float]:
    """Open, wait, move, point, count."""
    browsers = [one for one in psutil.Process().children(recursive=True) if one != server]
    before = cpu([server]), cpu(browsers)
    page.goto(url)
    page.wait_for_selector(READY)
    found = {f"{name}_s": page.evaluate(MARK, name) / 1000 for name in ("slide", "masks")}
    browsers = [one for one in psutil.Process().children(recursive=True) if one != server]
    found |= {"server_cpu_s": cpu([server]) - before[0], "browser_cpu_s": cpu(browsers) - before[1]}
    while not page.evaluate("performance.getEntriesByName('cellseg counts').length"):
        page.wait_for_timeout(100)
    found["counts_s"] = page.evaluate(MARK, "counts") / 1000
    found["view_mb"] = peak_mb(server)
    frames = page.evaluate(PAN, PAN_S)
    gaps = sorted(later - sooner for sooner, later in pairwise(frames))
    found["frames"] = (len(frames) - 1) / (frames[-1] - frames[0]) * 1000
    found["slowest_ms"] = gaps[int(len(gaps) * 0.95)]
    for name, asked in (("point", "at?y=25&x=25"), ("rectangle", "box?y0=0&x0=0&y1=9999&x1=9999")):
        page.evaluate(ASK, asked)
        found[f"{name}_ms"] = page.evaluate(ASK, asked)
    found["peak_mb"] = peak_mb(server)
    return found


def measured(result: Path) -> dict[str, float]:
    """The server in a process of its own, the page in a browser."""
    command = [sys.executable, "-m", "cellseg", "serve", "--no-browser", str(result)]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            started = {"address_s": time.perf_counter() - begun}
            server = psutil.Process(process.pid)
            started["start_cpu_s"] = cpu([server])
            with sync_playwright() as playwright:
                chromium = shutil.which("chromium") or shutil.which("google-chrome")
                browser = playwright.chromium.launch(
                    executable_path=chromium,
                    args=["--no-sandbox", "--disable-gpu"],
                    timeout=300_000,
                )
                page = browser.new_page(viewport={"width": 1400, "height": 860})
                page.set_default_timeout(300_000)
                page.goto("about:blank")
                found = looked_at(page, url, server)
                browser.close()
            return started | found
        finally:
            process.terminate()


@click.command()
@click.option("--side", default=50_000, show_default=True, help="Of the slide, px.")
@click.option("--cells", default=1_000_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False))
def main(side: int, cells: int, folder: Path | None) -> None:
    """Write, serve, look, print."""
    with tempfile.TemporaryDirectory() as scratch:
        home = folder or Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        slide = home / f"slide-{side}.tif"
        if not slide.exists():
            draft = slide.with_suffix(".part")
            write_large(draft, LargeScene(side))
            draft.replace(slide)
        result = home / f"slide-{side}-{cells}.cellseg"
        if not (result / "run.json").exists():
            click.echo(f"writing {cells:,} cells …")
            write_result(result, slide, side, cells)
        found = measured(result)
    first = max(found["slide_s"], found["masks_s"])
    for line in (
        f"{side:,} × {side:,} px, {cells:,} cells",
        f"address after {found['address_s']:.1f} s ({found['start_cpu_s']:.1f} s of a core)",
        f"first view {first:.2f} s: slide {found['slide_s']:.2f}, masks {found['masks_s']:.2f}; "
        f"of a core, server {found['server_cpu_s']:.2f}, browser {found['browser_cpu_s']:.2f}",
        f"table read after {found['counts_s']:.1f} s",
        f"moving at full resolution: {found['frames']:.0f} frames a second, "
        f"95 % of them within {found['slowest_ms']:.0f} ms",
        f"a cell's measurements {found['point_ms']:.0f} ms, "
        f"a rectangle's counts {found['rectangle_ms']:.0f} ms",
        f"server's memory: {found['view_mb']:,.0f} MB with the table, "
        f"{found['peak_mb']:,.0f} MB at most",
    ):
        click.echo(line)
    if first > FIRST_VIEW_S or found["frames"] < FRAMES:
        raise SystemExit("over the limit")


if __name__ == "__main__":
    main()
