"""Pages: what a browser may do with them."""

from PIL import Image
from watched import watched

from cellseg.draw.page import render_page


def test_a_page_with_pictures_beside_it_shows_them(browser, tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    template = tmp_path / "t.html"
    template.write_text('{% extends "frame.html" %}{% block body %}<img src="a.png">{% endblock %}')
    text = render_page(template, title="t", pictures="'self' file:")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    assert "default-src 'none'" in text
    with watched(browser, "file:") as look:
        page = look((tmp_path / "page.html").as_uri())
        assert page.evaluate("document.images[0].naturalWidth") == 30
