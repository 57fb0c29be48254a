"""The wheel, installed outside the repository, has the command, weights and protocols."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from limited import python

from cellseg.protocol import shipped_protocols

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with nothing but the built wheel in it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run(build, check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    return target


def run(site, *arguments):
    alone = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    done = python(*arguments, cwd=site.parent, env=alone)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_weights_and_protocols_are_inside(site):
    inside = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    homes = {"cellseg": ROOT, "protocols": ROOT, "cellseg_napari": ROOT / "napari_plugin"}
    wanted = {
        str(path.relative_to(home)).replace("protocols/", "cellseg/protocols/")
        for name, home in homes.items()
        for path in (home / name).rglob("*.*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert len([name for name in wanted if name.endswith((".yaml", ".safetensors"))]) >= 12
    assert not wanted - inside
    assert not [name for name in inside if name.startswith(("tests", "benchmarks"))]


def test_the_installed_package_runs_and_finds_its_protocols(site):
    code = (
        "import cellseg, cellseg.protocol as p; print(cellseg.__file__); "
        "print(','.join(p.shipped_protocols())); p.load_protocol('he')"
    )
    home, names = run(site, "-c", code).split()
    assert home.startswith(str(site))
    assert names == ",".join(shipped_protocols())
    assert "cellseg, version" in run(site, "-m", "cellseg", "--version")


def test_the_installed_package_counts_with_the_shipped_model(site, tmp_path):
    import skimage.data
    from skimage.io import imsave

    image = tmp_path / "ihc.png"
    imsave(image, skimage.data.immunohistochemistry()[:256, :256])
    out = run(site, "-m", "cellseg", "count", str(image), "--json")
    assert '"cells"' in out
    assert (tmp_path / "ihc.cellseg" / "cells.csv").is_file()
