"""Cluster, cut and cover: numbers in, numbers out, independent of networks."""
