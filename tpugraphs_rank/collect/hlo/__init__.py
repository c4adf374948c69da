"""Measures any HLO program under requested layouts, without its source."""
