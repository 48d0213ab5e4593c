"""Files of generators: what they carry, who may use them, and that nothing is tested that they have seen."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from fer_lib import data, generation, imports, training, weights
from fer_lib.errors import FerError, LeakError
from fer_lib.faces import Faces
from fer_lib.labels import ALL_EXPRESSIONS

WIDTHS = {"channel_base": 256, "channel_max": 16, "latent_size": 16}


@pytest.fixture(scope="module")
def parts():
    made, _ = data.rendered_parts(image_size=32, channels=1, n_train_per_class=2, n_validation_per_class=2,
                                  n_test_per_class=2, takes_per_subject=1, n_pool_subjects=2, pool_takes=1, seed=3)
    return made


@pytest.fixture(scope="module")
def identity(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("identity")
    training.train_identity_gan(parts["pool"], folder, steps=1, batch_size=4, image_options=WIDTHS)
    return folder / "generator.safetensors"


def test_a_generator_says_whom_it_was_trained_on(parts, identity):
    found = weights.read_metadata(identity)["trained_on"]
    assert found["subjects"] == sorted(set(parts["pool"].subjects))
    assert found["n"] == len(parts["pool"]) and found["fingerprint"] == parts["pool"].fingerprint


def test_a_generator_is_adopted_as_it_is(parts, identity, tmp_path):
    imports.adopt(identity, tmp_path, role="identity", parts=parts)
    ours, theirs = weights.load_generator(tmp_path / "generator.safetensors"), weights.load_generator(identity)
    assert torch.equal(generation.identities(ours, [0], seed=0), generation.identities(theirs, [0], seed=0))


def test_the_history_beside_the_file_comes_along(parts, identity, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "identity.safetensors").write_bytes(identity.read_bytes())
    assert training.load_history(tmp_path / "made") is None
    (tmp_path / "identity.csv").write_bytes((identity.parent / "history.csv").read_bytes())
    imports.adopt(tmp_path / "identity.safetensors", tmp_path / "made", role="identity", parts=parts)
    assert training.load_history(tmp_path / "made")["step"].tolist() == [1]


def test_a_runs_account_of_the_training_comes_along(parts, identity, tmp_path):
    """From run to run, however often: it is that of the training, not that of the taking over."""
    folders = [tmp_path / name for name in ("trained", "taken", "taken again")]
    for folder in folders:
        folder.mkdir()
    for name in ("generator.safetensors", "history.csv"):
        (folders[0] / name).write_bytes((identity.parent / name).read_bytes())
    for folder, told in zip(folders, ("trained here", "taken", "taken again")):
        if folder != folders[0]:
            imports.adopt(folders[folders.index(folder) - 1] / "generator.safetensors", folder, role="identity",
                          parts=parts)
        (folder / "artifact.json").write_text(told)
    assert (folders[2] / imports.TRAINING).read_text() == "trained here"
    assert training.load_history(folders[2])["step"].tolist() == [1]


def test_a_generator_can_be_mirrored_when_it_is_taken(parts, identity, tmp_path):
    training.train_flow_gan(parts["pool"], tmp_path, steps=1, warm_up=1, batch_size=2,
                            image_options={"width": 8, "n_blocks": 1})
    path, made = tmp_path / "generator.safetensors", tmp_path / "made"
    made.mkdir()
    (tmp_path / "again").mkdir()
    for mirrored in (None, False, True):
        imports.adopt(path, made, role="expression", parts=parts, mirrored=mirrored)
        assert weights.load_generator(made / path.name).mirrored == bool(mirrored)
    for mirrored in (None, False):  # one that is mirrored stays so, unless it is to be otherwise
        imports.adopt(made / path.name, tmp_path / "again", role="expression", parts=parts, mirrored=mirrored)
        assert weights.load_generator(tmp_path / "again" / path.name).mirrored == (mirrored is None)
    assert weights.read_metadata(made / path.name)["trained_on"] == weights.read_metadata(path)["trained_on"]
    with pytest.raises(FerError, match="expression_mirrored=false"):
        imports.adopt(identity, made, role="identity", parts=parts, mirrored=True)


def test_a_stargans_history_comes_along(parts, tmp_path):
    training.train_expression_gan(parts["pool"], tmp_path, steps=1, discriminator_steps=1, batch_size=2,
                                  image_options={"conv_dim": 4, "n_blocks": 1})
    (tmp_path / "made").mkdir()
    imports.adopt(tmp_path / "generator.safetensors", tmp_path / "made", role="expression", parts=parts)
    assert training.load_history(tmp_path / "made")["step"].tolist() == [1]


def test_a_table_that_is_no_history_stays_where_it_is(parts, identity, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "identity.safetensors").write_bytes(identity.read_bytes())
    (tmp_path / "identity.csv").write_text("id,expression\n1,anger\n")
    imports.adopt(tmp_path / "identity.safetensors", tmp_path / "made", role="identity", parts=parts)
    assert training.load_history(tmp_path / "made") is None


@pytest.mark.parametrize("length", [0x80, 0x180, 0x280])
def test_a_file_whose_first_byte_is_a_pickles_is_the_compendiums_all_the_same(length, tmp_path):
    """safetensors begins with the length of its header, a multiple of 8."""
    tensors = {"x": torch.zeros(1)}
    empty = len(safetensors.torch.save(tensors, metadata={"pad": ""}))
    for more in range(0, length):
        written = safetensors.torch.save(tensors, metadata={"pad": "." * more})
        if int.from_bytes(written[:8], "little") == length:
            break
    assert written[0] == 0x80 and len(written) >= empty
    (tmp_path / "generator.safetensors").write_bytes(written)
    assert imports.kind_of(tmp_path / "generator.safetensors") == "compendium"


@pytest.mark.parametrize("part", ["train", "validation", "test_lab"])
def test_a_generator_that_has_seen_a_part_is_refused(parts, identity, part, tmp_path):
    with pytest.raises(LeakError, match=f"of the part {part}"):
        imports.adopt(identity, tmp_path, role="identity", parts={**parts, part: parts["pool"]})


def test_a_picture_without_a_name_is_recognised(parts, identity):
    trained_on = weights.read_metadata(identity)["trained_on"] | {"subjects": []}
    weights.check_unseen(trained_on, parts, name="it")
    with pytest.raises(LeakError, match="1 pictures"):
        weights.check_unseen(trained_on, {"train": parts["pool"].select([0])}, name="it")


def test_a_generator_of_the_other_role_is_refused(parts, identity, tmp_path):
    with pytest.raises(FerError, match="no expression GAN"):
        imports.adopt(identity, tmp_path, role="expression", parts=parts)


def test_a_generator_of_another_size_is_refused(parts, identity, tmp_path):
    larger = {name: type(part)(np.asarray(part.images).repeat(2, 2).repeat(2, 3), part.table, part.origin)
              for name, part in parts.items()}
    with pytest.raises(FerError, match="32 pixels .* but the pool's"):
        imports.adopt(identity, tmp_path, role="identity", parts=larger)


def faces_of_64_pixels():
    table = pd.DataFrame({"id": ["a"], "expression": "neutral", "subject": "", "domain": ""})
    return Faces(np.zeros((1, 1, 64, 64), np.uint8), table, "rendered")


def test_weights_are_trained_where_none_are_shipped(parts, identity):
    choose = {"role": "identity", "dataset": "built-in", "faces": parts["pool"]}
    assert imports.find_weights("train", **choose) is None
    assert imports.find_weights("shipped", **choose) is None  # nothing is shipped for 32 pixels
    assert imports.find_weights(str(identity), **choose) == identity
    shipped = {"role": "expression", "dataset": "built-in", "faces": faces_of_64_pixels()}
    assert imports.find_weights("shipped", **shipped, method="flow").name == "expression.safetensors"
    assert imports.find_weights("shipped", **shipped, method="stargan") is None  # another method's are not taken for it
    with pytest.raises(FerError, match="no file"):
        imports.find_weights("nowhere.safetensors", **choose)
    flow = str(imports.paths.REPOSITORY / "weights" / "built-in" / "expression.safetensors")
    assert str(imports.find_weights(flow, **shipped, method="flow")) == flow
    with pytest.raises(FerError, match="holds a flow generator, but the expression_method is stargan"):
        imports.find_weights(flow, **shipped, method="stargan")


def test_a_file_that_could_not_be_written_is_not_there(parts, tmp_path, monkeypatch):
    """Half of one would be taken for a finished network."""
    def break_off(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(weights, "save_file", break_off)
    with pytest.raises(OSError):
        weights.save_weights(torch.nn.Linear(1, 1), tmp_path, name="judge", options={}, kind="judge")
    assert not (tmp_path / "judge.safetensors").exists()


def test_the_pools_people_do_not_depend_on_the_other_parts(parts):
    more, _ = data.rendered_parts(image_size=32, channels=1, n_train_per_class=4, n_validation_per_class=2,
                                  n_test_per_class=2, takes_per_subject=1, n_pool_subjects=2, pool_takes=1, seed=3)
    assert more["pool"].fingerprint == parts["pool"].fingerprint
    assert set(more["train"].subjects) > set(parts["train"].subjects)
    assert set(parts["pool"].table["expression"]) == set(ALL_EXPRESSIONS)


@pytest.mark.parametrize("path", sorted(Path(imports.paths.REPOSITORY, "weights").glob("*/*.safetensors")),
                         ids=lambda path: f"{path.parent.name} {path.stem}")
def test_what_is_shipped_can_be_read_and_the_card_tells_of_it(path):
    assert f"`{path.name}`" in (path.parent / "README.md").read_text(encoding="utf-8")
    found = weights.read_metadata(path)
    assert found["trained_on"]["n"] > 1_000
    if found["kind"] in weights.KINDS:
        weights.load_generator(path)
        assert imports._is_history(path.with_suffix(".csv"))


@pytest.mark.parametrize("content", [b"no weights", b"\xff" * 8 + b"{", b"\2\0\0\0\0\0\0\0{}"])
def test_a_file_that_is_none_of_ours_is_told_in_a_sentence(content, parts, tmp_path):
    (tmp_path / "other.safetensors").write_bytes(content)
    with pytest.raises(FerError, match="other.safetensors"):
        weights.read_metadata(tmp_path / "other.safetensors")
    for method in ("stargan", "flow", None):
        with pytest.raises(FerError, match="other.safetensors"):
            path = imports.find_weights(tmp_path / "other.safetensors", role="expression", dataset="built-in",
                                        faces=parts["pool"], method=method)
            imports.adopt(path, tmp_path, role="expression", parts=parts)


def test_a_generator_knows_the_people_or_the_pictures_that_it_has_seen(parts, identity, tmp_path):
    assert weights.has_seen(identity, parts["pool"]) and not weights.has_seen(identity, parts["train"])
    pool = parts["pool"]
    elsewhere = Faces(255 - np.asarray(pool.images), pool.table, "rendered")  # the same people, other pixels
    assert weights.has_seen(identity, elsewhere)
    more = Faces(pool.images, pool.table.assign(subject=["new"] + list(pool.subjects[1:])), "rendered")
    assert not weights.has_seen(identity, more)
    unnamed = Faces(pool.images, pool.table.assign(subject=""), "rendered")
    assert weights.has_seen(identity, unnamed)
    assert not weights.has_seen(identity, Faces(elsewhere.images, unnamed.table, "rendered"))
    weights.check_seen([identity], pool)
    with pytest.raises(FerError, match="external needs the faces that both GANs learned from"):
        weights.check_seen([identity], parts["train"])
    bare = tmp_path / "bare.safetensors"
    network = weights.load_generator(identity)
    weights.save_weights(network, tmp_path, name="bare", options=WIDTHS | {"image_size": 32}, kind="stylegan2")
    assert not weights.has_seen(bare, pool)
