"""Compressed files: recognised by content, and unpacked within a budget."""

import bz2
import gzip
import lzma

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import compression

FORMATS = {"gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress}
DATA = bytes(range(256)) * 5_000 + b"end"  # More than one chunk of the reader.


@pytest.mark.parametrize("compress", FORMATS.values(), ids=FORMATS)
def test_whole_files(compress):
  packed = compress(DATA)
  assert compression.unpack(packed, "x") == DATA
  assert compression.unpack(packed + packed, "x") == DATA + DATA  # As `cat a.gz b.gz` writes it.
  assert compression.unpack(packed + bytes(64), "x") == DATA  # Padding, as tape blocks have it.
  assert compression.unpack(compress(packed), "x") == DATA
  assert compression.unpack(compress(b""), "x") == b""
  assert compression.unpack(DATA, "x") == DATA


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_are_cut_off_or_damaged(name):
  packed = FORMATS[name](DATA)
  for size in (12, 20, len(packed) // 2, len(packed) - 1):
    with pytest.raises(errors.DataError, match=f"x.pb is cut off: its {name} data does not end"):
      compression.unpack(packed[:size], "x.pb")
  flipped = bytearray(packed)
  flipped[len(packed) // 2] ^= 0x55
  with pytest.raises(errors.DataError, match=f"x.pb is damaged: it starts as a {name} file"):
    compression.unpack(bytes(flipped), "x.pb")


@pytest.mark.parametrize("compress", FORMATS.values(), ids=FORMATS)
def test_a_file_that_unpacks_to_more_than_the_limit(compress, monkeypatch):
  monkeypatch.setattr(compression, "MAX_BYTES", 3 << 20)
  bomb = compress(bytes(8 << 20))
  with pytest.raises(errors.LimitError, match="x.pb unpacks to more than 3 MiB, the limit for a"):
    compression.unpack(bomb, "x.pb")
  assert len(compression.unpack(compress(bytes(3 << 20)), "x")) == 3 << 20


def test_files_that_are_compressed_again_and_again():
  packed = DATA
  for _ in range(4):
    packed = gzip.compress(packed)
  with pytest.raises(errors.DataError, match="compressed more than 3 times over"):
    compression.unpack(packed, "x")


def test_an_xz_file_that_needs_much_memory():
  packed = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])
  assert compression.unpack(packed, "x") == b"x"
  # The header of a block states how much memory its dictionary needs.
  huge = bytearray(packed)
  place = huge.index(b"\x21\x01") + 2  # The filter, the size of its settings, its dictionary.
  huge[place] = 36  # 1 GiB.
  with pytest.raises(errors.DataError, match="is damaged"):
    compression.unpack(bytes(huge), "x")


def test_small_files_that_unpack_to_much_more_are_refused():
  assert len(compression.unpack(gzip.compress(bytes(8 << 20)), "x.gz")) == 8 << 20
  with pytest.raises(errors.LimitError, match="x.gz unpacks to more than 8 MiB, which"):
    compression.unpack(gzip.compress(bytes((8 << 20) + 1)), "x.gz")
  # Two layers count together.
  with pytest.raises(errors.LimitError, match="x.gz unpacks to more than 8 MiB, which"):
    compression.unpack(gzip.compress(gzip.compress(bytes(9 << 20))), "x.gz")
