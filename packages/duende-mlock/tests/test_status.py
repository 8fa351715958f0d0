"""How much of this process is locked."""

from __future__ import annotations

import ctypes
import errno
import mmap
import pathlib
import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.mlock import MlockError, is_locked, locked_bytes, status

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@given(
    kilobytes=st.integers(0, 2**50),
    before=st.lists(st.binary(max_size=20).map(lambda line: b"Name:\t" + line)),
    padding=st.integers(1, 12),
)
def test_parse_finds_the_line(
    kilobytes: int, before: list[bytes], padding: int
) -> None:
    """The number is found wherever the line stands, however it is padded."""
    before = [line.replace(b"\n", b"") for line in before]
    line = b"VmLck:\t" + b" " * padding + str(kilobytes).encode() + b" kB"
    text = b"\n".join([*before, line, b"Threads:\t1", b""])
    assert kilobytes * 1024 == status.parse_locked_bytes(text)


@given(st.binary())
def test_parse_says_no_in_one_way(text: bytes) -> None:
    """Whatever comes in, the answer is a number or a ValueError."""
    try:
        assert status.parse_locked_bytes(text) >= 0
    except ValueError:
        pass


@pytest.mark.parametrize(
    "text", [b"", b"VmLck:\t-4 kB\n", b"VmLck:\t4 MB\n", b"VmLck:\n", b"XVmLck: 4 kB"]
)
def test_parse_refuses(text: bytes) -> None:
    """A line that says something else is an error, never a zero."""
    with pytest.raises(ValueError):
        status.parse_locked_bytes(text)


@linux
def test_a_locked_page_is_seen() -> None:
    """One page that mlock(2) holds raises the number by a page, and back."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = mmap.PAGESIZE
    with mmap.mmap(-1, size) as memory:
        before = locked_bytes()
        buffer = (ctypes.c_char * size).from_buffer(memory)
        address = ctypes.c_void_p(ctypes.addressof(buffer))
        if libc.mlock(address, ctypes.c_size_t(size)) != 0:
            del buffer
            pytest.skip("this process may not lock a page (RLIMIT_MEMLOCK)")
        try:
            assert before + size == locked_bytes()
            assert is_locked()
        finally:
            libc.munlock(address, ctypes.c_size_t(size))
            del buffer
        assert before == locked_bytes()


@linux
def test_nothing_is_locked_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """A process that locked nothing is not locked."""
    path = tmp_path / "status"
    path.write_bytes(b"VmLck:\t       0 kB\n")
    monkeypatch.setattr(status, "STATUS", str(path))
    assert not is_locked()


@linux
def test_no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Without /proc the error has the errno of the attempt and says where to look."""
    monkeypatch.setattr(status, "STATUS", str(tmp_path / "none"))
    with pytest.raises(MlockError, match="is /proc mounted") as caught:
        locked_bytes()
    assert errno.ENOENT == caught.value.errno


@linux
def test_no_line(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """A kernel that has no such line is not read as "nothing is locked"."""
    path = tmp_path / "status"
    path.write_bytes(b"Name:\tkthreadd\n")
    monkeypatch.setattr(status, "STATUS", str(path))
    with pytest.raises(MlockError, match="VmLck") as caught:
        locked_bytes()
    assert errno.ENOTSUP == caught.value.errno


def test_another_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody tells, the error says so instead of guessing."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(MlockError, match="darwin does not tell") as caught:
        is_locked()
    assert errno.ENOTSUP == caught.value.errno


def test_error_survives_pickling() -> None:
    """An error that crosses to another process is the same error."""
    error = MlockError(errno.ENOTSUP, "no", "/proc/self/status")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(error), error.args, error.filename) == (
        type(copy),
        copy.args,
        copy.filename,
    )
