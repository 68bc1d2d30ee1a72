#ifndef THINWIRE_CORE_PARAMETER_HPP
#define THINWIRE_CORE_PARAMETER_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/core/shape.hpp>

#include <cmath>
#include <cstddef>
#include <span>
#include <string>

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

}  // namespace thinwire

#endif  // THINWIRE_CORE_PARAMETER_HPP
