"""A hook of mkdocs: turns the formulas of a page into MathML, which browsers render themselves."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

# A formula as pymdownx.arithmatex (generic) leaves it, with the punctuation after it.
FORMULA = re.compile(
    r'<(?P<element>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=element)>'
    r"(?P<punctuation>[.,:;)]*)",
    re.DOTALL,
)
TAG = re.compile(r"\\tag\{(.*?)\}")
# Bars, named functions and signs would get the spaces of a binary operator.
OPERATOR = re.compile(r'<mo(?: stretchy="false")?>(&#x0007C;|[a-z]{2,})</mo>')
SIGN = re.compile(r"(?<=(?:&#x00028;|&#x0002C;|&#x0003D;)</mo>)<mo>(?=&#x02212;)")  # after ( , =


def mathml(latex: str, display: str) -> str:
    """The formula as MathML; an error where the converter does not know a command."""
    formula = convert(latex.replace(r"\arg\min", r"\operatorname{argmin}"), display=display)
    if "\\" in formula:
        raise PluginError(f"latex2mathml cannot read {latex}")
    formula = formula.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")
    formula = SIGN.sub('<mo form="prefix">', formula)
    return OPERATOR.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', formula)


def render(match: re.Match[str]) -> str:
    """One formula; a displayed one has its number on the right."""
    latex, punctuation = unescape(match["latex"]), match["punctuation"]
    if match["element"] == "span":
        return f'<span class="formula">{mathml(latex, "inline")}{punctuation}</span>'
    number = "".join(f'<span class="number">({tag})</span>' for tag in TAG.findall(latex))
    return f'<div class="formula">{mathml(TAG.sub("", latex), "block")}{number}</div>{punctuation}'


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs with the HTML of each page."""
    return FORMULA.sub(render, html)
