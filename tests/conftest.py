"""Fixtures that every test file shares."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

CHROMIUM = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


# A shell that starts the tests in the background has them, and their commands, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared():
    """The folder of real images beside the checkout; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CELLSEG_TEST_DATA", Path(__file__).parents[2] / "shared"))
    if not (folder / "slides").is_dir():
        pytest.skip(f"no real images at {folder} (set CELLSEG_TEST_DATA)")
    return folder


@pytest.fixture
def not_utf8(tmp_path):
    """A result folder whose name is no UTF-8; skips where the file system takes none."""
    home = tmp_path / os.fsdecode(b"sl\xffide.cellseg")
    try:
        home.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    return home


@pytest.fixture
def cellseg(monkeypatch, capsys):
    """Run ``cellseg ARGS`` in this process: (exit code, stdout, stderr), the code maybe given."""
    from cellseg.cli import main

    def call(*args, ends=None):
        monkeypatch.setattr(sys, "argv", ["cellseg", *map(str, args)])
        monkeypatch.setattr("cellseg.cli._exit", sys.exit)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        code = ended.value.code or 0
        assert ends in (None, code), err
        return code, out, err

    return call


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """An empty storage behind ``memory://``, and scratch folders that are this test's."""
    import fsspec

    monkeypatch.setenv("CELLSEG_SCRATCH", str(tmp_path / "scratch"))
    storage = fsspec.filesystem("memory")
    storage.store.clear()
    storage.pseudo_dirs[:] = [""]
    yield storage
    storage.store.clear()
    storage.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def no_pictures():
    """Empty files in place of a result's pictures: drawing them takes longer than counting."""
    from cellseg.draw import pictures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw_picture", lambda name, result, slide, path: path.touch())
        yield


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; closed with the module, for its event loop is in others' way."""
    chromium = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if chromium is None:
        pytest.skip("no Chromium here: on Debian, apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=chromium, args=list(CHROMIUM), timeout=300_000
        )
        yield found
        found.close()
