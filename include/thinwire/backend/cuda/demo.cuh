#ifndef THINWIRE_BACKEND_CUDA_DEMO_CUH
#define THINWIRE_BACKEND_CUDA_DEMO_CUH

#include <thinwire/backend/cuda/detail/apply_kernel.cuh>
#include <thinwire/backend/cuda/detail/choose_kernel.cuh>
#include <thinwire/backend/cuda/detail/content.cuh>
#include <thinwire/backend/cuda/detail/device_model.cuh>
#include <thinwire/backend/cuda/detail/measure_kernel.cuh>
#include <thinwire/backend/cuda/detail/optimizer_parts.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::cuda {

/// thinwire::demo with weights, gradients and momentum on a device: the same payloads, the same private state, and the
/// same bits in every weight after every commit, so that peers with and without a device are in one run. See
/// optim/demo.hpp for what is computed and promised; what differs:
///
/// Update rules are signum and sgd. The transform is computed in float32 in another order than on the host, so that
/// what this peer sends may differ in the last bits from what a host would send; what is applied may not.
///
/// Everything runs in the stream's order. begin_step() waits for the payload; end_step() and apply() wait only for a
/// digest that begin_step() did not need before, and return while the device still updates the weights. Coefficients
/// and digests travel through pinned memory of the host, 6 bytes for each coefficient and 4 for every 16th weight;
/// positions are entropy-coded and weights digested on the host while the device goes on.
///
/// Refers to the parameters' memory and to the stream, which must outlive it. Not thread-safe.
class demo {
 public:
    /// Throws value_error for an option out of range or an update rule that has no kernel, shape_error for a parameter
    /// whose spans do not fit its shape. Uses the pool for the codec.
    demo(std::span<const parameter> parameters, demo_options options, stream& on, thread_pool* pool = nullptr)
        : stream_(&on),
          parameters_(parameters.begin(), parameters.end()),
          options_(::thinwire::detail::checked(options)),
          pool_(pool),
          plan_(detail::shapes_of(parameters), options_),
          k_(plan_.layout().k),
          model_(parameters, supported(plan_), on),
          own_(plan_.layout(), 1),
          measures_(model_.pieces().size(), "measures"),
          numbers_(1, "numbers"),
          staged_numbers_(1),
          weigher_(options_.weights, options_.contribution_clip),
          decoders_(::thinwire::detail::lane_count(pool), payload_decoder(plan_.layout())),
          decoded_(decoders_.size()),
          coders_(decoders_.size(), section_coder(plan_.layout())) {
        own_.upload(on, 1);
        if (!in_shared_memory()) {
            const std::size_t elements = work_blocks() * model_.view().max_size;
            work_floats_ = device_buffer<float>(2 * elements, "work");
            work_sums_ = device_buffer<std::uint64_t>(elements, "work sums");
            work_middle_ = device_buffer<std::int32_t>(elements, "work middle");
        }
        prepare_batches();
        std::size_t share = 0;
        for (const parameter& p : parameters_) share += p.values.size() / ::thinwire::detail::digest_shares + 1;
        staged_share_ = pinned_buffer<float>(share);
        on.synchronize();
    }
    /// The same for spans that lie in device memory, as those of nn::transformer<cuda::backend>::parameters() do.
    demo(std::span<const thinwire::parameter> parameters, demo_options options, stream& on, thread_pool* pool = nullptr)
        : demo(std::span<const parameter>(detail::on_device(parameters)), std::move(options), on, pool) {}
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
    /// until the next begin_step. Throws value_error, with nothing changed, when a gradient is not finite or absurdly
    /// large, or when the last payload is still in flight.
    [[nodiscard]] std::span<const std::byte> begin_step(peer_id self) {
        return begin_step(self, [](std::span<const std::byte>) {});
    }
    /// The same, and calls sink(bytes) with the parts of the payload in their order as soon as each is final. The bytes
    /// of a call are valid until it returns. What the sink throws passes through when the whole payload is made and in
    /// flight.
    template <std::invocable<std::span<const std::byte>> Sink>
    std::span<const std::byte> begin_step(peer_id self, Sink&& sink) {
        rounds_.require_none_pending();
        const standard_float_mode mode;
        if (options_.basis.each_round()) take_out_committed();  // its tables are not those of this round
        set_bases(round());
        stage_share();
        give_step(rounds_.sent() == ::thinwire::detail::sent_state::committed ? options_.alpha : 0.0F);
        const digest share = replica_share();
        measured_.wait();
        refuse_bad_gradients();
        gradient_norm_ = static_cast<float>(staged_numbers_.span()[0].norm);
        payload_writer out(header(self, share), layout().sections.size(), rounds_.reuse(), room_of_payload(layout()));
        std::exception_ptr thrown;
        const auto pass_on = [&]() noexcept {
            try {
                const std::span<const std::byte> part = out.unsent();
                if (thrown == nullptr && !part.empty()) sink(part);
            } catch (...) {
                thrown = std::current_exception();
            }
        };
        for (tensor_batch& batch : batches_) {
            batch.chosen.wait();
            encode(batch, out, pass_on);
        }
        if (options_.error_feedback) own_.upload_values(*stream_, 1);
        out.finish();
        pass_on();
        rounds_.start(self, round(), out.take());
        if (thrown != nullptr) std::rethrow_exception(thrown);
        return rounds_.payload();
    }

    /// Applies commits in order; the first must be that of round() (value_error). The payload in flight stays in the
    /// momentum when its round's commit does not hold it.
    step_report end_step(std::span<const commit> commits) {
        if (commits.empty())
            throw value_error("end_step: no commit, expected that of round " + std::to_string(round()));
        step_report report{.bytes_sent = rounds_.payload().size(), .gradient_norm = gradient_norm_};
        for (const commit& c : commits) ::thinwire::detail::round_keeper::merge(report, apply(c));
        return report;
    }

    /// Applies the commit of round(): the same for a commit this peer contributed to and one that it replays.
    step_report apply(const commit& c) {
        rounds_.require_round(c);
        const standard_float_mode mode;
        step_report report{.round = c.round};
        std::optional<payload_info> first;
        read(c);
        weigher_.clear();
        for (std::size_t i = 0; i < c.contributions.size(); ++i) {
            if (!headers_[i]) {
                ::thinwire::detail::round_keeper::reject(report, refusals_[i]);
                continue;
            }
            rounds_.count(report, c.contributions[i], *headers_[i]);
            if (!rounds_.pending() || c.contributions[i].peer != rounds_.pending_self())
                report.bytes_received += c.contributions[i].payload.size();
            if (!first) first = *headers_[i];
            weigher_.add(headers_[i]->tokens, norms_[i]);
        }
        if (first) {
            report.learning_rate = first->learning_rate;
            update(*first, c.contributions.size());
        }
        if (rounds_.pending() && rounds_.pending_round() == c.round) rounds_.settle(report.own_included);
        next_round(round() + 1);
        return report;
    }

    /// The next round to contribute to or to apply.
    [[nodiscard]] std::uint64_t round() const noexcept { return rounds_.round(); }
    /// After loading a snapshot of the weights. A payload in flight for a round that the snapshot already holds is
    /// taken as committed.
    void set_round(std::uint64_t round) noexcept { next_round(round); }

    /// The payload that awaits its commit; empty when there is none. After restore_private() it may be exchanged again.
    [[nodiscard]] std::span<const std::byte> in_flight() const noexcept { return rounds_.payload(); }
    /// The payload in flight stays in the momentum: its round will never commit it.
    void abandon() noexcept {
        if (rounds_.pending()) rounds_.settle(false);
    }

    /// From the next begin_step on the gradient of parameter i lies there. Throws value_error where there is no such
    /// parameter, shape_error for another number of elements.
    void set_gradient(std::size_t i, const device_span<float>& gradient) {
        if (i >= parameters_.size())
            throw value_error("set_gradient: parameter " + std::to_string(i) + ", expected below " +
                              std::to_string(parameters_.size()));
        parameter changed = parameters_[i];
        changed.gradient = gradient;
        check(detail::shapes_of({&changed, 1})[0]);
        parameters_[i].gradient = gradient;
        model_.set_gradient(i, gradient);
    }

    /// For the payloads to come. Throws value_error unless 0, or 2^-100..2^20.
    void set_learning_rate(float rate) {
        demo_options changed = options_;
        changed.learning_rate = rate;
        options_ = ::thinwire::detail::checked(changed);
    }

    /// How many coefficients a chunk of the payloads to come sends at most: 1..options().k; as thinwire::demo's. Throws
    /// value_error.
    void set_k(int k) { k_ = ::thinwire::detail::checked_k(k, layout()); }
    /// How many tokens the gradients of the payloads to come are means over; 0, as at first: not stated. Throws
    /// value_error above most_tokens.
    void set_tokens(std::uint32_t tokens) { rounds_.set_tokens(tokens); }

    [[nodiscard]] const demo_options& options() const noexcept { return options_; }
    /// What every payload of this run looks like: for a sequencer's payload_decoder.
    [[nodiscard]] const payload_layout& layout() const noexcept { return plan_.layout(); }
    /// The private momentum of parameter i, without what is committed, once the stream is done; what is in flight is
    /// still in it.
    [[nodiscard]] device_span<const float> momentum(std::size_t i) {
        take_out_committed();
        return model_.momentum().subspan(plan_.tensors()[i].first_element, parameters_[i].values.size());
    }

    /// SHA-256 of all weights in the order of the parameters. Waits for the stream.
    [[nodiscard]] digest replica_digest() const {
        sha256 sum;
        pinned_buffer<float> staged(std::min<std::size_t>(plan_.elements(), 1U << 20U));
        for (const parameter& p : parameters_)
            for_each_part(p.values, staged, [&](std::size_t, std::span<const float> part) {
                ::thinwire::detail::digest_floats(sum, part);
            });
        return sum.finish();
    }

    /// Momentum and payload in flight, exactly: a peer that restores them goes on bit for bit, with a device or
    /// without. Waits for the stream.
    [[nodiscard]] std::vector<std::byte> save_private() const {
        pinned_buffer<float> staged(std::min<std::size_t>(plan_.elements(), 1U << 20U));
        aligned_vector<float> momentum(plan_.elements());
        for_each_part(model_.momentum(), staged, [&](std::size_t at, std::span<const float> part) {
            std::copy(part.begin(), part.end(), momentum.begin() + static_cast<std::ptrdiff_t>(at));
        });
        sparse_content sent;
        own_.unstage(0, sent);
        return ::thinwire::detail::save_private_state(private_part(), momentum, rounds_, sent);
    }
    /// Reads what save_private() wrote for the same tensors, options and run, before or after set_round(): a payload in
    /// flight for a round before round() was committed. Total; nothing changes when refused.
    [[nodiscard]] result<ok> restore_private(std::span<const std::byte> bytes) {
        aligned_vector<float> momentum(plan_.elements());
        sparse_content sent;
        stream_->synchronize();
        own_.unstage(0, sent);
        const auto restored = ::thinwire::detail::restore_private_state(bytes, private_part(), momentum, rounds_, sent);
        if (!restored) return restored;
        own_.stage(0, sent);
        own_.upload(*stream_, 1);
        copy_to_device<float>(*stream_, momentum, model_.momentum());
        stream_->synchronize();
        return restored;
    }

    /// The optimizer state that all replicas share besides the weights: none.
    [[nodiscard]] std::vector<std::byte> save_replica() const { return {}; }
    [[nodiscard]] result<ok> restore_replica(std::span<const std::byte> bytes) {
        next_round(round());
        if (!bytes.empty())
            return failure{errc::trailing,
                           "demo: replica state of " + std::to_string(bytes.size()) + " bytes, expected none"};
        return ok{};
    }

 private:
    static constexpr std::size_t most_blocks = 1U << 14U;
    static constexpr std::size_t most_work_blocks = 64;

    /// Tensors whose coefficients are encoded while the device chooses those of the next.
    struct tensor_batch {
        std::size_t from = 0, to = 0;  ///< tensors
        std::size_t first_coefficient = 0, coefficients = 0;
        std::size_t first_chunk = 0, chunks = 0;
        event chosen{};  ///< their coefficients are on the host
    };

    [[nodiscard]] static const ::thinwire::detail::chunk_plan& supported(const ::thinwire::detail::chunk_plan& plan) {
        for (const auto& t : plan.tensors())
            if (const std::string name = t.settings.rule->name(); name != "signum" && name != "sgd")
                throw value_error("cuda::demo: rule '" + name + "', expected signum or sgd");
        return plan;
    }
    [[nodiscard]] bool in_shared_memory() const noexcept { return plan_.max_chunk_size() <= detail::shared_chunk; }
    [[nodiscard]] std::size_t work_blocks() const noexcept {
        return std::min<std::size_t>(most_work_blocks, model_.chunks());
    }
    [[nodiscard]] unsigned blocks_for(std::size_t chunks) const noexcept {
        return static_cast<unsigned>(std::min(chunks, in_shared_memory() ? most_blocks : work_blocks()));
    }

    void prepare_batches() {
        const std::size_t least = std::max<std::size_t>(1, model_.chunks() / 8);
        tensor_batch next;
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            const payload_section& section = layout().sections[i];
            next.to = i + 1;
            next.chunks += section.chunks;
            next.coefficients += section.coefficients();
            if (next.chunks < least && next.to < parameters_.size()) continue;
            tensor_batch rest = {.from = next.to,
                                 .to = next.to,
                                 .first_coefficient = next.first_coefficient + next.coefficients,
                                 .first_chunk = next.first_chunk + next.chunks};
            batches_.push_back(std::exchange(next, std::move(rest)));
        }
        encoded_.resize(coders_.size() > 1 ? parameters_.size() : 0);
    }

    [[nodiscard]] ::thinwire::detail::private_view private_part() const noexcept {
        return {.layout = &plan_.layout(),
                .run = &options_.run,
                .alpha = options_.alpha,
                .gradient = static_cast<std::uint8_t>(static_cast<unsigned>(options_.gradient) +
                                                      (options_.error_feedback ? 16U : 0U))};
    }
    void next_round(std::uint64_t round) noexcept {
        rounds_.set_round(round);
        share_staged_ = false;
    }

    void set_bases(std::uint64_t round) {
        if (!options_.basis.each_round()) return;
        plan_.set_round(round, pool_);
        model_.upload_tables(*stream_);
    }

    /// Gives the device the whole of begin_step: measuring, choosing, and bringing the coefficients to the host.
    void give_step(float taken) {
        model_.upload(*stream_);
        const auto pieces = static_cast<unsigned>(model_.pieces().size());
        launch(*stream_,
               detail::measure_kernel{
                   .tensors = model_.view().tensors, .pieces = model_.device_pieces(), .measures = measures_.span()},
               pieces, detail::measure_kernel::shared_bytes());
        launch(*stream_,
               detail::decide_kernel{.measures = measures_.span(),
                                     .numbers = numbers_.span(),
                                     .gain = ::thinwire::detail::gradient_gain(options_),
                                     .clip_norm = static_cast<double>(options_.clip_norm)},
               1, detail::decide_kernel::shared_bytes());
        copy_to_host<detail::step_numbers>(*stream_, numbers_.span(), staged_numbers_.span());
        measured_.record(*stream_);
        for (tensor_batch& batch : batches_) {
            choose(batch.first_chunk, batch.chunks, options_.momentum_decay, taken, true);
            own_.download(*stream_, batch.first_coefficient, batch.coefficients, batch.first_chunk, batch.chunks);
            batch.chosen.record(*stream_);
        }
    }
    void choose(std::size_t first, std::size_t count, float decay, float taken, bool select) {
        const auto give = [&]<bool Shared>(std::bool_constant<Shared>) {
            const detail::choose_kernel<Shared> kernel = {.model = model_.view(),
                                                          .sent = own_.view(),
                                                          .numbers = numbers_.span(),
                                                          .work = work_floats_.span(),
                                                          .from = static_cast<std::uint32_t>(first),
                                                          .to = static_cast<std::uint32_t>(first + count),
                                                          .decay = decay,
                                                          .taken = taken,
                                                          .most = k_ < layout().k ? k_ : ~std::uint32_t{0},
                                                          .select = select,
                                                          .sends_zero = layout().codec->sends_zero()};
            launch(*stream_, kernel, blocks_for(count), kernel.shared_bytes(kernel.model));
        };
        in_shared_memory() ? give(std::true_type{}) : give(std::false_type{});
    }
    void take_out_committed() {
        if (rounds_.sent() != ::thinwire::detail::sent_state::committed) return;
        set_bases(rounds_.pending_round());
        model_.upload(*stream_);
        choose(0, model_.chunks(), 1.0F, options_.alpha, false);
        rounds_.settle(false);
    }

    void refuse_bad_gradients() const {
        const detail::step_numbers& n = staged_numbers_.span()[0];
        if (n.refused == static_cast<std::uint32_t>(detail::refusal::absurd))
            throw value_error("begin_step: gradient norm " + std::to_string(n.norm) + " times " +
                              std::to_string(n.gain) + " (gradient " + std::string(to_string(options_.gradient)) +
                              "), expected below 2^60");
        if (n.refused == 0) return;
        const detail::gradient_piece& piece = model_.pieces()[n.piece];
        const parameter& p = parameters_[piece.tensor];
        pinned_buffer<float> value(1);
        copy_to_host<float>(*stream_, p.gradient.subspan(piece.from + n.element, 1), value.span());
        stream_->synchronize();
        throw value_error("gradient of '" + p.name + "': element " + std::to_string(piece.from + n.element) + " is " +
                          std::to_string(value.span()[0]) + ", expected a finite number");
    }

    [[nodiscard]] payload_info header(peer_id self, const digest& share) const {
        return {.kind = payload_kind::demo,
                .values = layout().values(),
                .run = options_.run,
                .round = round(),
                .peer = self,
                .fingerprint = layout().fingerprint,
                .k = k_,
                .chunk = layout().chunk,
                .learning_rate = options_.learning_rate,
                .weight_decay = options_.weight_decay,
                .tokens = rounds_.tokens(),
                .replica = share};
    }

    /// The part of the staged coefficients that belongs to one tensor.
    [[nodiscard]] section_slice slice(std::size_t i) noexcept {
        const auto& t = plan_.tensors()[i];
        const section_slice all = own_.staged(0);
        const std::size_t coefficients = layout().sections[i].coefficients();
        return {.positions = all.positions.subspan(t.first_coefficient, coefficients),
                .values = all.values.subspan(t.first_coefficient, coefficients),
                .counts = all.counts.subspan(t.first_chunk, t.grid.count()),
                .stride = t.kept};
    }
    void round_sent(std::size_t i) noexcept {
        const section_slice part = slice(i);
        for (std::size_t chunk = 0; chunk < part.counts.size(); ++chunk)
            ::thinwire::detail::round_sent(part.values.subspan(chunk * part.stride, part.counts[chunk]),
                                           *layout().codec);
    }
    /// The sections of a batch, by all lanes where there are several; an own value code may throw and runs alone.
    template <class PassOn>
    void encode(const tensor_batch& batch, payload_writer& out, const PassOn& pass_on) {
        const bool parallel = !encoded_.empty() && batch.to - batch.from > 1 && options_.codec == nullptr;
        if (options_.error_feedback)
            for (std::size_t i = batch.from; i < batch.to; ++i) round_sent(i);
        if (parallel)
            ::thinwire::detail::for_each_item(pool_, batch.to - batch.from, [&](std::size_t lane, std::size_t n) {
                const std::size_t i = batch.from + n;
                encoded_[i].clear();
                coders_[lane].encode(layout().section(i, k_), slice(i), encoded_[i]);
            });
        for (std::size_t i = batch.from; i < batch.to; ++i) {
            if (parallel) {
                out.append_section(encoded_[i]);
            } else {
                coders_[0].encode(layout().section(i, k_), slice(i), out.begin_section());
                out.end_section();
            }
            pass_on();
        }
    }

    /// Decodes every contribution into staged memory and headers_; no header where it is refused.
    void read(const commit& c) {
        const std::size_t n = c.contributions.size();
        if (n > detail::apply_kernel<true, false>::most_senders || n * plan_.max_chunk_size() >= std::size_t{1} << 31U)
            throw value_error("apply: " + std::to_string(n) + " contributions, expected below 2^20, and below 2^31 / " +
                              std::to_string(plan_.max_chunk_size()) + " for chunks of that size");
        static_cast<void>(replica_share());  // of the weights as they are now: what was staged before is used up
        headers_.assign(n, std::nullopt);
        refusals_.assign(n, errc::malformed);
        norms_.assign(n, 0);
        if (received_.payloads() < n) received_ = detail::content(layout(), n);
        ::thinwire::detail::for_each_item(pool_, n, [&](std::size_t lane, std::size_t i) {
            received_.stage_nothing(i);
            if (::thinwire::detail::round_keeper::repeated(c, i)) return;
            const contribution& from = c.contributions[i];
            const auto info = decoders_[lane].decode(
                from.payload, {.run = options_.run, .round = c.round, .peer = from.peer}, decoded_[lane]);
            if (!info) {
                refusals_[i] = info.error().code;
                return;
            }
            headers_[i] = *info;
            if (weigher_.needs_norms()) norms_[i] = norm_of(layout(), decoded_[lane]);
            received_.stage(i, decoded_[lane]);
        });
    }
    void update(const payload_info& info, std::size_t senders) {
        set_bases(round());
        model_.set_rates(info);
        model_.upload(*stream_);
        received_.upload(*stream_, senders);
        const std::size_t weights = upload_weights(senders);
        const auto give = [&]<bool Shared, bool Weighted>(std::bool_constant<Shared>, std::bool_constant<Weighted>) {
            const detail::apply_kernel<Shared, Weighted> kernel = {.model = model_.view(),
                                                                   .received = received_.view(),
                                                                   .weights = weights_.span().subspan(0, weights),
                                                                   .senders = static_cast<std::uint32_t>(senders),
                                                                   .coefficients = layout().coefficients(),
                                                                   .chunks = model_.chunks(),
                                                                   .sums_work = work_sums_.span(),
                                                                   .middle_work = work_middle_.span()};
            launch(*stream_, kernel, blocks_for(model_.chunks()), kernel.shared_bytes(kernel.model));
        };
        const auto give_weighted = [&](auto shared) {
            weights > 0 ? give(shared, std::true_type{}) : give(shared, std::false_type{});
        };
        in_shared_memory() ? give_weighted(std::true_type{}) : give_weighted(std::false_type{});
    }
    /// Brings what the senders weigh to the device, one after the other, also those that were refused and sent
    /// nothing. Returns how many that are: 0 where all count alike.
    [[nodiscard]] std::size_t upload_weights(std::size_t senders) {
        const std::span<const contribution_weight> weights = weigher_.finish();
        if (weights.empty()) return 0;
        if (weights_.size() < senders) {
            staged_weights_ = pinned_buffer<contribution_weight>(senders);
            weights_ = device_buffer<contribution_weight>(senders, "weights of contributions");
        }
        for (std::size_t i = 0, accepted = 0; i < senders; ++i)
            staged_weights_.span()[i] = headers_[i] ? weights[accepted++] : contribution_weight{};
        copy_to_device<contribution_weight>(*stream_, std::as_const(staged_weights_).span().first(senders),
                                            weights_.span().subspan(0, senders));
        return senders;
    }

    /// Asks for this round's share of the weights.
    void stage_share() {
        if (std::exchange(share_staged_, true)) return;
        std::size_t at = 0;
        for (const parameter& p : parameters_) {
            const auto [from, count] =
                ::thinwire::detail::share_of(p.values.size(), round() % ::thinwire::detail::digest_shares);
            copy_to_host<float>(*stream_, p.values.subspan(from, count), staged_share_.span().subspan(at, count));
            at += count;
        }
        share_elements_ = at;
        share_copied_.record(*stream_);
    }
    const digest& replica_share() {
        return rounds_.share({}, [this](sha256& sum, std::size_t) {
            stage_share();
            share_copied_.wait();
            ::thinwire::detail::digest_floats(sum, std::as_const(staged_share_).span().first(share_elements_));
        });
    }

    /// Calls use(place, elements) for a tensor's elements as they come to the host.
    template <class Use>
    void for_each_part(const device_span<float>& from, pinned_buffer<float>& staged, const Use& use) const {
        for (std::size_t at = 0; at < from.size(); at += staged.size()) {
            const std::size_t count = std::min(staged.size(), from.size() - at);
            copy_to_host<float>(*stream_, from.subspan(at, count), staged.span().first(count));
            stream_->synchronize();
            use(at, std::as_const(staged).span().first(count));
        }
    }

    stream* stream_;
    std::vector<parameter> parameters_;
    demo_options options_;
    thread_pool* pool_;
    ::thinwire::detail::chunk_plan plan_;
    std::uint32_t k_;  ///< of the payloads to come
    detail::device_model model_;
    mutable detail::content own_;  ///< what this peer last sent; with sign values, what the signs stand for
    detail::content received_;
    event measured_, share_copied_;
    bool share_staged_ = false;
    ::thinwire::detail::round_keeper rounds_;
    float gradient_norm_ = 0.0F;
    device_buffer<detail::piece_measure> measures_;
    device_buffer<detail::step_numbers> numbers_;
    pinned_buffer<detail::step_numbers> staged_numbers_;
    pinned_buffer<float> staged_share_;
    std::size_t share_elements_ = 0;
    device_buffer<float> work_floats_;
    device_buffer<std::uint64_t> work_sums_;
    device_buffer<std::int32_t> work_middle_;
    contribution_weights weigher_;
    std::vector<std::uint64_t> norms_;  ///< of the contributions
    pinned_buffer<contribution_weight> staged_weights_;
    device_buffer<contribution_weight> weights_;
    std::vector<payload_decoder> decoders_;
    std::vector<sparse_content> decoded_;  ///< one for each lane
    std::vector<section_coder> coders_;
    std::vector<tensor_batch> batches_;
    std::vector<std::vector<std::byte>> encoded_;  ///< sections made by several lanes
    std::vector<std::optional<payload_info>> headers_;
    std::vector<errc> refusals_;  ///< where there is no header
};

static_assert(optimizer<demo>);

}  // namespace thinwire::cuda

#endif  // THINWIRE_BACKEND_CUDA_DEMO_CUH
