"""A web page and a JSON API for an index."""
