#include "linkage.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "call.hpp"
#include "clones.hpp"
#include "dendrogram.hpp"
#include "line.hpp"
#include "pages.hpp"
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

// of the sums x + y
REPRUNE_CLONES double smallest_sum(const double* x, const double* y, std::size_t n) {
    double lane[16];
    std::fill_n(lane, 16, infinity);
    std::size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (std::size_t l = 0; l < 16; ++l) lane[l] = x[i + l] + y[i + l] < lane[l] ? x[i + l] + y[i + l] : lane[l];
    for (; i < n; ++i) lane[0] = x[i] + y[i] < lane[0] ? x[i] + y[i] : lane[0];
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

// Distances between all clusters, both halves: a row is read in one go.
struct Square {
    std::size_t n, stride;  // an odd number of cache lines, so that the entries of a column do not compete for a few places
    Pages<double> values;

    explicit Square(std::size_t points) : n(points), stride(8 * ((points + 7) / 8 | 1)), values(n * stride) {
        for (std::size_t i = 0; i < n; ++i) {
            hear(static_cast<std::int64_t>(4 * n));  // the first touch of a page is slow
            row(i)[i] = infinity;
        }
    }
    double* row(std::size_t i) { return values.data() + i * stride; }
};

// Euclidean distances of all points
void distances(const Rows& rows, Square& square) {
    const std::size_t n = square.n, d = static_cast<std::size_t>(rows.d);
    std::vector<double> turned(n * d);  // [d, n]
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t k = 0; k < d; ++k) turned[k * n + i] = rows.values[i * d + k];
    for (std::size_t a = 0; a < n; ++a) {
        hear(static_cast<std::int64_t>(a * (d + 4)));
        std::fill_n(square.row(a), a, 0.0);
        for (std::size_t k = 0; k < d; ++k) add_squares(turned[k * n + a], turned.data() + k * n, a, square.row(a));
        roots(square.row(a), a);
    }
    for (std::size_t a = 0; a < n; a += 16) {  // the other half, in tiles
        hear(static_cast<std::int64_t>(16 * a));
        for (std::size_t b = 0; b <= a; b += 16)
            for (std::size_t i = a; i < std::min(a + 16, n); ++i)
                for (std::size_t j = b; j < std::min(b + 16, i); ++j) square.row(j)[i] = square.row(i)[j];
    }
}

std::vector<Merge> ward(const Points& points) {
    Ward& space = kept<Ward>();
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
    Line& space = kept<Line>();
    Rows rows(points);
    std::copy(rows.values.begin(), rows.values.end(), space.start(static_cast<std::int32_t>(rows.n)));
    space.run(infinity);
    std::vector<Merge> merges;
    for (std::int64_t p = 0; p + 1 < rows.n; ++p)
        merges.push_back({space.order()[p], space.order()[p + 1], rows.unit * std::sqrt(2 * space.cost()[p])});
    return merges;
}

// A nearest-neighbour chain (Benzecri 1982) on the square, which is used up: right for every reducible linkage. Of equally
// near clusters the chain's predecessor comes first, then the first in the square, so the chain always ends. A cluster that
// is gone keeps its place, at an infinite distance, until half of them are: then the others move together.
std::vector<Merge> agglomerate(Square& square, Method method, double unit) {
    std::size_t places = square.n, live = places;
    std::vector<double> size(places, 1.0), away(places, 0.0);  // infinite for a cluster that is gone
    std::vector<std::int32_t> id(places);  // a point of the cluster
    std::iota(id.begin(), id.end(), 0);
    std::vector<Merge> merges;
    merges.reserve(places);
    std::vector<std::size_t> path;
    const auto close_up = [&] {
        std::vector<std::size_t> old;
        for (std::size_t k = 0; k < places; ++k)
            if (away[k] == 0) old.push_back(k);
        for (std::size_t i = 0; i < live; ++i) {
            const double* from = square.row(old[i]);
            hear(static_cast<std::int64_t>(live));
            for (std::size_t j = 0; j < live; ++j) square.row(i)[j] = from[old[j]];
            id[i] = id[old[i]];
            size[i] = size[old[i]];
        }
        for (std::size_t& p : path)
            p = static_cast<std::size_t>(std::lower_bound(old.begin(), old.end(), p) - old.begin());
        std::fill(away.begin(), away.end(), 0.0);
        places = live;
    };
    std::size_t start = places;
    while (live > 1) {
        hear(static_cast<std::int64_t>(4 * places));
        if (path.empty()) {
            start = std::min(start, places);
            while (away[--start] != 0) {}
            path.push_back(start++);
        }
        const std::size_t tip = path.back();
        const double* row = square.row(tip);
        const double least = smallest_sum(row, away.data(), places);
        const std::size_t before = path.size() > 1 ? path[path.size() - 2] : places;
        if (before == places || row[before] > least) {
            std::size_t next = 0;
            while (row[next] + away[next] != least) ++next;
            path.push_back(next);
            continue;
        }
        path.resize(path.size() - 2);
        const std::size_t kept = std::min(tip, before), gone = std::max(tip, before);
        merges.push_back({id[kept], id[gone], unit * least});
        double* a = square.row(kept);
        combine(method, places, size[kept], size[gone], least, size.data(), a, square.row(gone));
        a[kept] = infinity;
        size[kept] += size[gone];
        away[gone] = infinity;
        for (std::size_t k = 0; k < places; ++k) square.row(k)[kept] = a[k];
        if (2 * --live <= places) close_up();
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
        hear(static_cast<std::int64_t>(left * (d + 4)));
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
    Square square(n);
    distances(rows, square);
    return agglomerate(square, method, rows.unit);
}

}  // namespace

void linkage_condensed(const double* distances, std::int64_t points, Method method, double* z) {
    const auto n = static_cast<std::size_t>(points);
    Square square(n);
    double largest = 0;
    for (std::size_t i = 1, k = 0; i < n; ++i) {
        hear(static_cast<std::int64_t>(i));
        for (std::size_t end = k + i; k < end; ++k) largest = std::max(largest, std::abs(distances[k]));
    }
    int exponent = 0;  // squares must neither overflow nor vanish
    std::frexp(largest, &exponent);
    const double unit = std::ldexp(1.0, std::clamp(exponent, -1000, 1000));
    for (std::size_t i = 0; i < n; ++i) {
        hear(static_cast<std::int64_t>(8 * n));  // a column is slow
        for (std::size_t j = i + 1; j < n; ++j) square.row(i)[j] = square.row(j)[i] = *distances++ / unit;
    }
    std::vector<Merge> merges = agglomerate(square, method, unit);
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
