"""The explorer in headless Chromium, as a page (Voila) and in JupyterLab: `make test-browser`."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SIZES = ((1280, 800), (1920, 1080))
pytestmark = pytest.mark.skipif(not shutil.which("chromedriver"), reason="chromium and chromedriver are not installed")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "explorer.ipynb"
    convert = [BIN / "jupytext", "--quiet", "--to", "ipynb", "--set-kernel", "python3", "--output", path]
    subprocess.run([*convert, ROOT / "notebooks" / "14_explorer.py"], check=True)
    return path


@pytest.fixture(scope="module")
def shots():
    folder = Path(os.environ.get("FUSIONLIB_HOME", ROOT)) / "build" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def served(notebook):
    """Start a server with the arguments given, once; its port."""
    servers = []

    def serve(*arguments: object) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [str(a).replace("PORT", str(port)) for a in arguments]
        servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return port
            time.sleep(0.5)
        raise TimeoutError("the server does not answer")

    yield serve
    for server in servers:
        server.terminate()
        server.wait()


def said(driver, other_than: str = "", within: int = 120) -> str:
    """What the page says once a run is done."""

    def done(d):
        text = d.find_element(By.CLASS_NAME, "explorer-status").text
        return text if "dB" in text and text != other_than else False

    return WebDriverWait(driver, within, ignored_exceptions=(Exception,)).until(done)


def picture(driver) -> str:
    """The reconstruction, as its address."""
    return driver.find_elements(By.CSS_SELECTOR, "img.widget-image")[3].get_attribute("src")


def use(driver, shots: Path, where: str) -> None:
    """Two sliders, a strategy, pin, compare, export, a file that is not there; what the page says and shows follows."""
    shoot = lambda name: driver.save_screenshot(str(shots / f"{where}_{name}.png"))  # noqa: E731
    first, before = said(driver), picture(driver)
    shoot("start")
    click(driver, "pin")
    for name, key in (("inclination", Keys.PAGE_UP), ("noise", Keys.ARROW_RIGHT)):
        handle = driver.find_element(By.CSS_SELECTOR, f".explorer-{name} .noUi-handle")
        handle.send_keys(key)
        now = said(driver, first)
        assert now != first and picture(driver) != before
        first, before = now, picture(driver)
    Select(driver.find_element(By.CSS_SELECTOR, ".explorer-strategy select")).select_by_visible_text(
        "average of the bank"
    )
    assert said(driver, first) != first and picture(driver) != before
    click(driver, "pin")
    WebDriverWait(driver, 20).until(
        lambda d: len(d.find_elements(By.CSS_SELECTOR, ".widget-html table.dataframe tbody tr")) == 2
    )
    click(driver, "export")
    WebDriverWait(driver, 20).until(lambda d: len(d.find_elements(By.CSS_SELECTOR, "a[download]")) == 3)
    shoot("end")
    links = driver.find_element(By.CSS_SELECTOR, "a[download]")
    driver.execute_script("arguments[0].scrollIntoView(false)", links)
    shoot("export")
    field, kept = driver.find_element(By.CSS_SELECTOR, ".explorer-truth input"), picture(driver)
    field.send_keys("/nowhere" + Keys.ENTER)
    status = lambda d: d.find_element(By.CLASS_NAME, "explorer-status")  # noqa: E731
    WebDriverWait(driver, 20, ignored_exceptions=(Exception,)).until(lambda d: "there is no file" in status(d).text)
    assert picture(driver) == kept
    driver.execute_script("arguments[0].scrollIntoView()", status(driver))
    shoot("error")
    field.send_keys(Keys.BACKSPACE * len("/nowhere") + Keys.ENTER)
    assert "dB" in said(driver)
    assert not driver.find_elements(
        By.CSS_SELECTOR, ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']"
    )


def click(driver, label: str) -> None:
    button = next(b for b in driver.find_elements(By.CSS_SELECTOR, "button.widget-button") if b.text == label)
    driver.execute_script("arguments[0].click()", button)


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_the_page_of_voila(size, notebook, served, browser, shots):
    port = served(BIN / "voila", notebook, "--no-browser", "--Voila.ip=127.0.0.1", "--port=PORT")
    browser.set_window_size(*size)
    browser.get(f"http://127.0.0.1:{port}")
    use(browser, shots, f"voila_{size[0]}x{size[1]}")
    wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0  # nothing is cut off at the side


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_the_notebook_in_jupyterlab(size, notebook, served, browser, shots):
    lab = [BIN / "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=PORT"]
    options = [f"--ServerApp.root_dir={notebook.parent}", "--IdentityProvider.token=", "--ServerApp.password="]
    port = served(*lab, *options)
    browser.set_window_size(*size)
    browser.get(f"http://127.0.0.1:{port}/lab/tree/{notebook.name}?reset")
    WebDriverWait(browser, 60).until(lambda d: d.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-Cell"))
    ready = ".jp-Notebook-ExecutionIndicator[data-status='idle']"
    WebDriverWait(browser, 60).until(lambda d: d.find_elements(By.CSS_SELECTOR, ready))
    browser.find_element(By.CSS_SELECTOR, ".jp-Notebook .jp-Cell").click()
    for _ in jupytext.read(ROOT / "notebooks" / "14_explorer.py").cells:
        ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    view = WebDriverWait(browser, 120).until(lambda d: d.find_elements(By.CLASS_NAME, "explorer-status"))[0]
    browser.execute_script("arguments[0].scrollIntoView()", view)
    use(browser, shots, f"lab_{size[0]}x{size[1]}")
