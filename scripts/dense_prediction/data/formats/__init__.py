"""The formats of data, one file for each."""
