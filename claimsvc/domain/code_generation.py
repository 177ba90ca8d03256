"""Generating codes from a pattern: which codes it allows, and drawing them at random."""

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice

# So a guess at a generated code of a coupon succeeds at most once in this many tries.
FEWEST_POSSIBILITIES_PER_CODE = 1000
# A pattern of at most this many codes is drawn from until none is left.
_MOST_SHUFFLED = 2**20

# Of characters that are easily confused in handwriting, small print or speech (0 O, 1 I L, 2 Z, 5 S, 6 G, 8 B, U V),
# the two alphabets together contain at most one.
_LETTERS = "ACDEFHJKMNPQRTVWXY"
_DIGITS = "23456789"
# Syllables of KS X 1001, which every keyboard and font supports, without a final consonant. The vowels are easy to
# distinguish by eye and ear; ㅐ and ㅔ are not, nor are ㅒ, ㅖ, ㅙ, ㅚ, ㅞ.
_INITIALS = (0, 2, 3, 5, 6, 7, 9, 11, 12, 14, 15, 16, 17, 18)  # no doubled consonants: ㄲ looks like ㄱ
_VOWELS = (0, 4, 8, 13, 18, 20)  # ㅏ ㅓ ㅗ ㅜ ㅡ ㅣ
_SYLLABLES = "".join(chr(0xAC00 + (initial * 21 + vowel) * 28) for initial in _INITIALS for vowel in _VOWELS)
# Sequences of strings, not strings: indexing those would make an object for each Hangul syllable of each code.
_ALPHABETS: Mapping[str, Sequence[str]] = {
    "A": tuple(_LETTERS),
    "9": tuple(_DIGITS),
    "가": tuple(_SYLLABLES),
}

GENERATION_PATTERN = r"^[A-Z0-9가_-]{1,64}$"
"""`A` is a letter, `9` a digit, `가` a Hangul syllable, and anything else is itself."""
GENERATION_RULE = (
    "1 to 64 characters of A-Z 0-9 _ - and 가: `A` becomes a random letter, `9` a digit and `가` a Hangul syllable, "
    "without look-alikes; other characters stay as they are"
)


def possibilities(pattern: str) -> int:
    """Return how many different codes the pattern allows."""
    count = 1
    for place in pattern:
        count *= len(_alphabet(place))
    return count


def is_hard_to_guess(pattern: str, codes: int) -> bool:
    """Whether a coupon may have so many codes of the pattern."""
    return possibilities(pattern) >= codes * FEWEST_POSSIBILITIES_PER_CODE


def regular_expression(pattern: str) -> str:
    """Return a regular expression that matches exactly the codes of the pattern, for PostgreSQL and Python."""
    parts = (f"[{''.join(_alphabet(place))}]{{{len(list(run))}}}" for place, run in groupby(pattern))
    return f"^{''.join(parts)}$"


def make_codes(pattern: str, count: int) -> list[str]:
    """Return `count` different codes of the pattern, cryptographically random.

    Does not end if the pattern allows fewer than `count`; see `possibilities`.
    """
    made: dict[str, None] = {}
    while len(made) < count:
        missing = count - len(made)
        columns = [_column(_alphabet(place), missing) for place in pattern]
        made.update(dict.fromkeys(map("".join, zip(*columns, strict=True))))
    return list(made)


class Draws:
    """Draws codes of a pattern at random, a few at a time.

    Of a small pattern each code is drawn once, in a random order. Of a large one codes are drawn independently, up to a
    number that finds unused ones even if millions exist already.

    Args:
        pattern: see `GENERATION_PATTERN`.
        count: how many unused codes are wanted.
    """

    def __init__(self, pattern: str, count: int) -> None:
        self._pattern = pattern
        size = possibilities(pattern)
        self._shuffled = _shuffled(pattern, size) if size <= _MOST_SHUFFLED else None
        self._left = size if self._shuffled is not None else _MOST_SHUFFLED + 20 * count

    def draw(self, count: int) -> list[str]:
        """Return the next codes, all different: `count`, or fewer at the end, and finally none."""
        count = min(count, self._left)
        self._left -= count
        return make_codes(self._pattern, count) if self._shuffled is None else list(islice(self._shuffled, count))


def _shuffled(pattern: str, size: int) -> Iterator[str]:
    """Yield every code of the pattern once, in a random order (Fisher and Yates)."""
    alphabets = [_alphabet(place) for place in pattern]
    numbers = array("I", range(size))
    for last in range(size - 1, -1, -1):
        drawn = int.from_bytes(os.urandom(8)) % (last + 1)  # the bias is below 1e-13
        number, numbers[drawn] = numbers[drawn], numbers[last]
        code = []
        for alphabet in alphabets:
            number, place = divmod(number, len(alphabet))
            code.append(alphabet[place])
        yield "".join(code)


def _alphabet(place: str) -> Sequence[str]:
    return _ALPHABETS.get(place, (place,))


def _column(alphabet: Sequence[str], count: int) -> list[str]:
    """Return one character of each of `count` codes. The modulo bias is below 1e-7."""
    size = len(alphabet)
    return [alphabet[number % size] for number in array("I", os.urandom(4 * count))]
