"""Pages in a real browser."""

from contextlib import contextmanager


@contextmanager
def watched(browser, *places):
    """Opens pages, which ask nobody but these places, run nothing of others, and say no error."""
    context = browser.new_context()
    context.set_default_timeout(300_000)  # of a machine that does much else
    asked, said, pages = [], [], []

    def look(url, width=1280):
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        pages.append(page)
        return page

    yield look
    ran = [page.evaluate("window.ran") for page in pages]
    context.close()
    assert ran == [None] * len(ran)
    assert said == []
    assert all(url.startswith((*places, "data:")) for url in asked)
