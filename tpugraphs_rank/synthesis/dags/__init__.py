"""Files of many DAGs, their checks, rules and extraction from collections."""
