#ifndef THINWIRE_LAUNCHER_REPLICA_HPP
#define THINWIRE_LAUNCHER_REPLICA_HPP

#include <thinwire/backend/cpu/fast.hpp>
#include <thinwire/codec/payload.hpp>
#include <thinwire/comm/transport.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/io/snapshot.hpp>
#include <thinwire/nn/transformer.hpp>
#include <thinwire/optim/step_report.hpp>

#include "configuration.hpp"
#include "directory.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace thinwire::launcher {

/// The model that the keys [model] and data.sequence_length describe.
[[nodiscard]] nn::transformer_config transformer_of(const configuration& settings);

/// peer.threads, or the number of processors when it is 0.
[[nodiscard]] int thread_count(std::int64_t asked);

/// DeMo or AdamW behind one face, as the configuration says which.
class any_optimizer {
 public:
    any_optimizer() = default;
    any_optimizer(const any_optimizer&) = delete;
    any_optimizer& operator=(const any_optimizer&) = delete;
    virtual ~any_optimizer() = default;

    [[nodiscard]] virtual std::span<const std::byte> begin_step(peer_id self) = 0;
    virtual step_report end_step(std::span<const commit> commits) = 0;
    virtual step_report apply(const commit& one) = 0;
    [[nodiscard]] virtual std::uint64_t round() const = 0;
    virtual void set_round(std::uint64_t round) = 0;
    virtual void set_learning_rate(float rate) = 0;
    virtual void set_tokens(std::uint32_t tokens) = 0;
    virtual void set_k(int k) = 0;  ///< adamw: nothing
    [[nodiscard]] virtual digest replica_digest() const = 0;
    [[nodiscard]] virtual payload_layout layout() const = 0;
    [[nodiscard]] virtual std::span<const std::byte> in_flight() const = 0;
    /// Mean square of the private momentum; nothing for an optimizer without one.
    [[nodiscard]] virtual std::optional<double> momentum_energy() = 0;
    [[nodiscard]] virtual std::vector<std::byte> save_private() const = 0;
    [[nodiscard]] virtual result<ok> restore_private(std::span<const std::byte> bytes) = 0;
    [[nodiscard]] virtual std::vector<std::byte> save_replica() const = 0;
    [[nodiscard]] virtual result<ok> restore_replica(std::span<const std::byte> bytes) = 0;
};

[[nodiscard]] std::unique_ptr<any_optimizer> make_optimizer(const configuration& settings, const digest& run,
                                                            std::span<const parameter> parameters, thread_pool& pool);

/// Model and optimizer of one peer, in memory and on disk.
class replica {
 public:
    /// Builds the model without weights. Throws launcher_error(usage) for a shape that cannot be.
    explicit replica(const configuration& settings);

    /// Round 0 of a new run: weights from run.seed. The run's digest is that of manifest and weights.
    void begin();
    /// Takes weights, round and shared optimizer state. Throws launcher_error(storage) when they do not fit.
    void restore(const snapshot& from);

    [[nodiscard]] const digest& run() const noexcept { return run_; }
    /// What a sequencer asks of a payload before it may be committed. Callable from any thread, also without this
    /// object.
    [[nodiscard]] std::function<result<ok>(std::uint64_t, peer_id, std::span<const std::byte>)> payload_check() const;
    [[nodiscard]] any_optimizer& optimizer() noexcept { return *optimizer_; }
    [[nodiscard]] const any_optimizer& optimizer() const noexcept { return *optimizer_; }
    [[nodiscard]] std::size_t parameter_count();
    [[nodiscard]] std::span<const parameter> parameters() { return model_.parameters(); }

    /// Mean loss of a micro-batch; its gradient is added to those since the last zero_gradient().
    [[nodiscard]] float loss_and_gradient(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                                          int rows);
    void zero_gradient() { model_.zero_gradient(); }
    /// Makes a sum over `count` micro-batches their mean.
    void average_gradient(int count);
    /// As mean_loss().
    [[nodiscard]] double evaluate(std::span<const std::byte> validation, std::int64_t windows);

    /// What the model goes on with after a line end: so many bytes, the same for the same weights.
    [[nodiscard]] std::string sample(std::int64_t count);

    [[nodiscard]] snapshot make_snapshot();
    /// DIR/replica.snapshot, then the same weights as model.safetensors and config.json.
    void save(const directory& where);
    void save_private(const directory& where);
    /// Momentum and the payload in flight, if there are any. Throws launcher_error(storage) when they are damaged or of
    /// another run.
    void restore_private(const directory& where);

 private:
    configuration settings_;
    nn::transformer_config shape_;
    thread_pool pool_;
    cpu::fast backend_;
    nn::transformer<cpu::fast> model_;
    std::unique_ptr<any_optimizer> optimizer_;
    digest run_{};
};

/// Mean loss over `windows` rows spread evenly over a text (0: as many as fit). Precondition: room for one row.
[[nodiscard]] double mean_loss(nn::transformer<cpu::fast>& model, std::span<const std::byte> text,
                               std::int64_t sequence_length, std::int64_t windows);

/// SHA-256 of a manifest and the weights that a run begins with.
[[nodiscard]] digest run_digest(const std::string& manifest, std::span<const parameter> parameters);

/// DIR/replica.snapshot. Throws launcher_error(storage) when it is damaged.
[[nodiscard]] snapshot load_snapshot(const directory& where);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_REPLICA_HPP
