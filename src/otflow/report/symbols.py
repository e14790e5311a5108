"""Mathematics that the library writes in letters, as a page sets it: ½ W₂², ∫, ∇T, indices."""

import re

_INDEX = "_\u2060"  # a joiner that no one types: what follows it is an index
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_RULES = [
    (re.compile(pattern), with_what)
    for pattern, with_what in (
        (r"W2\^2", "W₂²"),
        (r"\bW2\b", "W₂"),
        (r"\bE int\b|\bint\b(?= [|(])", lambda m: m[0].replace("int", "∫")),
        (r"(?<!\w)1/2 ?(?=[|EW(])", "½ "),
        (r"(\w+)\^-1/2", r"1/√\1"),
        (r"\^(-?\d)", lambda m: m[1].translate(_RAISED)),
        (r"<=", "≤"),
        (r">=", "≥"),
        (r"\+-", "±"),
        (r"(?<=\s)->(?=\s)", "→"),
        (r"\bgrad (?=T\b|Phi|log)", "∇"),
        (r"\bPhi\b", "Φ"),
        (r"\bd_t ", "∂ₜ"),
        (r"\brho0\b", "ρ₀"),
        (r"\bdJ/dalpha\b", "dJ/dα"),
        (r"\b(J\*?)_alpha\b", rf"\1{_INDEX}α"),
        (r"\b(J|theta)_N\b", rf"\1{_INDEX}N"),
        (r"\bp_eff\b", f"p{_INDEX}eff"),
        (r"\bKL_(?:\((.*?)\)|(\w)\b)", lambda m: f"KL{_INDEX}{m[1] or m[2]}"),
        (r"\btheta(?![a-z])", "θ"),
        (r"\bpsi\b", "ψ"),
        (r"\bkappa\b", "κ"),
        (r"\btau\b", "τ"),
        (r"(?<!raise )(?<!lower )\balpha\b(?!=)", "α"),
    )
]


def in_symbols(text: str) -> str:
    """A sentence of the library's own, never a name of the user's, with symbols for its words."""
    for pattern, with_what in _RULES:
        text = pattern.sub(with_what, text)
    return text


def indices(escaped: str) -> str:
    """HTML in which indices are set as such."""
    return re.sub(rf"{_INDEX}([\w+]+)", r"<sub>\1</sub>", escaped)


def plain(text: str) -> str:
    """Indices after an underscore, where nothing sets them."""
    return text.replace(_INDEX, "_")
