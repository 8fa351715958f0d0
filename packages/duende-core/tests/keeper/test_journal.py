"""The journal: what was written comes back; what was damaged is skipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from duende.core.keeper import (
    History,
    Journal,
    decode_journal,
    decode_record,
    encode_record,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
RECORDS = st.dictionaries(st.text(min_size=1).filter(lambda k: k != "crc"), JSON)


@given(RECORDS.filter(bool))
def test_a_record_comes_back(record: dict[str, Any]) -> None:
    """Reading is the inverse of writing, but for the checksum."""
    read = decode_record(encode_record(record).rstrip(b"\n"))
    assert read == record


@given(st.data())
def test_a_flipped_bit_loses_one_record_at_most(data: st.DataObject) -> None:
    """A line with any one bit changed is skipped, and its neighbours are not."""
    records: list[dict[str, Any]] = [{"t": "seq", "q": number} for number in (1, 2, 3)]
    lines = [encode_record(record) for record in records]
    position = data.draw(st.integers(0, len(lines[1]) - 2))
    bit = data.draw(st.integers(0, 7))
    damaged = bytearray(lines[1])
    damaged[position] ^= 1 << bit
    read = list(decode_journal(lines[0] + bytes(damaged) + lines[2]))
    assert read == [records[0], records[2]]


@given(st.binary(), st.integers(0, 40))
def test_garbage_and_truncation_are_borne(garbage: bytes, cut: int) -> None:
    """Whatever follows the sound lines, they are read and nothing is raised."""
    sound = encode_record({"t": "put", "name": "", "blob": 7})
    torn = sound[:cut]
    read = list(decode_journal(sound + garbage + b"\n" + sound + torn))
    assert read[0] == {"t": "put", "name": "", "blob": 7}
    assert {"t": "put", "name": "", "blob": 7} in read[1:]


@given(st.lists(st.dictionaries(st.sampled_from(["t", "name", "run", "q"]), JSON)))
def test_no_record_can_break_the_history(records: list[dict[str, Any]]) -> None:
    """Sound lines with senseless fields (from the future, say) are ignored."""
    history = History()
    for record in records:
        history.apply(record)


def test_a_start_replaces_the_run_before_it() -> None:
    """After an intent, what is known of the last run is gone; the blob is not."""
    history = History()
    history.apply({"t": "put", "name": "web", "blob": {"restarts": 3}})
    history.apply({"t": "intent", "name": "web", "run": "1", "blob": {"restarts": 4}})
    history.apply({"t": "pid", "name": "web", "run": "1", "pid": 9, "start": 5, "q": 8})
    history.apply({"t": "exit", "name": "web", "run": "1", "exit": {"code": 0}, "q": 9})
    history.apply({"t": "intent", "name": "web", "run": "2"})
    slot = history.slots["web"]
    assert slot["intent"] is True
    assert "pid" not in slot
    assert "exit" not in slot
    assert history.seq == 9


def test_a_late_record_of_another_run_is_ignored() -> None:
    """A record names its run; one of an older run changes nothing."""
    history = History()
    history.apply({"t": "intent", "name": "web", "run": "2"})
    history.apply({"t": "exit", "name": "web", "run": "1", "exit": {"code": 1}})
    assert "exit" not in history.slots["web"]


def test_a_full_disk_is_borne_and_made_good(tmp_path: Path) -> None:
    """Without a writable file it goes on in memory; later all of it is written."""
    folder = os.open(tmp_path, os.O_RDONLY)
    state = [{"t": "put", "name": "", "blob": "everything"}]
    journal = Journal(folder, lambda: list(state))
    journal.compact()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal.fd)
    os.close(full)
    journal.add({"t": "seq", "q": 1})
    journal.flush()
    assert not journal.ok
    journal._retry_at = 0.0
    journal.add({"t": "seq", "q": 2})
    journal.flush()
    assert journal.ok
    assert journal.read().blob == "everything"
    os.close(journal.fd)
    os.close(folder)
