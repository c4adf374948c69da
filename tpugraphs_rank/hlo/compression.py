"""Unpacks gzip, xz and bzip2, recognised by content, within a budget."""

import bz2
from collections.abc import Callable
import lzma
from typing import Protocol
import zlib

from tpugraphs_rank import errors

# Of a file, and of what it unpacks to. The largest programs that XLA dumps have a few hundred
# megabytes; Protobuf itself reads at most 2 GiB.
MAX_BYTES = 512 << 20
# Programs compress to a fifth or a fiftieth. A small file that unpacks to much more takes memory:
# parsed, a program needs about 40 times its bytes.
_MAX_RATIO = 250
_ALWAYS_ALLOWED = 8 << 20
# A compressed file in a compressed file is common (a .tar.gz is not read); more is an attack.
_MAX_LAYERS = 3
_CHUNK = 1 << 20


class _Decompressor(Protocol):
  """What the decompressors of the standard library share."""

  @property
  def eof(self) -> bool:
    ...

  @property
  def unused_data(self) -> bytes:
    ...

  @property
  def needs_input(self) -> bool:
    ...

  def decompress(self, data: bytes, max_length: int = -1) -> bytes:
    ...


class _Gzip:
  """zlib's decompressor with the interface of the other two."""

  def __init__(self) -> None:
    self._inner = zlib.decompressobj(wbits=31)

  @property
  def eof(self) -> bool:
    return self._inner.eof

  @property
  def unused_data(self) -> bytes:
    return self._inner.unused_data

  @property
  def needs_input(self) -> bool:
    return not self._inner.unconsumed_tail

  def decompress(self, data: bytes, max_length: int = -1) -> bytes:
    return self._inner.decompress(self._inner.unconsumed_tail + data, max(max_length, 0))


_FORMATS: tuple[tuple[bytes, str, Callable[[], _Decompressor]], ...] = (
    (b"\x1f\x8b", "gzip", _Gzip),
    # A file states how much memory it needs; `xz -9` needs 65 MiB.
    (b"\xfd7zXZ\x00", "xz", lambda: lzma.LZMADecompressor(memlimit=256 << 20)),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
)


def unpack(data: bytes, source: str) -> bytes:
  """The content of a compressed file; other content is returned as it is.

  Args:
    data: content of the file.
    source: its name in error messages.

  Raises:
    DataError: the file is cut off or damaged.
    LimitError: it unpacks to more than `MAX_BYTES`, or to more than 8 MiB and 250 times its size.
  """
  most = min(MAX_BYTES, max(_ALWAYS_ALLOWED, _MAX_RATIO * len(data)))
  for _ in range(_MAX_LAYERS):
    for magic, name, start in _FORMATS:
      if data.startswith(magic):
        data = _unpack(data, source, name, start, most)
        break
    else:
      return data
  if any(data.startswith(magic) for magic, _, _ in _FORMATS):
    raise errors.DataError(
        f"{source} is compressed more than {_MAX_LAYERS} times over; expected a compressed "
        "program; unpack the file first")
  return data


def _unpack(
    data: bytes, source: str, name: str, start: Callable[[], _Decompressor], most: int) -> bytes:
  unpacked = bytearray()
  while data:
    decompressor = start()
    rest = data
    while not decompressor.eof:
      try:
        unpacked += decompressor.decompress(rest, _CHUNK)
      except (zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise errors.DataError(
            f"{source} is damaged: it starts as a {name} file, but cannot be unpacked ({error}); "
            "copy or download it again") from error
      if most < len(unpacked) <= MAX_BYTES:
        raise errors.LimitError(
            f"{source} unpacks to more than {most >> 20} MiB, which is suspicious for such a small "
            "file; unpack it yourself if you trust it")
      if len(unpacked) > MAX_BYTES:
        raise errors.LimitError(
            f"{source} unpacks to more than {MAX_BYTES >> 20} MiB, the limit for a program; it "
            "is not an HLO file, or it is damaged")
      rest = b""
      if decompressor.needs_input and not decompressor.eof:
        raise errors.DataError(
            f"{source} is cut off: its {name} data does not end; copy or download it again")
    # Further files may follow in the same format. Anything else is padding.
    data = decompressor.unused_data.lstrip(b"\x00")
    if not any(data.startswith(magic) for magic, other, _ in _FORMATS if other == name):
      break
  return bytes(unpacked)
