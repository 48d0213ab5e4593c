"""The explorer in a real browser: Voila serves notebook 7, Chromium types, clicks and looks.

Skipped, saying why, where Chromium, Playwright or Voila is absent.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run"]
PIXELS = """image => { const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0); return canvas.toDataURL(); }"""
FOCUSED = """() => { const e = document.activeElement, box = e.closest(".jupyter-widgets, .widget-toggle-buttons");
    const label = e.labels?.[0] ?? box?.querySelector(".widget-label");
    return [e.getAttribute("role") ?? e.tagName.toLowerCase(), label?.innerText ?? e.innerText, e.innerText]; }"""
SECONDS = 300  # at most, for the first page: on an idle machine 15, but the kernel has to import torch


@pytest.fixture(scope="module")
def chromium():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs a browser: install Debian's chromium, or google-chrome")
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory, chromium):
    """Voila with notebook 7 on a free port of this machine: (address, output folder).

    Shipped generators, committed study.
    """
    pytest.importorskip("voila", reason="needs voila: pip install -e '.[test]'")
    output, home = tmp_path_factory.mktemp("output"), tmp_path_factory.mktemp("home")
    shutil.copytree(REPOSITORY / "results" / "demo", output / "results" / "demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"PYTHONPATH": REPOSITORY, "FER_OUTPUT": output, "JUPYTER_CONFIG_DIR": home, "JUPYTER_DATA_DIR": home,
           "JUPYTER_RUNTIME_DIR": home, "IPYTHONDIR": home, "OMP_NUM_THREADS": 1}
    with (home / "voila.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "voila", REPOSITORY / "notebooks" / "07_explorer.ipynb", "--no-browser",
             f"--port={port}", "--Voila.ip=127.0.0.1"],
            env={**os.environ, **{name: str(value) for name, value in own.items()}},
            stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(port, process, home / "voila.log")
            yield f"http://127.0.0.1:{port}/", output
        finally:
            end(process)


def wait_for(port, process, log):
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"voila did not start:\n{log.read_text()[-3000:]}")


def end(process):
    """Stop Voila and the kernels that it started, whatever state they are in."""
    family = [process, *(psutil.Process(process.pid).children(recursive=True) if process.poll() is None else [])]
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for child in family[1:]:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family[1:], timeout=5)


@pytest.fixture(scope="module")
def page(served, chromium):
    """A page with the explorer on it, wide, ready to be used; what goes wrong in it fails the test that sees it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[test]'")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.problems = []
            page.on("pageerror", lambda error: page.problems.append(str(error)))
            page.goto(served[0], timeout=1000 * SECONDS)
            page.wait_for_function("document.querySelectorAll('.fer img').length >= 17", timeout=1000 * SECONDS)
            yield page
        finally:
            browser.close()


def large(page):
    """Pixels of the large picture, as text."""
    return page.locator(".fer img").first.evaluate(PIXELS)


def changes(page, act):
    """Do something and wait until the large picture is another one, and stays so. Returns its pixels."""
    before, until = large(page), time.monotonic() + 60
    act()
    while time.monotonic() < until:
        page.wait_for_timeout(50)
        if (now := large(page)) != before:
            page.wait_for_timeout(500)
            while now != (now := large(page)):
                page.wait_for_timeout(500)
            return now
    pytest.fail("the large picture did not change")


def type_seed(page, seed):
    field = page.get_by_label("Seed", exact=True)
    field.fill(str(seed))
    field.press("Enter")


def test_every_picture_is_shown_and_nothing_fails(page):
    sizes = page.locator(".fer img").evaluate_all(
        "all => all.map(image => [image.naturalWidth, image.clientWidth, image.title])")
    assert all(natural > 0 and shown > 40 and title for natural, shown, title in sizes)
    assert page.problems == [] and page.get_by_text("Click to show javascript error").count() == 0


def test_typing_a_seed_shows_another_person_and_back_the_same(page):
    first = large(page)
    assert changes(page, lambda: type_seed(page, 17)) != first
    assert changes(page, lambda: type_seed(page, 0)) == first


def test_expression_and_intensity_change_the_picture(page):
    surprise = changes(page, page.get_by_role("button", name="surprise").click)
    handle = page.locator(".widget-slider", has_text="Intensity").get_by_role("slider")
    handle.focus()
    weaker = changes(page, lambda: [page.keyboard.press("ArrowLeft") for _ in range(10)])
    assert weaker != surprise and "surprise" in page.locator(".fer").inner_text()
    assert float(handle.get_attribute("aria-valuenow")) == pytest.approx(0.5)


def test_saving_writes_a_file_and_shows_the_code(page, served):
    folder = served[1] / "runs" / "demo" / "explorer"
    page.get_by_role("button", name="Save sheet").click()
    page.get_by_text("Saved as").wait_for(timeout=60_000)
    files = list(folder.glob("*.png"))
    assert len(files) == 1 and files[0].name in page.locator(".fer").inner_text()
    code = page.locator(".fer pre").inner_text()
    assert "weights/built-in/identity.safetensors" in code and "explorer.faces_of" in code


def test_the_study_answers_its_controls(page):
    page.get_by_role("tab", name="Ratio study").click()
    told, drawn = (page.locator(".fer p[role=status]").last, page.locator(".fer svg").first)
    before = told.inner_text(), drawn.inner_html()
    page.get_by_label("Trained on").select_option(label="generated only")
    page.wait_for_function("before => document.querySelector('.fer svg').innerHTML !== before", arg=before[1],
                           timeout=60_000)
    assert told.inner_text() != before[0] and "points" in told.inner_text() and "generated only" in told.inner_text()
    page.get_by_role("tab", name="Faces").click()


def test_the_tab_key_reaches_the_controls_in_order(page):
    page.get_by_role("tab", name="Faces").focus()
    stops = []
    for _ in range(24):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(FOCUSED))
    named = [label.strip() for _, label, _ in stops]
    order = [named.index("Seed"), next(at for at, stop in enumerate(stops) if stop[2].strip() == "anger"),
             next(at for at, stop in enumerate(stops) if stop[0] == "slider" and stop[1] == "Intensity"),
             next(at for at, stop in enumerate(stops) if stop[2].strip() == "Save sheet")]
    assert order == sorted(order), stops


def test_the_tabs_can_be_changed_by_keyboard(page):
    page.get_by_role("tab", name="Faces").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator(".fer svg").first.wait_for(state="visible", timeout=60_000)
    page.get_by_role("tab", name="Faces").click()


@pytest.mark.parametrize("tab", ["Faces", "Ratio study"])
def test_nothing_sticks_out_of_a_narrow_screen(page, tab):
    page.set_viewport_size({"width": 380, "height": 900})
    page.get_by_role("tab", name=tab).click()
    page.wait_for_timeout(300)
    wide = page.locator(".fer *:visible").evaluate_all(
        "all => all.filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 200))")
    assert wide == [] and page.evaluate("document.documentElement.scrollWidth") <= 380
    clipped = page.locator(".fer .widget-label:visible, .fer button:visible").evaluate_all(
        "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)")
    assert clipped == []
