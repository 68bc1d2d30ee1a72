#ifndef THINWIRE_OPTIM_CLIP_HPP
#define THINWIRE_OPTIM_CLIP_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/optim/detail/parallel.hpp>
#include <thinwire/transform/kernels.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace thinwire {

namespace detail {

/// Throws value_error that names tensor and element of the first gradient that is not finite. Precondition: there is
/// one.
[[noreturn]] inline void refuse_gradient(std::span<const parameter> parameters) {
    for (const parameter& p : parameters)
        for (std::size_t i = 0; i < p.gradient.size(); ++i)
            if ((std::bit_cast<std::uint32_t>(p.gradient[i]) & 0x7fffffffU) >= 0x7f800000U)
                throw value_error("gradient of '" + p.name + "': element " + std::to_string(i) + " is " +
                                  std::to_string(p.gradient[i]) + ", expected a finite number");
    throw value_error("gradient: an element is not finite");
}

}  // namespace detail

/// Measures the gradients of the same parameters again and again. Refers to their memory; not thread-safe.
class gradient_meter {
 public:
    explicit gradient_meter(std::span<const parameter> parameters) : parameters_(parameters.begin(), parameters.end()) {
        constexpr std::size_t block = 1U << 15U;
        for (const parameter& p : parameters_)
            for (std::size_t at = 0; at < p.gradient.size(); at += block)
                pieces_.push_back({.values = p.gradient.subspan(at, std::min(block, p.gradient.size() - at))});
    }

    /// The Euclidean norm of all gradients together; the same for any number of threads. Allocates nothing.
    /// Throws value_error that names tensor and element of the first gradient that is not finite.
    [[nodiscard]] double norm(thread_pool* pool = nullptr, isa level = best_isa()) {
        return norm(pool, level, []() noexcept {});
    }
    /// The same, and calls beside() once, on any of the threads, before the measuring ends. It must not throw.
    template <class Beside>
    [[nodiscard]] double norm(thread_pool* pool, isa level, const Beside& beside) {
        const transform_kernels& kernels = kernels_for(level);
        detail::for_each_item(pool, pieces_.size() + 1, [&](std::size_t, std::size_t i) {
            if (i == 0) return beside();
            piece& p = pieces_[i - 1];
            p.sum = 0.0;
            p.largest = 0;
            kernels.scan(p.values.data(), p.values.size(), p.sum, p.largest);
        });
        double sum = 0.0;
        bool finite = true;
        for (const piece& p : pieces_) {
            sum += p.sum;
            finite = finite && p.largest < 0x7f800000U;
        }
        if (!finite) detail::refuse_gradient(parameters_);
        return std::sqrt(sum);
    }

 private:
    struct piece {
        std::span<const float> values;
        double sum = 0.0;
        std::uint32_t largest = 0;
    };

    std::vector<parameter> parameters_;
    std::vector<piece> pieces_;
};

/// The norm of all gradients together, once: see gradient_meter.
[[nodiscard]] inline double gradient_norm(std::span<const parameter> parameters, thread_pool* pool = nullptr,
                                          isa level = best_isa()) {
    return gradient_meter(parameters).norm(pool, level);
}

/// What gradients of this norm are multiplied by so that the norm is at most `limit` (0: no limit); as
/// torch.nn.utils.clip_grad_norm_ computes it.
[[nodiscard]] inline double clip_factor(double norm, double limit) noexcept {
    if (limit <= 0.0) return 1.0;
    return std::min(1.0, limit / (norm + 1e-6));
}

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_CLIP_HPP
