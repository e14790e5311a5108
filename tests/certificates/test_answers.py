"""A certificate's five answers, and the size of the estimation error behind one of them."""

import copy
import dataclasses
import json
import math
import pickle

import pytest

from otflow.certificates.budget import error_budget
from otflow.certificates.certificate import (
    DENSITY,
    OPTIMAL,
    BudgetItem,
    Certificate,
    Finding,
    Line,
)

LINES = (
    Line("1/2 W2^2(rho0, T#rho0)", 2.0, (1.9, 2.1), "proved (95 %)", "squared data units", ""),
    Line("excess transport", 0.01, (0.0, 0.05), "proved (95 %)", "squared data units", ""),
    Line("T(rows) against target, MMD", 0.4, None, "estimated", "p-value", ""),
    Line("samples against rows, MMD", 0.03, None, "estimated", "p-value", ""),
)
BUDGET = (BudgetItem("penalty", 0.2, "raise alpha"), BudgetItem("estimation", math.nan, "rows"))
CLEAN = Certificate(1.9, 2.1, 0.95, LINES, BUDGET, (), 0, 100, 1000, 2, "the space", 1.0)


def test_a_clean_flow():
    optimal, far, density, largest, change = (text for _, text in CLEAN.answers)
    assert optimal.startswith("yes, up to the next line (proved (95 %))")
    assert far == "0.05 of the cost 2 (2.5%), squared units of the space"
    assert "no proof" in density
    assert "0.03" in density
    assert largest.startswith("penalty, 0.2")
    assert change == "raise alpha"


@pytest.mark.parametrize(
    ("change", "number", "told"),
    [
        ({"findings": (Finding("not so: grad T folds", OPTIMAL),)}, 0, "no: grad T folds"),
        ({"findings": (Finding("it is wrong", DENSITY),)}, 2, "no: it is wrong"),
        ({"findings": (Finding("not optimal: said of something else"),)}, 0, "yes"),
        ({"lines": (LINES[0], dataclasses.replace(LINES[1], interval=(0.0, 0.9)))}, 0, "not shown"),
        ({"lines": ()}, 0, "unknown"),
        ({"lines": ()}, 1, "1/2 W2^2 lies in [1.9, 2.1]"),
        ({"lines": ()}, 2, "unknown"),
        ({"budget": ()}, 3, "unknown: alpha was not given"),
        ({"budget": (), "findings": (Finding("x"),)}, 4, "see the findings"),
    ],
)
def test_what_is_wrong_or_not_known(change, number, told):
    assert dataclasses.replace(CLEAN, **change).answers[number][1].startswith(told)


def test_what_a_finding_denies_is_kept():
    """By copies, pickles and JSON."""
    findings = (Finding("a"), Finding("b", DENSITY), Finding("c", OPTIMAL))
    found = dataclasses.replace(CLEAN, findings=findings)
    copies = copy.deepcopy(found), pickle.loads(pickle.dumps(found))
    for again in (*copies, Certificate.from_dict(json.loads(json.dumps(found.to_dict())))):
        assert again.findings == findings
        assert [text.denies for text in again.findings] == ["", DENSITY, OPTIMAL]
        assert again.denial(DENSITY) == "b"


@pytest.mark.parametrize(
    ("cost", "excess"),
    [
        ("E_c 1/2 W2^2(rho0, T#rho0 given c)", "excess transport"),
        ("WFR(start, what arrives)", "excess price"),
    ],
)
def test_brackets_of_other_transports_are_answers_too(cost, excess):
    lines = (dataclasses.replace(LINES[0], name=cost), dataclasses.replace(LINES[1], name=excess))
    assert dataclasses.replace(CLEAN, lines=lines).answers[:2] == CLEAN.answers[:2]


def test_a_proved_kl_answers_before_tests():
    kl = Line("KL(T#rho0, target)", 0.01, (0.0, 0.02), "proved (95 %)", "nats", "")
    found = dataclasses.replace(CLEAN, lines=(*LINES, kl))
    assert found.answers[2][1].startswith("to 0.02 nats")


def test_print():
    """Answers and findings first; every line only where all is asked for."""
    short = str(CLEAN)
    for question, answer in CLEAN.answers:
        assert question in short
        assert answer.split(",")[0] in short
    assert "Nothing was found wrong" in short
    assert "All lines" not in short
    whole = CLEAN.full()
    assert whole.startswith(short)
    assert "samples against rows" in whole
    assert "penalty (largest)" in whole


def test_the_estimation_error_is_of_training_rows():
    def estimation(**change):
        given = {"parameters": 30.0, "n_train": 900, "counted": False} | change
        return error_budget(10.0, 0.0, 0.0, 0.0, 1.0, gap=None, **given)[4]

    assert estimation().value == 10.0 * 30 / (2 * 900)
    assert "p_eff = 30, N = 900 training rows" in estimation().knob
    assert "at most: all 30 parameters" in estimation(counted=True).knob
    assert estimation(n_train=math.inf).value == 0
    assert math.isnan(estimation(n_train=math.nan).value)
    assert "n_train was not given" in estimation(n_train=math.nan).knob


def test_a_model_knows_its_rows_and_parameters(trained):
    """Kept in its file: certificates do not depend on how many rows they were made with."""
    model = trained("conforming")
    assert model.load(trained.path("conforming")).n_train_ == model.n_train_ == 512
    model.n_iter_, model.history_ = 25, {
        "iteration": [0, 25], "train_nll": [math.nan, 1.0], "val_nll": [2.0, 1.1],
        "train_transport": [math.nan, 0.5], "val_transport": [0.4, 0.4],
    }  # fmt: skip
    assert model.effective_parameters_ == pytest.approx(512 * (0.1 - 0.1 / model.alpha))
    model.n_iter_ = 0  # nothing was trained: no batch to compare with
    assert model.effective_parameters_ is None
    model.n_iter_, model.n_train_ = 25, None  # an older file
    assert model.effective_parameters_ is None
