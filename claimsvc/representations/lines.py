"""Splits what arrives in pieces into lines."""


class Lines:
    """The lines of a file that arrives in pieces, however small: each byte is looked at once."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the lines that end in this piece, without their line breaks."""
        head, line_break, tail = piece.partition(b"\n")
        self._rest += head
        if not line_break:
            return []
        *lines, rest = tail.split(b"\n")
        found = [bytes(self._rest), *lines]
        self._rest = bytearray(rest)
        return found

    @property
    def rest_bytes(self) -> int:
        """The length of the line that no line break has ended yet."""
        return len(self._rest)

    def rest(self) -> bytes:
        """That line."""
        return bytes(self._rest)
