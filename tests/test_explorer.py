"""Laws of the explorer, checked through the values of its widgets, without a browser."""

import html
import io
import json
import re
import shutil
from datetime import datetime, timezone

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from conftest import command_line
from test_classifier import striped_faces
from fer_lib import explorer, explorer_drawing, explorer_study, intervals, paths, plots, runs, statistics, study
from fer_lib.errors import FerError
from fer_lib.faces import Faces
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS
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
        gain = intervals.trusted(summary["test_sets"][name]["main_contrast"])
        assert name in text and f"{gain['estimate']:+.1f} points ({gain['low']:+.1f} to" in text


def test_a_point_of_no_further_gain_is_named_only_where_it_was_identified():
    _, summary = make_study()
    bound = {"ratio": 2.1, "low": 1.0, "high": 3.0, "identified": True}
    for changed, words in (({}, "ratio of 2.1 (1.0 to 3.0)"), ({"identified": False}, "no ratio"),
                           ({"identified": False, "at_most": 3.0}, "beyond a ratio of 3.0, or fewer")):
        summary["test_sets"]["lab"]["upper_bound"] = bound | changed
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


def test_what_was_worked_out_once_gives_the_pixels_of_the_generator(gans):
    for identity_gan, expression_gan in (gans, flow_gans()):
        person = explorer.person_of(identity_gan, seed=2, truncation=1.0)
        changes = explorer.Changes(expression_gan, person)
        for intensity in ((0.4, 1.0, 1.3) if changes.flows else (1.0,)):
            expected = explorer.generation.impose_all(expression_gan, person, intensity=intensity)
            assert torch.equal(changes.all(intensity), expected)
    with pytest.raises(FerError, match="intensity -1"):
        changes.all(-1)
    with pytest.raises(FerError, match="intensity 0.5"):
        explorer.Explorer(*gans, origin="rendered", intensity=0.5)


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
    assert (all(old != new for old, new in zip(before, pictures(app), strict=True))
            and "mixed with 1" in app.tiles[0].tooltip)


def test_a_saved_sheet_comes_with_the_code_that_makes_it_again(tmp_path):
    gans = flow_gans()
    app = explorer.Explorer(*gans, origin="rendered", folder=tmp_path, seed=4, truncation=0.5, intensity=0.8)
    app.mix.value = 0.25
    app.save.click()
    assert Image.open(app.saved).size[0] > 400 and app.saved.parent == tmp_path
    code = app.snippet.value.removeprefix("<pre>").removesuffix("</pre>")
    again = eval(code, {"explorer": explorer, "gans": gans})  # the snippet that a reader would paste
    assert np.array_equal(again, app.pictures)
    for change in ({"seed": 5}, {"intensity": 1.0}, {"expression": "fear"}):  # another sheet is on show now
        app.save.click()
        assert app.snippet.value
        for name, value in change.items():
            getattr(app, name).value = value
        assert app.snippet.value == app.message.value == "", change


def test_a_sheet_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    app = explorer.Explorer(*flow_gans(), origin="rendered", folder=tmp_path / "file")
    app.save.click()
    assert "cannot be written" in app.message.value and app.snippet.value == ""


def test_the_nearest_face_of_the_pool_is_shown_with_its_distance(gans):
    pool = striped_faces(24, seed=2)
    app = explorer.Explorer(*gans, origin="rendered", pool=pool)
    near, distance, usual = explorer.generation.nearest_faces(app.pictures[:1], pool)
    assert app.nearest.value == explorer.png(near[0], side=explorer.BIG)
    assert f"{distance:.3f}" in app.nearest_caption.value and f"{usual:.3f}" in app.nearest_caption.value
    assert app.nearest in list(every(app.show())) and "which is rendered" in texts(app.show())


def test_a_photograph_of_the_pool_is_not_shown_but_its_distance_is(gans):
    pool = striped_faces(24, seed=2)
    app = explorer.Explorer(*gans, origin="real", pool=Faces(pool.images, pool.table, "real"))
    shown = list(every(app.show()))
    assert app.nearest not in shown and not app.nearest.value and app.nearest_caption in shown
    assert "nearest real face of the pool: distance" in app.nearest_caption.value


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


# ---- the browser's needs --------------------------------------------------------------------------------

def every(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from every(child)


def test_whatever_has_a_tooltip_has_a_description_without_which_browsers_show_nothing(gans):
    shown = list(every(explorer.Explorer(*gans, origin="rendered", study=make_study(), referee=Referee()).show()))
    told = [widget for widget in shown if getattr(widget, "tooltip", None)]
    assert len(told) > 20 and all("description" in widget.keys for widget in told)


def test_a_figure_shows_itself_in_a_notebook():
    from IPython.core.formatters import DisplayFormatter
    figure = plots.contact_sheet(np.zeros((1, 2, 1, 8, 8), np.uint8))
    assert DisplayFormatter().format(figure)[0]["image/png"].startswith(b"\x89PNG")


def test_a_photo_is_read_upright(tmp_path):
    upright = Image.fromarray(np.linspace(0, 255, 40 * 30).reshape(40, 30).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was held upright, its pixels lie on their side
    upright.save(tmp_path / "upright.png")
    upright.rotate(90, expand=True).save(tmp_path / "lying.png", exif=exif)
    photos = [(tmp_path / name).read_bytes() for name in ("upright.png", "lying.png")]
    assert torch.equal(*(explorer.read_photo(photo, image_size=16, channels=1)[0] for photo in photos))


def test_a_photo_that_cannot_be_used_is_one_sentence(tmp_path):
    pixels = np.full((40, 30), 128, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "good.png")
    broken = bytearray((tmp_path / "good.png").read_bytes())
    broken[16:24] = (60_000).to_bytes(4, "big") * 2  # the header promises 3.6 gigapixels
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(np.full((700, 1), 128, np.uint8)).save(tmp_path / "thin.png")
    for data in (bytes(broken), b"no picture", (tmp_path / "deep.png").read_bytes(),
                 (tmp_path / "thin.png").read_bytes()):
        with pytest.raises(FerError, match="JPEG or "):
            explorer.read_photo(data, image_size=32, channels=1)


# ---- generators ----------------------------------------------------------------------------------------

def test_it_opens_with_the_shipped_generators_before_any_notebook_has_run(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_OUTPUT", str(tmp_path))
    workspace = runs.open_workspace("demo", step="07_explorer")
    opened = explorer.open_generators(workspace)
    assert opened.pool is None and (opened.origin, opened.image_size) == ("rendered", 64)
    assert opened.learned_from == "3360 rendered faces and 6720 frames of sequences"
    assert workspace.reads == {"identity_gan": None, "expression_gan": None, "faces": None}
    assert explorer.faces_of(*opened.gans, seed=0, truncation=1.0).shape == (8, 1, 64, 64)
    with pytest.raises(FerError, match="notebooks/02_identity_gan"):
        explorer.open_generators(runs.open_workspace("tiny", step="07_explorer"))


@pytest.mark.parametrize("seen", [True, False])
def test_the_pool_is_at_hand_where_the_identity_gan_learned_from_it(seen, tmp_path, monkeypatch):
    monkeypatch.setenv("FER_OUTPUT", str(tmp_path))
    monkeypatch.setattr(explorer.weights, "has_seen", lambda path, faces: seen)
    workspace = runs.open_workspace("demo", step="07_explorer")
    for role in ("identity", "expression"):
        made = runs.build(workspace, f"{role}_gan", params={}, inputs=[], code=[], make=lambda folder, role=role:
                          shutil.copyfile(paths.REPOSITORY / "weights" / "built-in" / f"{role}.safetensors",
                                          folder / "generator.safetensors"))
        workspace.publish(f"{role}_gan", made)
    pool = striped_faces(24, seed=2)
    workspace.publish("faces", runs.build(workspace, "faces", params={}, inputs=[], code=[],
                                          make=lambda folder: pool.save(folder / "pool")))
    opened = explorer.open_generators(workspace)
    assert (opened.pool is not None) == seen
    assert opened.learned_from == "3360 rendered faces and 6720 frames of sequences"  # whatever the pool is


@pytest.mark.parametrize("named, origin, told", [
    ((False, False), "unknown", "faces that its file does not name"),
    ((True, False), "rendered and unknown",
     "3360 rendered faces, the second one on faces that its file does not name")])
def test_what_weights_of_others_learned_from_is_not_made_up(named, origin, told, tmp_path, monkeypatch):
    """The pool of this profile has nothing to do with generators that learned elsewhere."""
    monkeypatch.setenv("FER_OUTPUT", str(tmp_path))
    workspace = runs.open_workspace("demo", step="07_explorer")
    for role, is_named in zip(("identity", "expression"), named, strict=True):
        shipped = paths.REPOSITORY / "weights" / "built-in" / f"{role}.safetensors"
        found = explorer.weights.read_metadata(shipped)

        def make(folder, shipped=shipped, found=found, is_named=is_named):
            if is_named:
                return shutil.copyfile(shipped, folder / "generator.safetensors")
            network = explorer.weights.load_generator(shipped)
            return explorer.weights.save_weights(network, folder, name="generator", options=found["options"],
                                                 kind=found["kind"])
        workspace.publish(f"{role}_gan", runs.build(workspace, f"{role}_gan", params={}, inputs=[], code=[], make=make))
    pool = striped_faces(24, seed=2)
    workspace.publish("faces", runs.build(workspace, "faces", params={}, inputs=[], code=[],
                                          make=lambda folder: pool.save(folder / "pool")))
    opened = explorer.open_generators(workspace)
    assert (opened.origin, opened.learned_from, opened.pool) == (origin, told, None)
    shown = str(texts(explorer.Explorer(*opened.gans, origin=opened.origin).show()))
    assert "do not name" in shown and ("stand-in for photographs" in shown) == any(named)


def test_a_saved_sheet_comes_with_a_program_that_draws_it_again(tmp_path):
    """Run as pasted into a fresh Python at the repository's root, it writes the same bytes and makes the same faces."""
    files = [paths.REPOSITORY / "weights" / "built-in" / f"{name}.safetensors" for name in ("identity", "expression")]
    copies = [tmp_path / f"{path.stem}_copy.safetensors" for path in files]
    for path, copy in zip(files, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    gans = [explorer.weights.load_generator(path) for path in copies]
    app = explorer.Explorer(*gans, origin="rendered", folder=tmp_path, weights=copies, seed=4, truncation=0.5,
                            intensity=0.8, expression="surprise")
    app.mix.value = 0.25
    app.save.click()
    code = html.unescape(re.fullmatch("<pre>(.*)</pre>", app.snippet.value, re.DOTALL)[1])
    assert '"weights/built-in/identity.safetensors"' in code and str(tmp_path) not in code
    again = tmp_path / "again.png"
    code = code.replace(f'Path("{app.saved.name}")', f"Path({str(again)!r})")
    run = command_line("-c", code + f"\nimport numpy; numpy.save({str(tmp_path / 'faces.npy')!r}, faces)")
    assert run.returncode == 0, run.stderr
    assert again.read_bytes() == app.saved.read_bytes()
    assert np.array_equal(np.load(tmp_path / "faces.npy"), app.pictures)


def test_settings_that_differ_are_saved_under_names_that_differ(tmp_path):
    app = explorer.Explorer(*flow_gans(), origin="rendered", folder=tmp_path)
    for value in (0.5, 1.0, 1.5):
        app.intensity.value = value
        app.save.click()
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_a_sheet_has_a_title_over_every_picture(gans):
    figure = explorer.sheet_of(*gans, expression="fear", seed=0, truncation=1.0)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [*explorer.COLUMNS, *(f"{value:g}" for value in explorer.RISING), ""]


# ---- the judge -----------------------------------------------------------------------------------------

class Referee:
    """Sees in a face what its brightness says: the k-th expression, and keeps what it likes."""

    def __init__(self, k=7, likes=True):
        self.k, self.likes = k, likes

    def probabilities(self, images):
        values = np.exp(-np.abs(np.arange(self.k) - images.mean((1, 2, 3))[:, None] / 255 * self.k))
        return (values / values.sum(1, keepdims=True)).astype(np.float32)

    def keeps(self, images, expression):
        assert expression in EXPRESSIONS and images.dtype == np.uint8 and images.ndim == 4
        return np.full(len(images), self.likes)


@pytest.mark.parametrize("k", [6, 7])
def test_the_judge_tells_what_it_sees_in_the_large_picture(k):
    app = explorer.Explorer(*flow_gans(), origin="rendered", referee=Referee(k), intensity=0.1)
    face = app.pictures[explorer.COLUMNS.index("happiness")]
    expected = Referee(k).probabilities(face[None])[0]
    assert all(f"{name} {100 * value:.0f} %" in app.judged.value
               for name, value in zip(ALL_EXPRESSIONS, expected, strict=False))
    assert ("neutral" in app.judged.value) == (k == 7) and app.judged.value in texts(app.show())
    before = app.judged.value
    app.truncation.value = 0
    assert app.judged.value != before


@pytest.mark.parametrize(("likes", "word"), [(True, "kept"), (False, "left out")])
def test_the_filter_says_whether_it_would_keep_the_face(gans, likes, word):
    app = explorer.Explorer(*gans, origin="rendered", referee=Referee(likes=likes), expression="fear")
    assert f"<b>{word}</b>" in app.kept.value and "fear" in app.kept.value
    app.expression.value = "neutral"
    assert "not part of the six" in app.kept.value and word not in app.kept.value


def test_the_judge_sees_a_photo_too_and_the_filter_does_not():
    app = explorer.Explorer(*flow_gans(), origin="rendered", referee=Referee(), intensity=0.1)
    before = app.judged.value
    file = io.BytesIO()
    Image.fromarray(np.full((60, 60), 250, np.uint8)).save(file, "PNG")
    upload(app, file.getvalue())
    assert app.judged.value != before and " %" in app.judged.value
    assert "your photo" in app.kept.value and "no photo becomes a training image" in app.kept.value


def test_without_a_judge_nothing_is_said_of_it(gans):
    app = explorer.Explorer(*gans, origin="rendered")
    assert app.judged.value == "" and app.kept.value == "" and "judge" not in texts(app.show())


# ---- the study -----------------------------------------------------------------------------------------

def full_study(folder=None, n_test=60):
    """A made-up study with recalls, three sizes and arms that exist at some of them only,
    with predictions where asked."""
    rng, codes = np.random.default_rng(1), np.arange(n_test) % len(EXPRESSIONS)
    cells = study.plan(["real", "real_long", "augmented", "mixed"], [0.5, 5], 60, range(4), stopping="updates")
    cells += study.plan(["real_long", "mixed"], [5], 120, range(4), stopping="updates")
    cells += study.plan(["mixed"], [5], 60, range(4), stopping="updates", weight=0.3)
    cells += study.plan(["generated"], [5], 24, range(4), stopping="updates")
    rows = []
    for cell in cells:
        kept = {}
        for name in ("lab", "wild"):
            probabilities = rng.random((n_test, 6)) + (0.3 + 0.05 * cell.ratio) * np.eye(6)[codes]
            guessed, kept[name] = probabilities.argmax(1), probabilities
            recalls = {f"recall_{word}": (guessed == code)[codes == code].mean()
                       for code, word in enumerate(EXPRESSIONS)}
            rows.append({**vars(cell), "n_generated": cell.n_generated, "test_set": name, "n_test": n_test,
                         "accuracy": round((guessed == codes).mean(), 6), **recalls})
        if folder is not None:
            np.savez(folder / f"{cell.name}.npz", **kept)
    table = pd.DataFrame(rows).reindex(columns=study.COLUMNS)
    summary = {**make_study()[1], "n_real": 60}
    return table, summary, codes


@pytest.fixture(scope="module")
def table_and_summary():
    return full_study()[:2]


def study_tab(found):
    return explorer_study.StudyTab(found, profile="tiny")


def chosen(tab):
    return {name: control.value for name, control in tab.controls.items()}


def test_it_starts_with_the_declared_comparison(table_and_summary):
    tab = study_tab(table_and_summary)
    assert chosen(tab) == {"test_set": "lab", "arm": "mixed", "n_real": 60, "ratio": 5}


def test_only_what_exists_together_can_be_chosen(table_and_summary):
    """Every choice that the controls offer, in any order, has an answer."""
    tab, rng = study_tab(table_and_summary), np.random.default_rng(0)
    for _ in range(60):
        control = list(tab.controls.values())[rng.integers(4)]
        control.value = control.options[rng.integers(len(control.options))][1]
        assert not explorer_study.choose(table_and_summary[0], **chosen(tab)).alone.empty
        assert tab.sentence.value and "<svg" in tab.curve.value
    tab.arm.value = "augmented"
    assert tab.ratio.value == 0 and tab.ratio.disabled and [n for _, n in tab.n_real.options] == [60]
    tab.arm.value = "mixed"
    tab.n_real.value = 120
    assert tab.ratio.value == 5 and [ratio for _, ratio in tab.ratio.options] == [5]


def test_a_study_of_another_intensity_shows_its_own_classifiers_beside_a_block_of_full_intensity(table_and_summary):
    table, summary = table_and_summary
    faint = table.assign(intensity=table["intensity"].where(table["n_generated"] == 0, 0.6))
    both = pd.concat([faint, table[table["n_generated"] > 0]], ignore_index=True)
    both.loc[(both["intensity"] == 1) & (both["n_generated"] > 0), "accuracy"] = 0.0
    wanted = dict(test_set="lab", arm="mixed", n_real=60, ratio=5)
    assert set(explorer_study.choose(both, **wanted).alone["intensity"]) == {1}
    assert set(explorer_study.choose(both, usual={"intensity": 0.6}, **wanted).alone["intensity"]) == {0.6}
    tab = explorer_study.StudyTab(explorer.explorer_study.Study(both, summary | {"usual": {"intensity": 0.6}}),
                                  profile="x")
    assert "0.0 %" not in tab.sentence.value


def test_what_does_not_exist_is_told_in_one_sentence(table_and_summary):
    with pytest.raises(FerError, match="no classifier of the arm mixed at ratio 7"):
        explorer_study.choose(table_and_summary[0], test_set="lab", arm="mixed", n_real=60, ratio=7)


def test_a_choice_is_compared_with_the_baseline_seed_by_seed(table_and_summary):
    table, _ = table_and_summary
    choice = explorer_study.choose(table, test_set="wild", arm="mixed", n_real=120, ratio=5)
    rows = table[(table["test_set"] == "wild") & (table["n_real"] == 120)
                 & (table["weight"] == 1)].set_index("train_seed")
    difference = 100 * (rows[rows["arm"] == "mixed"]["accuracy"] - rows[rows["arm"] == "real_long"]["accuracy"])
    gained = explorer_study.gain(choice)
    assert (gained["estimate"] == pytest.approx(difference.mean())
            and gained == pytest.approx(statistics.seed_interval(difference)))
    recall = 100 * (rows[rows["arm"] == "mixed"]["recall_fear"] - rows[rows["arm"] == "real_long"]["recall_fear"])
    assert explorer_study.recall_gains(choice)["fear"]["estimate"] == pytest.approx(recall.mean())
    assert f"{gained['estimate']:+.1f} (" in explorer_study.sentence(choice, origin="rendered")


def test_other_weights_and_stopping_rules_stay_out_of_a_choice(table_and_summary):
    choice = explorer_study.choose(table_and_summary[0], test_set="lab", arm="mixed", n_real=60, ratio=5)
    assert (len(choice.alone) == 4 and set(choice.alone["weight"]) == {1}
            and set(choice.alone["stopping"]) == {"updates"})


def test_a_choice_without_a_baseline_says_so(table_and_summary):
    tab = study_tab(table_and_summary)
    tab.arm.value = "generated"
    assert (tab.n_real.value == 24 and "no baseline" in tab.sentence.value
            and "other than the baseline" in tab.gains.value)
    tab.arm.value = "real_long"
    assert "This is the baseline" in tab.sentence.value


def test_the_curve_marks_the_choice_and_tells_its_numbers(table_and_summary):
    tab = study_tab(table_and_summary)
    marked = {}
    for ratio in (0.5, 5):
        tab.ratio.value = ratio
        ring = re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="9"', tab.curve.value)
        marked[ratio] = float(ring[1])
        rows = tab.table.query("test_set == 'lab' and arm == 'mixed' and n_real == 60 and weight == 1"
                               " and ratio == @ratio")
        mean = rows["accuracy"].mean()
        assert (f"{100 * mean:.1f} %" in tab.curve.value and "aria-label" in tab.curve.value
                and f"{mean:.3f}" in tab.curve.value)
    assert marked[0.5] < marked[5]


@pytest.fixture(scope="module")
def with_predictions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    table, summary, codes = full_study(folder)
    kept = explorer_study.Kept(folder, folder)
    kept.__dict__["codes"] = {"lab": codes, "wild": codes}
    return explorer_study.Study(table, summary, kept=kept)


def test_confusions_agree_with_the_recalls_of_the_table(with_predictions):
    table = with_predictions[0]
    rows = table[(table["test_set"] == "lab") & (table["arm"] == "mixed") & (table["n_real"] == 120)]
    matrices = with_predictions.kept.confusions(rows)
    assert matrices.shape == (4, 6, 6) and np.allclose(matrices.sum(2), 1)
    assert np.allclose(np.diagonal(matrices, axis1=1, axis2=2),
                       rows[[f"recall_{name}" for name in EXPRESSIONS]], atol=1e-5)


def test_the_confusion_matrix_and_its_change_are_shown_where_predictions_are_kept(with_predictions):
    tab = study_tab(with_predictions)
    table = with_predictions[0]
    rows = table.query("test_set == 'lab' and arm == 'mixed' and n_real == 60 and ratio == 5 and weight == 1")
    assert f">{100 * rows['recall_anger'].mean():.0f}</td>" in tab.confusion.value
    matrix = tab.confusion.value
    tab.view.value = "change"
    assert tab.confusion.value != matrix and "against the baseline" in tab.confusion.value
    tab.arm.value = "real_long"
    assert "not compared with itself" in tab.confusion.value


def test_a_change_is_clear_where_all_seeds_agree_on_it():
    rng = np.random.default_rng(0)
    a = rng.normal(0.3, 0.01, (6, 6, 6))
    b = a + rng.normal(0, 0.01, a.shape)
    b[:, 2, 3] += 0.2
    change, clear = explorer_study.clear_change(a, b)
    assert clear[2, 3] and change[2, 3] == pytest.approx(0.2, abs=0.02) and clear.sum() <= 6
    assert not explorer_study.clear_change(a[:1], b[:1])[1].any()


def test_recalls_stand_in_where_predictions_are_absent_or_of_another_study(with_predictions, table_and_summary):
    tab = study_tab(table_and_summary)
    assert "not kept on this machine" in tab.confusion.value and "anger" in tab.confusion.value
    table = with_predictions[0].copy()
    table["accuracy"] += 0.01
    other = study_tab(explorer_study.Study(table, with_predictions[1], kept=with_predictions.kept))
    assert "not kept on this machine" in other.confusion.value


def test_reading_a_study_records_its_predictions_too(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_OUTPUT", str(tmp_path))
    workspace = runs.open_workspace("tiny", step="07_explorer")
    table, summary = make_study()
    workspace.save_table(table, "ratio_study"), workspace.save_json(summary, "summary")
    assert explorer.read_study(workspace).kept is None and workspace.reads["study"] is None
    for kind in ("study", "faces"):
        workspace.publish(kind, runs.build(workspace, kind, params={}, inputs=[], code=[], make=lambda folder: None))
    read = explorer.read_study(workspace)
    assert len(read) == 2 and read.kept.folder.parent.name == "study"
    assert workspace.reads["study"] == read.kept.folder.name and workspace.reads["faces"] == read.kept.faces.name


def test_drawings_hold_with_one_seed_and_without_recalls():
    table, summary = make_study()
    tab = study_tab((table[table["train_seed"] == 0], summary))
    assert "1 seed)" in tab.sentence.value and "nan" not in tab.curve.value + tab.gains.value + tab.confusion.value
    assert "unknown" in tab.gains.value


def test_drawings_stay_inside_their_frame():
    wild = {name: {"estimate": 50.0, "low": -600.0, "high": 700.0} for name in EXPRESSIONS}
    drawn = explorer_drawing.interval_rows(wild, label="x")
    points = pd.DataFrame([("real_long", 0.0, 0.4, -0.5, 1.4), ("mixed", 5.0, 0.5, np.nan, np.nan)],
                          columns=["arm", "ratio", "accuracy", "low", "high"])
    drawn += explorer_drawing.curve(points, baseline="real_long", chosen=("mixed", 5.0), label="<y>", origin="real")
    places = [float(value) for value in re.findall(r'(?:x1|x2|cx|y1|y2|cy)="(-?[\d.]+)"', drawn)]
    assert min(places) >= 0 and max(places) <= explorer_drawing.WIDTH and "<y>" not in drawn and "nan" not in drawn
