"""Files that others made: compressed ones are read to their end or refused, and none fills the memory."""

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from looped import reading
from looped.reading import read_text, stream_lines, stream_text

TEXT = "first line\nsecond ä 日本 🙂\x0c\u2028 the same line\r\n" * 3000
SKIPPABLE = b"\x5a\x2a\x4d\x18\x03\0\0\0abc"  # a frame without text
PACK = {".xz": lzma.compress, ".gz": gzip.compress, ".zst": zstandard.compress}
ONE, TWO = TEXT[:1000].encode(), TEXT[1000:].encode()


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("ending", PACK)
def test_all_frames_are_read(ending: str, tmp_path: Path):
    pack = PACK[ending]
    assert read_text(write(tmp_path, f"one{ending}", pack(TEXT.encode()))) == TEXT
    assert read_text(write(tmp_path, f"two{ending}", pack(ONE) + pack(TWO))) == TEXT
    assert read_text(write(tmp_path, "two.txt", pack(ONE) + pack(TWO))) == TEXT  # the content decides, not the name


def test_what_the_formats_allow_between_frames(tmp_path: Path):
    xz, gz, zst = PACK.values()
    assert read_text(write(tmp_path, "a.xz", xz(ONE) + bytes(4096) + xz(TWO) + bytes(8))) == TEXT
    assert read_text(write(tmp_path, "a.gz", gz(ONE) + gz(TWO) + bytes(7))) == TEXT
    assert read_text(write(tmp_path, "a.zst", SKIPPABLE + zst(ONE) + SKIPPABLE + zst(TWO) + SKIPPABLE)) == TEXT


@pytest.mark.parametrize("ending", PACK)
@given(data=st.data())
def test_a_cut_file_is_refused(ending: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory):
    pack = PACK[ending]
    content = pack(ONE) + pack(TWO)
    ends = {len(pack(ONE)), len(content)}
    cut = data.draw(st.integers(1, len(content) - 1).filter(lambda n: n not in ends))
    path = write(tmp_path_factory.getbasetemp(), f"cut{ending}", content[:cut])
    with pytest.raises(ValueError, match="damaged or cut short"):
        read_text(path)


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("rest", [b"garbage", b"\0\0\0x", b"\n", b"\xfd7zXZ", b"\0" * 6 + b"text"])
def test_what_follows_the_last_frame_is_refused(ending: str, rest: bytes, tmp_path: Path):
    with pytest.raises(ValueError, match=f"a{ending}: the compressed file is damaged or cut short"):
        read_text(write(tmp_path, f"a{ending}", PACK[ending](TEXT.encode()) + rest))


def test_padding_that_the_formats_do_not_allow(tmp_path: Path):
    for name, content in {"a.xz": PACK[".xz"](ONE) + bytes(3), "a.zst": PACK[".zst"](ONE) + bytes(4)}.items():
        with pytest.raises(ValueError, match="damaged or cut short"):
            read_text(write(tmp_path, name, content))


def test_a_changed_byte_is_noticed(tmp_path: Path):
    for ending, pack in PACK.items():
        if ending != ".zst":  # a checksum is optional there
            content = bytearray(pack(TEXT.encode()))
            content[len(content) // 2] ^= 1
            with pytest.raises(ValueError, match="damaged or cut short"):
                read_text(write(tmp_path, f"a{ending}", bytes(content)))


@pytest.mark.parametrize("ending", ["", *PACK])
def test_a_bomb_is_refused_early(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    content = PACK.get(ending, bytes)(b"a" * 40_000_000)
    path = write(tmp_path, f"bomb.txt{ending}", content)
    monkeypatch.setenv("LOOPED_MAX_TEXT", "30000000")
    taken: list[int] = []
    with pytest.raises(ValueError, match=r"bomb\.txt.*: more than 30000000 bytes of text; .*LOOPED_MAX_TEXT=N reads"):
        taken.extend(map(len, stream_text(path)))
    assert sum(taken) <= 30_000_000
    monkeypatch.setenv("LOOPED_MAX_TEXT", "40000000")
    assert len(read_text(path)) == 40_000_000


def test_the_limit_follows_the_size_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "MIB", 1)  # 256 bytes instead of 256 MiB
    plain = write(tmp_path, "plain.txt", b"words " * 1000)
    assert len("".join(stream_text(plain))) == 6000
    with pytest.raises(ValueError, match="more than 1024 bytes of text"):
        read_text(plain)
    packed = lzma.compress(b"a" * 100_000)
    with pytest.raises(ValueError, match=f"more than {100 * len(packed)} bytes of text"):
        list(stream_text(write(tmp_path, "bomb.xz", packed)))


def test_a_limit_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOOPED_MAX_TEXT", "2 GB")
    with pytest.raises(ValueError, match="LOOPED_MAX_TEXT='2 GB': expected a number of bytes"):
        read_text(write(tmp_path, "a.txt", b"text"))


def test_memory_of_the_decoder_is_bounded(tmp_path: Path):
    large = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}]
    packed = lzma.compress(ONE, filters=large)
    with pytest.raises(ValueError, match="decompressing it needs more than 128 MiB of memory"):
        read_text(write(tmp_path, "a.xz", packed))


@given(text=st.text(st.sampled_from("a\n\r é日🙂\x0c\u2028\ufeff"), min_size=1), size=st.integers(1, 5))
def test_lines_and_characters_across_chunks(text: str, size: int, tmp_path_factory: pytest.TempPathFactory):
    path = write(tmp_path_factory.getbasetemp(), "chunks.txt", f"\ufeffx{text}".encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "CHUNK", size + 2)  # a byte order mark has three bytes
        assert "".join(stream_text(path)) == f"x{text}"
        assert list(stream_lines(path)) == f"x{text}".split("\n")


@pytest.mark.parametrize(("content", "place"), [(b"\xff", 0), (b"abc\xc3", 3), ("é".encode() * 9 + b"\x80a", 18)])
def test_the_place_of_a_bad_byte(content: bytes, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for chunk in (1, 2, 3, 1000):
        monkeypatch.setattr(reading, "CHUNK", chunk)
        with pytest.raises(ValueError, match=rf"a\.txt: not UTF-8 text \(byte {place}\)"):
            read_text(write(tmp_path, "a.txt", content))


def test_files_without_text(tmp_path: Path):
    for content in (b"", b" \n\x0c", b"\xef\xbb\xbf"):
        with pytest.raises(ValueError, match=r"a\.txt: empty file"):
            read_text(write(tmp_path, "a.txt", content))
    with pytest.raises(ValueError, match="absent: No such file"):
        read_text(tmp_path / "absent")
    with pytest.raises(ValueError, match="Is a directory"):
        read_text(tmp_path)


def test_a_line_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "LINE", 1_500_000)
    path = write(tmp_path, "a.txt", b"a" * 3_000_000)
    with pytest.raises(ValueError, match="a line of more than 1500000 characters; LOOPED_MAX_TEXT=N allows N"):
        list(stream_lines(path))
