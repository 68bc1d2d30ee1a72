#ifndef THINWIRE_OPTIM_DEMO_HPP
#define THINWIRE_OPTIM_DEMO_HPP

#include <thinwire/codec/payload.hpp>
#include <thinwire/comm/transport.hpp>
#include <thinwire/core/float_mode.hpp>
#include <thinwire/core/isa.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/optim/clip.hpp>
#include <thinwire/optim/demo_options.hpp>
#include <thinwire/optim/detail/chunk_worker.hpp>
#include <thinwire/optim/detail/parallel.hpp>
#include <thinwire/optim/detail/payload_lanes.hpp>
#include <thinwire/optim/detail/private_state.hpp>
#include <thinwire/optim/detail/round_keeper.hpp>
#include <thinwire/optim/detail/update_kernels.hpp>
#include <thinwire/optim/detail/update_rates.hpp>
#include <thinwire/optim/optimizer.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

class sharded_demo;

/// Decoupled momentum optimization (Peng, Quesnelle, Kingma: arXiv 2411.19870; the second version of the paper adds
/// alpha and the update rules):
///
///   M <- momentum_decay * M + G'                     G': the gradient as demo_options::gradient scales it
///   S <- the k largest of the orthonormal DCT-II of M, per chunk;  M <- M - alpha * inverse(S);  publish S
///   D <- inverse(mean of each coefficient over the peers that sent it)   weighted: see contribution_weights.hpp
///   X <- (1 - learning_rate * weight_decay) * X - learning_rate * phi(D)            phi: the update rule
///
/// M is private, X the replica. reference_compatible() reproduces the published code to float32 rounding. What is
/// applied depends on the committed payloads alone, whose header carries both rates, and is bit-equal on every
/// processor, instruction set, thread count, compiler and optimization flag (see detail/exact_mean.hpp and
/// detail/update_kernels.hpp). Subnormal weights, and -0, become +0 in a round that changes their tensor.
///
/// What is sent leaves M only once it is committed, at the next begin_step: a payload that is lost costs nothing, and M
/// is then exactly what it would be had it not been sent.
///
/// Refers to the parameters' memory, which must outlive it. Not thread-safe; uses the pool's threads within a call.
class demo {
 public:
    /// Throws value_error for an option out of range, shape_error for a parameter whose spans do not fit its shape.
    demo(std::span<const parameter> parameters, const demo_options& options, thread_pool* pool = nullptr)
        : demo(parameters, options, pool, nullptr) {}
    /// A shard, whose parameters are parts of others: see demo_shards.hpp.
    demo(std::span<const parameter> parameters, const demo_options& options, thread_pool* pool,
         const detail::plan_origin* origin)
        : parameters_(parameters.begin(), parameters.end()),
          options_(detail::checked(options)),
          pool_(pool),
          plan_(parameters, options_, origin),
          k_(plan_.layout().k),
          momentum_(plan_.elements()),
          meter_(parameters),
          lanes_(plan_.layout(), pool, options_.codec != nullptr),
          weigher_(options_.weights, options_.contribution_clip) {
        check_apart(parameters);
        workers_.reserve(detail::lane_count(pool));
        for (std::size_t i = 0; i < detail::lane_count(pool); ++i)
            workers_.emplace_back(plan_, kernels_for(options_.level));
        own_.resize(plan_.layout());
        plan_.reserve(pool);
        prepare_matrices();
        prepare_batches();
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

    /// Takes the gradients into the momentum and chooses its largest coefficients: the payload for round(), valid
    /// until the next begin_step. Throws value_error when a gradient is not finite or absurdly large, or when the last
    /// payload is still in flight, and std::bad_alloc: nothing has changed then. An own value code that breaks its
    /// word is found when the momentum has changed: value_error, and the rest is as after abandon().
    [[nodiscard]] std::span<const std::byte> begin_step(peer_id self) {
        return begin_step(self, [](std::span<const std::byte>) {});
    }
    /// The same, and calls sink(bytes) with the parts of the payload in their order as soon as each is final, so that
    /// sending starts before the last tensor is encoded. The bytes of a call are valid until it returns. What the sink
    /// throws passes through when the whole payload is made and in flight.
    template <std::invocable<std::span<const std::byte>> Sink>
    std::span<const std::byte> begin_step(peer_id self, Sink&& sink) {
        rounds_.require_none_pending();
        const standard_float_mode mode;
        // The digest that the header needs is one stream. One thread makes it while the gradients come from memory,
        // several beside the first tensors' transforms.
        const double norm = meter_.norm(pool_, options_.level, [&](std::size_t gradients) noexcept {
            rounds_.go_on_with_share(parameters_, std::max<std::size_t>(1, gradients / detail::digest_shares));
        });
        return begin_step(self, norm, sink);
    }
    /// The same for gradients that were measured elsewhere, with others: they are finite, and of this norm in all.
    template <std::invocable<std::span<const std::byte>> Sink>
    std::span<const std::byte> begin_step(peer_id self, double norm, Sink&& sink) {
        rounds_.require_none_pending();
        const standard_float_mode mode;
        const double gain = detail::checked_gain(options_, norm);
        reserve();
        gradient_norm_ = static_cast<float>(norm);
        if (options_.basis.each_round()) take_out_committed();  // its tables are not those of this round
        plan_.set_round(round(), pool_);
        const float taken = rounds_.sent() == detail::sent_state::committed ? options_.alpha : 0.0F;
        choose_first(static_cast<float>(gain), taken);
        payload_writer out(header(self), layout().sections.size(), rounds_.reuse(), room_of_payload(layout()));
        std::exception_ptr thrown, fault;
        const auto pass_on = [&]() noexcept {
            try {
                const std::span<const std::byte> part = out.unsent();
                if (thrown == nullptr && !part.empty()) sink(part);
            } catch (...) {
                thrown = std::current_exception();
            }
        };
        for (const region_batch& batch : batches_) {
            if (&batch != batches_.data()) choose(batch, static_cast<float>(gain), taken);
            try {
                if (fault == nullptr)
                    lanes_.encode(
                        batch.from, batch.to, k_, [this](std::size_t i) { return plan_.slice(own_, i); }, out, pass_on);
            } catch (...) {  // an own value code; the other tensors' gradients are still to come
                fault = std::current_exception();
            }
        }
        if (fault != nullptr) {
            rounds_.settle(false);
            std::rethrow_exception(fault);
        }
        out.finish();
        pass_on();
        rounds_.start(self, round(), out.take());
        if (thrown != nullptr) std::rethrow_exception(thrown);
        return rounds_.payload();
    }

    /// Applies commits in order; the first must be that of round() (value_error). The payload in flight stays in the
    /// momentum when its round's commit does not hold it. Nothing has changed when the first commit throws; those
    /// before another that does are applied, and round() tells which one is wanted.
    step_report end_step(std::span<const commit> commits) {
        if (commits.empty())
            throw value_error("end_step: no commit, expected that of round " + std::to_string(round()));
        step_report report{.bytes_sent = rounds_.payload().size(), .gradient_norm = gradient_norm_};
        for (const commit& c : commits) detail::round_keeper::merge(report, apply(c));
        return report;
    }

    /// Applies the commit of round(): the same for a commit this peer contributed to and one that it replays.
    step_report apply(const commit& c) { return apply_weighted(c, nullptr); }
    /// The same where what the accepted contributions weigh was found from payloads that these are parts of: one for
    /// each of them, or none where all count alike. Throws value_error for another number.
    step_report apply(const commit& c, std::span<const contribution_weight> weights) {
        return apply_weighted(c, &weights);
    }

    /// The next round to contribute to or to apply.
    [[nodiscard]] std::uint64_t round() const noexcept { return rounds_.round(); }
    /// After loading a snapshot of the weights. A payload in flight for a round that the snapshot already holds is
    /// taken as committed.
    void set_round(std::uint64_t round) noexcept { rounds_.set_round(round); }

    /// The payload that awaits its commit; empty when there is none. After restore_private() it may be exchanged again.
    [[nodiscard]] std::span<const std::byte> in_flight() const noexcept { return rounds_.payload(); }
    /// The payload in flight stays in the momentum: its round will never commit it.
    void abandon() noexcept {
        if (rounds_.pending()) rounds_.settle(false);
    }

    /// From the next begin_step on the gradient of parameter i lies there: two buffers in turn, or one that moves.
    /// Throws value_error where there is no such parameter, shape_error for another number of elements.
    void set_gradient(std::size_t i, std::span<float> gradient) {
        thinwire::set_gradient(parameters_, i, gradient);
        meter_.move_gradient(i, gradient);
    }

    /// For the payloads to come. Throws value_error unless 0, or 2^-100..2^20.
    void set_learning_rate(float rate) {
        demo_options changed = options_;
        changed.learning_rate = rate;
        options_ = detail::checked(changed);
    }

    /// How many coefficients a chunk of the payloads to come sends at most: 1..options().k, as at first; a lower one is
    /// a cap for all groups. Local to this peer, as each payload states its own. Throws value_error.
    void set_k(int k) {
        const std::uint32_t checked = detail::checked_k(k, layout());
        lanes_.reserve(checked);
        k_ = checked;
    }
    /// How many tokens the gradients of the payloads to come are means over; 0, as at first: not stated. Throws
    /// value_error above most_tokens.
    void set_tokens(std::uint32_t tokens) { rounds_.set_tokens(tokens); }

    [[nodiscard]] const demo_options& options() const noexcept { return options_; }
    /// What every payload of this run looks like: for a sequencer's payload_decoder.
    [[nodiscard]] const payload_layout& layout() const noexcept { return plan_.layout(); }
    /// The private momentum of parameter i, without what is committed; what is in flight is still in it.
    /// Throws value_error where there is no such parameter.
    [[nodiscard]] std::span<const float> momentum(std::size_t i) {
        if (i >= parameters_.size())
            throw value_error("momentum: parameter " + std::to_string(i) + ", expected below " +
                              std::to_string(parameters_.size()));
        take_out_committed();
        return std::span(momentum_).subspan(plan_.tensors()[i].first_element, parameters_[i].values.size());
    }

    /// What this optimizer holds; grows with the largest commit and payload so far. Without what shared objects of the
    /// options hold (an own rule, codec or basis) and without the pool.
    [[nodiscard]] demo_memory memory_bytes() const noexcept {
        demo_memory held = {.momentum = bytes_held(momentum_)};
        held.workspace = plan_.memory_bytes() + described() + meter_.memory_bytes() +
                         bytes_held(workers_, direction_, work_.memory, batches_, parameters_) +
                         weigher_.memory_bytes();
        for (const auto& worker : workers_) held.workspace += worker.memory_bytes();
        held.codec =
            own_.memory_bytes() + rounds_.memory_bytes() + lanes_.memory_bytes() + bytes_held(contents_, accepted_);
        for (const auto& content : contents_) held.codec += content.memory_bytes();
        return held;
    }

    /// SHA-256 of all weights in the order of the parameters.
    [[nodiscard]] digest replica_digest() const {
        sha256 sum;
        for (const parameter& p : parameters_) detail::digest_floats(sum, p.values);
        return sum.finish();
    }

    /// Momentum and payload in flight, exactly: a peer that restores them goes on bit for bit.
    [[nodiscard]] std::vector<std::byte> save_private() const {
        return detail::save_private_state(private_part(), momentum_, rounds_, own_);
    }
    /// Reads what save_private() wrote for the same tensors, options and run, before or after set_round(): a payload in
    /// flight for a round before round() was committed. Total; nothing changes when refused.
    [[nodiscard]] result<ok> restore_private(std::span<const std::byte> bytes) {
        return detail::restore_private_state(bytes, private_part(), momentum_, rounds_, own_);
    }

    /// The optimizer state that all replicas share besides the weights: none.
    [[nodiscard]] std::vector<std::byte> save_replica() const { return {}; }
    [[nodiscard]] result<ok> restore_replica(std::span<const std::byte> bytes) {
        rounds_.forget_share();
        if (!bytes.empty())
            return failure{errc::trailing,
                           "demo: replica state of " + std::to_string(bytes.size()) + " bytes, expected none"};
        return ok{};
    }

 private:
    friend class sharded_demo;

    template <class Task>
    void for_each_piece(const Task& task) {
        detail::for_each_item(pool_, plan_.pieces().size(), [&](std::size_t lane, std::size_t i) {
            const auto& piece = plan_.pieces()[i];
            task(lane, plan_.regions()[piece.region], piece);
        });
    }

    /// Names of parameters and groups.
    [[nodiscard]] std::size_t described() const noexcept {
        const auto characters = [](const std::string& s) noexcept {
            return s.capacity() > std::string().capacity() ? s.capacity() + 1 : 0;
        };
        std::size_t sum = bytes_held(options_.groups);
        for (const parameter& p : parameters_) sum += 2 * characters(p.name);  // here and in the meter
        for (const parameter_group& g : options_.groups)
            sum += bytes_held(g.parameters) + characters(g.prefix) + characters(g.suffix);
        return sum;
    }

    /// `given`: what the contributions weigh; null: as their payloads say.
    step_report apply_weighted(const commit& c, const std::span<const contribution_weight>* given) {
        const standard_float_mode mode;
        const step_report report = take_in(c, given == nullptr);
        if (given != nullptr && !given->empty() && given->size() != accepted_.size())
            throw value_error("apply: " + std::to_string(given->size()) + " weights, expected one for each of " +
                              std::to_string(accepted_.size()) + " accepted contributions");
        carry_out(report, given != nullptr ? *given : weigher_.finish());
        return report;
    }
    /// Reads and counts what a commit holds, for carry_out(). All that may fail; nothing has changed then.
    step_report take_in(const commit& c, bool weigh) {
        rounds_.require_round(c);
        read(c, weigh && weigher_.needs_norms());
        accepted_.clear();
        return lanes_.count(c, rounds_, weigher_, [&](std::size_t i) { accepted_.push_back(&contents_[i]); });
    }
    void carry_out(const step_report& report, std::span<const contribution_weight> weights) noexcept {
        if (const payload_info* first = lanes_.first()) update(*first, {.contents = accepted_, .weights = weights});
        if (rounds_.pending() && rounds_.pending_round() == report.round) rounds_.settle(report.own_included);
        rounds_.next_round();
    }

    [[nodiscard]] detail::private_view private_part() const noexcept {
        return {.layout = &plan_.layout(),
                .run = &options_.run,
                .alpha = options_.alpha,
                .gradient = static_cast<std::uint8_t>(static_cast<unsigned>(options_.gradient) +
                                                      (options_.error_feedback ? 16U : 0U))};
    }

    void take_out_committed() {
        if (rounds_.sent() != detail::sent_state::committed) return;
        plan_.set_round(rounds_.pending_round(), pool_);
        for_each_piece([&](std::size_t lane, const auto& t, const auto& piece) {
            for (std::size_t chunk = piece.from; chunk < piece.to; ++chunk)
                workers_[lane].take_out(t, chunk, momentum_of(t) + t.grid.offset(chunk), own_, options_.alpha);
        });
        rounds_.settle(false);
    }

    /// All memory that begin_step() needs, before it changes anything.
    void reserve() {
        rounds_.reserve(room_of_payload(layout()));
        lanes_.reserve();
    }

    /// Where the momentum of the region's tensor begins.
    [[nodiscard]] float* momentum_of(const detail::chunk_plan::region& t) noexcept {
        return momentum_.data() + plan_.tensors()[t.tensor].first_element;
    }

    /// Regions [from, to), whose pieces are [first_piece, last_piece): what is encoded between two parts of a payload.
    struct region_batch {
        std::size_t from, to, first_piece, last_piece;
    };
    /// Batches large enough to keep all lanes busy.
    void prepare_batches() {
        const std::size_t least = 16 * workers_.size();
        region_batch next = {0, 0, 0, 0};
        for (std::size_t piece = 0, region = 0; region < plan_.regions().size(); ++region) {
            while (piece < plan_.pieces().size() && plan_.pieces()[piece].region == region) ++piece;
            next.to = region + 1;
            next.last_piece = piece;
            if (piece - next.first_piece < least && next.to < plan_.regions().size()) continue;
            batches_.push_back(next);
            next.from = next.to;
            next.first_piece = piece;
        }
    }

    [[nodiscard]] payload_info header(peer_id self) {
        const payload_layout& shape = layout();
        return {.kind = payload_kind::demo,
                .values = shape.values(),
                .run = options_.run,
                .round = round(),
                .peer = self,
                .fingerprint = shape.fingerprint,
                .k = k_,
                .chunk = shape.chunk,
                .learning_rate = options_.learning_rate,
                .weight_decay = options_.weight_decay,
                .tokens = rounds_.tokens(),
                .replica = replica_share()};
    }
    const digest& replica_share() noexcept {
        return rounds_.share(parameters_, [](sha256&, std::size_t) {});
    }

    /// Gradients into the momentum of a batch's regions, their largest coefficients into own_.
    void choose(const region_batch& batch, float gain, float taken) {
        detail::for_each_item(pool_, batch.last_piece - batch.first_piece, [&](std::size_t lane, std::size_t i) {
            choose_piece(lane, plan_.pieces()[batch.first_piece + i], gain, taken);
        });
    }
    /// The same for the first batch, and beside it the digest that the header needs.
    void choose_first(float gain, float taken) {
        const std::size_t pieces = batches_.empty() ? 0 : batches_.front().last_piece;
        detail::for_each_item(pool_, pieces + 1, [&](std::size_t lane, std::size_t i) {
            if (i == 0) return static_cast<void>(replica_share());
            choose_piece(lane, plan_.pieces()[i - 1], gain, taken);
        });
    }
    void choose_piece(std::size_t lane, const detail::chunk_plan::piece& piece, float gain, float taken) {
        const auto& t = plan_.regions()[piece.region];
        const std::size_t at = t.grid.offset(piece.from);
        workers_[lane].encode(t, piece.from, piece.to, momentum_of(t) + at, parameters_[t.tensor].gradient.data() + at,
                              {.decay = options_.momentum_decay,
                               .gain = gain,
                               .taken = taken,
                               .most = layout().section(piece.region, k_).kept},
                              *layout().codec, own_);
        if (options_.error_feedback)
            for (std::size_t chunk = piece.from; chunk < piece.to; ++chunk)
                detail::round_sent(
                    std::span(own_.values)
                        .subspan(detail::chunk_plan::first_place(t, chunk), own_.counts[t.first_chunk + chunk]),
                    *layout().codec);
    }

    /// Decodes every contribution into contents_, and beside that makes the digest of this round's share of the
    /// weights.
    void read(const commit& c, bool with_norms) {
        const std::size_t n = c.contributions.size();
        if (contents_.size() < n) contents_.resize(n);
        for (std::size_t i = 0; i < n; ++i) contents_[i].resize(layout());
        lanes_.decode(
            c, options_.run, with_norms, [this](std::size_t, std::size_t i) -> sparse_content& { return contents_[i]; },
            [](std::size_t, std::size_t) {}, [this] { static_cast<void>(replica_share()); });
    }

    void update(const payload_info& info, const detail::chunk_worker::senders& sent) {
        plan_.set_round(round(), pool_);
        for_each_piece([&](std::size_t lane, const auto& t, const auto& piece) {
            const auto& of = plan_.tensors()[t.tensor];
            const detail::update_rates r = detail::rates_of(of.settings, info);
            float* const values = parameters_[t.tensor].values.data();
            if (of.settings.scope == update_scope::sign)
                return workers_[lane].apply(t, piece.from, piece.to, values + t.grid.offset(piece.from), sent, r.step,
                                            r.factor);
            for (std::size_t chunk = piece.from; chunk < piece.to; ++chunk) {
                const std::size_t at = t.grid.offset(chunk);
                if (of.settings.scope == update_scope::elements)
                    apply_elements(workers_[lane], t, chunk, sent, values + at, r);
                else
                    decode_rows(workers_[lane], t, chunk, sent, [&](std::size_t row, std::span<const float> d) {
                        std::copy(d.begin(), d.end(),
                                  direction_.begin() +
                                      static_cast<std::ptrdiff_t>(of.first_direction + at + row * t.grid.stride()));
                    });
            }
        });
        for (std::size_t i = 0; i < parameters_.size(); ++i)
            if (plan_.tensors()[i].settings.scope == update_scope::matrix)
                apply_matrices(i, detail::rates_of(plan_.tensors()[i].settings, info));
    }

    /// Calls use(row, D of that row) for the rows of a chunk.
    template <class Use>
    void decode_rows(detail::chunk_worker& worker, const detail::chunk_plan::region& t, std::size_t chunk,
                     const detail::chunk_worker::senders& sent, const Use& use) {
        const float* decoded = worker.decode_mean(t, chunk, sent);
        std::array<float, chunk_grid::max_target> row;
        const std::span<float> d = std::span(row).first(t.grid.cols());
        for (std::size_t r = 0; r < t.grid.rows(); ++r) {
            detail::scale_decoded(decoded + r * t.cols->full(), d.data(), d.size(), worker.exponent());
            use(r, d);
        }
    }

    void apply_elements(detail::chunk_worker& worker, const detail::chunk_plan::region& t, std::size_t chunk,
                        const detail::chunk_worker::senders& sent, float* x, const detail::update_rates& r) {
        decode_rows(worker, t, chunk, sent, [&](std::size_t row, std::span<float> d) {
            plan_.tensors()[t.tensor].settings.rule->direct(d);
            detail::apply_direction(x + row * t.grid.stride(), d.data(), d.size(), r.step, r.factor);
        });
    }

    void apply_matrices(std::size_t i, const detail::update_rates& r) {
        const auto& t = plan_.tensors()[i];
        const chunk_grid& grid = plan_.regions()[t.first_region].grid;
        const std::size_t rows = grid.height(), cols = grid.stride(), size = rows * cols;
        const std::span<float> x = parameters_[i].values;
        const std::span<float> d = std::span(direction_).subspan(t.first_direction, x.size());
        for (std::size_t at = 0; at < d.size(); at += size)
            t.settings.rule->direct_matrix(d.subspan(at, size), rows, cols, work_);
        constexpr std::size_t block = 1U << 14U;
        detail::for_each_item(pool_, (x.size() + block - 1) / block, [&](std::size_t, std::size_t n) {
            const std::size_t at = n * block;
            detail::apply_direction(x.data() + at, d.data() + at, std::min(block, x.size() - at), r.step, r.factor);
        });
    }

    /// Memory for the tensors whose rule needs whole matrices.
    void prepare_matrices() {
        std::size_t memory = 0;
        for (const auto& t : plan_.tensors()) {
            if (t.settings.scope != update_scope::matrix) continue;
            const chunk_grid& grid = plan_.regions()[t.first_region].grid;
            memory = std::max(memory, t.settings.rule->workspace(grid.height(), grid.stride()));
        }
        direction_.resize(plan_.direction_elements());
        work_.pool = pool_;
        work_.level = options_.level;
        work_.memory.resize(memory);
    }

    std::vector<parameter> parameters_;
    demo_options options_;
    thread_pool* pool_;
    detail::chunk_plan plan_;
    std::uint32_t k_;  ///< of the payloads to come
    std::vector<detail::chunk_worker> workers_;
    aligned_vector<float> momentum_;
    gradient_meter meter_;
    sparse_content own_;               ///< what this peer last sent; with sign values, what the signs stand for
    aligned_vector<float> direction_;  ///< D of the tensors whose rule needs whole matrices
    update_workspace work_;
    detail::round_keeper rounds_;
    float gradient_norm_ = 0.0F;
    std::vector<sparse_content> contents_;
    detail::payload_lanes lanes_;
    std::vector<region_batch> batches_;
    std::vector<const sparse_content*> accepted_;
    contribution_weights weigher_;
};

static_assert(optimizer<demo>);

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_DEMO_HPP
