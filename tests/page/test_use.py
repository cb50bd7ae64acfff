"""The page as people use it, in real headless Chromium."""

import shutil
from pathlib import Path

import pytest

from tests.page.asking import ask, check_clean, downloaded, saved, static_host

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of PyTorch's exporter


def test_what_cannot_be_read_is_named_and_the_others_are_answered(digits, photographs, browser, tmp_path: Path):
    _, address, _ = digits
    [whole] = saved(photographs[:1], tmp_path / "png", ".png")
    files = {
        "text.png": b"text",
        "empty.png": b"",
        "cut.png": whole.read_bytes()[:-200],
        "=1+1.png": whole.read_bytes(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    browser.open(address)
    ask(browser, [tmp_path / name for name in files])
    rows = downloaded(browser, tmp_path)
    assert [row["file"] for row in rows] == ["text.png", "empty.png", "cut.png", "'=1+1.png"]
    unread = "this browser cannot read it as a picture"
    assert [row["error"] for row in rows] == [unread, "0 bytes", unread, ""]
    assert browser.run("document.querySelectorAll('.card.broken').length") == 3
    assert browser.run("document.getElementById('status').textContent") == "4 pictures, 3 without an answer."
    check_clean(browser, address)


def test_a_page_whose_network_is_broken_says_so(digits, browser, tmp_path: Path, photographs):
    _, _, folder = digits
    files = saved(photographs[:1], tmp_path / "png")
    broken = Path(shutil.copytree(folder, tmp_path / "web"))
    for name in ("model.onnx", "model.json"):
        (broken / name).write_text("text")
        with static_host(broken) as address:
            browser.open(address)
            browser.choose("#chooser", files)
            browser.wait("!document.getElementById('trouble').hidden")
        assert browser.run("document.getElementById('trouble').textContent").startswith("The network cannot be used: ")
        assert browser.run("document.getElementById('sources').hidden && document.getElementById('work').hidden")


GIVE = """(async (kind) => {
  const canvas = new OffscreenCanvas(30, 20);
  canvas.getContext("2d").fillRect(5, 5, 9, 9);
  const given = new DataTransfer();
  given.items.add(new File([await canvas.convertToBlob()], `${kind}.png`, { type: "image/png" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: given })
    : new DragEvent("drop", { dataTransfer: given, cancelable: true, bubbles: true });
  document.dispatchEvent(event);
})"""


def test_pictures_come_by_paste_drop_and_camera(digits, browser):
    _, address, _ = digits
    browser.open(address)
    for count, kind in enumerate(("paste", "drop"), 1):
        browser.run(f"{GIVE}({kind!r})")
        browser.wait(f"document.querySelectorAll('.card').length === {count}")
    browser.run("document.getElementById('open-camera').click()")
    browser.wait("document.getElementById('video').videoWidth > 0")
    browser.run("document.getElementById('shoot').click()")
    browser.wait("document.querySelectorAll('.card').length === 3")
    assert not browser.run("document.getElementById('camera').open || document.getElementById('video').srcObject")
    names = browser.run("[...document.querySelectorAll('.file bdi')].map((name) => name.textContent)")
    assert names == ["paste.png", "drop.png", "camera 1.png"]
    check_clean(browser, address)


def test_the_keyboard_is_enough(digits, photographs, browser, tmp_path: Path):
    _, address, _ = digits
    browser.open(address)
    ask(browser, saved(photographs[:2], tmp_path / "png", ".png"))
    shown = "document.querySelector('.hidden:focus-visible + label') ?? document.activeElement"
    ring = f"getComputedStyle({shown}).outlineStyle"
    order = ["facts", "chooser", "open-camera", "show-heat", "save", "clear"]
    for expected in order:
        browser.press("Tab")
        assert browser.run("document.activeElement.id") == expected
        assert browser.run(ring) == "solid"
    visible = "getComputedStyle(document.querySelector('.heat')).display !== 'none'"
    assert browser.run(visible)
    browser.run("document.getElementById('show-heat').focus()")
    browser.press(" ")
    assert not browser.run(visible)
    browser.run("document.getElementById('open-camera').focus()")
    browser.press("Enter")
    browser.wait("document.getElementById('camera').open")
    browser.press("Escape")
    browser.wait("!document.getElementById('camera').open && document.activeElement.id === 'open-camera'")
    browser.run("document.getElementById('clear').focus()")
    browser.press("Enter")
    assert browser.run("[document.querySelectorAll('.card').length, document.activeElement.id]") == [0, "chooser"]


def test_two_hundred_files_are_answered_one_by_one_and_can_be_stopped(digits, photographs, browser, tmp_path: Path):
    _, address, _ = digits
    files = saved(photographs * 4, tmp_path / "png", ".png")
    browser.open(address)
    ask(browser, files)
    assert browser.run("document.getElementById('status').textContent") == "200 pictures."
    browser.choose("#chooser", files)
    browser.wait("document.querySelectorAll('.card').length > 203")
    browser.run("document.getElementById('stop').focus()")
    browser.press("Enter")
    browser.wait("document.getElementById('stop').hidden")
    shown = browser.run("document.querySelectorAll('.card').length")
    assert shown < 390
    assert browser.run("document.activeElement.id") == "save"
    check_clean(browser, address)


CONTRASTS = """(() => {
  const light = (text) => {
    const [red, green, blue] = text.match(/[\\d.]+/g).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return color === "rgba(0, 0, 0, 0)" ? ground(element.parentElement) : color;
  };
  const texts = [...document.querySelectorAll("body *")].filter((element) =>
    element.checkVisibility() && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return texts.map((element) => {
    const [one, other] = [light(getComputedStyle(element).color), light(ground(element))];
    return [(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), element.textContent.trim()];
  });
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_by_everybody(digits, photographs, browser, tmp_path: Path, scheme: str):
    """WCAG AA: a contrast of 4.5 for all text; no scrolling sideways at 320 px; no motion for whoever wants none."""
    _, address, _ = digits
    wanted = [("prefers-color-scheme", scheme), ("prefers-reduced-motion", "reduce")]
    browser.call("Emulation.setEmulatedMedia", features=[{"name": name, "value": value} for name, value in wanted])
    browser.call("Emulation.setDeviceMetricsOverride", width=320, height=800, deviceScaleFactor=1, mobile=True)
    browser.open(address)
    (tmp_path / "broken.png").write_bytes(b"text")
    ask(browser, [*saved(photographs[:8], tmp_path / "png", ".png"), tmp_path / "broken.png"])
    contrasts = browser.run(CONTRASTS)
    assert len(contrasts) > 50
    assert [text for contrast, text in contrasts if contrast < 4.5] == []
    assert browser.run("document.documentElement.scrollWidth") <= 320
    assert browser.run("getComputedStyle(document.querySelector('.card')).animationName") == "none"


def test_a_screen_reader_hears_names_and_the_answer(digits, photographs, browser, tmp_path: Path):
    _, address, _ = digits
    browser.open(address)
    ask(browser, saved(photographs[:1], tmp_path / "png", ".png"))
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    nameless = {"button", "checkbox", "image", "heading", "progressbar", "textbox", "link", "region", "figure"}
    assert [role for role, name in found if role in nameless - {"figure"} and not name] == []
    assert ("image", "The picture as the network sees it") in found
    status = next(node for node in nodes if node.get("role", {}).get("value") == "status")
    assert {"name": "live", "value": {"type": "token", "value": "polite"}} in status["properties"]
    said = browser.run("document.getElementById('status').textContent")
    assert said.startswith("0.png: ")
    assert said.endswith("%.")
