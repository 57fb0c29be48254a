"""What a finished training leaves: a model, and not the hundreds of MB that it took."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from cellseg.cli.train import train as command
from cellseg.errors import SettingsError
from cellseg.network.weights import ModelCard
from cellseg.train import run
from cellseg.train.checkpoint import BEST, CHECKPOINT


def trained(monkeypatch, folder: Path, *options: str, f1: float = 0.8) -> set[str]:
    """The files that the command leaves, the training itself replaced."""
    card = ModelCard(
        name="x", classes=("a",), mpp=0.5, scores={"mask_ap": 0.5, "mask_ap50": 0.75, "f1": f1}
    )

    def fake(request, report):
        request.output.mkdir()
        for name in (CHECKPOINT, BEST, "x.safetensors", run.CARD):
            (request.output / name).touch()
        return run.Trained(request.output / "x.safetensors", card, request.output)

    monkeypatch.setattr(run, "train", fake)
    (folder / "a.json").touch()
    args = [str(folder / "a.json"), "-o", str(folder / "out"), *options]
    result = CliRunner().invoke(command, args)
    assert result.exit_code == 0, result.output
    return {path.name for path in (folder / "out").iterdir()}


def test_a_finished_training_leaves_no_checkpoints(monkeypatch, tmp_path):
    assert trained(monkeypatch, tmp_path) == {"x.safetensors", run.CARD}


def test_checkpoints_stay_where_they_are_wanted(monkeypatch, tmp_path):
    assert {CHECKPOINT, BEST} < trained(monkeypatch, tmp_path, "--keep-checkpoint")


def test_checkpoints_of_a_useless_training_stay_to_go_on_from(monkeypatch, tmp_path):
    assert {CHECKPOINT, BEST} < trained(monkeypatch, tmp_path, f1=0.01)


def test_a_finished_model_is_not_trained_over(tmp_path):
    (tmp_path / run.CARD).touch()
    request = run.TrainRequest(data=(tmp_path / "a.json",), output=tmp_path, steps=1)
    with pytest.raises(SettingsError, match="finished training without a checkpoint; --restart"):
        run.train(request)
