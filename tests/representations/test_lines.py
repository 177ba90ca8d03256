"""Lines do not depend on the pieces in which they arrive."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.representations.code_files import CSV, NDJSON, BadCodeFileError, RowReader
from claimsvc.representations.lines import Lines


@given(st.lists(st.sampled_from([b"", b"a", b"\n", b"a\nb", b"\n\n", b"\r\n", b"abc"])))
def test_lines_are_those_of_the_whole(pieces: Sequence[bytes]) -> None:
    lines = Lines()
    found = [line for piece in pieces for line in lines.feed(piece)]
    assert lines.rest_bytes == len(lines.rest())
    assert [*found, lines.rest()] == b"".join(pieces).split(b"\n")


@pytest.mark.parametrize("media_type", [CSV, NDJSON])
@pytest.mark.parametrize("length", [1, 100, 10_000])
def test_a_row_that_is_too_long_is_refused_in_whatever_pieces_it_arrives(media_type: str, length: int) -> None:
    data = b"a\n" + b"b" * 4097 + b"\nc\n"
    reader = RowReader(media_type)
    with pytest.raises(BadCodeFileError, match="longer than 4096 bytes"):
        for start in range(0, len(data), length):
            reader.feed(data[start : start + length])
