#include "linkage/linkage.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "runtime/call.hpp"
#include "linkage/dendrogram.hpp"
#include "linkage/distances.hpp"
#include "linkage/greedy.hpp"
#include "ward/line.hpp"
#include "linkage/scale.hpp"
#include "linkage/spanning.hpp"
#include "linkage/square.hpp"
#include "ward/ward.hpp"
#include "runtime/numbers.hpp"

namespace reprune {
namespace {

// What the caller asked for, and how the points were scaled.
struct Task {
    Ties ties;
    int exponent = 0;                    // as Scale has it
    std::optional<Tolerance> tolerance;  // where near ties are refused

    const Tolerance* refuse_within() const { return tolerance ? &*tolerance : nullptr; }
    void begin(const Points& points, const Scale& scale, const double* rows) {
        exponent = scale.exponent;
        if (ties == Ties::decide) return;
        if (scale.wide) throw NearTie();  // others compute with squares
        tolerance.emplace(points.n, points.d, exponent, rows);
    }
};

std::vector<Merge> ward(const Points& points, Task& task) {
    Ward& space = kept<Ward>();
    double* rows = space.start(static_cast<std::int32_t>(points.n), static_cast<std::int32_t>(points.d));
    const Scale scale = load(points, rows);
    task.begin(points, scale, rows);
    space.run(infinity, scale.wide, task.ties == Ties::refuse);
    std::vector<Merge> merges;
    merges.reserve(space.joins().size());
    for (const Join& x : space.joins()) merges.push_back({x.gone, x.kept, x.height});
    if (space.in_order()) return merges;
    for (std::size_t k = 0; k < space.equal(); ++k) merges[k].height = of_equals;
    by_height(merges, points.n);
    return merges;
}

std::vector<Merge> ward_on_a_line(const Points& points, Task& task) {
    Ward1D& space = kept<Ward1D>();
    double* values = space.start(static_cast<std::int32_t>(points.n));
    const Scale scale = load(points, values);
    task.begin(points, scale, values);
    space.run(infinity, scale.wide, task.refuse_within());
    std::vector<Merge> merges;
    merges.reserve(static_cast<std::size_t>(points.n));
    const auto add = [&](std::int32_t p, double height) { merges.push_back({space.order()[p], space.order()[p + 1], height}); };
    const auto n = static_cast<std::int32_t>(points.n);
    for (std::int32_t p = 0; p + 1 < n; ++p) {  // points that differ may be joined at height 0, too, by rounding
        const bool equal = values[space.order()[p]] == values[space.order()[p + 1]];
        if (equal || space.sequence().empty()) add(p, equal ? of_equals : space.heights()[p]);
    }
    by_height(merges, points.n);
    for (const std::int32_t p : space.sequence()) add(p, space.heights()[p]);
    return merges;
}

std::vector<Merge> agglomerate(Square& square, std::size_t n, const Task& task) {
    square.mirror();
    std::vector<std::int32_t> numbers(n);
    std::iota(numbers.begin(), numbers.end(), 0);
    return Greedy<Square>(square, numbers, std::vector<double>(n, 0.0), task.refuse_within()).run(infinity);
}

void write(const std::vector<Merge>& merges, std::int64_t n, const Task& task, double* z) {
    to_scipy(merges, n, task.exponent, z);
    if (task.tolerance) refuse_near_heights(z, n, task.exponent, *task.tolerance);
}

}  // namespace

void linkage_condensed(const double* distances, std::int64_t points, Method method, double* z, Ties ties) {
    const auto n = static_cast<std::size_t>(points);
    Square square(n, method);
    double largest = 0;
    for (std::size_t i = 1, k = 0; i < n; ++i) {
        poll(static_cast<std::int64_t>(i));
        for (std::size_t end = k + i; k < end; ++k) largest = std::max(largest, std::abs(distances[k]));
    }
    int exponent = 0;  // squares must neither overflow nor vanish, nor small distances where there are none
    std::frexp(largest, &exponent);
    if (method != Method::ward) exponent -= 900;
    for (std::size_t i = 0; i < n; ++i) {
        poll(static_cast<std::int64_t>(8 * n));
        for (std::size_t j = i + 1; j < n; ++j) square.row(i)[j] = std::ldexp(*distances++, -exponent);
    }
    Task task{ties, exponent, {}};
    if (ties == Ties::refuse) task.tolerance.emplace(points, 0, exponent, nullptr);
    write(agglomerate(square, n, task), points, task, z);
}

void linkage(const Points& points, Method method, double* z, Ties ties) {
    Task task{ties, 0, {}};
    std::vector<Merge> merges;
    if (method == Method::ward) {
        merges = points.d == 1 ? ward_on_a_line(points, task) : ward(points, task);
    } else {
        const auto n = static_cast<std::size_t>(points.n), d = static_cast<std::size_t>(points.d);
        std::vector<double> rows(n * d);
        const Scale scale = load(points, rows.data());
        task.begin(points, scale, rows.data());
        if (method == Method::single) {
            merges = single_linkage(rows, points.n, points.d, scale.wide);
        } else {
            Square square(n, method);
            const Distances distances(rows.data(), n, d, scale.wide);
            for (std::size_t a = 0; a < n; ++a) distances.above(a, square.row(a) + a + 1);
            merges = agglomerate(square, n, task);
        }
    }
    write(merges, points.n, task, z);
}

}  // namespace reprune
