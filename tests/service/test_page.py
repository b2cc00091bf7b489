"""The page to explore, in a real browser, on a service that answers from a store and two models."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import pytest
from page_catalog import CLIP_SECONDS, HOSTILE_ID, HOSTILE_TITLE, write_page_catalog

pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
from playwright.sync_api import Browser, Error, Page, Playwright, Request, expect, sync_playwright

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
TOKEN = "the-token-of-these-tests"
expect.set_options(timeout=60_000)  # the first search loads encoders
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
VIEWS = {
    "catalog": "#/search",
    "results": "#/search?q=boats&where=kind+%3D+%27words%27",
    "refused": "#/search?q=boats&where=nothing+%3D+3",
    "item": "#/item?id=harbour",
    "sound": "#/item?id=tone",
    "hostile": f"#/item?id={quote(HOSTILE_ID, safe='')}",
    "users": "#/users",
    "user": "#/user?id=user03",
    "map": "#/map",
    "compare": "#/compare?user=user03",
    "duplicates": "#/duplicates",
    "failures": "#/failures",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and two models of the catalog of the tests."""
    import mmrec
    from mmrec.store import Finding, Findings

    folder = tmp_path_factory.mktemp("page") / "served"
    catalog = write_page_catalog(folder)
    mmrec.embed(catalog, folder / "store", preset=folder / "preset.yaml")
    findings = Findings(mmrec.FeatureStore(folder / "store"))
    heard, seen = [[0.0, 1.5, "Nobody says <b>a word</b>."], [2.0, 3.0, "Or so it seems."]], [[1.0, 2.0, "THE END"]]
    with findings.lock():
        findings.put(
            [
                Finding(item_id="silent", task="heard", key="1", value={"passages": heard}),
                Finding(item_id="silent", task="seen", key="1", value={"passages": seen}),
                Finding(item_id="silent", task="about", key="1", value={"summary": "A clip without sound."}),
            ]
        )
    config = mmrec.RecommenderConfig.from_mapping({"max_epochs": 1, "dim": 16})
    model = mmrec.Recommender.fit(mmrec.FeatureStore(folder / "store"), folder / "interactions.csv", config=config)
    model.save(folder / "today")
    model.remove_items(["note09"])
    model.save(folder / "yesterday")
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[str]:
    with _serving(folder, [folder / "today", folder / "yesterday"]) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = _chromium(playwright)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, served: str) -> Iterator[Page]:
    """A page on which nothing failed, and which asked nobody but the service."""
    context = browser.new_context(viewport=WIDE, base_url=served, reduced_motion="reduce")
    page = context.new_page()
    troubles: list[str] = []
    asked: list[Request] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append(f"dialog {dialog.message}"))
    page.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: asked.append(request))
    yield page
    assert [text for text in troubles if "status of 400" not in text] == []
    assert {request.url for request in asked if not request.url.startswith((served, "blob:", "data:"))} == set()
    context.close()


class _serving:
    """The service in a thread of its own, at a free port."""

    def __init__(self, folder: Path, models: list[Path], token: str = "") -> None:
        import uvicorn

        from mmrec.service import ServiceConfig, create_app

        config = ServiceConfig(store=folder / "store", models=models, token=token, requests_per_second=0)
        self._server = uvicorn.Server(uvicorn.Config(create_app(config), log_level="error"))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the service did not start"
            time.sleep(0.05)
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=30)


def _chromium(playwright: Playwright) -> Browser:
    """Playwright's own, else that of the machine; the tests are skipped where there is none."""
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    of_the_machine = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    for path in (None, of_the_machine):
        try:
            return playwright.chromium.launch(executable_path=path, args=arguments)
        except Error as error:
            reason = str(error).splitlines()[0]
    pytest.skip(f"no Chromium starts: python -m playwright install chromium ({reason})")


def _open(page: Page, view: str) -> None:
    """Open a view, and wait until it is whole."""
    page.goto("about:blank")
    page.goto(f"/{view}")
    _whole(page)


def _whole(page: Page) -> None:
    expect(page.locator(".view h1, .view .wrong").first).to_be_visible(timeout=60_000)
    expect(page.locator(".waits")).to_have_count(0)


def _cards(page: Page) -> list[str]:
    return page.locator(".found .card .title").all_inner_texts()


def _focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.innerText || document.activeElement.id"))


def test_words_find_items_which_open_and_back_is_where_it_was(page: Page) -> None:
    _open(page, "#/search")
    expect(page.locator(".total").first).to_have_text("24 items")
    page.get_by_role("searchbox", name="Search in words").fill("boats harbour")
    page.keyboard.press("Enter")
    expect(page).to_have_title("boats harbour · mmrec")
    _whole(page)
    assert _cards(page)[0] == "Boats in the harbour"
    assert page.locator(".found mark").first.inner_text().lower() in ("boats", "harbour")
    assert page.locator(".card").first.locator(".badge.words").inner_text() == "in its words"
    found = _cards(page)
    page.locator(".card").nth(2).click()
    expect(page.locator("h1")).to_have_text(found[2])
    page.go_back()
    expect(page.locator("h1")).to_have_text("boats harbour")
    assert _cards(page) == found
    expect(page.get_by_role("searchbox", name="Search in words")).to_have_value("boats harbour")
    page.reload()
    _whole(page)
    assert _cards(page) == found


def test_a_clip_plays_from_its_moments(page: Page) -> None:
    _open(page, "#/item?id=harbour")
    video = page.locator("video")
    frames = page.locator(".frames button")
    assert frames.count() == 4
    expect(frames.last.locator("img")).to_have_js_property("complete", True)
    frames.last.click()
    page.wait_for_function(
        "() => { const v = document.querySelector('video'); return v.currentTime > 4 && !v.paused; }"
    )
    assert video.evaluate("video => video.duration") == pytest.approx(CLIP_SECONDS, abs=0.2)
    slider = page.get_by_role("slider", name="Position")
    slider.fill("1")
    page.wait_for_function("() => Math.abs(document.querySelector('video').currentTime - 1) < 0.8")
    drawn = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((b) => b > 0)"
    page.wait_for_function(f"() => ({drawn})(document.querySelector('.wave'))")
    page.get_by_role("button", name="0:04").first.click()  # of the transcript
    page.wait_for_function("() => document.querySelector('video').currentTime >= 4")
    expect(page.get_by_text("and the boats leave")).to_be_visible()
    _open(page, "#/item?id=harbour&t=3.5")
    page.wait_for_function("() => Math.abs(document.querySelector('video').currentTime - 3.5) < 0.3")


def test_what_was_found_out_is_shown(page: Page) -> None:
    _open(page, "#/item?id=silent")
    expect(page.get_by_text("Nobody says <b>a word</b>.")).to_be_visible()
    expect(page.get_by_text("A clip without sound.")).to_be_visible()
    expect(page.get_by_text("On screen")).to_be_visible()
    expect(page.get_by_text("THE END")).to_be_visible()
    page.get_by_role("button", name="0:02").last.click()
    page.wait_for_function("() => document.querySelector('video').currentTime >= 2")


def test_neighbours_by_each_modality(page: Page) -> None:
    _open(page, "#/item?id=silent")
    tabs = page.get_by_role("tab")
    assert tabs.all_inner_texts() == ["All together", "Pictures", "Sound", "Text"]
    tabs.first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Pictures")).to_be_focused()
    expect(page.get_by_role("tabpanel").locator(".card .title").first).to_have_text("The same grey again")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tabpanel")).to_contain_text("It has no sound")
    page.get_by_role("link", name="Search with this").click()
    expect(page.locator("h1")).to_have_text("like “Grey without sound”")
    _whole(page)
    assert _cards(page)[0] == "The same grey again"
    expect(page.locator(".card").first.locator(".badge.visual")).to_be_visible()


def test_a_user_what_is_recommended_why_and_what_if(page: Page) -> None:
    _open(page, "#/users")
    page.get_by_label("An id, or how it begins").fill("user03")
    page.get_by_role("link", name="user03").click()
    _whole(page)
    expect(page.locator("h1")).to_have_text("user03")
    assert page.get_by_role("list", name="History, newest first").locator(".row").count() == 5
    recommended = page.locator(".recommended .row")
    before = recommended.locator(".title").all_inner_texts()
    assert len(before) == 19  # of 24: what was watched is left out
    why = recommended.first.get_by_role("button", name="Why?")
    why.click()
    expect(why).to_have_attribute("aria-expanded", "true")
    expect(recommended.first.get_by_role("list", name="Parts of the score")).to_contain_text("Text")
    why.click()
    expect(page.locator(".explanation")).to_have_count(0)
    page.get_by_role("combobox", name="What if they watched…").press_sequentially("note 7")
    page.locator("[role=option]").first.wait_for()
    page.keyboard.press("ArrowDown")
    chosen = page.locator("[role=option][aria-selected=true]").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator(".recommended .moved").first).to_be_visible()
    after = recommended.locator(".title").all_inner_texts()
    assert chosen not in after
    page.get_by_role("button", name=f"Without {chosen}").click()
    expect(page.locator(".recommended .moved")).to_have_count(0)
    assert recommended.locator(".title").all_inner_texts() == before


def test_by_keyboard_alone(page: Page) -> None:
    _open(page, "#/search")
    page.keyboard.press("Escape")  # there is nothing before the first view
    page.keyboard.press("Tab")
    assert _focused(page) == "Skip to the content"
    page.keyboard.press("/")
    assert _focused(page) == "words"
    page.keyboard.type("boats")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("boats")
    _whole(page)
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    titles = _cards(page)
    assert titles[0] in _focused(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    columns = page.evaluate(
        "() => { const tops = [...document.querySelectorAll('.found .card')].map((c) => c.getBoundingClientRect().top);"
        " return tops.filter((top) => top === tops[0]).length; }"
    )
    assert titles[1 + columns] in _focused(page)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(titles[1 + columns])
    _whole(page)
    page.keyboard.press("Escape")
    expect(page.locator("h1")).to_have_text("boats")
    assert titles[1 + columns] in _focused(page)


def test_what_the_catalog_says_is_never_markup(page: Page) -> None:
    _open(page, VIEWS["hostile"])
    expect(page.locator("h1")).to_have_text(HOSTILE_TITLE)
    expect(page.get_by_text("<b>not bold</b>")).to_be_visible()
    for view in ("#/search", "#/search?q=script", "#/search?q=%3Cimg+src%3Dx%3E", "#/users?prefix=%3Cscript%3E"):
        _open(page, view)
    expect(page.locator("main script, main img[src=x], main b, main i")).to_have_count(0)
    assert page.evaluate("window.broken") is None
    page.goto("/#/search?q=tag")
    page.locator(".card", has_text="<script>").click()
    expect(page.locator("h1")).to_have_text(HOSTILE_TITLE)
    assert HOSTILE_ID in page.locator(".facts").first.inner_text()


def test_a_file_finds_what_is_like_it(page: Page, folder: Path) -> None:
    _open(page, "#/search")
    page.set_input_files("#file", folder / "media" / "silent.webm")
    expect(page.locator("h1")).to_have_text("like silent.webm")
    _whole(page)
    assert set(_cards(page)[:2]) == {"Grey without sound", "The same grey again"}
    picture = (folder / "media" / "grey.png").read_bytes()
    page.evaluate(
        """(bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
          dispatchEvent(new DragEvent("dragenter", { dataTransfer: data }));
          if (document.getElementById("drop").hidden) throw new Error("no place to drop");
          dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
        }""",
        list(picture),
    )
    expect(page.locator("h1")).to_have_text("like dropped.png")
    _whole(page)
    assert _cards(page)[0] == "A grey picture"
    expect(page.get_by_role("img", name="The picture dropped.png")).to_be_visible()
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("dropped.png is not at hand any more")


def test_filters_and_the_words_of_the_service(page: Page) -> None:
    _open(page, "#/search")
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Column").select_option("tags")
    page.get_by_label("Value").fill("grey")
    page.get_by_role("button", name="Add").click()
    expect(page.locator(".total").first).to_have_text("3 items")
    page.get_by_label("Column").select_option("duration_seconds")
    page.get_by_label("Comparison").select_option(">=")
    page.get_by_label("Value").fill("1")
    page.get_by_role("button", name="Add").click()
    expect(page.locator(".total").first).to_have_text("2 items")
    expect(page.get_by_label("or written")).to_have_value("tags = 'grey' and duration_seconds >= 1")
    page.get_by_role("button", name="Without the filter tags = 'grey'").click()
    expect(page.locator(".total").first).to_have_text("5 items")
    page.get_by_label("or written").fill("colour = 'grey'")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("the catalog has no column 'colour'")
    expect(page.get_by_label("or written")).to_have_value("colour = 'grey'")
    page.get_by_label("or written").fill("title = 'none''s'")
    page.keyboard.press("Enter")
    expect(page.locator(".state h2")).to_have_text("Nothing is left")


def test_the_map_by_keys_and_by_pointer(page: Page) -> None:
    _open(page, "#/map")
    canvas = page.get_by_role("application")
    assert len(_colours(canvas.screenshot())) > 3
    expect(page.get_by_role("group", name="Show only").get_by_role("button").first).to_contain_text("words")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    pointed = page.locator("#pointed .title")
    first = pointed.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert pointed.inner_text() != first
    page.keyboard.press("+")
    expect(pointed).not_to_have_text(re.compile("^note"))  # the title instead of the id, once it is known
    title = pointed.inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(title)


def _colours(png: bytes) -> set[tuple[int, ...]]:
    from PIL import Image

    return {colour for _, colour in Image.open(BytesIO(png)).convert("RGB").getcolors(2**24) or []}


def test_two_models_duplicates_and_failures(page: Page) -> None:
    _open(page, "#/compare")
    page.get_by_label("User", exact=True).fill("user03")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("are in both lists")).to_be_visible()
    today, yesterday = (page.get_by_role("region", name=name).locator(".row") for name in ("today", "yesterday"))
    assert (today.count(), yesterday.count()) == (19, 18)
    expect(today.filter(has_text="only here")).to_contain_text("Note 9 on boats")
    yesterday.nth(3).hover()
    expect(page.locator(".row.lit")).to_have_count(2)
    _open(page, "#/duplicates")
    edited, copied = page.locator(".group").all()
    expect(edited.locator("h2")).to_have_text("Boats in the harbour")
    expect(edited.locator(".row", has_text="The same grey again")).to_contain_text("seconds: 6 and 3")
    expect(copied.locator(".row")).to_contain_text("the same file")
    _open(page, "#/failures")
    damaged = page.locator(".failures > li", has_text="A damaged film")
    expect(damaged).to_contain_text("damaged.webm")
    expect(damaged.locator(".badge").first).to_contain_text("Pictures:")


def test_who_has_no_token_is_asked_for_it(browser: Browser, folder: Path) -> None:
    with _serving(folder, [], token=TOKEN) as address:
        context = browser.new_context(base_url=address)
        page = context.new_page()
        page.goto("/#/search?q=grey")
        field = page.get_by_label("Token", exact=True)
        field.fill("a token of somebody else")
        page.keyboard.press("Enter")
        expect(page.locator("#token-problem")).to_contain_text("does not know this token")
        field.fill(TOKEN)
        page.keyboard.press("Enter")
        _whole(page)
        expect(page.locator(".card").first).to_be_visible()
        page.wait_for_function(
            "() => [...document.images].some((image) => image.src.includes('thumbnail') && image.naturalWidth)"
        )
        assert TOKEN not in page.url
        page.goto("/#/item?id=harbour")
        page.wait_for_function("() => document.querySelector('video')?.duration > 5")
        page.goto("/#/users")
        expect(page.get_by_text("There is no model")).to_be_visible()
        context.close()


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_on_every_screen(page: Page, view: str) -> None:
    """Readable by all, by axe's rules of WCAG A and AA, and never wider than the screen; kept as pictures to see."""
    from axe_playwright_python.sync_playwright import Axe

    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    _open(page, VIEWS[view])
    if view == "user":
        page.get_by_role("button", name="Why?").first.click()
        expect(page.locator(".explanation")).to_be_visible()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for size in (WIDE, PHONE):
            page.set_viewport_size(size)
            page.wait_for_timeout(100)
            found = Axe().run(page, options=rules).response["violations"]
            assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found] == [], (scheme, size)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            page.screenshot(path=SCREENSHOTS / f"{view}-{size['width']}-{scheme}.png")


def test_light_and_dark_by_a_button_that_is_remembered(page: Page) -> None:
    _open(page, "#/users")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    button = page.get_by_role("button", name="Colours: as the system has it")
    button.click()
    page.get_by_role("button", name="Colours: light").click()
    assert page.evaluate(background) != light
    page.reload()
    expect(page.get_by_role("button", name="Colours: dark")).to_be_visible()
    assert page.evaluate(background) != light
