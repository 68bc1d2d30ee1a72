#ifndef THINWIRE_OPTIM_CLIP_HPP
#define THINWIRE_OPTIM_CLIP_HPP

#include <thinwire/core/aligned.hpp>
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
        for (const parameter& p : parameters_)
            for (std::size_t at = 0; at < p.gradient.size(); at += block)
                pieces_.push_back({.values = p.gradient.subspan(at, std::min(block, p.gradient.size() - at))});
    }

    /// The gradient of parameter i, as long as it was, lies elsewhere from now on.
    void move_gradient(std::size_t i, std::span<float> gradient) noexcept {
        std::size_t first = 0;
        for (std::size_t before = 0; before < i; ++before) first += pieces_of(parameters_[before].gradient.size());
        for (std::size_t n = 0; n < pieces_of(gradient.size()); ++n)
            pieces_[first + n].values = gradient.subspan(n * block, pieces_[first + n].values.size());
        parameters_[i].gradient = gradient;
    }

    /// The Euclidean norm of all gradients together; the same for any number of threads. Allocates nothing.
    /// Throws value_error that names tensor and element of the first gradient that is not finite.
    [[nodiscard]] double norm(thread_pool* pool = nullptr, isa level = best_isa()) {
        return norm(pool, level, [](std::size_t) noexcept {});
    }
    /// The same. A single thread gets other work done while it reads: beside(n) does a part of it that fits n
    /// gradients. It must not throw.
    template <class Beside>
    [[nodiscard]] double norm(thread_pool* pool, isa level, const Beside& beside) {
        const transform_kernels& kernels = kernels_for(level);
        const auto work = [](const void* context) {
            (*static_cast<const Beside*>(context))(detail::scan_pause::gradients);
        };
        detail::scan_pause pause;
        if (detail::lane_count(pool) == 1) pause = {.work = work, .context = &beside};
        detail::for_each_item(pool, pieces_.size(), [&](std::size_t, std::size_t i) {
            piece& p = pieces_[i];
            p.sum = 0.0;
            p.largest = 0;
            kernels.scan(p.values.data(), p.values.size(), p.sum, p.largest, pause);
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
    /// What it holds; the names of the parameters apart.
    [[nodiscard]] std::size_t memory_bytes() const noexcept { return bytes_held(parameters_, pieces_); }

 private:
    static constexpr std::size_t block = 1U << 15U;
    [[nodiscard]] static constexpr std::size_t pieces_of(std::size_t elements) noexcept {
        return (elements + block - 1) / block;
    }

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
