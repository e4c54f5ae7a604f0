"""From people's pictures and captions to a data set in the precomputed layout."""
