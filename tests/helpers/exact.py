"""Clustering in exact arithmetic: fractions, no rounding, and the rule for ties as it reads."""

import math
from fractions import Fraction


def linkage(points, method):
    """Points [n][d] -> merges (number, number, square of the height); a number is the largest of a cluster's.

    Not for average linkage, whose heights are no roots of fractions.
    """
    clusters = {i: [[Fraction(float(x)) for x in p]] for i, p in enumerate(points)}
    merges = []
    while len(clusters) > 1:
        numbers = sorted(clusters)
        square, a, b = min(
            (distance(clusters[a], clusters[b], method), a, b) for a in numbers for b in numbers if a < b
        )
        clusters[b] = clusters.pop(a) + clusters[b]
        merges.append((a, b, square))
    return merges


def distance(A, B, method):
    if method == "ward":
        a, b = len(A), len(B)
        steps = (sum(p[k] for p in A) / a - sum(q[k] for q in B) / b for k in range(len(A[0])))
        return 2 * Fraction(a * b, a + b) * sum(s * s for s in steps)
    squares = (sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) for p in A for q in B)
    return min(squares) if method == "single" else max(squares)


def root(square):
    """The root of a fraction to 60 digits, as a fraction."""
    digits = 1 << 4600
    return Fraction(math.isqrt(square.numerator * digits // square.denominator), 1 << 2300)


def merges_of(Z):
    """Rows of scipy's Z as pairs (number, number), a cluster going by the largest number of its points."""
    n = len(Z) + 1
    number = list(range(n))
    pairs = []
    for a, b, _, _ in Z:
        pair = sorted((number[int(a)], number[int(b)]))
        pairs.append(tuple(pair))
        number.append(pair[1])
    return pairs
