"""The shipped protocols, and what is said of bad ones."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.errors import SettingsError
from cellseg.protocol import PHASE_PX, CountProtocol, load_protocol, shipped_protocols

GOOD = "name: mine\nabout: Mine.\nstain: he\nmpp: 0.5\nscore: 0.5\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load_protocol(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_there_is_a_protocol_for_every_stain():
    nuclei = ("brightfield", "fluorescence", "he", "he_20x", "he_breast", "he_breast_20x")
    cells = ("blood_smear", "counting_chamber", "phase_contrast")
    assert shipped_protocols() == tuple(sorted((*nuclei, *cells, "ihc")))
    assert load_protocol("ihc").model == "ihc"
    assert {load_protocol(name).model for name in nuclei} == {"default"}
    assert {load_protocol(name).model for name in cells} == {"cells"}


@pytest.mark.parametrize("name", shipped_protocols())
def test_shipped_protocols_are_valid_and_tell_people_what_they_do(name):
    protocol = load_protocol(name)
    assert protocol.name == name
    assert protocol.model == "cells" or name.split("_")[0] == protocol.stain
    assert len(protocol.about.split()) > 40
    assert "  " not in protocol.about
    assert "\n" not in protocol.about
    assert not math.isinf(protocol.max_area_um2)
    largest_disc_um2 = math.pi / 4 * protocol.largest_cell_um**2
    usual_um2 = 28 if protocol.usual_um is None else math.pi / 4 * protocol.usual_um**2
    assert protocol.min_area_um2 < usual_um2 < protocol.max_area_um2 <= largest_disc_um2
    for rule in protocol.classes.values():
        assert protocol.min_area_um2 <= (rule.min_area_um2 or math.inf)
        assert (rule.max_area_um2 or 0) <= protocol.max_area_um2


def test_light_follows_the_stain():
    lights = {name: load_protocol(name).light for name in shipped_protocols()}
    assert lights.pop("fluorescence") == "fluorescence"
    assert set(lights.values()) == {"transmitted"}


def test_a_file_is_read_with_the_defaults_of_what_it_leaves_out(tmp_path):
    protocol = load_protocol(written(tmp_path, GOOD))
    assert protocol == CountProtocol(name="mine", about="Mine.", stain="he", mpp=0.5, score=0.5)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (GOOD + "treshold: 0.5\n", "treshold"),
        (GOOD.replace("mpp: 0.5", "mpp: fine"), "mpp"),
        (GOOD.replace("mpp: 0.5", "mpp: .nan"), "mpp"),
        (GOOD.replace("mpp: 0.5\n", ""), "mpp"),
        (GOOD.replace("score: 0.5", "score: 1.5"), "score"),
        (GOOD.replace("stain: he", "stain: pas"), "stain"),
        (GOOD + "min_area_um2: 50\nmax_area_um2: 20\n", "min_area_um2"),
        (GOOD + "tile_px: 1000\n", "tile_px"),
        ("name: [unclosed\n", "line 2: not valid YAML"),
        (GOOD + "tile_px: !!int abc\n", "tile_px"),
        (GOOD + "tile_px: 2024-13-01\n", "tile_px"),
        (GOOD + f"tile_px: {'9' * 6000}\n", "tile_px"),
        (GOOD + "largest_cell_um: .inf\n", "largest_cell_um"),
        (GOOD + "tile_px: .inf\n", "tile_px"),
        (GOOD + "calibration: " + "[" * 50_000, "not valid YAML"),
        (GOOD + "intensity: &a [*a]\n", "line 6: "),
        (GOOD + '"\\UFFFFFFFF": 1\n', "YAML"),
        (GOOD + "? [a, b]\n: 1\n", "line 6: "),
        (GOOD + "#" * 200_000, "over 100,000 bytes"),
        ("- a\n- list\n", "name: value"),
        ("", "name: value"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, text, named):
    assert named in refused(written(tmp_path, text))


def test_every_fault_is_named_at_once(tmp_path):
    message = refused(written(tmp_path, GOOD.replace("0.5", "-1")))
    assert "mpp" in message
    assert "score" in message


def test_a_missing_file_names_the_shipped_protocols_and_one_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00name")
    assert "cannot be read" in refused(tmp_path / "mine.yaml")
    message = refused(tmp_path / "nowhere.yaml")
    assert all(name in message for name in shipped_protocols())
    with pytest.raises(SettingsError, match="protocol"):
        load_protocol("x" * 5000)


def test_changed_settings_are_validated_again():
    protocol = load_protocol("he")
    assert protocol.changed(score=0.7).score == 0.7
    assert protocol.score == load_protocol("he").score
    with pytest.raises(SettingsError, match="scor:"):
        protocol.changed(scor=0.7)
    with pytest.raises(SettingsError, match="min_area_um2"):
        protocol.changed(min_area_um2=2000)


@given(
    mpp=st.floats(0.06, 4.0),
    largest_um=st.floats(1.0, 500.0),
    context_px=st.integers(0, 300),
)
def test_the_halo_holds_the_largest_cell_and_the_context(mpp, largest_um, context_px):
    protocol = load_protocol("he").changed(
        mpp=mpp, largest_cell_um=largest_um, context_px=context_px
    )
    assert protocol.halo_px % PHASE_PX == 0
    assert protocol.halo_px >= math.floor(largest_um / mpp) + 8
    assert protocol.halo_px >= context_px
    assert protocol.halo_px < max(largest_um / mpp + 9, context_px) + PHASE_PX


def test_the_page_about_protocols_names_every_setting_and_its_default():
    page = (Path(__file__).parents[1] / "docs" / "protocols.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    told = {cells[1].strip(" `"): cells[3].strip() for cells in rows}
    fields = CountProtocol.model_fields
    assert list(told) == list(fields)
    for name, field in fields.items():
        if field.is_required():
            assert told[name] == "–"
        elif field.default in (None, (), float("inf")):
            assert told[name] == "none"
        else:
            assert told[name] == str(field.default).lower().removesuffix(".0")


def test_no_setting_is_needed_that_yaml_calls_a_number(tmp_path):
    more = "max_area_um2: .inf\nprefilter: no\nintensity: True\ncalibration: ~\ntile_px: 512\n"
    protocol = load_protocol(written(tmp_path, GOOD.replace("mine", "2024-13-01") + more))
    assert protocol.name == "2024-13-01"
    assert (protocol.prefilter, protocol.intensity, protocol.tile_px) == (False, True, 512)
    assert (protocol.max_area_um2, protocol.calibration) == (math.inf, None)


def test_a_protocols_name_shows_its_control_characters(tmp_path):
    path = written(tmp_path, GOOD.replace("name: mine", 'name: "\\e[2Jmine"'))
    assert load_protocol(path).name == "\\u001b[2Jmine"
