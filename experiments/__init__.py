"""Command-line applications, one job each: `python -m experiments.<name> --help`."""
