"""Clustering, cutting and covering: numbers in, numbers out; nothing here knows a network."""
