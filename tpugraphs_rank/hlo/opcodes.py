"""Opcode ids of TpuGraphs: the fixed table that `node_opcode` refers to.

The ids are those of the public data set (`hlo_opcode.h` of google-research-datasets/tpu_graphs).
They never change; new opcodes would be appended. Id 0 represents every unlisted opcode.
"""

UNKNOWN_OPCODE_ID = 0
UNKNOWN_OPCODE_NAME = "unknown"

# In the order of the ids, from 1. HLO no longer has `trace` and `tuple-select`, but old files do.
_NAMES = """
    abs add add-dependency after-all all-reduce all-to-all atan2 batch-norm-grad
    batch-norm-inference batch-norm-training bitcast bitcast-convert broadcast call ceil cholesky
    clamp collective-permute count-leading-zeros compare complex concatenate conditional constant
    convert convolution copy copy-done copy-start cosine custom-call divide domain dot
    dynamic-slice dynamic-update-slice exponential exponential-minus-one fft floor fusion gather
    get-dimension-size set-dimension-size get-tuple-element imag infeed iota is-finite log
    log-plus-one and not or xor map maximum minimum multiply negate outfeed pad parameter
    partition-id popcnt power real recv recv-done reduce reduce-precision reduce-window remainder
    replica-id reshape reverse rng rng-get-and-update-state rng-bit-generator round-nearest-afz
    rsqrt scatter select select-and-scatter send send-done shift-left shift-right-arithmetic
    shift-right-logical sign sine slice sort sqrt subtract tanh trace transpose triangular-solve
    tuple tuple-select while cbrt all-gather collective-permute-start collective-permute-done
    logistic dynamic-reshape all-reduce-start all-reduce-done reduce-scatter all-gather-start
    all-gather-done opt-barrier async-start async-update async-done round-nearest-even
    stochastic-convert tan
""".split()

OPCODE_IDS: dict[str, int] = {name: i for i, name in enumerate(_NAMES, start=1)}
OPCODE_NAMES: dict[int, str] = {i: name for name, i in OPCODE_IDS.items()}


def opcode_id(name: str) -> int:
  """The id of an HLO opcode such as `"dot"`; 0 if it is not listed."""
  return OPCODE_IDS.get(name, UNKNOWN_OPCODE_ID)


def opcode_name(number: int) -> str:
  """The HLO opcode with this id; `"unknown"` for 0 and for ids that are not listed."""
  return OPCODE_NAMES.get(int(number), UNKNOWN_OPCODE_NAME)
