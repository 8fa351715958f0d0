"""Followers of growing logs, and the reader of new bytes across rotations."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.core._drivers.log_feed import GrowingFile, LogFeed


@pytest.mark.anyio
async def test_a_follower_hears_of_its_own_names_once_each() -> None:
    """Growth that is not read yet is one note, however often it came."""
    told: list[list[str]] = []
    feed = LogFeed(told.append)
    async with feed.follow(["a", "b"]) as notes:
        feed.grew("a")
        feed.grew("a")
        feed.grew("c")
        feed.grew("b")
        with anyio.fail_after(5):
            heard = {await anext(notes), await anext(notes)}
        assert {"a", "b"} == heard
        with anyio.move_on_after(0) as nothing:
            await anext(notes)
        assert nothing.cancelled_caught
    assert [["a", "b"], []] == told


@pytest.mark.anyio
async def test_a_new_source_is_told_what_is_followed() -> None:
    """After the keeper was replaced nobody has to follow again."""
    told: list[list[str]] = []
    feed = LogFeed(told.append)
    feed.renew()
    assert [] == told
    async with feed.follow(["x"]):
        feed.renew()
    assert [["x"], ["x"], []] == told


@given(
    parts=st.lists(
        st.tuples(st.booleans(), st.binary(max_size=20)), min_size=1, max_size=20
    ),
    looks=st.sets(st.integers(0, 20)),
)
def test_nothing_is_lost_or_doubled_across_rotations(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[tuple[bool, bytes]],
    looks: set[int],
) -> None:
    """Whenever one looks, the bytes read are the bytes written, one rotation a look."""
    folder = tmp_path_factory.mktemp("log")
    path = folder / "web.log"
    path.touch()
    file = GrowingFile(str(path), 0)
    read = b""
    rotations = 0
    for number, (rotate, content) in enumerate(parts):
        if rotate:
            # More than one rotation between two looks is the keeper's index's business.
            read += file.read_new()
            rotations += 1
            path.rename(folder / f"web.log.{rotations}")
            path.touch()
        with path.open("ab") as stream:
            stream.write(content)
        if number in looks:
            read += file.read_new()
    read += file.read_new()
    file.close()
    assert b"".join(content for _, content in parts) == read


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    """Following may begin before the first line was ever written."""
    path = tmp_path / "late.log"
    file = GrowingFile.at_end(str(path))
    assert b"" == file.read_new()
    path.write_bytes(b"first\n")
    assert b"first\n" == file.read_new()
    file.close()
