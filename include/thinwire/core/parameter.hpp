#ifndef THINWIRE_CORE_PARAMETER_HPP
#define THINWIRE_CORE_PARAMETER_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/core/shape.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace thinwire {

/// One trainable tensor: where its weights and their gradient lie. Does not own either.
struct parameter {
    std::string name;
    thinwire::shape shape;
    std::span<float> values;    ///< shape.count() weights, row-major
    std::span<float> gradient;  ///< as many
};

/// Throws shape_error when a span does not have the elements that the shape states.
inline void check(const parameter& p) {
    const std::size_t expected = p.shape.count();
    const auto complain = [&](const char* what, std::size_t found) {
        throw shape_error("parameter '" + p.name + "': " + what + " has " + std::to_string(found) +
                          " elements, expected " + std::to_string(expected) + " for shape " + to_string(p.shape));
    };
    if (p.values.size() != expected) complain("values", p.values.size());
    if (p.gradient.size() != expected) complain("gradient", p.gradient.size());
}

/// The gradient of parameter i lies there from now on. Throws value_error where there is no such parameter, shape_error
/// for another number of elements.
inline void set_gradient(std::span<parameter> parameters, std::size_t i, std::span<float> gradient) {
    if (i >= parameters.size())
        throw value_error("set_gradient: parameter " + std::to_string(i) + ", expected below " +
                          std::to_string(parameters.size()));
    parameter changed = parameters[i];
    changed.gradient = gradient;
    check(changed);
    parameters[i].gradient = gradient;
}

/// Throws value_error when two of them hold the same weights, which would be updated twice: of tied weights one is
/// given.
inline void check_apart(std::span<const parameter> parameters) {
    std::vector<const parameter*> sorted;
    for (const parameter& p : parameters)
        if (!p.values.empty()) sorted.push_back(&p);
    std::ranges::sort(sorted, std::less<>(), [](const parameter* p) { return p->values.data(); });
    for (std::size_t i = 1; i < sorted.size(); ++i) {
        const parameter &before = *sorted[i - 1], &p = *sorted[i];
        if (std::less<>()(p.values.data(), before.values.data() + before.values.size()))
            throw value_error("parameters '" + before.name + "' and '" + p.name +
                              "': the same weights are in both, expected each weight once");
    }
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_PARAMETER_HPP
