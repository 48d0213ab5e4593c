"""What is shipped is what was trained, and its card says what was measured."""

import json

import pytest

from fer_lib import data, imports, referee, runs, ship, training
from fer_lib.errors import FerError

SIZES = {"identity_gan": {"channel_base": 256, "channel_max": 8, "latent_size": 8},
         "expression_gan": {"width": 8, "n_blocks": 1}}
TRAIN = {"identity_gan": training.train_identity_gan, "expression_gan": training.train_flow_gan}
SHARE = {"estimate": 0.987, "low": 0.9, "high": 1.0}


@pytest.fixture
def parts(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_OUTPUT", str(tmp_path))
    parts, _ = data.rendered_parts(image_size=32, channels=1, n_train_per_class=1, n_validation_per_class=1,
                                   n_test_per_class=1, takes_per_subject=1, n_pool_subjects=1, pool_takes=1, seed=0)
    workspace = runs.open_workspace("tiny", step="02_identity_gan")
    for name, train in TRAIN.items():
        options = ({"steps": 2, "batch_size": 2, "image_options": SIZES[name]}
                   | ({"warm_up": 1} if "expr" in name else {}))
        artifact = runs.build(workspace, name, params=options, inputs=[], code=["fer_lib.training"],
                              make=lambda folder, train=train, options=options: train(parts["pool"], folder, **options))
        workspace.publish(name, artifact)
    return parts


def test_shipped_generators_can_be_adopted_and_the_card_holds_the_measures(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(imports.paths, "REPOSITORY", tmp_path)
    with pytest.raises(FerError, match="has no results/tiny/generators.json"):
        ship.ship("tiny", "built-in", target=tmp_path / "weights")
    with pytest.raises(FerError, match="There is no data set 'built_in': choose one of built-in, fer2013"):
        ship.ship("tiny", "built_in", target=tmp_path / "weights")
    workspace = runs.open_workspace("tiny", step="04_generation")
    looking = runs.build(workspace, "referee", params={}, inputs=[], code=["fer_lib.referee"], make=lambda folder:
                         referee.provide(parts, folder, given={}, epochs=1, seed=0, device="cpu"))
    workspace.publish("referee", looking)
    thresholds = {"selector_thresholds": {"anger": 0.25}}
    measured = [looking, *(workspace.require(name) for name in TRAIN)]
    for inputs in (measured[:-1], measured):
        judged = runs.build(workspace, "quality", params={}, inputs=inputs, code=["fer_lib.quality"],
                            make=lambda folder: (folder / "quality.json").write_text(json.dumps(thresholds)))
        workspace.publish("quality", judged)
        if inputs != measured:
            workspace.save_json({"label_fidelity_share": SHARE}, "generators")
            with pytest.raises(FerError, match="measures of profile tiny are not of its present expression_gan"):
                ship.ship("tiny", "built-in", target=tmp_path / "weights")
    workspace.save_json({"label_fidelity_share": SHARE, "region_error_share": {"mouth": SHARE}, "fid": {}},
                        "generators")
    with pytest.raises(FerError, match="learned from rendered faces, and those of fer2013 are real"):
        ship.ship("tiny", "fer2013", target=tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
    folder = ship.ship("tiny", "built-in", target=tmp_path / "weights")
    for role in ship.ROLES:
        (tmp_path / role).mkdir()
        imports.adopt(folder / f"{role}.safetensors", tmp_path / role, role=role, parts=parts)
        assert training.load_history(tmp_path / role)["step"].tolist() == [2]
    given = referee.shipped("shipped", dataset="built-in", faces=parts["pool"])
    assert list(given) == ["judge", "selector"] and all(path.parent == folder for path in given.values())
    assert referee.open_shipped(folder, device="cpu").thresholds == {"anger": 0.25}
    card = (folder / "README.md").read_text(encoding="utf-8")
    for wanted in ("| label_fidelity_share | 0.99 | 0.90 to 1.00 |", "| region_error_share mouth | 0.99",
                   "7 rendered faces of 1 people", "steps 2", "Kind expression_flow", "not"):
        assert wanted in card
    assert str(tmp_path) not in card
    kept = "- `identity_other.safetensors` (1 MB) lies beside."
    (folder / "identity_other.safetensors").write_bytes(b"another network")
    (folder / "README.md").write_text(f"{kept}\n- `identity_gone.safetensors` (1 MB) is no more.\n{card}", "utf-8")
    ship.ship("tiny", "built-in", target=tmp_path / "weights")
    again = (folder / "README.md").read_text(encoding="utf-8")
    assert kept in again.splitlines() and "gone" not in again and again.replace(kept + "\n", "") == card


def test_the_card_of_a_generator_from_another_run_tells_of_its_training(parts, tmp_path):
    """Of what was done there, by the commit that did it, and of what was set afterwards."""
    trained = runs.open_workspace("tiny", step="03_expression_gan").require("expression_gan").path
    told = json.loads((trained / "artifact.json").read_text())
    (trained / "artifact.json").write_text(json.dumps(told | {"commit": "0123456789abcdef", "code_changed": False,
                                                      "seconds": 120.0}))
    workspace = runs.open_workspace("other", step="03_expression_gan")
    taken = runs.build(workspace, "expression_gan", params={"weights": "x"}, inputs=[], code=["fer_lib.imports"],
                       make=lambda folder: imports.adopt(trained / "generator.safetensors", folder,
                                                         role="expression", parts=parts, mirrored=True))
    line = ship._line("expression", taken.path, tmp_path)
    for wanted in ("steps 2,", "'width': 8", "'mirrored': True", "in 2 minutes at commit `0123456789ab`."):
        assert wanted in line


def test_a_network_of_unknown_training_is_not_shipped_and_nothing_is_overwritten(parts, tmp_path):
    """Nor is it told of by what the card said of the one that was there before."""
    trained = runs.open_workspace("tiny", step="03_expression_gan").require("expression_gan").path
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "README.md").write_text("- `expression.safetensors` told before\n")
    (folder / "expression.safetensors").write_bytes((trained / "generator.safetensors").read_bytes())
    made = tmp_path / "made"
    made.mkdir()
    for name in ("generator.safetensors", "history.csv"):
        (made / name).write_bytes((trained / name).read_bytes())
    (made / "artifact.json").write_text(json.dumps({"params": {"weights": "x"}}))
    assert ship._line("expression", made, folder) == "- `expression.safetensors` told before"
    (folder / "expression.safetensors").write_bytes(b"another")
    with pytest.raises(FerError, match="How the expression GAN of this profile was trained is not known"):
        ship._line("expression", made, folder)


def test_a_profile_that_is_not_there_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FER_OUTPUT", str(tmp_path))
    assert ship.main(["tpyo", "built-in"]) == 1
    assert "There is no profile `tpyo`" in capsys.readouterr().err and not list(tmp_path.iterdir())
