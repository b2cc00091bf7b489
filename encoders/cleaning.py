"""Text as a reader sees it. Importing this module costs nothing."""

from __future__ import annotations

import html
import re
import unicodedata

# Where a comment or a script has no end, the rest of the text belongs to it: nothing is scanned twice.
_TAG = re.compile(
    r"<!--(?:(?!-->).)*(?:-->|\Z)|<(script|style)\b(?:(?!</\1).)*(?:</\1[^<>]*>|\Z)|</?[a-z][^<>]*>",
    re.IGNORECASE | re.DOTALL,
)
MAX_CHARACTERS = 100_000
_INLINE_TAG = re.compile(r"</?(a|abbr|b|big|code|em|font|i|mark|s|small|span|strong|sub|sup|u)\b[^<>]*>", re.IGNORECASE)


def clean_text(text: str) -> str:
    """Text as a reader sees it, on one line.

    HTML tags and entities are resolved, control and other invisible characters dropped, runs of white space become
    one space, and the rest is put in Unicode normal form C. Text is read up to `MAX_CHARACTERS`.

        >>> clean_text("<p>Tom &amp; Jerry</p><p>caf\\u0065\\u0301\\x00 </p>")
        'Tom & Jerry café'
    """
    if not text:
        return ""
    text = _TAG.sub(" ", _INLINE_TAG.sub("", text[:MAX_CHARACTERS]))
    text = " ".join(unicodedata.normalize("NFC", html.unescape(text)).split())
    return text if text.isprintable() else " ".join("".join(filter(_is_visible, text)).split())


def _is_visible(character: str) -> bool:
    if character.isspace() or character in "\u200c\u200d":  # the joiners shape Persian, Indic scripts and emoji
        return True
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs")
