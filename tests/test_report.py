"""Laws of the report: complete, offline, and honest about what is absent."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import run_all
from fer_lib import paths, plots, report, runs
from fer_lib.errors import FerError

REPOSITORY = Path(__file__).resolve().parents[1]
FINISHED = sorted(path.parent.name for path in (REPOSITORY / "results").glob("*/summary.json"))


class Elements(HTMLParser):
    """All start tags of a page with their attributes, its text, and what was left open."""

    VOID = ("meta", "img", "line", "circle", "br")

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture
def project(tmp_path):
    """A folder with a copy of the committed results and figures."""
    for part in ("results", "figures"):
        shutil.copytree(REPOSITORY / part, tmp_path / part)
    return tmp_path


def page_of(project, profile="demo"):
    return report.write(profile, root=project).read_text(encoding="utf-8")


@pytest.mark.parametrize("profile", FINISHED)
def test_the_page_loads_nothing_and_runs_nothing(project, profile):
    page = page_of(project, profile)
    elements = Elements(page)
    assert not elements.open and not re.search(r"<(script|link|iframe|object)\b|\bon\w+=|@import|url\(", page)
    sources = [attributes["src"] for attributes in elements.all("img")]
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert "http://" not in page and "https://" not in page and str(project) not in page


@pytest.mark.parametrize("profile", FINISHED)
def test_every_figure_is_there_once_with_words_for_those_who_do_not_see_it(project, profile):
    images = Elements(page_of(project, profile)).all("img")
    assert len(images) == len(list((project / "figures" / profile).glob("*.png")))
    assert all(len(image["alt"]) > 20 for image in images)


def test_the_declared_comparison_comes_before_other_sizes(tmp_path):
    for name in ("study_gains_test_n120", "study_gains_test", "study_intensity_lab"):
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    captions = [figure["caption"] for figure in report.sections(tmp_path, "real")["answer"]]
    assert captions[0].endswith("test set test") and "another number of real faces" in captions[1]
    assert captions[2].endswith("test set lab")


def test_the_words_kept_in_a_figure_are_its_alt_text(project, monkeypatch):
    monkeypatch.setenv("FER_OUTPUT", str(project))
    workspace = runs.open_workspace("demo", step="06_ratio_study")
    workspace.save_figure(plt.figure(figsize=(1, 1)), "ratio_curve", alt="No gain\n  at \"any\" ratio")
    workspace.save_figure(plots.confusion(np.eye(6), title="of mine"), "classifier_confusion_mine")
    told = [image["alt"] for image in Elements(page_of(project)).all("img")]
    assert "No gain at \"any\" ratio" in told
    assert any(text.startswith("Confusion matrix, of mine. Fractions that are right: anger 1.00") for text in told)


def test_every_link_leads_somewhere(project):
    shutil.copytree(REPOSITORY / "notebooks", project / "runs" / "demo" / "notebooks")
    target = report.write("demo", root=project)
    hrefs = [attributes["href"] for attributes in Elements(target.read_text(encoding="utf-8")).all("a")]
    ids = {attributes.get("id") for _, attributes in Elements(target.read_text(encoding="utf-8")).tags}
    assert len(hrefs) > 7
    assert all(href[1:] in ids if href.startswith("#") else (target.parent / href).is_file() for href in hrefs)


@pytest.mark.parametrize(("name", "notebook"), [("summary.json", "06_ratio_study"), ("parts.csv", "01_data_prep"),
                                                ("generators.json", "04_generation"),
                                                ("classifier.csv", "05_classifier")])
def test_what_is_absent_is_named_with_the_notebook_that_makes_it(project, name, notebook):
    assert "not in results" not in page_of(project)
    (project / "results" / "demo" / name).unlink()
    text = Elements(page_of(project)).text
    assert f"{name} is not in results/demo/: notebook {notebook} makes it" in text


def test_a_profile_that_never_ran_has_a_page_that_says_so(tmp_path):
    text = Elements(page_of(tmp_path, "smoke")).text
    assert text.count("not in results/smoke/") == 5 and "--profile smoke --to 06" in text


@pytest.mark.parametrize(("low", "high", "words"), [(0.5, 3, "helped"), (-3, -0.5, "did harm"),
                                                    (-1, 2, "neither help nor harm was shown")])
def test_the_verdict_follows_the_interval(project, low, high, words):
    summary = json.loads((project / "results" / "demo" / "summary.json").read_text())
    for test in summary["test_sets"].values():
        interval = {"estimate": (low + high) / 2, "low": low, "high": high}
        test["main_contrast"] |= {"seeds": 3, "gain_points_anova": interval, "gain_points": None}
    assert {verdict["effect"] for verdict in report.verdicts(summary, "real")} == {words}


def test_one_seed_has_no_verdict(project):
    summary = json.loads((project / "results" / "demo" / "summary.json").read_text())
    for test in summary["test_sets"].values():
        test["main_contrast"]["seeds"] = 1
    assert {verdict["effect"] for verdict in report.verdicts(summary, "real")} == {"cannot be told from one seed"}


@pytest.mark.parametrize("name, content", [("summary.json", '{"test_sets": '), ("parts.csv", "")])
def test_a_damaged_file_is_named(project, name, content):
    (project / "results" / "demo" / name).write_text(content)
    with pytest.raises(FerError, match=f"{name} of demo is damaged .*restore it"):
        page_of(project, "demo")


def test_numbers_on_the_page_are_those_of_the_results(project):
    summary = json.loads((project / "results" / "demo" / "summary.json").read_text())
    text = Elements(page_of(project)).text
    for test in summary["test_sets"].values():
        main = test["main_contrast"]
        judged = {end: report.signed(main["gain_points_anova"][end]) for end in ("estimate", "low", "high")}
        assert f"{judged['estimate']} points" in text and f"({judged['low']} to {judged['high']})" in text
        relative = {end: report.percent(main["gain_relative_anova"][end]) for end in ("low", "high")}
        assert f"({relative['low']} to {relative['high']})" in text
        assert f"{main['gain_points_anova']['p']:.2g}" in text


def test_the_declared_comparison_keeps_its_p_and_the_others_are_adjusted():
    summary = json.loads((paths.REPOSITORY / "results" / "fer2013" / "summary.json").read_text(encoding="utf-8"))
    rows, test = {row["what"]: row for row in report.gains(summary)}, summary["test_sets"]["test"]
    assert rows["mixed, ratio 5, declared beforehand"]["p"] == test["main_contrast"]["p"]
    assert rows["augmented"]["p"] == test["contrasts"]["augmented"]["p_holm"]
    others = [row for row in test["by_ratio"] if row["ratio"] != 5]
    assert [rows[f"mixed, ratio {row['ratio']:g}"]["p"] for row in others] == [row["p_holm"] for row in others]
    assert len(rows) == 1 + len(others) + len(test["contrasts"])


def test_text_from_files_is_text_on_the_page(project):
    (project / "results" / "demo" / "parts.csv").write_text("part,images\n<script>x</script>,1\n", encoding="utf-8")
    page = page_of(project)
    assert "<script" not in page and "<script>x</script>" in Elements(page).text


def test_the_command_writes_the_page_and_says_where(project, capsys):
    assert run_all.main(["--report", "--output", str(project)]) == 0
    path = Path(capsys.readouterr().out.strip().removeprefix("Wrote "))
    assert path.is_file() and path.name == "report.html"


def test_figures_that_the_last_run_did_not_write_are_not_shown(project):
    """As those of another data set, which lie beside."""
    steps = project / "runs" / "demo" / "steps"
    steps.mkdir(parents=True)
    names = [path.stem for path in sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
    whole = len(Elements(page_of(project)).all("img"))
    for name in names:
        assert len(Elements(page_of(project)).all("img")) == whole  # as long as not every notebook has run here
        figures = {"figures/demo/study_curve.png": "x", "figures/demo/study_curve.svg": "x"} if name[:2] == "06" else {}
        (steps / f"{name}.json").write_text(json.dumps({"writes": figures | {"results/demo/summary.json": "x"}}))
    assert len(Elements(page_of(project)).all("img")) == 1 < whole


def test_a_difference_of_gains_is_told_by_the_interval_to_be_trusted():
    found = {"difference": {"estimate": 2.0, "low": 1.0, "high": 3.0}, "seeds": 8, "test_groups": 25,
             "difference_anova": {"estimate": 2.0, "low": -4.0, "high": 8.0, "p": 0.4}}
    assert report.transfer_told(found) == "+2.0 points (+1.0 to +3.0)"
    assert report.transfer_told(found | {"seeds": 3}) == report.transfer_told(found | {"test_groups": 4})
    assert report.transfer_told(found | {"seeds": 3}) == "+2.0 points (-4.0 to +8.0)"
    alone = {"estimate": 2.0, "low": None, "high": None, "p": None}
    assert report.transfer_told(found | {"seeds": 1, "difference_anova": alone}) == "+2.0 points (+1.0 to +3.0)"
