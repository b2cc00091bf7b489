"""The page: one file, well formed, the catalog's words no markup in it; in a browser it draws, and asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from planted import planted, write_csv, write_store
from reported import HOSTILE

from mmrec.cli import main
from mmrec.evaluation import Interactions
from mmrec.recommending import Recommender
from mmrec.reporting import Report
from mmrec.reporting.page import render
from mmrec.reporting.report import make_report
from mmrec.store import FeatureStore

VOID = {"meta", "img", "input", "br", "link"}


class Checker(HTMLParser):
    """Notes elements that are not closed, and what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.troubles: list[str] = []
        self.scripts: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append(values)
        if tag == "img" and "alt" not in values:
            self.troubles.append("a picture without words")
        self.troubles += [f"{tag} has {name}" for name in values if name.startswith("on") or name == "style"]
        self.ids += [values["id"] or ""] if "id" in values else []
        self.addresses += [values[name] or "" for name in ("src", "href", "srcset", "data", "action") if name in values]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.troubles.append(f"</{tag}> closes nothing")


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.troubles == [] and checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    inside = {f"#{name}" for name in checker.ids}
    assert all(address in inside or address.startswith("data:image/jpeg;base64,") for address in checker.addresses)
    return checker


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return render(report)


def test_the_page_is_well_formed_and_refers_to_itself_alone(page: str) -> None:
    assert page.startswith("<!doctype html>")
    assert len(checked(page).scripts) == 2  # the data, and what draws them
    assert not re.search(r"https?:", page)
    assert "@import" not in page and "url(" not in page


def test_a_title_is_never_markup(page: str, report: Report) -> None:
    assert report.items.titles[report.items.rows["jazz-00"]] == HOSTILE
    assert "alert('title')" not in page and "<img src=x" not in page
    assert html.escape(HOSTILE, quote=False).replace("'", "&#39;").replace('"', "&#34;") in page
    assert "<b>a frame</b>" not in page and "&lt;b&gt;a frame&lt;/b&gt;" in page
    data = json.loads(re.search(r'id="map-data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert HOSTILE[:80] in data["titles"]


def test_only_the_script_of_the_page_may_run(page: str) -> None:
    policy = html.unescape(re.search(r'Content-Security-Policy" content="(.*?)"', page)[1])  # type: ignore[index]
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        text = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert len(text) == 1
        digest = base64.b64encode(hashlib.sha256(text[0].encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy


def test_every_section_says_something(page: str) -> None:
    sections = re.findall(r'<section id="(\w+)".*?</section>', page, re.S)
    assert sections == ("embedded failed runs samples map neighbours evaluation training lists bias method".split())
    assert "No model was given" not in page


def test_what_is_absent_is_said(store: FeatureStore, content: Recommender, tmp_path: Path) -> None:
    alone = render(make_report(store))
    assert "<code>mmrec report --model DIR</code>" in alone and alone.count("No model was given") == 5
    checked(alone)
    fitted = render(make_report(store, content))
    assert "fitted to content alone" in fitted
    checked(fitted)
    empty = render(make_report(FeatureStore(tmp_path / "empty", create=True)))
    assert "The store is empty." in empty and "There are no vectors to draw." in empty and "No run is recorded" in empty
    checked(empty)


def test_media_that_are_away_are_said(tmp_path: Path) -> None:
    items = planted(["jazz-00", "sport-00"])
    for features in items:
        features.item = type(features.item)(item_id=features.item.item_id, media=tmp_path / "gone.mp4")
    page = render(make_report(write_store(tmp_path / "store", items)))
    assert "The media files are not reachable from here: none of 2" in page
    checked(page)


def test_the_command_writes_it(
    store: FeatureStore,
    model: Recommender,
    pairs: tuple[Interactions, Interactions],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model.save(tmp_path / "model")
    held_out = write_csv(tmp_path / "held_out.csv", pairs[1])
    out = tmp_path / "page.html"
    named = ["report", "--store", str(store.folder), "--model", str(tmp_path / "model"), "--out", str(out)]
    assert main([*named, "--interactions", str(held_out)]) == 0
    assert str(out) in capsys.readouterr().out
    assert "recall@20" in out.read_text(encoding="utf-8")
    assert main(["report", "--store", str(store.folder), "--interactions", str(held_out), "--out", str(out)]) == 1
    assert "none was given" in capsys.readouterr().err


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page in Chromium; whatever it asks for or complains of is in `tab.noted`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is not tried: playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("the page is not tried: there is no Chromium")
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        found = browser.new_page(viewport={"width": 390, "height": 800})
        found.noted = []
        found.on("console", lambda message: found.noted.append(message.text))
        found.on("pageerror", lambda error: found.noted.append(str(error)))
        found.on("dialog", lambda dialog: (found.noted.append(dialog.message), dialog.dismiss()))
        found.on(
            "request", lambda request: found.noted.append(request.url) if _is_asked_of_others(request.url) else None
        )
        found.goto(path.as_uri())
        yield found
        browser.close()


def _is_asked_of_others(url: str) -> bool:
    return not url.startswith(("data:", "file:"))


def test_it_runs_without_a_complaint_or_a_request(tab: Any) -> None:
    assert tab.noted == []
    assert tab.evaluate("document.documentElement.scrollWidth") == 390


def test_the_map_is_coloured_by_a_column(tab: Any) -> None:
    tab.select_option("#map-colour", label="language")
    assert tab.locator("#map-legend button").all_inner_texts() == ["zh", "en"]
    tab.click("#map-legend button >> nth=0")
    assert tab.get_attribute("#map-legend button >> nth=0", "aria-pressed") == "true"
    tab.click("#map-legend button >> nth=0")


def test_the_map_is_used_by_keys(tab: Any) -> None:
    tab.focus("#map-canvas")
    before = tab.evaluate("document.getElementById('map-canvas').toDataURL()")
    tab.keyboard.press("+")
    tab.keyboard.press("ArrowLeft")
    assert tab.evaluate("document.getElementById('map-canvas').toDataURL()") != before
    tab.keyboard.press("0")
    tab.keyboard.press("n")
    first = tab.inner_text("#map-tip strong")
    tab.keyboard.press("n")
    assert tab.inner_text("#map-tip strong") != first
    assert tab.inner_text("#map-tip strong") in tab.text_content("#map-said")
    tab.keyboard.press("p")
    assert tab.inner_text("#map-tip strong") == first
    tab.keyboard.press("Escape")
    assert tab.is_hidden("#map-tip")


def test_an_item_is_found_by_its_title_and_shown_with_its_picture(tab: Any) -> None:
    tab.fill("#map-find", "onerror")
    assert tab.locator("#map-found button").all_inner_texts() == [HOSTILE[:80]]
    tab.click("#map-found button")
    assert tab.inner_text("#map-tip strong") == HOSTILE[:80]
    assert tab.evaluate("document.querySelector('#map-tip img').naturalWidth") > 0
    tab.fill("#map-find", "no such item")
    assert tab.text_content("#map-said") == "nothing found"
    assert tab.noted == []
