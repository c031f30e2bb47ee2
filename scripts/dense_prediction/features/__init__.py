"""Look inside: what the maps of a backbone tell apart."""
