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
#include "simd/prefetch.hpp"
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
    Ward ward, other;
    Ward1D line;
    std::vector<double> heights, block;
    std::vector<Join> left;
    std::vector<std::int32_t> number;
};

Space& space() { return kept<Space>(); }

template <class Label>
class Table {
  public:
    Table(const Batch& table, std::int64_t keep, int threads, Label* labels, std::int32_t* clusters,
          bool by_appearance)
        : table_(table), n_(static_cast<std::int32_t>(table.first.n)), d_(static_cast<std::int32_t>(table.first.d)),
          merges_(static_cast<std::size_t>(n_ - keep)), threads_(threads), labels_(labels), clusters_(clusters),
          by_appearance_(by_appearance), line_(((n_ + 7) / 8 | 1) * 8), left_(at(table.b)),
          reached_(at(table.b), -1.0) {}

    double cut();

  private:
    std::vector<std::int64_t> by_spread(std::int64_t first) const;
    void load_lines(std::int64_t begin, std::int64_t end) const;
    double cluster(std::int64_t j, double limit);
    void cluster_two(std::int64_t j, std::int64_t other, double limit, double* found);
    void cluster_lines(std::int64_t begin, std::int64_t end, double limit, double* found);
    double nth(std::int64_t j, double limit, std::size_t made);
    std::size_t collect_line(std::int64_t j, double limit, int exponent);
    std::size_t collect_joins(const Ward& ward, std::int64_t j, double limit, int exponent);
    double reach(std::int64_t j, double limit);
    void label(std::int64_t j, double height);

    Batch table_;
    std::int32_t n_, d_;
    std::size_t merges_;  // that the channel which sets the cut makes
    int threads_;
    Label* labels_;  // [I, O]; until a channel is labelled, what collect_line or collect_joins leave
    std::int32_t* clusters_;
    bool by_appearance_;
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
        for (std::int32_t i = 0; i < n_; ++i) {
            const auto* row = data + i * points.stride_n;
            REPRUNE_PREFETCH(row + block);  // of the next lines
            for (std::int64_t c = 0; c < end - begin; ++c) values[at(c * line_ + i)] = static_cast<double>(row[c]);
        }
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
        const std::int64_t step = std::max<std::int64_t>(1, n_ / 12);
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

// The height of the merge of channel j that leaves `keep` clusters if it is among the others in left_, all joins up to `limit`
// having been found: 0 if it is among the joins that were made before them, `later` if it comes later.
template <class Label>
double Table<Label>::nth(std::int64_t j, double limit, std::size_t made) {
    const std::vector<Join>& left = left_[at(j)];
    reached_[at(j)] = limit;
    if (made >= merges_) return 0;
    if (made + left.size() < merges_) return later;
    Space& s = space();
    s.heights.clear();
    for (const Join& x : left) s.heights.push_back(x.height);
    const auto nth = s.heights.begin() + static_cast<std::ptrdiff_t>(merges_ - made - 1);
    std::nth_element(s.heights.begin(), nth, s.heights.end());
    return *nth;
}

// What Ward1D found of channel j up to `limit`, heights times 2^exponent: joins of at most the known bound into labels_, where
// clusters are numbered from left to right, the others into left_. Returns the number of joins made.
template <class Label>
std::size_t Table<Label>::collect_line(std::int64_t j, double limit, int exponent) {
    Space& s = space();
    Label* number = labels_ + j * n_;
    const std::int32_t* order = s.line.order();
    const double* heights = s.line.heights();
    if (exponent != 0) {
        s.heights.assign(heights, heights + n_ - 1);
        for (double& x : s.heights) x = std::ldexp(x, exponent);
        heights = s.heights.data();
    }
    if (s.left.size() < at(n_)) s.left.resize(at(n_));
    const double known = known_;
    std::int32_t last = 0;
    std::size_t others = 0;
    number[order[0]] = 0;
    for (std::int32_t p = 1; p < n_; ++p) {  // no branches: no one could guess them
        const double height = heights[p - 1];
        const bool apart = !(height <= known);
        last += apart;
        number[order[p]] = static_cast<Label>(last);
        s.left[others] = {last - 1, last, height};
        others += apart & (height <= limit);
    }
    left_[at(j)].assign(s.left.begin(), s.left.begin() + static_cast<std::ptrdiff_t>(others));
    return at(n_ - 1 - last);
}

// The same of Ward's joins: in labels_ is a forest over the filters, where `gone` is below `kept`.
template <class Label>
std::size_t Table<Label>::collect_joins(const Ward& ward, std::int64_t j, double limit, int exponent) {
    Label* parent = labels_ + j * n_;
    std::vector<Join>& left = left_[at(j)];
    left.clear();
    std::size_t made = 0;
    std::iota(parent, parent + n_, Label{0});
    for (const Join& x : ward.joins()) {
        const double height = exponent == 0 ? x.height : std::ldexp(x.height, exponent);
        if (height <= known_) {
            parent[x.gone] = static_cast<Label>(x.kept);
            ++made;
        } else if (height <= limit) {
            left.push_back({x.gone, x.kept, height});
        }
    }
    return made;
}

template <class Label>
double Table<Label>::cluster(std::int64_t j, double limit) {
    Space& s = space();
    const Scale scale = load(table_[j], d_ == 1 ? s.line.start(n_) : s.ward.start(n_, d_));
    const double own = inside(limit, scale.exponent);
    if (d_ == 1) {
        s.line.run(own, scale.wide);
        return nth(j, limit, collect_line(j, limit, scale.exponent));
    }
    s.ward.run(own, scale.wide);
    return nth(j, limit, collect_joins(s.ward, j, limit, scale.exponent));
}

// found: of both.
template <class Label>
void Table<Label>::cluster_two(std::int64_t j, std::int64_t other, double limit, double* found) {
    Space& s = space();
    const Scale x = load(table_[j], s.ward.start(n_, d_)), y = load(table_[other], s.other.start(n_, d_));
    Ward::run_two(s.ward, inside(limit, x.exponent), x.wide, s.other, inside(limit, y.exponent), y.wide);
    found[0] = nth(j, limit, collect_joins(s.ward, j, limit, x.exponent));
    found[1] = nth(other, limit, collect_joins(s.other, other, limit, y.exponent));
}

template <class Label>
void Table<Label>::cluster_lines(std::int64_t begin, std::int64_t end, double limit, double* found) {
    Space& s = space();
    load_lines(begin, end);
    for (std::int64_t j = begin; j < end; ++j) {
        const double* values = s.block.data() + (j - begin) * line_;
        double* own = s.line.start(n_);
        std::copy(values, values + n_, own);
        const Scale x = scale(own, n_, 1, !table_.first.is_double);
        s.line.run(inside(limit, x.exponent), x.wide);
        found[j - begin] = nth(j, limit, collect_line(j, limit, x.exponent));
    }
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
    Label* label = labels_ + j * n_;
    if (reached_[at(j)] < height) cluster(j, height);
    std::vector<Join>& left = left_[at(j)];
    std::vector<std::int32_t>& number = space().number;  // of what labels hold now
    number.assign(at(n_), 1);                            // first: does a new one begin here?
    if (d_ > 1) {
        for (const Join& x : left)
            if (x.height <= height) label[x.gone] = static_cast<Label>(x.kept);
        for (std::int32_t i = n_ - 1; i >= 0; --i) {  // what is kept is the larger
            number[at(i)] = label[i] == i;
            label[i] = label[label[i]];
        }
    } else {
        for (const Join& x : left) number[at(x.kept)] = x.height > height;
        number[0] = 1;
    }
    std::int32_t next = 0;
    for (std::int32_t& x : number) x = (next += x) - 1;
    std::int32_t last = 0;
    for (std::int32_t i = 0; i < n_; ++i) {
        label[i] = static_cast<Label>(number[at(label[i])]);
        last = label[i] > last ? label[i] : last;
    }
    clusters_[j] = last + 1;
    if (by_appearance_) renumber(label, n_);
    std::vector<Join>().swap(left);
}

template <class Label>
double Table<Label>::cut() {
    // A few channels first: the cut is at least the largest of theirs.
    const std::int64_t few = std::min(table_.b, std::max<std::int64_t>(2, std::min<std::int64_t>(6, table_.b / 64)));
    const std::vector<std::int64_t> order = by_spread(few + table_.b / 32);
    // Heights of channels spread by 0.35 / sqrt(n) of their mean where values are normal; two and a half of that are far enough
    // for nearly all, and take few joins too many. On a line, where they spread more and joins cost little, twice as far.
    const double margin = 1 + (d_ == 1 ? 2.0 : 0.9) / std::sqrt(static_cast<double>(n_));
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
    const bool two_fit = n_ * (d_ / 2 + 3LL) <= 4096;  // in the first cache, with what a scan reads
    const std::int64_t width = lines ? block : d_ > 1 && two_fit ? 2 : 1, done = lines ? 0 : few;
    parallel_for((table_.b - done + width - 1) / width, threads_, [&](std::int64_t b) {
        const double limit = largest_yet.load(std::memory_order_relaxed) * margin;
        const std::int64_t begin = done + b * width, end = std::min(begin + width, table_.b);
        const auto channel = [&](std::int64_t k) { return lines ? k : order[at(k)]; };
        double found[block];
        if (lines) {
            cluster_lines(begin, end, limit, found);
        } else if (width == 2 && end - begin == 2) {
            cluster_two(channel(begin), channel(begin + 1), limit, found);
        } else {
            for (std::int64_t k = begin; k < end; ++k) found[k - begin] = cluster(channel(k), limit);
        }
        for (std::int64_t k = begin; k < end; ++k) {
            double height = found[k - begin], most = largest_yet.load(std::memory_order_relaxed);
            if (height == later) height = reach(channel(k), limit * 1.25);
            height = heights[at(channel(k))] = std::max(heights[at(channel(k))], height);
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
double cut_table(const Batch& table, std::int64_t keep, int threads, Label* labels, std::int32_t* clusters,
                 bool by_appearance) {
    return Table<Label>(table, keep, threads, labels, clusters, by_appearance).cut();
}

template double cut_table(const Batch&, std::int64_t, int, std::int32_t*, std::int32_t*, bool);
template double cut_table(const Batch&, std::int64_t, int, std::uint16_t*, std::int32_t*, bool);

}  // namespace reprune
