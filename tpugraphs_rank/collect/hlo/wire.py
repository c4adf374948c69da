"""Fields of XLA's messages that the package's own `.proto` files do not declare, by their numbers.

Protobuf keeps such fields as bytes. This module reads, adds and removes them; see
https://protobuf.dev/programming-guides/encoding for the format.
"""

from collections.abc import Collection, Iterator

from google.protobuf import message as protobuf_message
from google.protobuf import unknown_fields

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import varint

VARINT, FIXED_64, LENGTH_DELIMITED, FIXED_32 = 0, 1, 2, 5


def encoded(number: int, value: int | bytes) -> bytes:
  """A field as bytes: a number (0 or more), or the content of a string or message."""
  if isinstance(value, int):
    return varint.encoded(number << 3 | VARINT) + varint.encoded(value)
  return varint.encoded(number << 3 | LENGTH_DELIMITED) + varint.encoded(len(value)) + value


def undeclared(message: protobuf_message.Message, number: int) -> list[int | bytes]:
  """The values of a field that the message's type does not declare, in their order."""
  return [field.data for field in unknown_fields.UnknownFieldSet(message)
          if field.field_number == number]


def numbers(content: bytes, number: int) -> list[int]:
  """The values of a repeated whole number in a message, packed or not."""
  values: list[int] = []
  for found, kind, value in fields(content):
    if found == number and kind == VARINT:
      values.append(int.from_bytes(value, "little"))
    elif found == number and kind == LENGTH_DELIMITED:
      values += unpacked(value)
  return values


def unpacked(content: bytes) -> list[int]:
  """The whole numbers of a packed field."""
  values, position = [], 0
  while position < len(content):
    value, position = _read_varint(content, position)
    values.append(value)
  return values


def fields(content: bytes) -> Iterator[tuple[int, int, bytes]]:
  """The fields of a message: number, wire type and content (little-endian, for a number).

  Raises:
    DataError: the bytes are no message.
  """
  for number, kind, value, _ in _fields(content):
    yield number, kind, value


def without(content: bytes, removed: Collection[int]) -> bytes:
  """A message without some of its fields.

  Raises:
    DataError: the bytes are no message.
  """
  return b"".join(whole for number, _, _, whole in _fields(content) if number not in removed)


def _fields(content: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
  position = 0
  while position < len(content):
    start = position
    tag, position = _read_varint(content, position)
    kind = tag & 7
    if kind == VARINT:
      number, position = _read_varint(content, position)
      value = number.to_bytes(10, "little")
    else:
      if kind == LENGTH_DELIMITED:
        length, position = _read_varint(content, position)
      elif kind in (FIXED_64, FIXED_32):
        length = 8 if kind == FIXED_64 else 4
      else:
        raise errors.DataError(f"byte {start} of a message has the wire type {kind}; expected 0, "
                               "1, 2 or 5; the program is damaged: dump it again")
      value = content[position:position + length]
      position += length
    yield tag >> 3, kind, value, content[start:position]


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
  value = shift = 0
  while position < len(content) and shift < 70:
    byte = content[position]
    position += 1
    value |= (byte & 127) << shift
    shift += 7
    if byte < 128:
      return value, position
  raise errors.DataError("a message ends within a number; the program is damaged: dump it again")
