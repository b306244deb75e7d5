"""Data that ships with rnnfast and with Python: the CO2 at Mauna Loa, and the text of the Python manual."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator

import numpy as np

from rnnfast import _check
from rnnfast.data.corpus import Corpus

# Differences between measurements in 0.1 ppm, as int8; -128 marks a week without one.
_GAP, _FIRST = -128, 3161
_WEEKS = (
    "c-m!F+j1kh4Fy1u?3O*5)TS!mtN%^5c5K;wA#us!ByZ^lOO{CiI5(KyOMcg9)8~5rMaDeyd5-"
    "7*o++i)ER_n2J%2jMGwCsE&wA^V&GRJlc|Z9q(`a&`UQ{!iB;Ey6sg_&uy*qVDq0xq&HRibamr?jxycH^qiV7Zl0pTE1)#yC7e1y"
    "1@MZ|b*G{y(H)poCrvKFd|4kf*mrYSWlZTNc@j&$RU)ALg>$aTt93Q4WZxbZ}>OnE9P*W~t=Pb$P7hq?PSLw|a5mQkfhdFt;M)#v"
    "{`|0JMfUnNew<b57L(~2|(1cjBDsVQe;$@!=yy@h+TB%#dLL7!Wi%V)Ia+;^8Oq`8SQugOSDXJM;s%_D6xD*l>()$*650WyESR{?"
    "fH?SUb=Me&~bCQ^BpB!9_GMrIg{Mtac0R7z{9>L@}bY5_B(05qD63eI9UkC;cG)uVrMC-"
    ";q8DGE{qtWs!QbfxZt9_8SA3MfkVlRif~E1$q1i?XUxDbg*vloFl#_+j{AwV0KhbkIP1^kL12%fQ%N(F)LJ-ZHa5c&_Aa^GzH)--"
    "<C_bxeO*I+Hb=1FZqLmv)-eG{Ci&stW++IdZZO9mDfO%Q>iZ>ouTisc4P_%t95SKmgb?gC?jscpjWHuDs-"
    ")7{r$fs;4b6=)!^Po^wZM0ekRCGHG7z$lI^H4L2$jy#?b-"
    "bD>4WI!7rm71>5X>S)dGquy!9Z0D4qT56^?frubj*3^FKHs5s$s+4Wa;?FyVxqZ_BBBx55xj|!iQ%ZIwNd_i0D+X(9nx2u%py!=Q"
    "_ql(~+DH@@Qt+y#TRj){*{km~8@#|ZY?hNQpKdviTXdAhx>UKWL~RHBLfZWAao2`f9#L!%UpA*q`;{igP7&I;b7{g&VrS!OZ>zhp"
    "I0yiNzKrfKJ%Z@Ab8fLjQ&t+NtXLp<OxZCz>J~5_3HJbk_^$Vur_At6OJ($>Py-wR<#E60QQ<(=CBTNcL8ncMc}@SUah=-"
    "noxW9=v@Gd)Ej`MVpCOwRUKx|HO+W*OzSRGu#3##~n1$hI*bPHTK(2Mg%<~WQ=Y$do&t1mHw;i1(62Z0AmcNmMPBBb{IgnViQY?;"
    "rgiqYMpYYwN=jjC{7?$f)<~tjzpvkcI4_8S<1?TeI^fOWDW{Yz2z@diDA#ZfpVGvZ@ht}H0j!#^0BlC-oKF>N{aG~Y80Q4FHXPFO"
    "Yr@+-&cePz+gYS4unCQM@@a03UPO-"
    "(pn``s8B31+GftGi!+7iq%UxB92n}>bhWnQTgutU>;u6c*sS@y`swcqehpYINf*pU(+RlX1<-"
    "+@ekYp6rTYaJkr;Zk}ZZPWXq^9S<%?U=cO@qY1)^A-"
    "etfcuqF*b5LUD+l*xw$=5^HkH30EynHib;g&{6&JsB_ut8jw1o*Ef>g+?bg_>8)QlgAu}6F{f8@<a*mpzNz(5LykRJ^poa&<Oe8Y"
    "%HJrG*tq>PDu68GR26Y>Oym;D974k0zH35~iR{`Lnv*5SRoLIzkuHYQB^=R5h$q_V>f7@+Lf2T%p}VyrYqpai0PKpA&nZGG!$2-"
    "ORF4f_mXD7E7huJ{gq4cQ0TF(FBOWE!CJN%uD&Sg{>@3Tw3OXdjV9STM8xaNFLPARqTP<fzBWtZ5g0RtS96SqTEH+fp_X(c%5Sb>"
    "K4ZT0JH<KFvPPFFD=+-"
    "Rca)46k%5|IMInWOb>u!*(opVxc2`Y+f>N;4pYj2myWo&fXznP~|%!e?AD+U=V*u2x1qz>&kIk_<)ND&>{-<hW{p5{sUG!s@M"
)


def mauna_loa_co2() -> tuple[np.ndarray, np.ndarray]:
    """Weekly means of the CO2 concentration at Mauna Loa, Hawaii, 1958 to 2001.

    Returns
    -------
    days : ndarray of datetime64[D] (2284,)
        The Saturday of each week.
    ppm : ndarray of float64 (2284,)
        Parts per million; NaN in 59 weeks without a measurement.

    Notes
    -----
    Source: C. D. Keeling and T. P. Whorf, *Atmospheric CO2 concentrations derived from flask air samples at
    sites in the SIO network*, Carbon Dioxide Information Analysis Center, 2004; public domain.

    Examples
    --------
    >>> from rnnfast.data import mauna_loa_co2
    >>> days, ppm = mauna_loa_co2()
    >>> str(days[0]), float(ppm[0]), float(ppm[-1])
    ('1958-03-29', 316.1, 371.5)
    """
    packed = base64.b85decode("".join(_WEEKS))
    steps = np.frombuffer(zlib.decompress(packed), np.int8)
    missing = steps == _GAP
    ppm = (_FIRST + np.cumsum(np.where(missing, 0, steps.astype(np.int64)))) / 10
    ppm[missing] = np.nan
    return np.datetime64("1958-03-29") + 7 * np.arange(ppm.size), ppm


# The default corpus: the language reference that comes with Python, as plain English sentences.


_BULLET = re.compile(r"^(?:\* |\d+\. |\[\d+\] )\s*")
_EMPHASIS = re.compile(r"(?<![\w*])(\*\*?)(?! )([^*]+?)(?<! )\1(?![\w*])")
_TERM = re.compile(r"^( *)(?!\* |\d+\. |\[)\S.*\n(?=\1 +\S)")
_SPLIT_COMPOUND = re.compile(r"(?<=[a-z]-)\s*\n\s*(?=[a-z])")
_REFERENCE_MARK = re.compile(r"\s\[[\w.]+\](?:_)?(?=[\s.,;:)]|$)")
# End of a sentence: a full stop, an optional bracket or quote, then a capital; not after "e.g." and the like.
_SENTENCE_END = re.compile(r"(?<![ (][a-z]\.[a-z])(?<! vs)(?<!etc)([.!?][)\"']?) +(?=[A-Z(\"_])")
_PROSE_WORD = re.compile(r"\(?[A-Za-z][a-z]*(?:['\u2019-][a-z]+)*[.,;:!?)]*")


def default_corpus() -> Corpus:
    """The Python language reference from the standard library's `pydoc_data.topics`, some 40,000 words.

    Only English prose is kept: grammar, code, tables, headings, markup and line breaks are removed. Text that
    occurs in several topics is taken once, so that no paragraph is in both the training and the validation
    part. Each sentence is one line; a blank line ends each paragraph. The text differs slightly between
    versions of Python.

    Returns
    -------
    corpus
        Held in memory, about 250,000 characters.

    Raises
    ------
    CorpusError
        This Python comes without the topics.

    Examples
    --------
    >>> train, valid = default_corpus().split()
    >>> train.size > 5 * valid.size
    True
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise _check.CorpusError(
            "default_corpus: this Python comes without pydoc_data.topics, the default text; name "
            "text files instead."
        ) from None
    lines: list[str] = []
    seen: set[str] = set()
    for topic in sorted(topics):
        for paragraph in prose_paragraphs(topics[topic]):
            if paragraph not in seen:
                seen.add(paragraph)
                lines += [*_SENTENCE_END.sub(r"\1\n", paragraph).split("\n"), "\n"]
    return Corpus.from_lines(lines, "the Python language reference")


def prose_paragraphs(document: str) -> Iterator[str]:
    """The paragraphs of a documentation page that are English prose, each as one line without markup.

    Parameters
    ----------
    document
        Text in reStructuredText, or its plain-text form from Sphinx.

    Yields
    ------
    paragraph
        At least five words, most of them lower-case English, up to a closing punctuation mark.

    Examples
    --------
    >>> list(prose_paragraphs('Title\\n*****\\n\\nThe *only* one is "pass", a\\nnull operation.\\n\\n  f()'))
    ['The only one is pass, a null operation.']
    """
    for block in re.split(r"\n[ \t]*\n", document):
        # List items often have no blank lines between them.
        for part in re.split(r"\n(?=\s*(?:\* |\d+\. |\[\d+\] ))", block):
            paragraph = _plain(part)
            if _is_prose(paragraph):
                yield paragraph


def _plain(block: str) -> str:
    """One line, without the term it defines and the marks of lists, emphasis, code and footnotes."""
    text = _SPLIT_COMPOUND.sub("", _TERM.sub("", block))
    text = _BULLET.sub("", " ".join(text.split()))
    text = _EMPHASIS.sub(r"\2", text)
    text = _REFERENCE_MARK.sub("", text)
    # Straight quotes and backticks mark code here; the English quotes of this text are curly.
    text = text.replace('"', "").replace("`", "")
    return re.sub(r"(?<=\w)\(\)", "", text)


def _is_prose(text: str) -> bool:
    """Whether a paragraph is English prose: it ends like a sentence, and most of its words are words."""
    words = text.split()
    if len(words) < 5 or not text.rstrip(")'").endswith((".", ":", "!", "?")):
        return False
    if any(mark in text for mark in ("::", ">>>", "+--", "| ", "***", "===", "-[")):
        return False
    return sum(_PROSE_WORD.fullmatch(word) is not None for word in words) >= 0.75 * len(words)
