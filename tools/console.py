"""Takes the picture of the console for README.md, in Chromium: `make pictures`.

A task of the default answers fails for a missing file, until it is dead-lettered; the picture shows its message.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

TEMPLATE = Path(__file__).parents[1]
PICTURE = TEMPLATE / "docs" / "console.png"
TASK = "examples.count_words_in_file"
WIDTH, HEIGHT = 1000, 960
SHORTEN = """folders => {
  const traceback = document.querySelector("main pre");
  for (const folder of folders.sort((one, other) => other.length - one.length))
    traceback.textContent = traceback.textContent.replaceAll(folder, "\N{HORIZONTAL ELLIPSIS}");
}"""
"""Leaves out of the traceback where things lie on this machine."""


def bake(folder: Path) -> Path:
    """Bake the default answers."""
    options = ("--no-input", "--default-config", "--output-dir", str(folder))
    command = [sys.executable, "-m", "cookiecutter", *options, str(TEMPLATE)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "acme-jobs"


def photograph(address: str, queue: str) -> None:
    """Open the message of the queue in a light page, and save a picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(address)
        page.get_by_role("link", name=f"1 dead-letter messages of {queue}").click()
        page.get_by_role("link", name=TASK).click()
        page.get_by_role("heading", name=TASK).wait_for()
        page.evaluate(SHORTEN, [str(TEMPLATE), sys.prefix, sys.base_prefix, str(Path.cwd())])
        page.screenshot(path=PICTURE)
        browser.close()


def main() -> None:
    """Run the service until its task is dead-lettered, and take the picture."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(project := bake(Path(folder)))
        sys.path[:0] = [str(project / "src"), str(project / "chassis")]
        from celery_aws.dev.console import running
        from celery_aws.testing.running import eventually, running_service

        with running_service(Path(folder)) as service, service.reached():
            service.start_worker()
            to = {"queue": service.contract.celery_name(service.queue), "MessageGroupId": "customer-7"}
            service.app.find(TASK).apply_async(("/orders/2027-01-31.csv",), **to)
            eventually(service.dead)
            with running(service.contract.package, service.client_environment()) as address:
                photograph(address, service.queue.name)


if __name__ == "__main__":
    main()
