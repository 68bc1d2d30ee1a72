#ifndef THINWIRE_OPTIM_ADAMW_HPP
#define THINWIRE_OPTIM_ADAMW_HPP

#include <thinwire/codec/payload.hpp>
#include <thinwire/comm/transport.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/float_mode.hpp>
#include <thinwire/core/isa.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/optim/clip.hpp>
#include <thinwire/optim/detail/adamw_kernel.hpp>
#include <thinwire/optim/detail/chunk_plan.hpp>
#include <thinwire/optim/detail/parallel.hpp>
#include <thinwire/optim/detail/private_state.hpp>
#include <thinwire/optim/detail/round_keeper.hpp>
#include <thinwire/optim/optimizer.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

struct adamw_options {
    float learning_rate = 1e-3F;
    double beta1 = 0.9;
    double beta2 = 0.95;
    double epsilon = 1e-8;
    float weight_decay = 0.0F;
    float clip_norm = 0.0F;  ///< the local gradients are scaled to at most this norm before they are sent; 0: never
    mean_weights weights = mean_weights::equal;  ///< what a contribution weighs in the mean
    digest run{};
    isa level = best_isa();
};

/// AdamW (Loshchilov and Hutter, arXiv 1711.05101) on the mean of all peers' gradients: plain data parallelism over the
/// same transports, the baseline that demo is measured against. Payloads are the dense float32 gradients. Both moments
/// are part of the replica. The arithmetic is that of torch.optim.AdamW, in double with the moments and weights
/// rounded to float32, one operation at a time: replicas are bit-equal as with demo. Not thread-safe.
class adamw {
 public:
    /// Throws value_error for an option out of range, shape_error for a parameter whose spans do not fit its shape.
    adamw(std::span<const parameter> parameters, adamw_options options, thread_pool* pool = nullptr)
        : parameters_(parameters.begin(), parameters.end()),
          options_(check_options(options)),
          pool_(pool),
          meter_(parameters),
          weigher_(options_.weights, 0.0F),
          gradients_(detail::lane_count(pool)) {
        layout_ = {.kind = payload_kind::dense,
                   .fingerprint = detail::dense_fingerprint(parameters, options_.weights),
                   .sections = {}};
        std::size_t elements = 0;
        check_apart(parameters);
        for (const parameter& p : parameters) {
            check(p);
            detail::require_section_fits(p, 4 * p.shape.count());
            layout_.sections.push_back({.chunks = p.shape.count(), .chunk_size = 1, .kept = 1});
            first_.push_back(elements);
            elements += p.shape.count();
        }
        mean_.resize(elements);
        square_.resize(elements);
    }
    adamw(const adamw&) = delete;
    adamw& operator=(const adamw&) = delete;

    /// One round over a transport: begin_step, exchange, end_step.
    template <transport T>
    step_report step(T& t) {
        const auto payload = begin_step(static_cast<peer_id>(t.self()));
        return end_step(t.exchange(round(), payload));
    }

    /// The gradients as the payload for round(), valid until the next begin_step. Throws value_error, with nothing
    /// changed, when a gradient is not finite or absurdly large, or when the last payload is still in flight.
    [[nodiscard]] std::span<const std::byte> begin_step(peer_id self) {
        rounds_.require_none_pending();
        const standard_float_mode mode;
        const double norm = meter_.norm(pool_, options_.level);
        if (!(norm < 0x1p60))
            throw value_error("begin_step: gradient norm " + std::to_string(norm) + ", expected below 2^60");
        gradient_norm_ = static_cast<float>(norm);
        const auto factor = static_cast<float>(clip_factor(norm, options_.clip_norm));
        payload_info info = {.kind = payload_kind::dense,
                             .run = options_.run,
                             .round = round(),
                             .peer = self,
                             .fingerprint = layout_.fingerprint,
                             .learning_rate = options_.learning_rate,
                             .weight_decay = options_.weight_decay,
                             .tokens = rounds_.tokens(),
                             .replica = share()};
        payload_writer out(info, layout_.sections.size(), rounds_.reuse());
        for (const parameter& p : parameters_) {
            byte_writer bytes(std::move(out.begin_section()));
            for (const float g : p.gradient) bytes.put(g * factor);
            out.end_section(bytes.take());
        }
        out.finish();
        rounds_.start(self, round(), out.take());
        return rounds_.payload();
    }

    /// Applies commits in order; the first must be that of round() (value_error).
    step_report end_step(std::span<const commit> commits) {
        if (commits.empty())
            throw value_error("end_step: no commit, expected that of round " + std::to_string(round()));
        step_report report{.bytes_sent = rounds_.payload().size(), .gradient_norm = gradient_norm_};
        for (const commit& c : commits) detail::round_keeper::merge(report, apply(c));
        return report;
    }

    /// Applies the commit of round(), own or replayed. Gradients that missed their commit are lost with it.
    step_report apply(const commit& c) {
        rounds_.require_round(c);
        const standard_float_mode mode;
        step_report report{.round = c.round};
        static_cast<void>(share());
        senders_ = 0;
        weigher_.clear();
        for (std::size_t i = 0; i < c.contributions.size(); ++i) {
            const contribution& from = c.contributions[i];
            if (accepted_.size() == senders_) accepted_.emplace_back();
            payload_view& view = accepted_[senders_];
            if (detail::round_keeper::repeated(c, i)) {
                detail::round_keeper::reject(report, errc::malformed);
                continue;
            }
            if (const auto opened = open_dense_payload(
                    from.payload, layout_, {.run = options_.run, .round = c.round, .peer = from.peer}, view);
                !opened) {
                detail::round_keeper::reject(report, opened.error().code);
                continue;
            }
            rounds_.count(report, from, view.info());
            weigher_.add(view.info().tokens, 0);
            ++senders_;
        }
        if (senders_ > 0) update();
        if (rounds_.pending() && rounds_.pending_round() == c.round) rounds_.settle(false);
        rounds_.next_round();
        return report;
    }

    [[nodiscard]] std::uint64_t round() const noexcept { return rounds_.round(); }
    /// After loading a snapshot.
    void set_round(std::uint64_t round) noexcept { rounds_.set_round(round); }
    [[nodiscard]] std::span<const std::byte> in_flight() const noexcept { return rounds_.payload(); }
    /// Forgets the payload in flight.
    void abandon() noexcept { rounds_.settle(false); }

    /// For the payloads to come. Throws value_error unless 0, or 2^-100..2^20.
    void set_learning_rate(float rate) {
        adamw_options changed = options_;
        changed.learning_rate = rate;
        options_ = check_options(changed);
    }

    /// How many tokens the gradients of the payloads to come are means over; 0, as at first: not stated. Throws
    /// value_error above most_tokens.
    void set_tokens(std::uint32_t tokens) { rounds_.set_tokens(tokens); }
    [[nodiscard]] const adamw_options& options() const noexcept { return options_; }
    [[nodiscard]] const payload_layout& layout() const noexcept { return layout_; }

    /// SHA-256 of all weights, then both moments.
    [[nodiscard]] digest replica_digest() const {
        sha256 sum;
        for (const parameter& p : parameters_) detail::digest_floats(sum, p.values);
        detail::digest_floats(sum, mean_);
        detail::digest_floats(sum, square_);
        return sum.finish();
    }

    /// Nothing: gradients in flight are not kept over a restart.
    [[nodiscard]] std::vector<std::byte> save_private() const { return {}; }
    [[nodiscard]] result<ok> restore_private(std::span<const std::byte> bytes) {
        if (!bytes.empty())
            return failure{errc::trailing,
                           "adamw: private state of " + std::to_string(bytes.size()) + " bytes, expected none"};
        return ok{};
    }

    /// Both moments and the number of steps, exactly.
    [[nodiscard]] std::vector<std::byte> save_replica() const {
        byte_writer out;
        out.put(replica_magic);
        out.put(replica_version);
        out.put(layout_.fingerprint);
        out.put(power1_);
        out.put(power2_);
        out.put(static_cast<std::uint64_t>(mean_.size()));
        out.put(std::span<const float>(mean_));
        out.put(std::span<const float>(square_));
        out.put(checksum64(out.bytes()));
        return out.take();
    }
    /// Reads what save_replica() wrote for the same tensors. Total; nothing changes when refused.
    [[nodiscard]] result<ok> restore_replica(std::span<const std::byte> bytes) {
        const auto refuse = [](errc code, const char* what) {
            return failure{code,
                           "adamw replica state: " + std::string(what) + " (" + std::string(to_string(code)) + ")"};
        };
        byte_reader in(bytes);
        if (in.get<std::uint32_t>() != replica_magic) return refuse(errc::bad_magic, "not one of thinwire");
        if (in.get<std::uint32_t>() != replica_version) return refuse(errc::bad_version, "format version");
        if (bytes.size() < 48) return refuse(errc::truncated, "header");
        byte_reader tail(bytes.last(8));
        if (tail.get<std::uint64_t>() != checksum64(bytes.first(bytes.size() - 8)))
            return refuse(errc::bad_checksum, "checksum differs");
        if (in.get<std::uint64_t>() != layout_.fingerprint) return refuse(errc::mismatch, "of other tensors");
        const double power1 = in.get_f64(), power2 = in.get_f64();
        if (!(power1 >= 0.0 && power1 <= 1.0 && power2 >= 0.0 && power2 <= 1.0))
            return refuse(errc::out_of_range, "powers");
        if (in.get<std::uint64_t>() != mean_.size()) return refuse(errc::mismatch, "of other tensors");
        aligned_vector<float> mean(mean_.size()), square(mean_.size());
        if (!detail::get_floats(in, mean) || !detail::get_floats(in, square))
            return refuse(errc::not_finite, "moments");
        if (std::any_of(square.begin(), square.end(), [](float s) { return s < 0.0F; }))
            return refuse(errc::out_of_range, "a negative second moment");
        if (in.remaining() != 8) return refuse(errc::trailing, "bytes after the end");
        mean_ = std::move(mean);
        square_ = std::move(square);
        power1_ = power1;
        power2_ = power2;
        rounds_.forget_share();
        return ok{};
    }

 private:
    static constexpr std::uint32_t replica_magic = 0x52415754;  // "TWAR"
    static constexpr std::uint32_t replica_version = 1;

    static adamw_options check_options(const adamw_options& o) {
        const auto require = [](bool good, const char* name, double value, const char* expected) {
            if (!good)
                throw value_error("adamw: " + std::string(name) + " " + std::to_string(value) + ", expected " +
                                  expected);
        };
        require(detail::sane_rate(o.learning_rate), "learning_rate", o.learning_rate, "0, or 2^-100..2^20");
        require(detail::sane_rate(o.weight_decay), "weight_decay", o.weight_decay, "0, or 2^-100..2^20");
        require(static_cast<double>(o.learning_rate) * static_cast<double>(o.weight_decay) <= 1.0, "weight_decay",
                o.weight_decay, "at most 1 / learning_rate");
        require(o.beta1 >= 0.0 && o.beta1 < 1.0, "beta1", o.beta1, "0 <= beta1 < 1");
        require(o.beta2 >= 0.0 && o.beta2 < 1.0, "beta2", o.beta2, "0 <= beta2 < 1");
        require(o.epsilon >= 1e-30 && o.epsilon <= 1.0, "epsilon", o.epsilon, "1e-30..1");
        require(o.clip_norm >= 0.0F && o.clip_norm < 1e30F, "clip_norm", o.clip_norm, "0 (none) or a positive norm");
        if (o.weights > mean_weights::tokens)
            throw value_error("adamw: weights " + std::to_string(static_cast<int>(o.weights)) +
                              ", expected equal or tokens");
        if (o.level > best_isa())
            throw value_error("adamw: level " + std::string(to_string(o.level)) + ", expected at most this machine's " +
                              std::string(to_string(best_isa())));
        return o;
    }

    const digest& share() {
        return rounds_.share(parameters_, [this](sha256& sum, std::size_t part) {
            detail::digest_floats(sum, detail::digest_share(mean_, part));
            detail::digest_floats(sum, detail::digest_share(square_, part));
        });
    }

    void update() {
        const payload_info& rates = accepted_.front().info();
        power1_ = detail::settled(power1_ * options_.beta1);
        power2_ = detail::settled(power2_ * options_.beta2);
        const double rate = static_cast<double>(rates.learning_rate);
        const std::span<const contribution_weight> weights = weigher_.finish();
        std::uint64_t sum = weights.empty() ? senders_ : 0;
        for (const contribution_weight& w : weights) sum += w.weight;
        const detail::adamw_step step = {
            .gradient_weight = detail::settled(1.0 / static_cast<double>(sum)),
            .beta1_rest = detail::settled(1.0 - options_.beta1),
            .beta2 = options_.beta2,
            .beta2_rest = detail::settled(1.0 - options_.beta2),
            .root_correction = detail::settled(1.0 / detail::settled(std::sqrt(detail::settled(1.0 - power2_)))),
            .epsilon = options_.epsilon,
            .step_size = detail::settled(rate / detail::settled(1.0 - power1_)),
            .decay = detail::settled(1.0 - detail::settled(rate * static_cast<double>(rates.weight_decay)))};
        for (auto& lane : gradients_) lane.resize(senders_);
        constexpr std::size_t piece = 1U << 14U;
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            const std::span<float> x = parameters_[i].values;
            detail::for_each_item(pool_, (x.size() + piece - 1) / piece, [&](std::size_t lane, std::size_t n) {
                std::vector<const std::byte*>& gradients = gradients_[lane];
                const std::size_t end = std::min(x.size(), (n + 1) * piece);
                for (std::size_t at = n * piece; at < end; at += detail::adamw_block::width) {
                    for (std::size_t r = 0; r < senders_; ++r) gradients[r] = accepted_[r].section(i).data() + 4 * at;
                    detail::adamw_update(step, gradients, weights, x.data() + at, mean_.data() + first_[i] + at,
                                         square_.data() + first_[i] + at,
                                         std::min(detail::adamw_block::width, end - at));
                }
            });
        }
    }

    std::vector<parameter> parameters_;
    adamw_options options_;
    thread_pool* pool_;
    payload_layout layout_;
    std::vector<std::size_t> first_;
    aligned_vector<float> mean_, square_;
    double power1_ = 1.0, power2_ = 1.0;  ///< beta1 and beta2 to the number of steps
    detail::round_keeper rounds_;
    float gradient_norm_ = 0.0F;
    gradient_meter meter_;
    contribution_weights weigher_;
    std::vector<payload_view> accepted_;  ///< of the commit at hand: the first senders_
    std::size_t senders_ = 0;
    std::vector<std::vector<const std::byte*>> gradients_;  ///< of each lane: where it reads what each peer sent
};

static_assert(optimizer<adamw>);

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_ADAMW_HPP
