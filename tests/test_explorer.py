"""Laws of the explorer, checked through the values of its widgets, without a browser."""

import io
import json
from datetime import datetime, timezone

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fer_lib import explorer, runs, statistics, study
from fer_lib.errors import FerError
from fer_lib.labels import ALL_EXPRESSIONS
from fer_lib.networks import expression_flow, stargan, stylegan2


def tiny_gans(channels=1):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        identity_gan = stylegan2.Generator(image_size=32, channels=channels, latent_size=8, channel_base=256,
                                           channel_max=8)
        return identity_gan.eval(), stargan.Generator(channels=channels, conv_dim=4, n_blocks=1).eval()


@pytest.fixture(scope="module")
def gans():
    return tiny_gans()


def make_study():
    """A made-up study of two test sets, three ratios and three seeds: (ratio_study.csv, summary.json)."""
    rng = np.random.default_rng(0)
    arms = [("real", 0.0), ("mixed", 1.0), ("mixed", 2.0), ("mixed", 5.0)]
    correct = {name: {key: rng.random((3, 60)) < 0.6 + 0.05 * key[1] for key in arms}
               for name in ("lab", "wild")}
    rows = [{"arm": arm, "ratio": ratio, "weight": 1.0, "n_real": 60, "n_generated": int(60 * ratio),
             "split_seed": seed, "generator_seed": seed, "train_seed": seed, "test_set": name, "n_test": 60,
             "accuracy": row.mean()}
            for name, found in correct.items() for (arm, ratio), hits in found.items()
            for seed, row in enumerate(hits)]
    table = pd.DataFrame(rows).reindex(columns=study.COLUMNS)
    summary = statistics.summary(table, correct, headline_ratio=5, test_set="lab", resamples=50)
    return table, {**summary, "trained_on": {"real": "rendered"}}


def pictures(app):
    return [app.face.value, *(tile.value for tile in app.tiles)]


def test_the_same_seed_gives_the_same_bytes(gans):
    one, again = (explorer.Explorer(*gans, origin="rendered", seed=3) for _ in range(2))
    assert pictures(one) == pictures(again)
    one.seed.value = 4
    one.seed.value = 3
    assert pictures(one) == pictures(again)


@pytest.mark.parametrize(("control", "value"), [("seed", 1), ("truncation", 0.5)])
def test_another_person_or_truncation_changes_every_picture(gans, control, value):
    app = explorer.Explorer(*gans, origin="rendered")
    before = pictures(app)
    getattr(app, control).value = value
    assert all(old != new for old, new in zip(before, pictures(app), strict=True))


def test_intensity_is_a_control_of_the_flow_gan_alone(gans):
    assert explorer.Explorer(*gans, origin="rendered").intensity.disabled
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow_gan = expression_flow.Generator(width=8, n_blocks=1).eval()
        torch.nn.init.normal_(flow_gan.head.bias, std=0.5)
    app = explorer.Explorer(gans[0], flow_gan, origin="rendered")
    full = pictures(app)
    app.intensity.value = 0
    untouched = app.pictures
    assert not app.intensity.disabled and "intensity 0.00" in app.face_caption.value and app.face.value != full[0]
    assert all((picture == untouched[0]).all() for picture in untouched)


def test_another_expression_changes_the_large_picture_alone(gans):
    app = explorer.Explorer(*gans, origin="rendered", expression="anger")
    seen, tiles = set(), pictures(app)[1:]
    for name in ALL_EXPRESSIONS:
        app.expression.value = name
        seen.add(app.face.value)
        assert name in app.face_caption.value and pictures(app)[1:] == tiles
    assert len(seen) == len(ALL_EXPRESSIONS)


def test_the_large_picture_is_the_tile_of_the_chosen_expression(gans):
    app = explorer.Explorer(*gans, origin="rendered", expression="fear", truncation=0.7)
    face = np.asarray(Image.open(io.BytesIO(app.face.value)))
    expected = explorer.faces_of(*gans, seed=0, truncation=0.7)[explorer.COLUMNS.index("fear"), 0]
    assert np.array_equal(face, expected.repeat(9, 0).repeat(9, 1))


def test_at_truncation_0_everybody_is_the_mean_face(gans):
    faces = [explorer.faces_of(*gans, seed=seed, truncation=0) for seed in (0, 1)]
    assert np.array_equal(*faces)


def test_another_person_changes_the_seed_and_starts_again_at_the_end(gans):
    app = explorer.Explorer(*gans, origin="rendered", seed=explorer.MAX_SEED - 1)
    seeds = []
    for _ in range(2):
        app.another.click()
        seeds.append(app.seed.value)
    assert seeds == [explorer.MAX_SEED, 0]


def test_values_out_of_range_cannot_be_set(gans):
    app = explorer.Explorer(*gans, origin="rendered", seed=5)
    app.seed.value, app.truncation.value = -1, 1.5
    assert app.seed.value == 0 and app.truncation.value == 1
    with pytest.raises(FerError, match="seed -1"):
        app.faces_of(-1, 1.0)
    with pytest.raises(FerError, match="boredom"):
        explorer.Explorer(*gans, origin="rendered", expression="boredom")


def test_colour_faces_are_shown_in_colour():
    app = explorer.Explorer(*tiny_gans(channels=3), origin="real")
    assert Image.open(io.BytesIO(app.face.value)).mode == "RGB"


@pytest.mark.parametrize(("origin", "words"), [("rendered", "rendered faces"), ("real", "real photographs")])
def test_it_says_that_faces_are_generated_and_from_what(gans, origin, words):
    text = texts(explorer.Explorer(*gans, origin=origin).show())
    assert "generated" in text and words in text


def texts(widget):
    """Everything that a widget and those within it say."""
    own = [getattr(widget, name, "") for name in ("value", "description")]
    inner = [texts(child) for child in getattr(widget, "children", ())]
    return " ".join([text for text in own if isinstance(text, str)] + inner)


def test_every_control_is_labelled_and_every_picture_has_a_text(gans):
    app = explorer.Explorer(*gans, origin="rendered", study=make_study())
    for control in (app.seed, app.another, app.truncation, app.test_set):
        assert control.description and control.tooltip
    assert app.expression.description and len(app.expression.tooltips) == len(app.expression.options)
    assert all(image.tooltip for image in (app.face, app.curve, *app.tiles))
    assert all(name in texts(app.show()) for name in explorer.COLUMNS)


def test_absent_results_are_told_in_one_sentence(gans, tmp_path, monkeypatch):
    monkeypatch.setenv("FER_OUTPUT", str(tmp_path))
    workspace = runs.open_workspace("tiny", step="07_explorer")
    found = explorer.read_study(workspace)
    app = explorer.Explorer(*gans, origin="rendered", study=found, profile="tiny")
    assert found is None and workspace.reads == {"study": None}
    assert "06_ratio_study" in texts(app.show()) and "tiny" in app.finding.value and not app.curve.value


def test_results_are_read_recorded_and_shown_for_each_test_set(gans, tmp_path, monkeypatch):
    monkeypatch.setenv("FER_OUTPUT", str(tmp_path))
    workspace = runs.open_workspace("tiny", step="07_explorer")
    table, summary = make_study()
    files = workspace.save_table(table, "ratio_study"), workspace.save_json(summary, "summary")
    app = explorer.Explorer(*gans, origin="rendered", study=explorer.read_study(workspace))
    assert set(workspace.files) == {str(path) for path in files}
    lab = app.curve.value, app.finding.value
    app.test_set.value = "wild"
    assert app.curve.value != lab[0]
    for name, text in (("lab", lab[1]), ("wild", app.finding.value)):
        gain = summary["test_sets"][name]["gain_points"]
        assert name in text and f"{gain['estimate']:+.1f} points ({gain['low']:+.1f} to" in text


def test_a_point_of_no_further_gain_is_named_only_where_it_was_identified():
    _, summary = make_study()
    bound = {"ratio": 2.1, "low": 1.0, "high": 3.0, "identified": True}
    for identified, words in ((True, "ratio of 2.1 (1.0 to 3.0)"), (False, "no ratio")):
        summary["test_sets"]["lab"]["upper_bound"] = {**bound, "identified": identified}
        assert words in explorer.finding(summary, "lab")


def test_damaged_results_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_OUTPUT", str(tmp_path))
    workspace = runs.open_workspace("tiny", step="07_explorer")
    table, summary = make_study()
    workspace.save_table(table, "ratio_study")
    path = workspace.save_json(summary, "summary")
    path.write_text(json.dumps(summary)[:50])
    with pytest.raises(FerError, match="06_ratio_study"):
        explorer.read_study(workspace)


def flow_gans():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow_gan = expression_flow.Generator(width=8, n_blocks=1).eval()
        torch.nn.init.normal_(flow_gan.head.bias, std=0.5)
    return tiny_gans()[0], flow_gan


def test_a_mix_goes_from_one_person_to_the_other(gans):
    first, second = (explorer.person_of(gans[0], seed=seed, truncation=1.0) for seed in (3, 8))
    ends = [explorer.person_of(gans[0], seed=3, truncation=1.0, other=8, mix=mix) for mix in (0, 1)]
    assert torch.equal(ends[0], first) and torch.allclose(ends[1], second, atol=1e-5)
    between = explorer.person_of(gans[0], seed=3, truncation=1.0, other=8, mix=0.5)
    assert not torch.allclose(between, first, atol=1e-3) and not torch.allclose(between, second, atol=1e-3)
    with pytest.raises(FerError, match="mix 2"):
        explorer.person_of(gans[0], seed=3, truncation=1.0, other=8, mix=2)
    with pytest.raises(FerError, match="seed -1"):
        explorer.person_of(gans[0], seed=3, truncation=1.0, other=-1, mix=0.5)


def test_rising_intensity_starts_at_the_face_and_passes_the_full_expression():
    identity_gan, flow_gan = flow_gans()
    person = explorer.person_of(identity_gan, seed=1, truncation=1.0)
    steps = explorer.rising(flow_gan, person, "anger").astype(int)
    faces = explorer.faces_of(identity_gan, flow_gan, seed=1, truncation=1.0).astype(int)
    assert np.array_equal(steps[0], faces[0])
    assert np.abs(steps[explorer.RISING.index(1)] - faces[explorer.COLUMNS.index("anger")]).max() <= 1
    assert (np.diff(np.abs(steps - steps[0]).mean((1, 2, 3))) > 0).all()


def test_the_change_map_finds_where_a_face_was_changed():
    before = np.full((1, 64, 64), 100, np.uint8)
    after = before.copy()
    after[:, 48:56, 24:40] = 180
    heat, shares = explorer.change_map(before, after)
    assert shares["mouth"] == pytest.approx(1) and shares["elsewhere"] == pytest.approx(0, abs=1e-6)
    assert heat[:, 50, 30].sum() > heat[:, 5, 5].sum() and heat.shape == (3, 64, 64)
    assert explorer.change_map(before, before)[1]["mouth"] == 0


def test_controls_move_what_they_say(gans):
    app = explorer.Explorer(*flow_gans(), origin="rendered", expression="fear")
    heat, regions = app.change.value, app.regions.value
    app.intensity.value = 0.2
    assert app.change.value != heat and app.regions.value != regions and "mouth" in regions
    app.expression.value = "surprise"
    assert "surprise" in app.change.tooltip and all("surprise, intensity" in tile.tooltip for tile in app.steps)
    before = pictures(app)
    app.mix.value = 0.5
    assert all(old != new for old, new in zip(before, pictures(app), strict=True)) and "mixed with 1" in app.tiles[0].tooltip


def test_a_saved_sheet_comes_with_the_code_that_makes_it_again(tmp_path):
    gans = flow_gans()
    app = explorer.Explorer(*gans, origin="rendered", folder=tmp_path, seed=4, truncation=0.5, intensity=0.8)
    app.mix.value = 0.25
    app.save.click()
    assert Image.open(app.saved).size[0] > 400 and app.saved.parent == tmp_path
    code = app.snippet.value.removeprefix("<pre>").removesuffix("</pre>")
    again = eval(code, {"explorer": explorer, "gans": gans})  # the snippet that a reader would paste
    assert np.array_equal(again, app.pictures)


def test_the_nearest_face_of_the_pool_is_shown_with_its_distance(gans):
    from test_classifier import striped_faces
    pool = striped_faces(24, seed=2)
    app = explorer.Explorer(*gans, origin="rendered", pool=pool)
    near, distance, usual = explorer.generation.nearest_faces(app.pictures[:1], pool)
    assert app.nearest.value == explorer.png(near[0], side=explorer.BIG)
    assert f"{distance:.3f}" in app.nearest_caption.value and f"{usual:.3f}" in app.nearest_caption.value


def upload(app, data):
    app.photo.value = ({"name": "me.png", "type": "image/png", "size": len(data), "content": memoryview(data),
                        "last_modified": datetime.now(timezone.utc)},)


def test_an_own_photo_is_shown_in_all_expressions_and_never_stored(tmp_path):
    app = explorer.Explorer(*flow_gans(), origin="rendered", folder=tmp_path)
    before = pictures(app)
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 60, 3), np.uint8)).save(file, "PNG")
    upload(app, file.getvalue())
    assert pictures(app) != before and "not stored" in app.message.value and app.photo.value == ()
    app.save.click()
    assert not list(tmp_path.iterdir()) and "not stored" in app.message.value
    app.another.click()
    assert app.from_photo is None and "seed 1" in app.face_caption.value


def test_a_file_that_is_no_picture_is_named(tmp_path):
    app = explorer.Explorer(*flow_gans(), origin="rendered", folder=tmp_path)
    before = pictures(app)
    upload(app, b"no picture")
    assert "no picture" in app.message.value and pictures(app) == before
