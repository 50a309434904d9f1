"""Searching by a picture that is dropped, pasted or chosen."""

import base64

import pytest

from tests.browser.conftest import found, settled, shown, until

GIVE = """([data, how]) => {
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], 'a picture.jpg', {type: 'image/jpeg'}));
  const event = how === 'paste'
    ? new ClipboardEvent('paste', {clipboardData: carried, bubbles: true, cancelable: true})
    : new DragEvent(how, {dataTransfer: carried, bubbles: true, cancelable: true});
  document.body.dispatchEvent(event);
}"""


@pytest.fixture
def file(demo):
    return demo / "images" / "005.jpg"


def give(page, file, *hows):
    data = base64.b64encode(file.read_bytes()).decode()
    for how in hows:
        page.evaluate(GIVE, [data, how])


@pytest.mark.parametrize("hows", [("dragenter", "drop"), ("paste",)])
def test_dropped_and_pasted(visit, site, file, hows):
    page = visit(site)
    if "dragenter" in hows:
        give(page, file, "dragenter")
        assert page.locator("#drop").is_visible()
    asked = settled(page, lambda: give(page, file, *hows[-1:]))
    assert asked["hits"][0]["path"] == "images/005.jpg"
    assert asked["hits"][0]["cosine"] > 0.97
    assert page.locator("#drop").is_hidden()
    assert page.locator("#like img").is_visible()
    assert found(page) == 50


def test_chosen_and_gone_back_to(visit, site, file):
    page = visit(f"{site}/?q=灰猫")
    shown(page)
    settled(page, lambda: page.set_input_files("#file", file))
    first = shown(page)[0]
    settled(page, page.go_back)
    assert page.input_value("#q") == "灰猫"
    settled(page, page.go_forward)
    assert shown(page)[0] == first


def test_a_large_picture_is_made_smaller_before_it_is_sent(visit, site):
    page = visit(site)
    sizes = page.evaluate("""async () => {
      const { prepare } = await import('/static/upload.js');
      const canvas = document.createElement('canvas');
      [canvas.width, canvas.height] = [3000, 1500];
      const whole = await new Promise((done) => canvas.toBlob(done, 'image/png'));
      const { blob } = await prepare(new File([whole], 'a.png', { type: 'image/png' }));
      const sent = await createImageBitmap(blob);
      return [sent.width, sent.height, blob.type];
    }""")
    assert sizes == [1024, 512, "image/jpeg"]


def test_what_is_no_picture_is_said(visit, site, tmp_path):
    page = visit(site, allowed=["status of 400"])
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    page.set_input_files("#file", bad)
    until(
        page,
        "document.querySelector('#status').textContent.includes('cannot be read as a picture')",
    )
    settled(page, lambda: page.fill("#q", "灰猫"))
    assert found(page) == 50
