#include "linkage.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "clones.hpp"
#include "dendrogram.hpp"
#include "line.hpp"
#include "rows.hpp"
#include "ward.hpp"

namespace reprune {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// The loops that are worth vectors; the same operations in any width, so the same results.
REPRUNE_CLONES double smallest(const double* x, std::size_t n) {
    double lane[16];
    std::fill_n(lane, 16, infinity);
    std::size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (std::size_t l = 0; l < 16; ++l) lane[l] = x[i + l] < lane[l] ? x[i + l] : lane[l];
    for (; i < n; ++i) lane[0] = x[i] < lane[0] ? x[i] : lane[0];
    return *std::min_element(lane, lane + 16);
}

// Lance and Williams: distances a [n] of a cluster to all, once it has taken in the one with distances b.
REPRUNE_CLONES void combine(Method method, std::size_t n, double na, double nb, double between, const double* size,
                            double* __restrict a, const double* __restrict b) {
    if (method == Method::single) {
        for (std::size_t k = 0; k < n; ++k) a[k] = b[k] < a[k] ? b[k] : a[k];
    } else if (method == Method::complete) {
        for (std::size_t k = 0; k < n; ++k) a[k] = b[k] > a[k] ? b[k] : a[k];
    } else if (method == Method::average) {
        for (std::size_t k = 0; k < n; ++k) a[k] = (na * a[k] + nb * b[k]) / (na + nb);
    } else {
        for (std::size_t k = 0; k < n; ++k) {
            const double sum = (na + size[k]) * a[k] * a[k] + (nb + size[k]) * b[k] * b[k] - size[k] * between * between;
            a[k] = std::sqrt(sum > 0 ? sum / (na + nb + size[k]) : 0.0);
        }
    }
}

// row[b] += (x - y[b])^2
REPRUNE_CLONES void add_squares(double x, const double* __restrict y, std::size_t n, double* __restrict row) {
    for (std::size_t b = 0; b < n; ++b) row[b] += (x - y[b]) * (x - y[b]);
}

REPRUNE_CLONES void take_nearer(const double* __restrict distance, std::size_t n, std::int32_t point,
                                double* __restrict nearest, std::int32_t* __restrict to) {
    for (std::size_t b = 0; b < n; ++b) {
        const bool nearer = distance[b] < nearest[b];
        nearest[b] = nearer ? distance[b] : nearest[b];
        to[b] = nearer ? point : to[b];
    }
}

REPRUNE_CLONES void roots(double* row, std::size_t n) {
    for (std::size_t b = 0; b < n; ++b) row[b] = std::sqrt(row[b]);
}

// matrix [n, n] of Euclidean distances, infinite on the diagonal
void distances(const Rows& rows, double* matrix) {
    const auto n = static_cast<std::size_t>(rows.n), d = static_cast<std::size_t>(rows.d);
    std::vector<double> turned(n * d);  // [d, n]
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t k = 0; k < d; ++k) turned[k * n + i] = rows.values[i * d + k];
    for (std::size_t a = 0; a < n; ++a) {
        std::fill_n(matrix + a * n, n, 0.0);
        for (std::size_t k = 0; k < d; ++k) add_squares(turned[k * n + a], turned.data() + k * n, a, matrix + a * n);
        roots(matrix + a * n, a);
        matrix[a * n + a] = infinity;
    }
    for (std::size_t a = 0; a < n; a += 16)  // the other half, in tiles
        for (std::size_t b = 0; b <= a; b += 16)
            for (std::size_t i = a; i < std::min(a + 16, n); ++i)
                for (std::size_t j = b; j < std::min(b + 16, i); ++j) matrix[j * n + i] = matrix[i * n + j];
}

std::vector<Merge> ward(const Points& points) {
    thread_local Ward space;
    Rows rows(points);
    std::copy(rows.values.begin(), rows.values.end(),
              space.start(static_cast<std::int32_t>(rows.n), static_cast<std::int32_t>(rows.d)));
    space.run(infinity);
    std::vector<Merge> merges;
    merges.reserve(space.joins().size());
    for (const Join& x : space.joins()) merges.push_back({x.gone, x.kept, rows.unit * std::sqrt(2 * x.cost)});
    return merges;
}

std::vector<Merge> ward_on_a_line(const Points& points) {
    thread_local Line space;
    Rows rows(points);
    std::copy(rows.values.begin(), rows.values.end(), space.start(static_cast<std::int32_t>(rows.n)));
    space.run(infinity);
    std::vector<Merge> merges;
    for (std::int64_t p = 0; p + 1 < rows.n; ++p)
        merges.push_back({space.order()[p], space.order()[p + 1], rows.unit * std::sqrt(2 * space.cost()[p])});
    return merges;
}

// On the n x n matrix of distances, infinite on the diagonal, which is used up: a nearest-neighbour chain (Benzecri 1982), right for every reducible linkage. Of equally near clusters the chain's predecessor comes first,
// then the first in the matrix, so the chain always ends. Rows of merged clusters are filled by the last one, so the matrix
// stays dense.
std::vector<Merge> agglomerate(std::vector<double>& matrix, std::size_t n, Method method, double unit) {
    std::vector<double> size(n, 1.0);
    std::vector<std::int32_t> id(n);  // a point of the cluster in row i
    std::iota(id.begin(), id.end(), 0);
    std::vector<Merge> merges;
    merges.reserve(n);
    std::vector<std::size_t> path;
    std::size_t live = n;
    while (live > 1) {
        if (path.empty()) path.push_back(live - 1);
        const std::size_t tip = path.back();
        const double* row = matrix.data() + tip * n;
        const double least = smallest(row, live);  // the diagonal is infinite
        const std::size_t before = path.size() > 1 ? path[path.size() - 2] : live;
        if (before == live || row[before] > least) {
            std::size_t next = 0;
            while (row[next] != least) ++next;
            path.push_back(next);
            continue;
        }
        path.resize(path.size() - 2);
        const std::size_t kept = std::min(tip, before), gone = std::max(tip, before), last = --live;
        merges.push_back({id[kept], id[gone], unit * least});
        double *a = matrix.data() + kept * n, *b = matrix.data() + gone * n;
        combine(method, live + 1, size[kept], size[gone], least, size.data(), a, b);
        a[kept] = infinity;
        size[kept] += size[gone];
        if (gone != last) {  // the last cluster moves into the hole
            a[gone] = a[last];
            std::copy_n(matrix.data() + last * n, live, b);
            b[kept] = a[gone];
            b[gone] = infinity;
            for (std::size_t k = 0; k < live; ++k) matrix[k * n + gone] = b[k];
            id[gone] = id[last];
            size[gone] = size[last];
            std::replace(path.begin(), path.end(), last, gone);
        }
        for (std::size_t k = 0; k < live; ++k) matrix[k * n + kept] = a[k];
    }
    return merges;
}

// single: the edges of a minimum spanning tree (Prim), whose distances are computed as they are needed.
std::vector<Merge> spanning_tree(const Points& points) {
    const Rows rows(points);
    const auto n = static_cast<std::size_t>(rows.n), d = static_cast<std::size_t>(rows.d);
    std::vector<double> turned(n * d);  // [d, n]
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t k = 0; k < d; ++k) turned[k * n + i] = rows.values[i * d + k];
    // the points outside the tree stand first: squared distance to it and the nearest point in it
    std::vector<double> nearest(n, infinity), distance(n);
    std::vector<std::int32_t> id(n), to(n, 0);
    std::iota(id.begin(), id.end(), 0);
    std::vector<Merge> merges;
    merges.reserve(n);
    std::size_t next = n - 1;  // enters the tree
    for (std::size_t left = n - 1; left > 0; --left) {
        const std::int32_t entered = id[next];
        id[next] = id[left];  // the last point outside fills the hole
        nearest[next] = nearest[left];
        to[next] = to[left];
        for (std::size_t k = 0; k < d; ++k) turned[k * n + next] = turned[k * n + left];
        std::fill_n(distance.data(), left, 0.0);
        const double* row = rows.row(entered);
        for (std::size_t k = 0; k < d; ++k) add_squares(row[k], turned.data() + k * n, left, distance.data());
        take_nearer(distance.data(), left, entered, nearest.data(), to.data());
        const double least = smallest(nearest.data(), left);
        next = 0;
        while (nearest[next] != least) ++next;
        merges.push_back({to[next], id[next], rows.unit * std::sqrt(least)});
    }
    return merges;
}

std::vector<Merge> stored(const Points& points, Method method) {
    const Rows rows(points);
    const auto n = static_cast<std::size_t>(rows.n);
    std::vector<double> matrix(n * n);
    distances(rows, matrix.data());
    return agglomerate(matrix, n, method, rows.unit);
}

}  // namespace

void linkage_condensed(const double* distances, std::int64_t points, Method method, double* z) {
    const auto n = static_cast<std::size_t>(points);
    std::vector<double> matrix(n * n, infinity);
    double largest = 0;
    for (std::size_t k = 0; k < n * (n - 1) / 2; ++k) largest = std::max(largest, std::abs(distances[k]));
    int exponent = 0;  // squares must neither overflow nor vanish
    std::frexp(largest, &exponent);
    const double unit = std::ldexp(1.0, std::clamp(exponent, -1000, 1000));
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t j = i + 1; j < n; ++j) matrix[i * n + j] = matrix[j * n + i] = *distances++ / unit;
    std::vector<Merge> merges = agglomerate(matrix, n, method, unit);
    to_scipy(merges, points, z);
}

void linkage(const Points& points, Method method, double* z) {
    std::vector<Merge> merges;
    if (method == Method::ward) {
        merges = points.d == 1 ? ward_on_a_line(points) : ward(points);
    } else {
        merges = method == Method::single ? spanning_tree(points) : stored(points, method);
    }
    to_scipy(merges, points.n, z);
}

}  // namespace reprune
