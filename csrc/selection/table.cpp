#include "selection/table.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <vector>

#include "runtime/call.hpp"
#include "selection/cut.hpp"
#include "ward/line.hpp"
#include "runtime/pool.hpp"
#include "linkage/scale.hpp"
#include "ward/ward.hpp"
#include "runtime/numbers.hpp"

namespace reprune {
namespace {

constexpr std::int64_t block = 16;  // channels of one cache line of float32

constexpr double later = -1;  // than the limit: no height

// Converts a limit of heights to the scale before a multiplication by 2^exponent; heights that round to the limit are within.
double inside(double limit, int exponent) {
    return exponent == 0 ? limit : std::ldexp(std::nextafter(limit, infinity), -exponent);
}

struct Space {  // per thread
    Ward ward;
    Ward1D line;
    std::vector<double> heights, block;
    std::vector<Join> left;
};

Space& space() { return kept<Space>(); }

template <class Label>
class Table {
  public:
    Table(const Batch& table, std::int64_t keep, int threads, Label* labels, std::int32_t* clusters)
        : table_(table), n_(static_cast<std::int32_t>(table.first.n)), d_(static_cast<std::int32_t>(table.first.d)),
          merges_(static_cast<std::size_t>(n_ - keep)), threads_(threads), labels_(labels), clusters_(clusters),
          line_(((n_ + 7) / 8 | 1) * 8), left_(at(table.b)), reached_(at(table.b), -1.0) {}

    double cut();

  private:
    std::vector<std::int64_t> by_spread(std::int64_t first) const;
    void load_lines(std::int64_t begin, std::int64_t end) const;
    double cluster(std::int64_t j, double limit);
    double collect(std::int64_t j, double limit, int exponent);
    double reach(std::int64_t j, double limit);
    void label(std::int64_t j, double height);

    Batch table_;
    std::int32_t n_, d_;
    std::size_t merges_;  // that the channel which sets the cut makes
    int threads_;
    Label* labels_;  // [I, O]; until a channel is cut, a forest over its filters
    std::int32_t* clusters_;
    std::int64_t line_;  // from a channel of load_lines to the next: an odd number of cache lines, so that they do not compete
    double known_ = 0;   // a lower bound of the cut: joins of at most this height are made
    std::vector<std::vector<Join>> left_;  // [I] joins beyond it that a channel has found
    std::vector<double> reached_;          // [I] height up to which all joins of a channel have been found
};

// Lines of channels that are neighbours in memory: a cache line of the weight serves them all.
template <class Label>
void Table<Label>::load_lines(std::int64_t begin, std::int64_t end) const {
    std::vector<double>& values = space().block;
    values.resize(at(block * line_));
    const Points points = table_[begin];
    const auto copy = [&](const auto* data) {
        for (std::int32_t i = 0; i < n_; ++i)
            for (std::int64_t c = 0; c < end - begin; ++c)
                values[at(c * line_ + i)] = static_cast<double>(data[i * points.stride_n + c]);
    };
    if (points.is_double) {
        copy(static_cast<const double*>(points.data));
    } else {
        copy(static_cast<const float*>(points.data));
    }
}

// All channels: first those whose points lie furthest apart, as the differences of a few points tell, then the others as
// they stand in memory, where neighbours share cache lines.
template <class Label>
std::vector<std::int64_t> Table<Label>::by_spread(std::int64_t first) const {
    std::vector<double> spread(at(table_.b));
    for (std::int64_t j = 0; j < table_.b; ++j) {
        const Points points = table_[j];
        const std::int64_t step = std::max<std::int64_t>(1, n_ / 32);
        for (std::int64_t i = 0; i + step < n_; i += step)
            for (std::int64_t k = 0; k < d_; ++k)
                spread[at(j)] += std::abs(points.at(i, k) - points.at(i + step, k));
    }
    std::vector<std::int64_t> channels(at(table_.b));
    std::iota(channels.begin(), channels.end(), 0);
    const auto others = channels.begin() + std::min(table_.b, first);
    std::partial_sort(channels.begin(), others, channels.end(), [&](std::int64_t a, std::int64_t b) {
        return spread[at(a)] > spread[at(b)] || (spread[at(a)] == spread[at(b)] && a < b);
    });
    std::sort(others, channels.end());
    return channels;
}

// What Ward1D or Ward found of channel j up to `limit`, heights times 2^exponent: joins of at most the known bound into
// labels_, the others into left_. Returns the height of the merge that leaves `keep` clusters if it is among the others: 0 if
// it came before, `later` if it comes later.
template <class Label>
double Table<Label>::collect(std::int64_t j, double limit, int exponent) {
    Space& s = space();
    Label* parent = labels_ + j * n_;
    std::vector<Join>& left = s.left;
    left.clear();
    const auto scaled = [&](double height) { return exponent == 0 ? height : std::ldexp(height, exponent); };
    std::size_t made = 0;  // of those in labels_
    if (d_ == 1) {
        const std::int32_t* order = s.line.order();
        const double* heights = s.line.heights();
        std::int32_t root = order[0];
        parent[root] = static_cast<Label>(root);
        for (std::int32_t p = 1; p < n_; ++p) {
            const double height = scaled(heights[p - 1]);
            const bool same = height <= known_;
            root = same ? root : order[p];
            made += same;
            parent[order[p]] = static_cast<Label>(root);
            if (!same && height <= limit) left.push_back({order[p - 1], order[p], height});
        }
    } else {
        std::iota(parent, parent + n_, Label{0});
        for (const Join& x : s.ward.joins()) {
            const double height = scaled(x.height);
            if (height <= known_) {
                parent[x.gone] = static_cast<Label>(x.kept);
                ++made;
            } else if (height <= limit) {
                left.push_back({x.gone, x.kept, height});
            }
        }
    }
    left_[at(j)] = left;
    reached_[at(j)] = limit;
    if (made >= merges_) return 0;
    if (made + left.size() < merges_) return later;
    s.heights.clear();
    for (const Join& x : left) s.heights.push_back(x.height);
    const auto nth = s.heights.begin() + static_cast<std::ptrdiff_t>(merges_ - made - 1);
    std::nth_element(s.heights.begin(), nth, s.heights.end());
    return *nth;
}

template <class Label>
double Table<Label>::cluster(std::int64_t j, double limit) {
    Space& s = space();
    const Scale scale = load(table_[j], d_ == 1 ? s.line.start(n_) : s.ward.start(n_, d_));
    const double own = inside(limit, scale.exponent);
    if (d_ == 1) {
        s.line.run(own, scale.wide);
    } else {
        s.ward.run(own, scale.wide);
    }
    return collect(j, limit, scale.exponent);
}

// The same from `limit` on, as far as it takes.
template <class Label>
double Table<Label>::reach(std::int64_t j, double limit) {
    for (double factor = 1.25;; factor *= factor) {
        const double height = cluster(j, limit);
        if (height != later) return height;
        limit = limit > 0 ? limit * factor : infinity;
    }
}

template <class Label>
void Table<Label>::label(std::int64_t j, double height) {
    Label* parent = labels_ + j * n_;
    if (reached_[at(j)] < height) cluster(j, height);
    const auto root = [&](Label x) {
        while (parent[x] != x) x = parent[x] = parent[parent[x]];
        return x;
    };
    for (const Join& x : left_[at(j)])
        if (x.height <= height) parent[root(static_cast<Label>(x.gone))] = root(static_cast<Label>(x.kept));
    for (std::int32_t i = 0; i < n_; ++i) {
        const Label up = parent[i];
        if (parent[up] != up) parent[i] = root(up);
    }
    clusters_[j] = renumber(parent, n_);
    std::vector<Join>().swap(left_[at(j)]);
}

template <class Label>
double Table<Label>::cut() {
    // A few channels first: the cut is at least the largest of theirs.
    const std::int64_t few = std::min(table_.b, std::max<std::int64_t>(2, std::min<std::int64_t>(6, table_.b / 64)));
    const std::vector<std::int64_t> order = by_spread(few + table_.b / 32);
    // Heights of channels spread by 0.35 / sqrt(n) of their mean where values are normal; two and a half of that are far enough
    // for nearly all, and take few joins too many.
    const double margin = 1 + 0.9 / std::sqrt(static_cast<double>(n_));
    std::vector<double> heights(at(table_.b), 0.0);
    known_ = -1;  // all joins are "others"
    const double guess = reach(order[0], infinity);
    parallel_for(few, threads_, [&](std::int64_t f) {
        heights[at(order[at(f)])] = f == 0 ? guess : reach(order[at(f)], guess * margin);
    });
    known_ = *std::max_element(heights.begin(), heights.end());
    // Then all, a little further than the largest so far, those that promise most first: what was too short is done again.
    std::atomic<double> largest_yet{known_};
    const bool lines = d_ == 1 && table_.stride_b == 1;
    const std::int64_t width = lines ? block : 1, done = lines ? 0 : few;
    parallel_for((table_.b - done + width - 1) / width, threads_, [&](std::int64_t b) {
        Space& s = space();
        const double limit = largest_yet.load(std::memory_order_relaxed) * margin;
        const std::int64_t begin = done + b * width, end = std::min(begin + width, table_.b);
        if (lines) load_lines(begin, end);
        std::int64_t again[block];  // channels for which the limit was not enough
        int count = 0;
        for (std::int64_t k = begin; k < end; ++k) {
            const std::int64_t j = lines ? k : order[at(k)];
            int exponent = 0;
            if (lines) {
                const double* values = s.block.data() + (j - begin) * line_;
                double* own = s.line.start(n_);
                std::copy(values, values + n_, own);
                const Scale found = scale(own, n_, 1, !table_.first.is_double);
                s.line.run(inside(limit, found.exponent), found.wide);
                exponent = found.exponent;
            }
            const double height = lines ? collect(j, limit, exponent) : cluster(j, limit);
            if (height != later) {
                heights[at(j)] = std::max(heights[at(j)], height);
            } else {
                again[count++] = j;
            }
        }
        while (count > 0) {
            const std::int64_t j = again[--count];
            heights[at(j)] = std::max(heights[at(j)], reach(j, limit * 1.25));
        }
        for (std::int64_t k = begin; k < end; ++k) {
            const double height = heights[at(lines ? k : order[at(k)])];
            double most = largest_yet.load(std::memory_order_relaxed);
            while (most < height && !largest_yet.compare_exchange_weak(most, height, std::memory_order_relaxed)) {
            }
        }
    });
    const double height = *std::max_element(heights.begin(), heights.end());
    parallel_for(table_.b, threads_, [&](std::int64_t j) { label(j, height); });
    return height;
}

}  // namespace

template <class Label>
double cut_table(const Batch& table, std::int64_t keep, int threads, Label* labels, std::int32_t* clusters) {
    return Table<Label>(table, keep, threads, labels, clusters).cut();
}

template double cut_table(const Batch&, std::int64_t, int, std::int32_t*, std::int32_t*);
template double cut_table(const Batch&, std::int64_t, int, std::uint16_t*, std::int32_t*);

}  // namespace reprune
