"""Token pooling for late-interaction retrieval (ColBERT and kin): a third of the vectors of every document.

A late-interaction index keeps one vector per token. Ward clustering of the tokens of a document, each cluster
replaced by its mean, shrinks it (Clavie et al., 2024, arXiv 2409.14683). One call clusters all documents:

    python examples/token_pooling.py                      # 1,000 documents
    python examples/token_pooling.py --documents 200 --compare   # against a loop over fastcluster

The embeddings are generated: unit vectors around topics, 200 to 1,000 of them per document.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

import reprune

Vectors = npt.NDArray[np.float32]
Trees = list[npt.NDArray[np.float64]]


def make_documents(count: int, seed: int = 0, dimensions: int = 128) -> list[Vectors]:
    """`count` documents of unit vectors `[200 .. 1000, dimensions]`, four to twelve around each topic."""
    rng = np.random.default_rng(seed)
    documents = []
    for tokens in rng.integers(200, 1001, size=count):
        topics = rng.standard_normal((max(1, tokens // 8), dimensions), dtype=np.float32)
        noise = rng.standard_normal((tokens, dimensions), dtype=np.float32)
        documents.append(normalized(topics[rng.integers(0, len(topics), size=tokens)] + 0.7 * noise))
    return documents


def normalized(vectors: Vectors) -> Vectors:
    units: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


def labels_of(trees: Trees, part: float) -> list[npt.NDArray[np.int32]]:
    """Labels [n_b] per document, in `part` * n_b clusters (rounded; fewer only where heights tie)."""
    heights = []
    for tree in trees:
        merges = len(tree) + 1 - max(1, round(part * (len(tree) + 1)))
        heights.append(tree[merges - 1, 2] if merges > 0 else -1.0)
    return reprune.cut(trees, heights)


def pooled(vectors: Vectors, labels: npt.NDArray[np.int32]) -> Vectors:
    """The renormalised mean of each cluster, `[clusters, d]`."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return normalized(np.add.reduceat(vectors[order], starts, axis=0))  # a sum has the direction of the mean


def ours(documents: Sequence[Vectors]) -> Trees:
    return reprune.linkage(documents, method="ward")


def pool(documents: Sequence[Vectors], part: float = 1 / 3) -> list[Vectors]:
    """What an indexer calls: documents `[n_b, d]` -> pooled documents `[about part * n_b, d]`."""
    trees = ours(documents)
    return [pooled(d, labels) for d, labels in zip(documents, labels_of(trees, part), strict=True)]


def fastcluster_loop(documents: Sequence[Vectors]) -> Trees:
    import fastcluster

    return [fastcluster.linkage(document, method="ward") for document in documents]


def check_equal(ours: Trees, theirs: Trees, part: float) -> None:
    """Raises AssertionError unless every document falls into the same clusters at the same heights."""
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine[:, 2], other[:, 2], rtol=1e-6)
    for labels, others in zip(labels_of(ours, part), labels_of(theirs, part), strict=True):
        np.testing.assert_array_equal(labels, others)


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU time (of all threads) of a call."""
    start, start_cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - start_cpu


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Pools generated token embeddings.")
    parser.add_argument("--documents", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--part", type=float, default=1 / 3, help="of the vectors to keep (default: a third)")
    parser.add_argument("--threads", type=int, default=2, help="of reprune (default: 2)")
    parser.add_argument("--compare", action="store_true", help="time a loop over fastcluster as well")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison (default: 3)")
    given = parser.parse_args()
    if given.documents < 1 or given.rounds < 1 or given.threads < 1 or not 0 < given.part <= 1:
        parser.error("--documents, --rounds and --threads must be positive, --part in (0, 1]")
    return given


def main() -> None:
    given = arguments()
    os.environ["REPRUNE_NUM_THREADS"] = str(given.threads)
    documents = make_documents(given.documents)
    start = time.perf_counter()
    small = pool(documents, given.part)
    took = time.perf_counter() - start

    before, after = (sum(map(len, each)) for each in (documents, small))
    print(f"documents   {len(documents):>10,}")
    print(f"vectors     {before:>10,} -> {after:,} ({after / before:.1%})")
    print(f"pooled in   {took:>10.2f} s ({len(documents) / took:,.0f} documents/s, {given.threads} threads)")
    if not given.compare:
        return

    check_equal(ours(documents), fastcluster_loop(documents), given.part)
    print("checked     same clusters and heights as fastcluster's in every document")
    rounds = [
        (*seconds(lambda: ours(documents)), *seconds(lambda: fastcluster_loop(documents)))
        for _ in range(given.rounds)
    ]
    wall, cpu, other_wall, other_cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"reprune     {wall:>10.2f} s for the clustering, {given.threads} threads ({cpu:.2f} s of CPU)")
    print(f"fastcluster {other_wall:>10.2f} s in a loop ({other_cpu:.2f} s of CPU)")
    print(f"ratio       {other_wall / wall:>10.1f} ({other_cpu / cpu:.1f} per thread)")


if __name__ == "__main__":
    main()
