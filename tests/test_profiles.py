"""Laws of parameters: what a notebook declares, what a profile and the command line may set."""

from pathlib import Path

import nbformat
import pytest

from fer_lib import augment, profiles
from fer_lib.errors import FerError

REPOSITORY = Path(__file__).resolve().parents[1]
CELL = """
# generated / real,
# one classifier each
ratios: list[float] = [
    0, 1, 2, 5]
image_size: int = 48   # pixels
lr: float = 1e-4   # step of Adam # per update
name: str = "paper"   # any text
data_root: str = ""   # where the data set is
limit: int | None = None   # or no limit
align: bool = False   # find eyes first
kind: Literal["a", "b"] = "a"   # one of two
shift: float = -0.5   # negative is fine
profile: str = "demo"   # which profile
"""


def notebook(folder, cell=CELL, name="01_a", tags=("parameters",)):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell, metadata={"tags": list(tags)})])
    nbformat.write(book, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


@pytest.fixture
def parameters(tmp_path):
    return profiles.union([notebook(tmp_path)])


def resolve(parameters, folder, *settings, yaml=""):
    params = folder / "params"
    params.mkdir(exist_ok=True)
    (params / "demo.yaml").write_text(yaml, encoding="utf-8")
    return profiles.resolve(parameters, profile="demo", folder=params, settings=settings,
                            working_directory=folder)


def test_names_types_defaults_and_comments_are_read(parameters):
    assert list(parameters)[:3] == ["ratios", "image_size", "lr"]
    ratios = parameters["ratios"]
    assert (ratios.annotation, ratios.default) == ("list[float]", [0, 1, 2, 5])
    assert ratios.help == "generated / real, one classifier each"
    assert parameters["lr"].help == "step of Adam # per update"
    assert parameters["shift"].default == -0.5
    assert all(parameter.help for parameter in parameters.values())


def test_command_line_wins_over_profile_wins_over_default(parameters, tmp_path):
    assert resolve(parameters, tmp_path)["image_size"] == 48
    assert resolve(parameters, tmp_path, yaml="image_size: 64")["image_size"] == 64
    assert resolve(parameters, tmp_path, "image_size=96", yaml="image_size: 64")["image_size"] == 96


def test_values_are_read_as_the_parameter_wants_them(parameters, tmp_path):
    values = resolve(parameters, tmp_path, "ratios=[0, 3]", "name=2013", "limit=null", "align=true")
    assert values["ratios"] == [0.0, 3.0] and all(isinstance(ratio, float) for ratio in values["ratios"])
    assert (values["name"], values["limit"], values["align"]) == ("2013", None, True)


def test_a_relative_path_starts_where_the_user_is_or_at_the_repository(parameters, tmp_path):
    here = tmp_path.resolve()
    assert resolve(parameters, tmp_path, "data_root=a/b")["data_root"] == str(here / "a" / "b")
    assert resolve(parameters, tmp_path, yaml="data_root: ../x")["data_root"] == str(here.parent / "x")
    assert resolve(parameters, tmp_path)["data_root"] == ""


@pytest.mark.parametrize(("yaml", "words"), [
    ("ratio: [0]", ["no notebook has a parameter `ratio`", "`ratios`", "demo.yaml"]),
    ("lr: 2e-4", ["lr must be float", "'2e-4'", "2.0e-4"]),
    ("lr: 1.5e3", ["lr must be float", "1.5e+3"]),
    ("lr: 0", ["lr must be above 0"]),
    ("lr: .nan", ["lr must be float"]),
    ("ratios: [0, -1]", ["ratios must be at least 0", "-1"]),
    ("ratios: [0, much]", ["ratios must be list[float]", "ratios[1]", "'much'"]),
    ("ratios: 3", ["ratios must be list[float]", "3"]),
    ("ratios: []", ["ratios is empty"]),
    ("image_size: 50", ["image_size must be one of 32, 48", "50"]),
    ("image_size: 48.0", ["image_size must be int", "48.0"]),
    ("image_size: true", ["image_size must be int"]),
    ("image_size:", ["image_size must be int", "empty"]),
    ("align: 1", ["align must be bool"]),
    ("kind: c", ["kind must be", "'c'"]),
    ("- a", ["not a mapping"]),
    ("a: [", ["not valid YAML"]),
])
def test_a_bad_profile_is_one_sentence_with_the_remedy(parameters, tmp_path, yaml, words):
    with pytest.raises(FerError) as error:
        resolve(parameters, tmp_path, yaml=yaml)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(("name", "annotation", "value", "words"), [
    ("augmentation", "list[str]", ["light", "shfit"], "one of light, shift, cutout, mirror, not 'shfit'"),
    ("precision", "str", "bf16", "one of float32, bfloat16"),
    ("expression", "str", "hapy", "one of anger"),
    ("n_seeds", "int", 0, "at least 1"),
    ("keep_share", "float", 0.0, "above 0 and at most 1"),
])
def test_what_a_later_notebook_would_refuse_is_refused_at_once(name, annotation, value, words):
    with pytest.raises(FerError, match=words):
        profiles.check(profiles.Parameter(name, annotation, None, "", ()), value, where="--set")


def test_augmentations_are_those_there_are_or_none():
    assert set(profiles.RANGES["augmentation"].choices) == set(augment.AUGMENTATIONS)
    assert profiles.check(profiles.Parameter("augmentation", "list[str]", [], "", ()), [], where="--set") == []


def test_the_profile_is_not_set_by_name(parameters, tmp_path):
    assert resolve(parameters, tmp_path)["profile"] == "demo"
    with pytest.raises(FerError, match="--profile smoke"):
        resolve(parameters, tmp_path, "profile=smoke")


@pytest.mark.parametrize("cell", [
    "a = 1", "a: int = 1 + 1", "a: int = 'x'", "a: unknown = 1", "print(1)", "a: int", "a.b: int = 1",
    "ratios: list[float] = [-1]", "a: int ="])
def test_only_annotated_literals_are_parameters(tmp_path, cell):
    with pytest.raises(FerError, match="01_a"):
        profiles.read_parameters(notebook(tmp_path, cell))


def test_a_notebook_has_exactly_one_parameters_cell(tmp_path):
    with pytest.raises(FerError, match="tag exactly one"):
        profiles.read_parameters(notebook(tmp_path, tags=()))


def test_a_broken_notebook_is_named(tmp_path):
    path = notebook(tmp_path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(FerError, match="01_a.ipynb"):
        profiles.read_parameters(path)


def test_one_name_means_one_thing(tmp_path):
    first = notebook(tmp_path, "seed: int = 0  # first", "01_a")
    together = profiles.union([first, notebook(tmp_path, "seed: int = 0  # same", "02_b")])
    assert together["seed"].notebooks == ("01_a", "02_b")
    for other in ("seed: int = 1", "seed: float = 0"):
        with pytest.raises(FerError, match="make them the same"):
            profiles.union([first, notebook(tmp_path, other, "02_b")])


@pytest.mark.parametrize("profile", sorted(path.stem for path in (REPOSITORY / "params").glob("*.yaml")))
def test_every_committed_profile_is_valid(profile):
    found = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
    if not found:
        pytest.skip("needs the notebooks")
    values = profiles.resolve(profiles.union(found), profile=profile, folder=REPOSITORY / "params")
    assert values["profile"] == profile


def test_the_demo_profile_is_the_defaults():
    assert profiles.read_profile("demo", folder=REPOSITORY / "params") == {}


def test_a_folder_that_the_built_in_faces_would_not_read_is_refused(tmp_path):
    cell = 'dataset: str = "built-in"   # of faces\ndata_root: str = ""   # where it is\n'
    known = profiles.union([notebook(tmp_path, cell)])
    with pytest.raises(FerError, match="data_root is set, but the data set is built-in"):
        resolve(known, tmp_path, "data_root=somewhere")
    assert resolve(known, tmp_path, "data_root=somewhere", "dataset=csv")["dataset"] == "csv"
    cell = 'pool_dataset: str = ""   # of the GANs\npool_root: str = ""   # where it is\n'
    known = profiles.union([notebook(tmp_path, cell)])
    with pytest.raises(FerError, match="pool_root is set, but no data set"):
        resolve(known, tmp_path, "pool_root=somewhere")
    assert resolve(known, tmp_path, "pool_root=somewhere", "pool_dataset=csv")["pool_dataset"] == "csv"


def test_a_data_set_that_is_not_there_is_refused_with_the_nearest_name(tmp_path):
    known = profiles.union([
        notebook(tmp_path, 'dataset: str = "built-in"   # of faces\npool_dataset: str = ""   # of the GANs\n')])
    with pytest.raises(FerError, match="dataset is 'built_in' .*did you mean `built-in`"):
        profiles.check_together(resolve(known, tmp_path, "dataset=built_in"))
    with pytest.raises(FerError, match="pool_dataset is 'afectnet'"):
        profiles.check_together(resolve(known, tmp_path, "pool_dataset=afectnet"))


@pytest.mark.parametrize("settings, idle", [
    (("identity_steps=300",), {"identity_steps"}),
    (("expression_steps=300", "n_real=60", "expression_mirrored=true"), {"expression_steps"}),
    (("identity_steps=300", "identity_weights=train"), set()),
    (("identity_steps=300", "compare_with_paper=true"), set()),
    (("expression_steps=300", "compare_with_paper=true"), {"expression_steps"}),
    (("identity_steps=300", "expression_method=stargan"), {"identity_steps"}),
    (("identity_steps=300", "dataset=affectnet"), set()),
    (("expression_steps=300", "expression_method=stargan"), set()),
    (("identity_steps=300", "dataset=affectnet", "identity_weights=mine.safetensors"), {"identity_steps"}),
])
def test_what_only_a_training_would_use_is_named_where_there_is_none(settings, idle):
    known = profiles.union(sorted((REPOSITORY / "notebooks").glob("*.ipynb")))
    values = profiles.resolve(known, profile="demo", folder=REPOSITORY / "params", settings=settings)
    assert set(profiles.idle([text.partition("=")[0] for text in settings], values, known)) == idle


def test_trainings_are_told_by_parameters_that_there_are():
    for weights, (name, others) in profiles.TRAINED_IN.items():
        declared = profiles.read_parameters(REPOSITORY / "notebooks" / f"{name}.ipynb")
        assert {weights, *others} <= set(declared)


def test_what_a_chosen_step_needs_from_another_is_refused_without_it():
    values = {"measures": ["identity_fid"], "compare_with_paper": False, "arms": ["real_long", "mixed"],
              "blocks": [{"arms": ["mixed_filtered"]}, {"ratios": [1]}], "n_blocks": 2}
    with pytest.raises(FerError, match="identity_fid needs the paper's identity GAN.*compare_with_paper=true"):
        profiles.check_measures(values, ["04_generation"])
    with pytest.raises(FerError, match="mixed_filtered needs the faces that notebook 4 selects"):
        profiles.check_measures(values, ["06_ratio_study"])
    profiles.check_measures(values, ["02_identity_gan", "03_expression_gan", "05_classifier"])
    profiles.check_measures(values | {"compare_with_paper": True}, ["04_generation"])
    profiles.check_measures(values | {"measures": ["coverage"]}, ["04_generation"])
    for right in ({"measures": ["selection"]}, {"n_blocks": 0}):
        profiles.check_measures(values | right, ["06_ratio_study"])
