"""Whole numbers as protobuf writes them."""


def encoded(number: int) -> bytes:
  """A number of at least 0 as a varint."""
  result = bytearray()
  while number > 0x7F:
    result.append(number & 0x7F | 0x80)
    number >>= 7
  result.append(number)
  return bytes(result)
