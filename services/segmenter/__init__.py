"""Segmenter: the memory of each customer, and from it stage, segments and dates that come."""
