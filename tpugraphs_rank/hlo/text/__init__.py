"""Reads HLO text, as XLA prints it, into an `HloModuleProto`.

The grammar is XLA's (`xla/hlo/parser`), old and new: names with and without `%`, operands with and
without shapes. Only what `hlo.proto` declares is kept; all other attributes are passed over.

The reader takes time in proportion to the size of the text, and does not recurse.
"""

from tpugraphs_rank.hlo.text.parser import parse

__all__ = ["parse"]
