"""How close synthetic graphs are to real ones, and what they are worth."""
