#include "linkage/dendrogram.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <tuple>

#include "runtime/call.hpp"

namespace reprune {
namespace {

class Roots {
  public:
    explicit Roots(std::int64_t count) : parent_(static_cast<std::size_t>(count)) {
        std::iota(parent_.begin(), parent_.end(), 0);
    }
    std::int32_t operator()(std::int32_t x) {
        while (parent(x) != x) x = parent(x) = parent(parent(x));
        return x;
    }
    void join(std::int32_t a, std::int32_t b, std::int32_t root) { parent(a) = parent(b) = root; }

  private:
    std::int32_t& parent(std::int32_t x) { return parent_[static_cast<std::size_t>(x)]; }

    std::vector<std::int32_t> parent_;
};

}  // namespace

void by_height(std::vector<Merge>& merges, std::int64_t n) {
    Ticks tick;
    std::stable_sort(merges.begin(), merges.end(), [&](const Merge& x, const Merge& y) {
        tick();
        return x.height < y.height;
    });
    const auto alike = [](const Merge& x, const Merge& y) { return x.height == y.height; };
    const bool tied = std::adjacent_find(merges.begin(), merges.end(), alike) != merges.end();
    Roots number(tied ? n : 0);
    for (auto begin = merges.begin(); tied && begin != merges.end();) {
        auto end = begin;
        for (; end != merges.end() && alike(*begin, *end); ++end) {
            tick();
            const std::int32_t a = number(end->a), b = number(end->b);
            end->a = std::min(a, b);
            end->b = std::max(a, b);
        }
        std::sort(begin, end, [&](const Merge& x, const Merge& y) {
            tick();
            return std::tie(x.a, x.b) < std::tie(y.a, y.b);
        });
        for (; begin != end; ++begin) {
            const std::int32_t a = number(begin->a), b = number(begin->b);
            number.join(a, b, std::max(a, b));
        }
    }
    for (auto merge = merges.begin(); merge != merges.end() && merge->height == of_equals; ++merge) merge->height = 0;
}

void to_scipy(const std::vector<Merge>& merges, std::int64_t n, int exponent, double* z) {
    if (static_cast<std::int64_t>(merges.size()) != n - 1) throw std::logic_error("a dendrogram lacks merges or has too many");
    Roots row(2 * n);
    std::vector<std::int32_t> size(static_cast<std::size_t>(2 * n), 1);
    Ticks tick;
    for (std::size_t k = 0; k < merges.size(); ++k) {
        tick();
        const std::int32_t a = row(merges[k].a), b = row(merges[k].b);
        const std::int32_t id = static_cast<std::int32_t>(n) + static_cast<std::int32_t>(k);
        row.join(a, b, id);
        const std::int32_t count = size[static_cast<std::size_t>(a)] + size[static_cast<std::size_t>(b)];
        size[static_cast<std::size_t>(id)] = count;
        z[4 * k] = std::min(a, b);
        z[4 * k + 1] = std::max(a, b);
        z[4 * k + 2] = exponent == 0 ? merges[k].height : std::ldexp(merges[k].height, exponent);
        z[4 * k + 3] = count;
    }
}

void refuse_near_heights(const double* z, std::int64_t n, int exponent, const Tolerance& tolerance) {
    const auto size = [&](double id) { return id < n ? 1.0 : z[4 * (static_cast<std::int64_t>(id) - n) + 3]; };
    double below = 0, points = 0;  // of the row above: its height, and the points of its smaller cluster
    for (std::int64_t k = 0; k + 1 < n; ++k) {
        const double height = std::ldexp(z[4 * k + 2], -exponent), fewer = std::min(size(z[4 * k]), size(z[4 * k + 1]));
        if (k > 0 && tolerance.covers(below, height, std::max(points, fewer))) throw NearTie();
        below = height;
        points = fewer;
    }
}

}  // namespace reprune
