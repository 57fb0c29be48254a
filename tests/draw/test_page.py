"""Pages: what a browser may do with them."""

from __future__ import annotations

from PIL import Image

from cellseg.draw.page import render_page


def test_a_page_with_pictures_beside_it_shows_them(browser, tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    template = tmp_path / "t.html"
    body = '{% extends "frame.html" %}{% block body %}<img src="a.png" alt="">{{ x }}{% endblock %}'
    template.write_text(body)
    hostile = "<script>window.ran=1</script><img src=http://evil.invalid/x onerror=window.ran=1>"
    text = render_page(template, title="t", pictures="'self' file:", x=hostile)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("[document.images.length, document.images[0].naturalWidth]") == [1, 30]
    assert page.evaluate("window.ran") is None
    context.close()
    assert "default-src 'none'" in text
