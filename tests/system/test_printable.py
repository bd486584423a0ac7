"""Which characters are spelt out, held against what Unicode says of each."""

import unicodedata

from trustml_cli.system.printable import printable, printable_value

STEERS = ("Cc", "Cs", "Zl", "Zp")  # controls, surrogates, line and paragraph separators
MARKS = ("\u061c", "\u200e", "\u200f")  # the invisible letters of Unicode's bidirectional algorithm
TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def test_controls_and_what_turns_letters_round_are_spelt_out_and_nothing_else() -> None:
    for letter in map(chr, range(0x11000)):
        kind, direction = unicodedata.category(letter), unicodedata.bidirectional(letter)
        steers = kind in STEERS or letter in MARKS or direction in TURNS
        shown = printable(letter)
        assert (shown != letter) == steers, ascii(letter)
        assert not steers or (shown.isascii() and shown.startswith("\\") and shown.isprintable()), ascii(letter)


def test_text_stays_as_it_is() -> None:
    assert printable("été 猫 😀\u200d a\\b") == "été 猫 😀\u200d a\\b"
    assert printable("a\x1b[31m\u202eb\n\t", keep="\n\t") == "a\\x1b[31m\\u202eb\n\t"
    assert [printable_value(value) for value in ("\x00", 1, None)] == ["\\x00", 1, None]
