#ifndef THINWIRE_OPTIM_UPDATE_RULE_HPP
#define THINWIRE_OPTIM_UPDATE_RULE_HPP

#include <thinwire/core/aligned.hpp>
#include <thinwire/core/isa.hpp>
#include <thinwire/core/shape.hpp>
#include <thinwire/core/thread_pool.hpp>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace thinwire {

/// What an update rule has to see at once of the decoded mean D of a tensor.
enum class update_scope {
    sign,      ///< nothing: the direction is sign(D), sign(0) = 0, and the rule is not called
    elements,  ///< any part: the rule is called with runs of at most 256 elements, from several threads
    matrix,    ///< each matrix of the last two dimensions as a whole
};

/// What a rule of scope matrix works with.
struct update_workspace {
    thread_pool* pool = nullptr;   ///< may be null; a rule uses detail::for_each_item, as the optimizer does
    isa level = isa::scalar;       ///< kernels that the processor runs
    aligned_vector<float> memory;  ///< at least what workspace() asked for; contents unspecified
};

/// The phi of  X <- (1 - rate * weight_decay) X - rate * phi(D):  how the mean of what the peers sent, transformed
/// back, becomes a direction. Given to demo_options or to a parameter_group.
///
/// Replicas stay equal only if every one of them computes the same bits: an own rule must not depend on the machine,
/// the number of threads, or on how a compiler contracts or reorders floating-point operations. Safe are comparisons,
/// choices, single operations from memory to memory, and powers of two. Const calls from several threads at once.
/// direct() and direct_matrix() must not throw: a replica that stopped halfway through a tensor could never go on.
class update_rule {
 public:
    update_rule() = default;
    update_rule(const update_rule&) = delete;
    update_rule& operator=(const update_rule&) = delete;
    virtual ~update_rule() = default;

    /// Name and settings: rules that compute something else have another name. Part of the run's fingerprint.
    [[nodiscard]] virtual std::string name() const = 0;
    /// What the rule does with a tensor of this shape.
    [[nodiscard]] virtual update_scope scope(const shape&) const { return update_scope::elements; }
    /// Multiplies the learning rate of a tensor of this shape; not its weight decay. In 2^-20..2^20.
    [[nodiscard]] virtual float rate(const shape&) const { return 1.0F; }
    /// Scope elements: d <- phi(d). Numbers must stay finite and below 2^100.
    virtual void direct(std::span<float> d) const noexcept { static_cast<void>(d); }
    /// Scope matrix: floats of working memory for one matrix.
    [[nodiscard]] virtual std::size_t workspace(std::size_t rows, std::size_t cols) const { return 0 * rows * cols; }
    /// Scope matrix: d <- phi(d), row-major. Called from one thread.
    virtual void direct_matrix(std::span<float> d, std::size_t rows, std::size_t cols,
                               update_workspace& work) const noexcept {
        static_cast<void>(rows + cols + work.memory.size());
        direct(d);
    }
};

/// phi(D) = sign(D), as the published DeMo has it: every weight moves by the learning rate.
class signum final : public update_rule {
 public:
    [[nodiscard]] std::string name() const override { return "signum"; }
    [[nodiscard]] update_scope scope(const shape&) const override { return update_scope::sign; }
};

/// phi(D) = D: the step is as long as what was sent. With gradients scaled by the learning rate (the default of
/// demo_options::gradient) the rate would enter twice.
class sgd final : public update_rule {
 public:
    [[nodiscard]] std::string name() const override { return "sgd"; }
};

using update_rule_ptr = std::shared_ptr<const update_rule>;

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_UPDATE_RULE_HPP
