#include "table.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cut.hpp"
#include "line.hpp"
#include "pool.hpp"
#include "ward.hpp"

namespace reprune {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Space {  // per thread
    Ward ward;
    Line line;
    std::vector<double> costs;
};

Space& space() {
    thread_local Space s;
    return s;
}

class Table {
  public:
    Table(const Batch& table, std::int64_t keep, int threads, std::int32_t* labels, std::int32_t* clusters)
        : table_(table), n_(static_cast<std::int32_t>(table.first.n)), d_(static_cast<std::int32_t>(table.first.d)),
          merges_(static_cast<std::size_t>(n_ - keep)), threads_(threads), labels_(labels), clusters_(clusters),
          left_(at(table.b)), reached_(at(table.b), -1.0) {}

    double cut();

  private:
    void scale();
    std::vector<std::int64_t> largest(std::int64_t count) const;
    void cluster(std::int64_t j, double limit);
    double deepen(std::int64_t j, double limit);
    void label(std::int64_t j, double height);
    const std::vector<Join>& join(std::int64_t j, const std::int32_t* parent, double limit);
    double* load(std::int64_t j, double* rows) const;
    double nth_cost(const std::vector<Join>& joins, std::size_t n) const;

    Batch table_;
    std::int32_t n_, d_;
    std::size_t merges_;  // that the channel which sets the cut makes
    int threads_;
    std::int32_t *labels_, *clusters_;
    double factor_ = 1, unit_ = 1;  // values times factor are of order one; both powers of two
    double known_ = 0;              // a lower bound of the cut: joins of at most this cost are made
    std::vector<std::vector<Join>> left_;  // [I] joins beyond it that a channel has found
    std::vector<double> reached_;          // [I] cost up to which all joins of a channel have been found
};

// float64 squares of float32 neither overflow nor vanish
void Table::scale() {
    if (!table_.first.is_double) return;
    double most = 0;
    for (std::int64_t j = 0; j < table_.b; ++j)
        for (std::int64_t i = 0; i < n_; ++i)
            for (std::int64_t k = 0; k < d_; ++k) most = std::max(most, std::abs(table_[j].at(i, k)));
    int exponent = 0;
    std::frexp(most, &exponent);
    if (most == 0 || std::abs(exponent) < 200) return;
    factor_ = std::ldexp(1.0, -exponent);
    unit_ = std::ldexp(1.0, exponent);
}

// Rows [n, d] of channel j. An offset common to all points goes where that is exact (Sterbenz: all within a factor of two).
double* Table::load(std::int64_t j, double* rows) const {
    const Points points = table_[j];
    const auto copy = [&](const auto* data) {
        for (std::int32_t i = 0; i < n_; ++i)
            for (std::int32_t k = 0; k < d_; ++k)
                rows[static_cast<std::int64_t>(i) * d_ + k] =
                    static_cast<double>(data[i * points.stride_n + k * points.stride_d]) * factor_;
    };
    if (points.is_double) {
        copy(static_cast<const double*>(points.data));
    } else {
        copy(static_cast<const float*>(points.data));
    }
    for (std::int32_t k = 0; k < d_; ++k) {
        const double first = rows[k];
        double low = first, high = first;
        for (std::int32_t i = 1; i < n_; ++i) {
            const double x = rows[static_cast<std::int64_t>(i) * d_ + k];
            if (x * first <= 0) {  // the usual case, soon found: both signs occur
                low = 0;
                break;
            }
            low = std::min(low, x);
            high = std::max(high, x);
        }
        if (!((low > 0 && high <= 2 * low) || (high < 0 && low >= 2 * high))) continue;
        const double middle = low + (high - low) / 2;
        for (std::int32_t i = 0; i < n_; ++i) rows[static_cast<std::int64_t>(i) * d_ + k] -= middle;
    }
    return rows;
}

// Channels whose points lie furthest apart, as the differences of consecutive points tell.
std::vector<std::int64_t> Table::largest(std::int64_t count) const {
    std::vector<double> spread(at(table_.b));
    for (std::int64_t j = 0; j < table_.b; ++j) {
        const Points points = table_[j];
        const std::int64_t step = std::max<std::int64_t>(1, n_ / 32);
        for (std::int64_t i = 0; i + step < n_; i += step)
            for (std::int64_t k = 0; k < d_; ++k)
                spread[at(j)] += std::abs(points.at(i, k) * factor_ - points.at(i + step, k) * factor_);
    }
    std::vector<std::int64_t> channels(at(table_.b));
    std::iota(channels.begin(), channels.end(), 0);
    count = std::min(count, table_.b);
    std::partial_sort(channels.begin(), channels.begin() + count, channels.end(), [&](std::int64_t a, std::int64_t b) {
        return spread[at(a)] > spread[at(b)] || (spread[at(a)] == spread[at(b)] && a < b);
    });
    channels.resize(at(count));
    return channels;
}

const std::vector<Join>& Table::join(std::int64_t j, const std::int32_t* parent, double limit) {
    Space& s = space();
    if (d_ == 1) {  // on a line all joins come at once
        load(j, s.line.start(n_));
        s.line.run(limit);
        return s.line.joins;
    }
    load(j, s.ward.start(n_, d_));
    s.ward.begin(parent);
    s.ward.run(limit);
    return s.ward.joins;
}

double Table::nth_cost(const std::vector<Join>& joins, std::size_t n) const {  // the n-th smallest, n >= 1
    std::vector<double>& costs = space().costs;
    costs.clear();
    for (const Join& x : joins) costs.push_back(x.cost);
    std::nth_element(costs.begin(), costs.begin() + static_cast<std::ptrdiff_t>(n - 1), costs.end());
    return costs[n - 1];
}

// Channel j from its points up to `limit`: joins up to the known bound into labels_ (as a forest), others into left_.
void Table::cluster(std::int64_t j, double limit) {
    const std::vector<Join>& joins = join(j, nullptr, limit);
    std::int32_t* parent = labels_ + j * n_;
    std::iota(parent, parent + n_, 0);
    left_[at(j)].clear();
    for (const Join& x : joins) {
        if (x.cost <= known_) {
            parent[x.gone] = x.kept;
        } else {
            left_[at(j)].push_back(x);
        }
    }
    reached_[at(j)] = limit;
    clusters_[j] = n_ - static_cast<std::int32_t>(joins.size());
}

// Cost of the merge of channel j that leaves `keep` clusters, where the first run ended before it.
double Table::deepen(std::int64_t j, double limit) {
    double next = std::max(limit, 1e-300);
    for (;;) {
        next = next > 1e300 ? infinity : next * 1.5;
        cluster(j, next);
        const auto made = at(n_ - clusters_[j]);
        if (made >= merges_) return nth_cost(left_[at(j)], merges_ - (made - left_[at(j)].size()));
        if (next > 1e6 * limit) next = infinity;
    }
}

void Table::label(std::int64_t j, double height) {
    std::int32_t* parent = labels_ + j * n_;
    if (reached_[at(j)] < height) cluster(j, height);
    const auto root = [&](std::int32_t x) {
        while (parent[x] != x) x = parent[x];
        return x;
    };
    for (const Join& x : left_[at(j)]) {
        if (x.cost > height) continue;
        const std::int32_t a = root(x.gone), b = root(x.kept);
        parent[std::min(a, b)] = std::max(a, b);
    }
    for (std::int32_t i = n_ - 1; i >= 0; --i) parent[i] = parent[parent[i]];  // to the root: those above are done
    clusters_[j] = renumber(parent, n_);
    std::vector<Join>().swap(left_[at(j)]);
}

double Table::cut() {
    scale();
    // A few channels first: the cut is at least the largest of theirs.
    const std::vector<std::int64_t> first = largest(std::max<std::int64_t>(2, std::min<std::int64_t>(8, table_.b / 32)));
    std::vector<double> costs(at(table_.b), -1.0);
    parallel_for(static_cast<std::int64_t>(first.size()), threads_, [&](std::int64_t f) {
        const std::int64_t j = first[at(f)];
        const std::vector<Join>& joins = join(j, nullptr, infinity);
        costs[at(j)] = nth_cost(joins, merges_);
    });
    known_ = *std::max_element(costs.begin(), costs.end());
    // Then all, a little further than that: most likely far enough.
    const double limit = known_ * 1.08;
    parallel_for(table_.b, threads_, [&](std::int64_t j) {
        cluster(j, limit);
        const auto made = at(n_ - clusters_[j]);
        if (made < merges_) {
            costs[at(j)] = deepen(j, limit);
        } else if (made - left_[at(j)].size() < merges_) {
            costs[at(j)] = nth_cost(left_[at(j)], merges_ - (made - left_[at(j)].size()));
        }
    });
    const double cost = *std::max_element(costs.begin(), costs.end());
    parallel_for(table_.b, threads_, [&](std::int64_t j) { label(j, cost); });
    return unit_ * std::sqrt(2 * cost);
}

}  // namespace

double cut_table(const Batch& table, std::int64_t keep, int threads, std::int32_t* labels, std::int32_t* clusters) {
    return Table(table, keep, threads, labels, clusters).cut();
}

}  // namespace reprune
