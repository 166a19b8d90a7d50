#include "linkage/spanning.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "runtime/call.hpp"
#include "ward/cost.hpp"
#include "simd/loops.hpp"
#include "runtime/numbers.hpp"

namespace reprune {
namespace {

struct Edge {
    std::int32_t a, b;
    double height;
};

class Distances {
  public:
    Distances(const std::vector<double>& rows, std::int64_t n, std::int64_t d, bool wide)
        : rows_(rows), n_(at(n)), d_(at(d)), wide_(wide), steps_(d_) {}

    double operator()(std::int32_t a, std::int32_t b) {
        tick_();
        const double *x = row(a), *y = row(b);
        double squares = 0;
        for (std::size_t k = 0; k < d_; ++k) {
            steps_[k] = x[k] - y[k];
            squares += steps_[k] * steps_[k];
        }
        return wide_ ? wide_height(steps_.data(), static_cast<std::int64_t>(d_), 1, 1) : std::sqrt(squares);
    }

    std::vector<Edge> tree();

  private:
    const double* row(std::int32_t i) const { return rows_.data() + at(i) * d_; }

    const std::vector<double>& rows_;
    std::size_t n_, d_;
    bool wide_;
    std::vector<double> steps_;
    Ticks tick_;
};

// Prim's algorithm. Distances are computed when they are needed, and compared as squares where these do not overflow.
std::vector<Edge> Distances::tree() {
    std::vector<double> turned(n_ * d_);  // [d, n]
    for (std::size_t i = 0; i < n_; ++i)
        for (std::size_t k = 0; k < d_; ++k) turned[k * n_ + i] = rows_[i * d_ + k];
    // the points outside the tree stand first: distance to it and the nearest point in it
    std::vector<double> nearest(n_, infinity), distance(n_);
    std::vector<std::int32_t> id(n_), to(n_, 0);
    std::iota(id.begin(), id.end(), 0);
    std::vector<Edge> edges;
    edges.reserve(n_);
    std::size_t next = n_ - 1;  // enters the tree
    for (std::size_t left = n_ - 1; left > 0; --left) {
        poll(static_cast<std::int64_t>(left * (d_ + 4) * (wide_ ? 16 : 1)));
        const std::int32_t entered = id[next];
        id[next] = id[left];  // the last point outside fills the hole
        nearest[next] = nearest[left];
        to[next] = to[left];
        for (std::size_t k = 0; k < d_; ++k) turned[k * n_ + next] = turned[k * n_ + left];
        if (wide_) {
            for (std::size_t i = 0; i < left; ++i) distance[i] = (*this)(entered, id[i]);
        } else {
            std::fill_n(distance.data(), left, 0.0);
            for (std::size_t k = 0; k < d_; ++k)
                add_squares(row(entered)[k], turned.data() + k * n_, left, distance.data());
        }
        take_nearer(distance.data(), left, entered, nearest.data(), to.data());
        const double least = smallest(nearest.data(), left);
        next = 0;
        while (nearest[next] != least) ++next;
        edges.push_back({to[next], id[next], wide_ ? least : std::sqrt(least)});
    }
    return edges;
}

// Clusters while they merge, level by level: all edges of one height together.
class Levels {
  public:
    Levels(Distances& distances, std::int64_t n) : distances_(distances), parent_(at(n)), next_(at(n)) {
        std::iota(parent_.begin(), parent_.end(), 0);
        std::iota(next_.begin(), next_.end(), 0);
    }

    void add(const Edge* begin, const Edge* end);
    std::vector<Merge> merges;

  private:
    using Pair = std::pair<std::int32_t, std::int32_t>;  // a cluster and the one that takes it in, by number

    void part(const std::vector<std::int32_t>& clusters, double height);
    bool touch(std::int32_t a, std::int32_t b, double height);

    static std::int32_t root(std::vector<std::int32_t>& parent, std::int32_t x) {
        while (parent[at(x)] != x) x = parent[at(x)] = parent[at(parent[at(x)])];
        return x;
    }

    Distances& distances_;
    std::vector<std::int32_t> parent_;  // [n] a union-find whose roots are the numbers of clusters
    std::vector<std::int32_t> next_;    // [n] the points of a cluster in a ring
    std::vector<Pair> found_;
};

// The clusters that the edges connect, in parts that are connected. Of a part of two it is clear what merges.
void Levels::add(const Edge* begin, const Edge* end) {
    const double height = begin->height;
    std::vector<Pair> ends;
    for (const Edge* e = begin; e != end; ++e) {
        const std::int32_t a = root(parent_, e->a), b = root(parent_, e->b);
        ends.emplace_back(std::min(a, b), std::max(a, b));
    }
    found_.clear();
    if (ends.size() == 1) {
        found_ = ends;
    } else {
        std::vector<std::int32_t> clusters;
        for (const auto& [a, b] : ends) clusters.insert(clusters.end(), {a, b});
        std::sort(clusters.begin(), clusters.end());
        clusters.erase(std::unique(clusters.begin(), clusters.end()), clusters.end());
        const auto place = [&](std::int32_t c) {
            return static_cast<std::int32_t>(std::lower_bound(clusters.begin(), clusters.end(), c) - clusters.begin());
        };
        std::vector<std::int32_t> parent(clusters.size());
        std::iota(parent.begin(), parent.end(), 0);
        for (const auto& [a, b] : ends) parent[at(root(parent, place(a)))] = root(parent, place(b));
        std::vector<std::vector<std::int32_t>> parts(clusters.size());
        for (std::size_t c = 0; c < clusters.size(); ++c)
            parts[at(root(parent, static_cast<std::int32_t>(c)))].push_back(clusters[c]);
        for (const auto& clusters_of : parts)
            if (!clusters_of.empty()) part(clusters_of, height);
        std::sort(found_.begin(), found_.end());
    }
    for (const auto& [a, b] : found_) {
        merges.push_back({a, b, height});
        parent_[at(a)] = b;
        std::swap(next_[at(a)], next_[at(b)]);
    }
}

// Clusters [m], ascending, that this height connects. The rule takes the smallest number that touches another, and of those
// the smallest again; joined, it touches what either did. So each goes into the smallest of all above it that it touches, itself
// or through smaller ones: the elimination tree of a sparse matrix (Liu 1986).
void Levels::part(const std::vector<std::int32_t>& clusters, double height) {
    if (clusters.size() == 2) {
        found_.emplace_back(clusters[0], clusters[1]);
        return;
    }
    std::vector<std::int32_t> parent(clusters.size());
    std::iota(parent.begin(), parent.end(), 0);
    for (std::int32_t j = 1; at(j) < clusters.size(); ++j) {
        poll(4LL * j);
        for (std::int32_t i = 0; i < j; ++i) {
            const std::int32_t r = root(parent, i);
            if (r == j || !touch(clusters[at(i)], clusters[at(j)], height)) continue;
            parent[at(r)] = j;
            found_.emplace_back(clusters[at(r)], clusters[at(j)]);
        }
    }
}

bool Levels::touch(std::int32_t a, std::int32_t b, double height) {
    std::int32_t p = a;
    do {
        std::int32_t q = b;
        do {
            if (distances_(p, q) == height) return true;
            q = next_[at(q)];
        } while (q != b);
        p = next_[at(p)];
    } while (p != a);
    return false;
}

}  // namespace

std::vector<Merge> single_linkage(const std::vector<double>& rows, std::int64_t n, std::int64_t d, bool wide) {
    Distances distances(rows, n, d, wide);
    std::vector<Edge> edges = distances.tree();
    std::stable_sort(edges.begin(), edges.end(), [](const Edge& x, const Edge& y) { return x.height < y.height; });
    Levels levels(distances, n);
    for (auto begin = edges.cbegin(); begin != edges.cend();) {
        auto end = begin;
        while (end != edges.cend() && end->height == begin->height) ++end;
        levels.add(&*begin, &*begin + (end - begin));
        begin = end;
    }
    return std::move(levels.merges);
}

}  // namespace reprune
