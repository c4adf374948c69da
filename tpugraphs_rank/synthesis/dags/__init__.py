"""Files of directed acyclic graphs: format, validation, rule-based graphs, extraction."""
