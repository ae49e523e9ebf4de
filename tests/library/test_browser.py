"""The console in a real browser: a task fails, its reason is read, its arguments are edited, it is resent and done."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys

import pytest
from playwright.sync_api import expect, sync_playwright

from celery_aws.attempts import LOG_FILE
from library.support import CONTRACT, eventually, need, notes

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

HOSTILE = "<img src=x onerror=alert(1)><script>alert(1)"
"""A part of the arguments, of the error and of its traceback."""
expect.set_options(timeout=60_000)
DESK = {"width": 1100, "height": 900}
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def console(working):
    """Run the console of a service with workers; yield its address."""
    environment = {**working.client_environment(), LOG_FILE: str(working.logs / f"{working.worker.name}.log")}
    command = [sys.executable, "-m", CONTRACT["package"], "console"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            assert process.wait(20) == 0


@contextlib.contextmanager
def chromium():
    """Yield the Chromium of this machine."""
    need("chromium")
    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def page(console):
    """A page that has opened the console; whatever the browser reports of it is an error."""
    with chromium() as browser:
        page = browser.new_page(viewport=DESK)
        reported = []
        page.on("console", lambda message: "status of 400" in message.text or reported.append(message.text))
        # A page that is left before its icon has come aborts that request.
        page.on("requestfailed", lambda request: "ERR_ABORTED" in request.failure or reported.append(request.url))
        page.on("dialog", lambda dialog: reported.append(dialog.message))
        # Some time for machines that do much else.
        page.set_default_timeout(60_000)
        page.goto(console)
        page.get_by_role("heading", name="Queues").wait_for()
        assert "token" not in page.url
        yield page
        assert reported == []


def fits(page):
    """Return whether a page is not wider than the screen."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def submit(page, arguments):
    """Replace the positional arguments and press the button, by keyboard alone."""
    page.get_by_label("Positional arguments").focus()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type(arguments)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")


def test_task_when_it_has_failed_then_is_edited_resent_and_done(working, page, tmp_path):
    queue, blocked, folder = working.queue.name, tmp_path / HOSTILE, tmp_path / "notes"
    blocked.touch()
    folder.mkdir()
    working.send("leave_trace", str(folder), str(blocked), group="customer-7")
    assert eventually(working.dead)
    attempts = len(notes(folder))

    page.reload()
    page.get_by_role("link", name=f"1 dead-letter message of {queue}").click()
    page.get_by_role("link", name="library.probes.leave_trace").click()
    expect(page.get_by_text(f"{HOSTILE} is still there").first).to_be_visible()
    expect(page.get_by_text("raise RuntimeError(")).to_be_visible()
    assert json.loads(page.get_by_label("Positional arguments").input_value()) == [str(folder), str(blocked)]
    assert page.locator("img, script").count() == 0
    page.set_viewport_size(PHONE)
    assert fits(page)
    page.set_viewport_size(DESK)

    submit(page, "[oops")
    expect(page.get_by_role("alert")).to_contain_text("Nothing was sent")
    submit(page, json.dumps([str(folder)]))
    expect(page.get_by_role("status")).to_contain_text("sent to")
    assert eventually(lambda: "succeeded" in working.log())
    assert len(notes(folder)) == attempts + 1

    page.get_by_role("link", name="Tasks").click()
    row = page.get_by_role("row", name="succeeded")
    expect(row).to_be_visible()
    row.get_by_role("link").click()
    expect(page.get_by_text("succeeded in")).to_be_visible()
    expect(page.get_by_text(f"{HOSTILE} is still there").first).to_be_visible()
    assert not working.dead()


def test_pages_when_dark_or_on_a_phone_then_are_readable(working, page):
    page.set_viewport_size(PHONE)
    colors = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colors[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        for name in ("Queues", "Tasks", "Schedules"):
            page.get_by_role("link", name=name, exact=True).click()
            page.get_by_role("heading", level=1).wait_for()
            assert eventually(lambda: fits(page))
    assert colors["light"] != colors["dark"]
