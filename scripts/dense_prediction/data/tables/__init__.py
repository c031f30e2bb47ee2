"""Tables of the datasets library: rows as samples, read in any order or as a stream."""
