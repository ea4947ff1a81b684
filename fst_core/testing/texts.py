# ruff: noqa: RUF001  # letters of many scripts are what these texts are for
"""Texts for tokenizers: some to learn from, and some that tokenizers get wrong."""

from __future__ import annotations

__all__ = ["ADVERSARIAL", "CONTROL_SPELLINGS", "CORPUS"]

CORPUS = (
    "The quick brown fox jumps over the lazy dog. It was not amused; the fox was.",
    "Шла Саша по шоссе и сосала сушку, а в четверг четвёртого числа шёл дождь.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "Le cœur a ses raisons que la raison ne connaît point.",
    "いろはにほへと ちりぬるを。天地玄黃,宇宙洪荒。",
    "صِف خَلقَ خَودِ كَمِثلِ الشَمسِ إِذ بَزَغَت",
    "def add(a: int, b: int) -> int:\n    return a + b  # 1 + 1 == 2\n",
)
"""What a tokenizer that learns is fitted to, unless its contract has texts of its own."""

CONTROL_SPELLINGS = (
    "[DOC_START]", "[DOC_END]", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>", "<|pad|>",
    "<s>", "</s>", "<pad>", "<unk>", "<bos>", "<eos>", "<mask>",
)  # fmt: skip
"""How tokenizers spell their control tokens; a text that holds one is text all the same."""

_WHITE_SPACE = (
    " ", "\n", "\t", "\x85", "\u2028", "\u3000", " leading", "trailing ", "  both  ",
    " " * 300, "a" + " " * 70 + "b" + "\n" * 70 + "c",
    "CRLF\r\nLF\nCR\rend\r\n\r\n", "\n\n \n\t\n",
)  # fmt: skip
_SCRIPTS = (
    "The quick brown fox.",
    "Ещё не всё — «ёлка», но уже.",
    "Straße, naïve, Ænima, Łódź, İstanbul, ﬁne",
    "Ελληνικά",
    "עברית שָׁלוֹם",
    "العربية تُكتب من اليمين",
    "\u202bעברית\u202c and \u200fEnglish\u200e",
    "हिन्दी में लिखा",
    "ภาษาไทยไม่มีช่องว่าง",
    "한국어 日本語と漢字",
)
_MARKS = (
    "e\u0301 is not \u00e9",
    "Z\u0351\u036b\u0343a\u0363\u0346l\u035bg\u0321o\u033d",  # marks upon marks
    "\U0001f469\u200d\U0001f680 \U0001f468\u200d\U0001f469\u200d\U0001f467",  # joined by ZWJ
    "\U0001f44d\U0001f3fd \U0001f1ea\U0001f1fa \u2764\ufe0f",  # skin, a flag, a variation selector
    "\U0001d54f\U00020000\U0010ffff",  # beyond the basic plane
)
_OTHERS = (
    "a", "a" * 300, "\0", "a\0b\0", "\x7f", "\ufffd", "\ufeffBOM",
    "for (int i = 0; i < n; ++i) {\n\tx[i] &= ~0xFFu;\t// 100%\n}\n",
    "3.14159 -1e-10 1,000,000 ½ ² Ⅷ", "don't won’t I'LL 'tis",
    "https://example.org/a?b=c&d=%20#e", '<p class="x">&amp;</p>',
)  # fmt: skip

ADVERSARIAL = (
    *_WHITE_SPACE,
    *_SCRIPTS,
    *_MARKS,
    *_OTHERS,
    *CONTROL_SPELLINGS,
    *(f"a{each}b" for each in CONTROL_SPELLINGS),
    f" {' '.join(CONTROL_SPELLINGS)} ",
)
"""Texts that tokenizers get wrong."""
