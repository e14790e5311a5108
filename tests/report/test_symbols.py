"""Mathematics as a page sets it, and names of the user's left alone."""

import pytest

from otflow.report.page import page
from otflow.report.study_report import study_document
from otflow.report.symbols import in_symbols, indices, plain
from tests.report.documents import HOSTILE, alpha_folder


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("E int 1/2 |v|^2 dt", "E ∫ ½ |v|² dt"),
        ("E int |d_t Phi - 1/2 |grad Phi|^2| dt", "E ∫ |∂ₜΦ - ½ |∇Φ|²| dt"),
        ("1/2 W2^2(rho0, T#rho0)", "½ W₂²(ρ₀, T#ρ₀)"),
        ("|x - T^-1(T(x))|", "|x - T⁻¹(T(x))|"),
        ("falls like n^-1/2", "falls like 1/√n"),
        ("J >= J*_alpha", "J ≥ J*<sub>α</sub>"),
        ("E J_N(theta_N) <= J*", "E J<sub>N</sub>(θ<sub>N</sub>) ≤ J*"),
        ("KL_(n+1) <= KL_n / (1 + tau)^2", "KL<sub>n+1</sub> ≤ KL<sub>n</sub> / (1 + τ)²"),
        ("raise alpha", "raise alpha"),
        ("train on 1/2 of the rows, print alphabet", "train on 1/2 of the rows, print alphabet"),
    ],
)
def test_in_symbols(text, html):
    assert indices(in_symbols(text)) == html


def test_without_html_an_index_stands_after_an_underscore():
    assert plain(in_symbols("J_alpha")) == "J_α"
    assert indices(HOSTILE) == HOSTILE


def test_pages_of_studies_hold_no_ascii_mathematics():
    text = page(study_document(alpha_folder())).split('<script type="application/json"')[0]
    assert "α⁻²" in text
    assert not [word for word in ("W2^2", " int ", "J_alpha", "alpha^", "+- ") if word in text]
