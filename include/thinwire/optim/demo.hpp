#ifndef THINWIRE_OPTIM_DEMO_HPP
#define THINWIRE_OPTIM_DEMO_HPP

#include <thinwire/codec/payload.hpp>
#include <thinwire/comm/transport.hpp>
#include <thinwire/core/isa.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/optim/clip.hpp>
#include <thinwire/optim/detail/chunk_worker.hpp>
#include <thinwire/optim/detail/parallel.hpp>
#include <thinwire/optim/detail/private_state.hpp>
#include <thinwire/optim/detail/round_keeper.hpp>
#include <thinwire/optim/optimizer.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

struct demo_options {
    float learning_rate = 1e-3F;
    float momentum_decay = 0.999F;        ///< in [0, 1)
    int k = 32;                           ///< coefficients sent per chunk: 1..chunk^2; small chunks send all they have
    int chunk = 64;                       ///< side of a chunk: 1..256
    value_code values = value_code::f32;  ///< sign sends one bit instead of 32
    float weight_decay = 0.0F;
    float clip_norm = 0.0F;  ///< the local gradients are scaled to at most this norm; 0: never
    digest run{};            ///< payloads of another run are refused
    isa level = best_isa();  ///< instruction set to use; replicas need not agree on it
};

/// Decoupled momentum optimization (Peng, Quesnelle, Kingma: arXiv 2411.19870), as the published code computes it:
///
///   M <- momentum_decay * M + learning_rate * G
///   S <- the k largest of the orthonormal DCT-II of M, per chunk;  M <- M - inverse(S);  publish S
///   D <- inverse(mean of each coefficient over the peers that sent it)
///   X <- (1 - learning_rate * weight_decay) * X - learning_rate * sign(D)
///
/// M is private, X the replica. With f32 values it reproduces the published code to float32 rounding. What is
/// applied depends on the committed payloads alone, whose header carries both rates, and is bit-equal on every
/// processor, instruction set, thread count, compiler and optimization flag (see detail/exact_mean.hpp). Subnormal
/// weights, and -0, become +0 in a round that changes their tensor.
///
/// Refers to the parameters' memory, which must outlive it. Not thread-safe; uses the pool's threads within a call.
class demo {
 public:
    /// Throws value_error for an option out of range, shape_error for a parameter whose spans do not fit its shape.
    demo(std::span<const parameter> parameters, demo_options options, thread_pool* pool = nullptr)
        : parameters_(parameters.begin(), parameters.end()),
          options_(check_options(options)),
          pool_(pool),
          plan_(parameters, options.k, options.chunk, options.values),
          momentum_(plan_.elements()) {
        workers_.reserve(detail::lane_count(pool));
        for (std::size_t i = 0; i < detail::lane_count(pool); ++i)
            workers_.emplace_back(plan_, kernels_for(options.level));
        decoders_.assign(workers_.size(), payload_decoder(layout()));
        coders_.assign(workers_.size(), section_coder(layout()));
        own_.resize(plan_.layout());
    }
    demo(const demo&) = delete;
    demo& operator=(const demo&) = delete;

    /// One round over a transport: begin_step, exchange, end_step. What the transport throws passes through; the
    /// payload is then still in flight.
    template <transport T>
    step_report step(T& t) {
        const auto payload = begin_step(static_cast<peer_id>(t.self()));
        return end_step(t.exchange(round(), payload));
    }

    /// Takes the gradients into the momentum and the largest coefficients out of it: the payload for round(), valid
    /// until the next begin_step. Throws value_error, with nothing changed, when a gradient is not finite or absurdly
    /// large, or when the last payload is still in flight.
    [[nodiscard]] std::span<const std::byte> begin_step(peer_id self) {
        rounds_.require_none_pending();
        const double norm = gradient_norm(parameters_, pool_, options_.level);
        const double gain = static_cast<double>(options_.learning_rate) * clip_factor(norm, options_.clip_norm);
        if (!(norm * gain < 0x1p60))
            throw value_error("begin_step: gradient norm " + std::to_string(norm) +
                              ", expected learning rate times norm below 2^60");
        gradient_norm_ = static_cast<float>(norm);
        detail::for_each_item(pool_, plan_.pieces().size(), [&](std::size_t lane, std::size_t i) {
            const auto& piece = plan_.pieces()[i];
            const auto& t = plan_.tensors()[piece.tensor];
            for (std::size_t chunk = piece.from; chunk < piece.to; ++chunk) {
                const std::size_t at = t.grid.offset(chunk);
                workers_[lane].encode(t, chunk, momentum_.data() + t.first_element + at,
                                      parameters_[piece.tensor].gradient.data() + at, options_.momentum_decay,
                                      static_cast<float>(gain), options_.values, own_);
            }
        });
        rounds_.start(self, round(), write_payload(self));
        return rounds_.payload();
    }

    /// Applies commits in order; the first must be that of round() (value_error). Takes the payload in flight back into
    /// the momentum when its round's commit does not hold it.
    step_report end_step(std::span<const commit> commits) {
        if (commits.empty())
            throw value_error("end_step: no commit, expected that of round " + std::to_string(round()));
        step_report report{.bytes_sent = rounds_.payload().size(), .gradient_norm = gradient_norm_};
        for (const commit& c : commits) detail::round_keeper::merge(report, apply(c));
        return report;
    }

    /// Applies the commit of round(): the same for a commit this peer contributed to and one that it replays.
    step_report apply(const commit& c) {
        rounds_.require_round(c);
        step_report report{.round = c.round};
        const auto& share = rounds_.share(parameters_, [](sha256&, std::size_t) {});
        static_cast<void>(share);
        std::optional<payload_info> first;
        accepted_.clear();
        read(c);
        for (std::size_t i = 0; i < c.contributions.size(); ++i) {
            if (!headers_[i]) {
                ++report.rejected;
                continue;
            }
            rounds_.count(report, c.contributions[i], *headers_[i]);
            if (!rounds_.pending() || c.contributions[i].peer != rounds_.pending_self())
                report.bytes_received += c.contributions[i].payload.size();
            if (!first) first = *headers_[i];
            accepted_.push_back(&contents_[i]);
        }
        if (first) {
            report.learning_rate = first->learning_rate;
            update(*first);
        }
        if (rounds_.pending() && rounds_.pending_round() == c.round) {
            if (!report.own_included) take_back();
            rounds_.settle();
        }
        rounds_.next_round();
        return report;
    }

    /// The next round to contribute to or to apply.
    [[nodiscard]] std::uint64_t round() const noexcept { return rounds_.round(); }
    /// After loading a snapshot of the weights. A payload in flight for a round that the snapshot already holds is
    /// taken as committed.
    void set_round(std::uint64_t round) noexcept {
        rounds_.set_round(round);
        if (rounds_.pending() && rounds_.pending_round() < round) rounds_.settle();
    }

    /// The payload that awaits its commit; empty when there is none. After restore_private() it may be exchanged again.
    [[nodiscard]] std::span<const std::byte> in_flight() const noexcept { return rounds_.payload(); }
    /// Takes the payload in flight back into the momentum: its round will never commit it.
    void abandon() {
        if (!rounds_.pending()) return;
        take_back();
        rounds_.settle();
    }

    /// For the payloads to come. Throws value_error unless 0, or 2^-100..2^20.
    void set_learning_rate(float rate) {
        demo_options changed = options_;
        changed.learning_rate = rate;
        options_ = check_options(changed);
    }

    [[nodiscard]] const demo_options& options() const noexcept { return options_; }
    /// What every payload of this run looks like: for a sequencer's validate_payload().
    [[nodiscard]] const payload_layout& layout() const noexcept { return plan_.layout(); }
    /// The private momentum of parameter i.
    [[nodiscard]] std::span<const float> momentum(std::size_t i) const noexcept {
        return std::span(momentum_).subspan(plan_.tensors()[i].first_element, parameters_[i].values.size());
    }

    /// SHA-256 of all weights in the order of the parameters.
    [[nodiscard]] digest replica_digest() const {
        sha256 sum;
        for (const parameter& p : parameters_) detail::digest_floats(sum, p.values);
        return sum.finish();
    }

    /// Momentum and payload in flight, exactly: a peer that restores them goes on bit for bit.
    [[nodiscard]] std::vector<std::byte> save_private() const {
        return detail::save_private_state(layout(), options_.run, momentum_, rounds_, own_);
    }
    /// Reads what save_private() wrote for the same tensors, options and run. Total; nothing changes when refused.
    [[nodiscard]] result<ok> restore_private(std::span<const std::byte> bytes) {
        return detail::restore_private_state(bytes, layout(), options_.run, momentum_, rounds_, own_);
    }

    /// The optimizer state that all replicas share besides the weights: none.
    [[nodiscard]] std::vector<std::byte> save_replica() const { return {}; }
    [[nodiscard]] result<ok> restore_replica(std::span<const std::byte> bytes) {
        rounds_.set_round(rounds_.round());
        if (!bytes.empty())
            return failure{errc::trailing,
                           "demo: replica state of " + std::to_string(bytes.size()) + " bytes, expected none"};
        return ok{};
    }

 private:
    static demo_options check_options(const demo_options& o) {
        const auto require = [](bool good, const char* name, float value, const char* expected) {
            if (!good)
                throw value_error("demo: " + std::string(name) + " " + std::to_string(value) + ", expected " +
                                  expected);
        };
        require(detail::sane_rate(o.learning_rate), "learning_rate", o.learning_rate, "0, or 2^-100..2^20");
        require(detail::sane_rate(o.weight_decay), "weight_decay", o.weight_decay, "0, or 2^-100..2^20");
        require(static_cast<double>(o.learning_rate) * static_cast<double>(o.weight_decay) <= 1.0, "weight_decay",
                o.weight_decay, "at most 1 / learning_rate");
        require(o.momentum_decay >= 0.0F && o.momentum_decay < 1.0F, "momentum_decay", o.momentum_decay,
                "0 <= decay < 1");
        require(o.clip_norm >= 0.0F && o.clip_norm < 1e30F, "clip_norm", o.clip_norm, "0 (none) or a positive norm");
        if (o.level > best_isa())
            throw value_error("demo: level " + std::string(to_string(o.level)) + ", expected at most this machine's " +
                              std::string(to_string(best_isa())));
        return o;
    }

    std::vector<std::byte> write_payload(peer_id self) {
        const payload_layout& shape = layout();
        const payload_info info = {.kind = payload_kind::demo,
                                   .values = options_.values,
                                   .run = options_.run,
                                   .round = round(),
                                   .peer = self,
                                   .fingerprint = shape.fingerprint,
                                   .k = shape.k,
                                   .chunk = shape.chunk,
                                   .learning_rate = options_.learning_rate,
                                   .weight_decay = options_.weight_decay,
                                   .replica = rounds_.share(parameters_, [](sha256&, std::size_t) {})};
        payload_writer out(info, shape.sections.size(), rounds_.reuse());
        for (std::size_t i = 0; i < shape.sections.size(); ++i) {
            coders_[0].encode(shape.sections[i], plan_.slice(own_, i), out.begin_section());
            out.end_section();
        }
        out.finish();
        return out.take();
    }

    /// Decodes every contribution into contents_ and headers_; no header where it is refused.
    void read(const commit& c) {
        const std::size_t n = c.contributions.size();
        headers_.assign(n, std::nullopt);
        if (contents_.size() < n) contents_.resize(n);
        for (std::size_t i = 0; i < n; ++i) contents_[i].resize(layout());
        detail::for_each_item(pool_, n, [&](std::size_t lane, std::size_t i) {
            if (detail::round_keeper::repeated(c, i)) return;
            const contribution& from = c.contributions[i];
            const auto info = decoders_[lane].decode(
                from.payload, {.run = options_.run, .round = c.round, .peer = from.peer}, contents_[i]);
            if (info) headers_[i] = *info;
        });
    }

    void update(const payload_info& rates) {
        const auto factor = static_cast<float>(1.0 - static_cast<double>(rates.learning_rate) *
                                                         static_cast<double>(rates.weight_decay));
        detail::for_each_item(pool_, plan_.pieces().size(), [&](std::size_t lane, std::size_t i) {
            const auto& piece = plan_.pieces()[i];
            const auto& t = plan_.tensors()[piece.tensor];
            for (std::size_t chunk = piece.from; chunk < piece.to; ++chunk)
                workers_[lane].apply(t, chunk, parameters_[piece.tensor].values.data() + t.grid.offset(chunk),
                                     accepted_, rates.learning_rate, factor);
        });
    }

    void take_back() {
        detail::for_each_item(pool_, plan_.pieces().size(), [&](std::size_t lane, std::size_t i) {
            const auto& piece = plan_.pieces()[i];
            const auto& t = plan_.tensors()[piece.tensor];
            for (std::size_t chunk = piece.from; chunk < piece.to; ++chunk)
                workers_[lane].take_back(t, chunk, momentum_.data() + t.first_element + t.grid.offset(chunk), own_);
        });
    }

    std::vector<parameter> parameters_;
    demo_options options_;
    thread_pool* pool_;
    detail::chunk_plan plan_;
    std::vector<detail::chunk_worker> workers_;
    aligned_vector<float> momentum_;
    sparse_content own_;  ///< what this peer last sent; with sign values, what the signs stand for
    detail::round_keeper rounds_;
    float gradient_norm_ = 0.0F;
    std::vector<sparse_content> contents_;
    std::vector<payload_decoder> decoders_;
    std::vector<section_coder> coders_;
    std::vector<std::optional<payload_info>> headers_;
    std::vector<const sparse_content*> accepted_;
};

static_assert(optimizer<demo>);

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_DEMO_HPP
