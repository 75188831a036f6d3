"""A person at a browser: sent to the portal, signed in, back at the application; or told clearly that they may not."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.live.conftest import cannot
from tests.live.labs import Lab
from tests.live.proxy.client import Session, next_code

SECONDS = 60  # a page that is there at once on a machine with nothing else to do


@pytest.fixture
def browser(lab: Lab, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A fresh profile of Debian's chromium; the lab's names lead to the lab's host, as its DNS would say.

    It sits at the vantage: where a network of its machine comes or goes, as those of other labs do here all the time,
    Chromium gives up what it has asked for (ERR_NETWORK_CHANGED). Its driver stays here and speaks to it by a pipe.
    """
    if not shutil.which("chromedriver"):
        cannot("this test needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = str(tmp_path / "chromium-at-the-vantage")
    at_the_vantage = ["nsenter", f"--net={lab.network('outside')}", "chromium"]
    Path(options.binary_location).write_text(f'#!/bin/sh\nexec {shlex.join(at_the_vantage)} "$@"\n')
    Path(options.binary_location).chmod(0o755)
    domain = lab.variables()["lab_domain"]
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1000,760",
        f"--user-data-dir={tmp_path}/profile", f"--host-resolver-rules=MAP *.{domain} {lab.address()}, MAP * ~NOTFOUND",
        "--remote-debugging-pipe", "--disable-background-networking", "--disable-component-update", "--no-first-run",
        # The root is in no store of this machine; that the certificates are the lab's is what the other tests check.
        "--ignore-certificate-errors",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(SECONDS)
    yield driver
    driver.quit()


def shot(browser: webdriver.Chrome, name: str) -> None:
    """Keep a picture of the page where RINGFENCE_SCREENSHOTS says, for a person to look at."""
    if folder := os.environ.get("RINGFENCE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(f"{folder}/{name}.png")


def until(browser: webdriver.Chrome, condition: Callable[[webdriver.Chrome], object]) -> None:
    # While a page gives way to the next one, what was found on it is stale, in several words of Chromium's.
    wait = WebDriverWait(browser, SECONDS, ignored_exceptions=(WebDriverException,))
    try:
        wait.until(condition)
    except TimeoutException as error:
        said = [line["message"] for line in browser.get_log("browser")]
        error.msg = f"{browser.current_url}: {said}: {text(browser)[:1000]}"
        raise


def field(browser: webdriver.Chrome, name: str) -> WebElement:
    until(browser, lambda b: any(e.is_displayed() for e in b.find_elements(By.ID, name)))
    return browser.find_element(By.ID, name)


def sign_in(browser: webdriver.Chrome, person: str, password: str = "") -> None:
    field(browser, "username").send_keys(person)
    field(browser, "password").send_keys(password or f"ringfence-{person}", Keys.ENTER)


def give_code(browser: webdriver.Chrome, lab: Lab, person: str) -> None:
    field(browser, "token").send_keys(next_code(lab, person), Keys.ENTER)


def text(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def test_a_person_signs_in_and_comes_back_to_where_they_wanted_to_go(lab: Lab, browser: webdriver.Chrome) -> None:
    session = Session(lab)
    browser.get(f"https://{session.site('cloud')}/some/page")
    until(browser, lambda b: session.portal in b.current_url)
    field(browser, "username")
    shot(browser, "portal")
    sign_in(browser, "anna")
    field(browser, "token")
    shot(browser, "second-factor")
    give_code(browser, lab, "anna")
    until(browser, lambda b: b.current_url == f"https://{session.site('cloud')}/some/page")
    until(browser, lambda b: "anna" in text(b))
    shot(browser, "application")


def test_a_wrong_password_is_said_so(lab: Lab, browser: webdriver.Chrome) -> None:
    session = Session(lab)
    browser.get(f"https://{session.site('media')}/")
    sign_in(browser, "nobody", "wrong")
    until(browser, lambda b: "incorrect" in text(b).lower() or "failed" in text(b).lower())
    shot(browser, "wrong-password")
    assert session.portal in browser.current_url


def test_what_is_not_for_them_is_a_clear_page(lab: Lab, browser: webdriver.Chrome) -> None:
    session = Session(lab)
    browser.get(f"https://{session.site('media')}/")
    sign_in(browser, "guest")
    until(browser, lambda b: "403" in text(b) or "not for you" in text(b).lower() or "may not" in text(b).lower())
    shot(browser, "forbidden")
    assert "nextcloud" not in text(browser).lower()
