"""Embeddings of pictures on disk, and what is nearest to a sentence or a picture among them (docs/search.md)."""
