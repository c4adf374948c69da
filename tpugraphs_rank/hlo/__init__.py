"""XLA programs (HLO) and raw measurements to the arrays of a graph file; numpy and protobuf only."""
