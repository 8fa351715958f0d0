"""Where a log is cut: the pure function, against a model that sees whole lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from duende.core.keeper import plan_cuts


def files_of_model(data: bytes, limit: int) -> list[bytes]:
    """This cuts a whole stream, line by line, the obvious way."""
    files = [b""]
    for line in data.splitlines(keepends=True):
        if len(files[-1]) + len(line) > limit and files[-1]:
            files.append(b"")
        while len(line) > limit:
            files[-1] = line[:limit]
            files.append(b"")
            line = line[limit:]
        files[-1] += line
    return files


def files_of_plan(chunks: list[bytes], limit: int) -> list[bytes]:
    """This carries out the plans for a stream that comes in chunks."""
    files = [b""]
    line_start = 0
    for chunk in chunks:
        steps, size, line_start = plan_cuts(
            len(files[-1]), line_start, limit, chunk, len(chunk)
        )
        for carry, begin, stop in steps:
            if carry is not None:
                cut = len(files[-1]) - carry
                files.append(files[-1][cut:])
                files[-2] = files[-2][:cut]
            files[-1] += chunk[begin:stop]
        assert size == len(files[-1])
    return files


LINES = st.lists(st.sampled_from([b"\n", b"a", b"bc\n", b"defgh", b"ijklmnopqrs\n"]))


@given(LINES, st.integers(1, 12), st.lists(st.integers(1, 7), min_size=1))
def test_any_chunks_give_the_files_of_whole_lines(
    pieces: list[bytes], limit: int, sizes: list[int]
) -> None:
    """However the bytes arrive, files end at line ends, or at the limit exactly."""
    data = b"".join(pieces)
    chunks: list[bytes] = []
    rest = data
    while rest:
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(rest[:size])
        rest = rest[size:]
    files = files_of_plan(chunks, limit)
    assert b"".join(files) == data
    assert all(len(file) <= limit for file in files)
    expected = files_of_model(data, limit)
    if data and not data.endswith(b"\n"):
        # The last, unfinished line may still stand behind the one before it.
        assert b"".join(expected) == data
    else:
        assert [file for file in files if file] == [file for file in expected if file]


def test_rotation_at_every_offset() -> None:
    """For every limit and every split of two lines, none is torn unless it must."""
    data = b"first\nsecond line\nthird\n"
    for limit in range(12, len(data) + 2):
        for cut in range(len(data) + 1):
            files = files_of_plan([data[:cut], data[cut:]], limit)
            assert b"".join(files) == data
            assert all(file.endswith(b"\n") for file in files if file)
            assert all(len(file) <= limit for file in files)


def test_a_line_longer_than_a_file_is_cut_hard() -> None:
    """The size is a promise; a line that breaks it is broken."""
    assert [b"aaaa", b"aaaa", b"a\nb\n"] == files_of_plan([b"aaaaaaaaa\nb\n"], 4)
