"""``cellseg doctor``: what is well, what is not, what need not be there."""

import json
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest
from click.testing import CliRunner

from cellseg.cli import doctor
from cellseg.network import detect, modelfile

ASKED = ("click>=8", 'napari>=0.6; extra == "napari"', 'sahi>=0.11; extra == "test"')


def asked(*arguments):
    done = CliRunner().invoke(doctor.doctor, ["--no-window", "--json", *arguments])
    return done, {check["name"]: check for check in json.loads(done.stdout)}


def test_all_is_well_here():
    done, found = asked()
    assert {check["state"] for check in found.values()} <= {"ok", "note"}
    assert done.exit_code == 0, done.output
    assert "checksum" in found["model"]["text"]
    assert found["device"]["text"].startswith(("cpu", "cuda", "mps"))


def test_damaged_weights(monkeypatch):
    monkeypatch.setitem(modelfile.SHIPPED, "default", "0" * 64)
    monkeypatch.setattr(detect, "_loaded", detect._loaded.__wrapped__)  # as in a new process
    done, found = asked()
    assert found["model"]["state"] == "fault"
    assert "damaged" in found["model"]["text"]
    assert "device" not in found
    assert done.exception.exit_code == 3
    assert "not well: model" in str(done.exception)


@pytest.mark.parametrize(
    ("installed", "name", "state", "said"),
    [
        ({}, "packages", "fault", "click is missing"),
        ({"click": "7.1"}, "packages", "fault", "click 7.1 is not >=8"),
        ({"click": "8.1"}, "packages", "ok", "torch"),
        ({"click": "8.1"}, "[napari]", "note", "pip install 'cellseg-slides[napari]'"),
        ({"click": "8.1", "napari": "0.7"}, "[napari]", "ok", "installed"),
    ],
)
def test_packages(installed, name, state, said, monkeypatch):
    def of(package):
        if package in ("click", "napari") and package not in installed:
            raise PackageNotFoundError(package)
        return installed.get(package) or version(package)

    monkeypatch.setattr(doctor, "requires", lambda _: ASKED)
    monkeypatch.setattr(doctor, "version", of)
    found = {check.name: check for check in doctor.checks(window=False)}
    assert found[name].state == state
    assert said in found[name].text
    assert "[test]" not in found


@pytest.mark.parametrize(
    ("display", "state", "said"),
    [(":0", "fault", "opens no window: no display"), ("", "note", "there is no display")],
)
def test_a_window_that_does_not_open(monkeypatch, display, state, said):
    """No display is no illness."""
    pytest.importorskip("qtpy")  # tests/napari passes for a package "napari"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(doctor, "OPENS", "raise SystemExit('no display')")
    (check,) = (check for check in doctor.checks(window=True) if check.name == "napari")
    assert check.state == state
    assert said in check.text
