"""Laws of the label table: one meaning per spelling, one order per data set."""

import numpy as np
import pytest

from fer_lib import labels
from fer_lib.errors import FerError


def test_the_six_come_first_and_neutral_last():
    assert labels.ALL_EXPRESSIONS[:6] == labels.EXPRESSIONS
    assert labels.ALL_EXPRESSIONS[6] == "neutral"
    assert [labels.code(name) for name in labels.ALL_EXPRESSIONS] == list(range(7))


def test_no_spelling_has_two_meanings():
    spellings = [spelling for spellings in labels.NAMES.values() for spelling in spellings]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize("name", labels.NAMES)
def test_every_spelling_in_any_case_gives_its_canonical_name(name):
    for spelling in labels.NAMES[name]:
        for form in (spelling, spelling.upper(), f" {spelling.title()} "):
            assert labels.expression(form) == name


@pytest.mark.parametrize("dataset", labels.ORDERS)
def test_every_numbering_covers_its_names_once_and_reads_numbers_and_text_alike(dataset):
    order = labels.ORDERS[dataset]
    assert len(set(order.values())) == len(order)
    assert set(labels.EXPRESSIONS) <= set(order.values())
    for number, name in order.items():
        for form in (number, str(number), np.int64(number), float(number), f"{number:.7e}"):
            assert labels.expression(form, dataset) == name


def test_published_numberings():
    assert [labels.expression(n, "fer2013") for n in (0, 3, 6)] == ["anger", "happiness", "neutral"]
    assert [labels.expression(n, "raf_db") for n in (1, 4, 7)] == ["surprise", "happiness", "neutral"]
    assert [labels.expression(n, "ck_plus") for n in (0, 2, 7)] == ["neutral", "contempt", "surprise"]
    assert [labels.expression(n, "affectnet") for n in (0, 1, 7)] == ["neutral", "happiness", "contempt"]
    stargan = list(labels.ORDERS["stargan"].values())
    assert stargan == sorted(labels.ALL_EXPRESSIONS)


def test_contempt_is_recognised_but_is_none_of_the_seven():
    assert labels.expression("Contemptuous") in labels.LEFT_OUT
    assert not set(labels.LEFT_OUT) & set(labels.ALL_EXPRESSIONS)
    with pytest.raises(FerError, match="not one of the seven"):
        labels.code("contempt")


@pytest.mark.parametrize("unknown", ["smirk", "", None, True, float("nan"), 2.5, "A"])
def test_unknown_label_is_an_error_that_lists_the_known_ones(unknown):
    with pytest.raises(FerError, match="known names: anger.*angery.*surprise.*contempt"):
        labels.expression(unknown)


def test_number_without_or_outside_a_numbering_is_an_error_that_lists_the_choices():
    with pytest.raises(FerError, match="different data sets.*fer2013"):
        labels.expression(3)
    with pytest.raises(FerError, match="unknown expression number 7 for fer2013.*0 anger"):
        labels.expression(7, "fer2013")
    with pytest.raises(FerError, match="unknown data set 'ck'.*ck_plus"):
        labels.expression("anger", "ck")


def test_codes_are_int64_and_empty_is_allowed():
    got = labels.codes(["neutral", "anger", "neutral"])
    assert got.dtype == np.int64 and got.tolist() == [6, 0, 6]
    assert labels.codes([]).shape == (0,)
