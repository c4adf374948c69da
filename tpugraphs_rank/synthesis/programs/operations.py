"""The operations of dataflow graphs: HLO opcodes by name, reductions named by their combiner.

A dataflow graph is a program's HLO without its notation: no combiners of reductions, no called
computations, no chains of reshapes around a broadcast, no broadcasts of constants. See `dataflow`.
"""

from collections.abc import Iterable

PARAMETER, CONSTANT, IOTA = "parameter", "constant", "iota"
BROADCAST, RESHAPE, TRANSPOSE, CONVERT = "broadcast", "reshape", "transpose", "convert"
DOT, CONVOLUTION, GATHER = "dot", "convolution", "gather"
SLICE, CONCATENATE, SELECT, COMPARE = "slice", "concatenate", "select", "compare"

FLOATS: frozenset[str] = frozenset({"f32", "bf16"})
NUMBERS: frozenset[str] = FLOATS | {"s32"}
TYPES: frozenset[str] = NUMBERS | {"pred"}
_WHOLE: frozenset[str] = frozenset({"s32", "pred"})

# Elementwise operation -> element types of its operands; its result has the same type.
UNARY: dict[str, frozenset[str]] = {
    **dict.fromkeys(("abs", "negate", "sign"), NUMBERS),
    **dict.fromkeys(("exponential", "exponential-minus-one", "log", "log-plus-one", "logistic",
                     "sqrt", "rsqrt", "cbrt", "tanh", "sine", "cosine", "floor", "ceil",
                     "round-nearest-afz", "round-nearest-even"), FLOATS),
    "not": _WHOLE}
BINARY: dict[str, frozenset[str]] = {
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "maximum", "minimum", "remainder"),
                    NUMBERS),
    **dict.fromkeys(("power", "atan2"), FLOATS),
    **dict.fromkeys(("and", "or", "xor"), _WHOLE),
    **dict.fromkeys(("shift-left", "shift-right-arithmetic", "shift-right-logical"),
                    frozenset({"s32"}))}
REDUCTIONS: dict[str, frozenset[str]] = {
    # Sums of bfloat16 are computed in float32, as compilers do.
    **dict.fromkeys(("reduce-add", "reduce-multiply"), frozenset({"f32", "s32"})),
    **dict.fromkeys(("reduce-maximum", "reduce-minimum"), NUMBERS)}
# Results have the shape of the operands that are not constants, and, except for compare, select and
# convert, their type.
ELEMENTWISE: frozenset[str] = frozenset({*UNARY, *BINARY, COMPARE, SELECT, CONVERT})
CONTRACTIONS: frozenset[str] = frozenset({*REDUCTIONS, DOT, CONVOLUTION})
# Operations whose layouts a layout collection requests.
SITES: frozenset[str] = frozenset({DOT, CONVOLUTION, RESHAPE})
LEAVES: frozenset[str] = frozenset({PARAMETER, CONSTANT, IOTA})
ALL: frozenset[str] = ELEMENTWISE | CONTRACTIONS | LEAVES | frozenset(
    {BROADCAST, RESHAPE, TRANSPOSE, GATHER, SLICE, CONCATENATE})

# Operation -> allowed numbers of distinct operands (one operand may be used twice).
ARITIES: dict[str, frozenset[int]] = {
    **dict.fromkeys(LEAVES, frozenset({0})), **dict.fromkeys(UNARY, frozenset({1})),
    **dict.fromkeys(REDUCTIONS, frozenset({1})), **dict.fromkeys(BINARY, frozenset({1, 2})),
    **dict.fromkeys((BROADCAST, RESHAPE, TRANSPOSE, CONVERT, SLICE), frozenset({1})),
    COMPARE: frozenset({2}), SELECT: frozenset({2, 3}), DOT: frozenset({1, 2}),
    CONVOLUTION: frozenset({2}), GATHER: frozenset({2}), CONCATENATE: frozenset(range(2, 17))}

# The kind of a kernel is its heaviest operation; ties in distance to the result go to the first.
KINDS = ("convolution", "dot", "reduce", "gather", "transpose", "concatenate", "elementwise")


def count_sites(operations: Iterable[str]) -> int:
  """The number of operations in `SITES`."""
  return sum(operation in SITES for operation in operations)


def kind_of(operation: str) -> str:
  """The kind of kernel that an operation defines; "" for operations that occur in every kind."""
  if operation in REDUCTIONS:
    return "reduce"
  return operation if operation in KINDS else ""
