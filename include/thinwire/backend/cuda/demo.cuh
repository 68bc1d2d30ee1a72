#ifndef THINWIRE_BACKEND_CUDA_DEMO_CUH
#define THINWIRE_BACKEND_CUDA_DEMO_CUH

#include <thinwire/backend/cuda/detail/content.cuh>
#include <thinwire/backend/cuda/detail/device_chooser.cuh>
#include <thinwire/backend/cuda/detail/device_model.cuh>
#include <thinwire/backend/cuda/detail/device_updater.cuh>
#include <thinwire/backend/cuda/detail/gathered_sections.cuh>
#include <thinwire/backend/cuda/detail/optimizer_parts.hpp>
#include <thinwire/backend/cuda/device_group.cuh>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
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
/// positions are entropy-coded and weights digested on the host while the device goes on. What the next digest needs
/// leaves the device behind the update: begin_step() digests it beside all that was given to the stream since. Who
/// changes weights from outside calls set_round() or spread_weights() then.
///
/// Several devices of one host form one peer with one momentum, cut over them as sharded_demo cuts it. Each has all
/// weights and the gradient of its part of the batch. begin_step() has the group take the mean of the gradients, each
/// part of them to the device that has its momentum, where it replaces the device's own: gradients are to be computed
/// anew for each begin_step, also for one that threw. The payload is that of one device with the mean gradient, but for
/// the last bits of its norm, which clipping multiplies by; a private state goes from one to the other. A commit is
/// applied by every device to all weights, with the same bits, so that nothing but gradients goes between them.
/// What the group throws passes through; this object, like the group, is then of no more use.
///
/// Refers to the parameters' memory and to the streams or the group, which must outlive it. Not thread-safe.
class demo {
 public:
    /// Throws value_error for an option out of range, an update rule that has no kernel, or a parameter that does not
    /// lie in memory of the stream's device (or managed memory), shape_error for one whose spans do not fit its shape.
    /// Uses the pool for the codec.
    demo(std::span<const parameter> parameters, demo_options options, stream& on, thread_pool* pool = nullptr)
        : demo({{parameters.begin(), parameters.end()}}, std::move(options), {&on}, nullptr, pool) {}
    /// The same for spans that lie in device memory, as those of nn::transformer<cuda::backend>::parameters() do.
    demo(std::span<const thinwire::parameter> parameters, demo_options options, stream& on, thread_pool* pool = nullptr)
        : demo({detail::on_device(parameters, on.device())}, std::move(options), {&on}, nullptr, pool) {}
    /// Of several devices: the parameters of each, in the group's order, which differ in their memory alone. Copies the
    /// weights of the first device to all. Throws value_error, too, where these are not as many as the group has.
    demo(std::span<const std::vector<parameter>> parameters, demo_options options, device_group& group,
         thread_pool* pool = nullptr)
        : demo({parameters.begin(), parameters.end()}, std::move(options), streams_of(group), &group, pool) {}
    demo(std::span<const std::vector<thinwire::parameter>> parameters, demo_options options, device_group& group,
         thread_pool* pool = nullptr)
        : demo(of_devices(parameters, group), std::move(options), streams_of(group), &group, pool) {}
    demo(const demo&) = delete;
    demo& operator=(const demo&) = delete;
    /// Waits: what was given to the streams uses memory that goes here.
    ~demo() {
        for (const auto& u : updaters_) u->on().drain();
    }

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
        rounds_.reserve(room_of_payload(layout()));
        lanes_.reserve();
        if (options_.basis.each_round()) take_out_committed();  // its tables are not those of this round
        set_bases(round());
        stage_share();
        give_step(rounds_.sent() == ::thinwire::detail::sent_state::committed ? options_.alpha : 0.0F);
        const digest share = replica_share();
        wait_until_measured();
        refuse_bad_gradients();
        gradient_norm_ = static_cast<float>(choosers_[0]->numbers().norm);
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
        for (std::size_t d = 0; d < choosers_.size(); ++d)
            for (detail::device_chooser::batch& batch : choosers_[d]->batches()) {
                batch.chosen.wait();
                encode(d, batch, out, pass_on);
            }
        if (options_.error_feedback)
            for (const auto& c : choosers_) c->upload_values();
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
        read(c);
        const step_report report = lanes_.count(c, rounds_, weigher_, [](std::size_t) {});
        if (const payload_info* first = lanes_.first()) update(*first, c.contributions.size());
        if (rounds_.pending() && rounds_.pending_round() == c.round) rounds_.settle(report.own_included);
        next_round(round() + 1);
        stage_share();
        return report;
    }
    /// The digest of this round's share of the weights, which begin_step() or apply() would take: waits for the last
    /// update, and for nothing that was given to the stream later. For a thread that has nothing to do while another
    /// computes gradients; meanwhile no other function of this object may run.
    void digest_ahead() { static_cast<void>(replica_share()); }

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

    /// From the next begin_step on the gradient of parameter i lies there, on this device of the group. Throws
    /// value_error where there is no such parameter or device or the memory is not of that device, shape_error for
    /// another number of elements.
    void set_gradient(std::size_t i, const device_span<float>& gradient, std::size_t device = 0) {
        if (i >= plan_.tensors().size())
            throw value_error("set_gradient: parameter " + std::to_string(i) + ", expected below " +
                              std::to_string(plan_.tensors().size()));
        if (device >= choosers_.size())
            throw value_error("set_gradient: device " + std::to_string(device) + ", expected below " +
                              std::to_string(choosers_.size()));
        parameter changed = updaters_[device]->tensors()[i];
        changed.gradient = gradient;
        check(detail::shapes_of({&changed, 1})[0]);
        detail::require_on_device(gradient, "gradient", changed.name, updaters_[device]->on().device());
        std::size_t number = 0;
        for (std::size_t owner = 0; owner < choosers_.size(); ++owner)
            for (std::size_t p = 0; p < choosers_[owner]->parts().size(); ++p, ++number) {
                const shard_part& part = choosers_[owner]->parts()[p];
                if (part.tensor != i) continue;
                const device_span<float> held = gradient.subspan(part.first, part.shape.count());
                if (owner == device) choosers_[owner]->set_gradient(p, held);
                if (group_ != nullptr) gradients_[number].on_device[device] = held.data();
            }
    }
    /// After the weights of the first device were changed from outside: brings them to all others.
    void spread_weights() {
        next_round(round());
        if (group_ == nullptr) return;
        std::vector<group_array> weights;
        for (std::size_t i = 0; i < plan_.tensors().size(); ++i) {
            group_array all = {.owner = 0, .bytes = updaters_[0]->tensors()[i].values.size() * sizeof(float)};
            for (const auto& u : updaters_) all.on_device.push_back(u->tensors()[i].values.data());
            weights.push_back(std::move(all));
        }
        group_->broadcast(weights);
        std::vector<event> spread;
        std::vector<event*> reached;
        for (const auto& u : updaters_) {
            const device_scope here(u->on().device());
            spread.emplace_back();
            spread.back().record(u->on());
        }
        for (event& e : spread) reached.push_back(&e);
        group_->wait(reached);
    }

    /// For the payloads to come. Throws value_error unless 0, or 2^-100..2^20.
    void set_learning_rate(float rate) {
        demo_options changed = options_;
        changed.learning_rate = rate;
        options_ = ::thinwire::detail::checked(changed);
    }

    /// How many coefficients a chunk of the payloads to come sends at most: 1..options().k; as thinwire::demo's. Throws
    /// value_error.
    void set_k(int k) {
        const std::uint32_t checked = ::thinwire::detail::checked_k(k, layout());
        lanes_.reserve(checked);
        k_ = checked;
    }
    /// How many tokens the gradients of the payloads to come are means over; 0, as at first: not stated. Throws
    /// value_error above most_tokens.
    void set_tokens(std::uint32_t tokens) { rounds_.set_tokens(tokens); }

    [[nodiscard]] const demo_options& options() const noexcept { return options_; }
    /// What every payload of this run looks like: for a sequencer's payload_decoder.
    [[nodiscard]] const payload_layout& layout() const noexcept { return plan_.layout(); }
    /// The private momentum of parameter i, without what is committed, once the stream is done; what is in flight is
    /// still in it. Throws value_error where there is no such parameter, or where it is cut over several devices.
    [[nodiscard]] device_span<const float> momentum(std::size_t i) {
        if (i >= plan_.tensors().size())
            throw value_error("momentum: parameter " + std::to_string(i) + ", expected below " +
                              std::to_string(plan_.tensors().size()));
        take_out_committed();
        for (const auto& c : choosers_)
            for (std::size_t p = 0; p < c->parts().size(); ++p)
                if (const shard_part& part = c->parts()[p];
                    part.tensor == i && part.shape.count() == updaters_[0]->tensors()[i].values.size())
                    return c->momentum().subspan(c->plan().tensors()[p].first_element, part.shape.count());
        throw value_error("momentum: that of parameter " + std::to_string(i) + " is not on one device");
    }

    /// SHA-256 of all weights in the order of the parameters, of one device of the group. Waits for its stream. Throws
    /// value_error where there is no such device.
    [[nodiscard]] digest replica_digest(std::size_t device) const {
        if (device >= updaters_.size())
            throw value_error("replica_digest: device " + std::to_string(device) + ", expected below " +
                              std::to_string(updaters_.size()));
        sha256 sum;
        pinned_buffer<float> staged(std::min<std::size_t>(plan_.elements(), 1U << 20U));
        for (const parameter& p : updaters_[device]->tensors())
            for_each_part(updaters_[device]->on(), p.values, staged, [&](std::size_t, std::span<const float> part) {
                ::thinwire::detail::digest_floats(sum, part);
            });
        return sum.finish();
    }
    /// Of the first device.
    [[nodiscard]] digest replica_digest() const { return replica_digest(0); }

    /// Momentum and payload in flight, exactly: a peer that restores them goes on bit for bit, with a device or
    /// without, or with several. Waits for the streams.
    [[nodiscard]] std::vector<std::byte> save_private() const {
        pinned_buffer<float> staged(std::min<std::size_t>(plan_.elements(), 1U << 20U));
        aligned_vector<float> momentum(plan_.elements());
        std::size_t first = 0;
        for (const auto& c : choosers_) {
            for_each_part(c->on(), c->momentum(), staged, [&](std::size_t at, std::span<const float> part) {
                std::copy(part.begin(), part.end(), momentum.begin() + static_cast<std::ptrdiff_t>(first + at));
            });
            first += c->plan().elements();
        }
        return ::thinwire::detail::save_private_state(private_part(), momentum, rounds_, staged_own());
    }
    /// Reads what save_private() wrote for the same tensors, options and run, before or after set_round(): a payload in
    /// flight for a round before round() was committed. Total; nothing changes when refused.
    [[nodiscard]] result<ok> restore_private(std::span<const std::byte> bytes) {
        aligned_vector<float> momentum(plan_.elements());
        for (const auto& c : choosers_) c->on().synchronize();
        sparse_content sent = staged_own();
        const auto restored = ::thinwire::detail::restore_private_state(bytes, private_part(), momentum, rounds_, sent);
        if (!restored) return restored;
        for_each_own(sent, [](const section_slice& whole, const section_slice& part) { copy_section(whole, part); });
        std::size_t first = 0;
        for (const auto& c : choosers_) {
            c->upload();
            copy_to_device<float>(c->on(), std::span<const float>(momentum).subspan(first, c->plan().elements()),
                                  c->momentum());
            first += c->plan().elements();
            c->on().synchronize();
        }
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
    demo(const std::vector<std::vector<parameter>>& parameters, demo_options options,
         const std::vector<stream*>& streams, device_group* group, thread_pool* pool)
        : options_(::thinwire::detail::checked(options)),
          pool_(pool),
          group_(group),
          shapes_(detail::shapes_of(alike(parameters, streams.size()))),
          plan_(shapes_, options_),
          k_(plan_.layout().k),
          weigher_(options_.weights, options_.contribution_clip),
          lanes_(plan_.layout(), pool, options_.codec != nullptr),
          decoded_(::thinwire::detail::lane_count(pool)) {
        require_supported();
        for (std::size_t d = 0; d < streams.size(); ++d)
            for (const parameter& p : parameters[d]) {
                detail::require_on_device(p.values, "values", p.name, streams[d]->device());
                detail::require_on_device(p.gradient, "gradient", p.name, streams[d]->device());
            }
        std::vector<std::vector<shard_part>> parts = cut_into_shards(shapes_, options_, streams.size());
        std::size_t pieces = 0, share = 0;
        for (std::size_t d = 0; d < streams.size(); ++d) {
            const device_scope here(streams[d]->device());
            choosers_.push_back(std::make_unique<detail::device_chooser>(std::move(parts[d]), parameters[d], plan_,
                                                                         options_, *streams[d]));
            updaters_.push_back(std::make_unique<detail::device_updater>(parameters[d], plan_, *streams[d]));
            pieces += choosers_[d]->pieces().size();
        }
        std::size_t first = 0;
        for (const auto& c : choosers_) {
            c->prepare_measures(first, pieces);
            first += c->pieces().size();
        }
        prepare_arrays();
        gathered_ = detail::gathered_sections(choosers_, plan_);
        for (const thinwire::parameter& p : shapes_) share += p.values.size() / ::thinwire::detail::digest_shares + 1;
        staged_share_ = pinned_buffer<float>(share);
        for (const auto& u : updaters_) u->on().synchronize();
        spread_weights();
    }

    [[nodiscard]] static std::vector<stream*> streams_of(const device_group& group) {
        std::vector<stream*> out;
        for (std::size_t d = 0; d < group.size(); ++d) out.push_back(&group.on(d));
        return out;
    }
    [[nodiscard]] static std::vector<std::vector<parameter>> of_devices(
        std::span<const std::vector<thinwire::parameter>> parameters, const device_group& group) {
        require_as_many(parameters.size(), group.size());
        std::vector<std::vector<parameter>> out;
        for (std::size_t d = 0; d < parameters.size(); ++d)
            out.push_back(detail::on_device(parameters[d], group.on(d).device()));
        return out;
    }
    static void require_as_many(std::size_t parameters, std::size_t devices) {
        if (parameters != devices)
            throw value_error("cuda::demo: parameters of " + std::to_string(parameters) +
                              " devices, expected those of the group's " + std::to_string(devices));
    }
    /// The parameters of the first device, when there are as many devices as streams and all have the same shapes.
    [[nodiscard]] static std::span<const parameter> alike(const std::vector<std::vector<parameter>>& parameters,
                                                          std::size_t devices) {
        require_as_many(parameters.size(), devices);
        for (std::size_t d = 1; d < devices; ++d) {
            if (parameters[d].size() != parameters[0].size())
                throw value_error("cuda::demo: " + std::to_string(parameters[d].size()) + " parameters of device " +
                                  std::to_string(d) + ", expected " + std::to_string(parameters[0].size()) +
                                  " as the first has");
            const auto views = detail::shapes_of(parameters[d]);
            for (std::size_t i = 0; i < views.size(); ++i) {
                check(views[i]);
                if (views[i].shape != parameters[0][i].shape)
                    throw shape_error("parameter '" + views[i].name + "' of device " + std::to_string(d) + ": shape " +
                                      to_string(views[i].shape) + ", expected " + to_string(parameters[0][i].shape) +
                                      " as on the first");
            }
        }
        return parameters.front();
    }
    void require_supported() const {
        for (const auto& t : plan_.tensors())
            if (const std::string name = t.settings.rule->name(); name != "signum" && name != "sgd")
                throw value_error("cuda::demo: rule '" + name + "', expected signum or sgd");
    }
    /// What the group moves in begin_step.
    void prepare_arrays() {
        if (group_ == nullptr) return;
        std::size_t piece = 0;
        for (std::size_t owner = 0; owner < choosers_.size(); ++owner) {
            for (const shard_part& part : choosers_[owner]->parts()) {
                group_array gradient = {.owner = owner, .bytes = part.shape.count() * sizeof(float)};
                for (const auto& u : updaters_)
                    gradient.on_device.push_back(
                        u->tensors()[part.tensor].gradient.subspan(part.first, part.shape.count()).data());
                gradients_.push_back(std::move(gradient));
            }
            const std::size_t count = choosers_[owner]->pieces().size();
            if (count > 0) {
                group_array measures = {.owner = owner, .bytes = count * sizeof(detail::piece_measure)};
                for (const auto& c : choosers_) measures.on_device.push_back(c->measures(piece, count).data());
                group_measures_.push_back(std::move(measures));
            }
            piece += count;
        }
        for (const auto& c : choosers_) measured_.push_back(&c->measured());
    }

    [[nodiscard]] ::thinwire::detail::private_view private_part() const noexcept {
        return {.layout = &plan_.layout(),
                .run = &options_.run,
                .alpha = options_.alpha,
                .gradient = static_cast<std::uint8_t>(static_cast<unsigned>(options_.gradient) +
                                                      (options_.error_feedback ? 16U : 0U))};
    }
    /// What all devices have staged of what was last sent.
    [[nodiscard]] sparse_content staged_own() const {
        sparse_content out;
        out.resize(layout());
        for_each_own(out, [](const section_slice& whole, const section_slice& part) { copy_section(part, whole); });
        return out;
    }
    /// Calls use(part of the whole, that part staged for a device) for the sections of all devices.
    template <class Use>
    void for_each_own(sparse_content& whole, const Use& use) const {
        for (std::size_t d = 0; d < choosers_.size(); ++d)
            for (std::size_t r = 0; r < choosers_[d]->plan().regions().size(); ++r) {
                const section_slice part = choosers_[d]->slice(r);
                const auto& [section, chunk] = gathered_.places(d)[r];
                use(plan_.slice(whole, section).chunks(chunk, part.counts.size()), part);
            }
    }
    void next_round(std::uint64_t round) noexcept {
        rounds_.set_round(round);
        share_staged_ = false;
    }

    /// Of what chooses.
    void set_bases(std::uint64_t round) {
        if (!options_.basis.each_round()) return;
        for (const auto& c : choosers_) c->set_round(round, pool_);
    }

    /// Gives the devices the whole of begin_step: the mean of the gradients, measuring and choosing, and bringing the
    /// coefficients to the host.
    void give_step(float taken) {
        if (group_ != nullptr) group_->average(gradients_);
        for (const auto& c : choosers_) c->measure();
        if (group_ != nullptr) group_->broadcast(group_measures_);
        const double gain = ::thinwire::detail::gradient_gain(options_);
        for (const auto& c : choosers_) c->decide(gain, options_.clip_norm);
        for (const auto& c : choosers_)
            c->choose(options_.momentum_decay, taken, k_ < layout().k ? k_ : ~std::uint32_t{0});
    }
    void take_out_committed() {
        if (rounds_.sent() != ::thinwire::detail::sent_state::committed) return;
        set_bases(rounds_.pending_round());
        for (const auto& c : choosers_) c->take_out(options_.alpha);
        rounds_.settle(false);
    }
    /// From here on no device waits for another.
    void wait_until_measured() {
        if (group_ != nullptr)
            group_->wait(measured_);
        else
            choosers_[0]->measured().wait();
    }

    void refuse_bad_gradients() const {
        const detail::step_numbers& n = choosers_[0]->numbers();
        if (n.refused == static_cast<std::uint32_t>(detail::refusal::absurd))
            throw value_error("begin_step: gradient norm " + std::to_string(n.norm) + " times " +
                              std::to_string(n.gain) + " (gradient " + std::string(to_string(options_.gradient)) +
                              "), expected below 2^60");
        if (n.refused == 0) return;
        std::size_t d = 0, piece = n.piece;
        for (; piece >= choosers_[d]->pieces().size(); ++d) piece -= choosers_[d]->pieces().size();
        const detail::gradient_piece& bad = choosers_[d]->pieces()[piece];
        const std::size_t number = choosers_[d]->plan().regions()[bad.region].tensor;
        const shard_part& part = choosers_[d]->parts()[number];
        const std::size_t element = part.first + bad.from + n.element;
        pinned_buffer<float> value(1);
        copy_to_host<float>(choosers_[d]->on(), choosers_[d]->gradient(number).subspan(bad.from + n.element, 1),
                            value.span());
        choosers_[d]->on().synchronize();
        throw value_error("gradient of '" + shapes_[part.tensor].name + "': element " + std::to_string(element) +
                          " is " + std::to_string(value.span()[0]) + ", expected a finite number");
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

    /// The sections that a batch of a device completes.
    template <class PassOn>
    void encode(std::size_t device, const detail::device_chooser::batch& batch, payload_writer& out,
                const PassOn& pass_on) {
        detail::device_chooser& from = *choosers_[device];
        if (options_.error_feedback)
            for (std::size_t r = batch.from; r < batch.to; ++r) {
                const section_slice part = from.slice(r);
                for (std::size_t chunk = 0; chunk < part.counts.size(); ++chunk)
                    ::thinwire::detail::round_sent(part.values.subspan(chunk * part.stride, part.counts[chunk]),
                                                   *layout().codec);
            }
        const detail::gathered_sections::range done = gathered_.take(device, from, batch);
        lanes_.encode(
            done.from, done.to, k_, [this](std::size_t i) { return gathered_.section(i); }, out, pass_on);
    }

    /// Decodes every contribution into staged memory, and beside that makes the digest of this round's share.
    void read(const commit& c) {
        const std::size_t n = c.contributions.size();
        if (n > detail::apply_kernel<true, false>::most_senders || n * plan_.max_chunk_size() >= std::size_t{1} << 31U)
            throw value_error("apply: " + std::to_string(n) + " contributions, expected below 2^20, and below 2^31 / " +
                              std::to_string(plan_.max_chunk_size()) + " for chunks of that size");
        if (!rounds_.share_known()) bring_share();  // of the weights as they are now
        for (const auto& u : updaters_) u->wait();
        if (received_.payloads() < n) received_ = detail::staged_content(layout(), n);
        for (std::size_t i = 0; i < n; ++i) received_.stage_nothing(i);
        lanes_.decode(
            c, options_.run, weigher_.needs_norms(),
            [this](std::size_t lane, std::size_t) -> sparse_content& { return decoded_[lane]; },
            [this](std::size_t lane, std::size_t i) { received_.stage(i, decoded_[lane]); },
            [this] { static_cast<void>(replica_share()); });
    }
    void update(const payload_info& info, std::size_t senders) {
        if (options_.basis.each_round()) {
            plan_.set_round(round(), pool_);
            for (const auto& u : updaters_) u->upload_tables();
        }
        const std::span<const contribution_weight> weights = stage_weights(senders);
        for (const auto& u : updaters_) u->update(info, received_, senders, weights);
    }
    /// What the senders weigh, one after the other, also those that were refused and sent nothing; nothing where all
    /// count alike.
    [[nodiscard]] std::span<const contribution_weight> stage_weights(std::size_t senders) {
        const std::span<const contribution_weight> weights = weigher_.finish();
        if (weights.empty()) return {};
        if (staged_weights_.size() < senders) staged_weights_ = pinned_buffer<contribution_weight>(senders);
        for (std::size_t i = 0, accepted = 0; i < senders; ++i)
            staged_weights_.span()[i] = lanes_.accepted(i) ? weights[accepted++] : contribution_weight{};
        return std::as_const(staged_weights_).span().first(senders);
    }

    /// The device whose weights this round's share is taken from: each in its turn, for all shares.
    [[nodiscard]] detail::device_updater& watched() const noexcept {
        return *updaters_[round() / ::thinwire::detail::digest_shares % updaters_.size()];
    }
    /// Asks for this round's share of the weights.
    void stage_share() {
        if (share_staged_) return;
        if (share_from_ != nullptr) share_from_->wait_for_share();  // of another round, to the same place
        share_from_ = &watched();
        share_elements_ = share_from_->stage_share(round() % ::thinwire::detail::digest_shares, staged_share_.span());
        share_staged_ = true;
    }
    /// Returns when it is on the host.
    void bring_share() {
        stage_share();
        if (share_from_ != nullptr) share_from_->wait_for_share();
        share_from_ = nullptr;
    }
    const digest& replica_share() {
        return rounds_.share({}, [this](sha256& sum, std::size_t) {
            bring_share();
            ::thinwire::detail::digest_floats(sum, std::as_const(staged_share_).span().first(share_elements_));
        });
    }

    /// Calls use(place, elements) for a tensor's elements as they come to the host.
    template <class Use>
    static void for_each_part(stream& on, const device_span<float>& from, pinned_buffer<float>& staged,
                              const Use& use) {
        for (std::size_t at = 0; at < from.size(); at += staged.size()) {
            const std::size_t count = std::min(staged.size(), from.size() - at);
            copy_to_host<float>(on, from.subspan(at, count), staged.span().first(count));
            on.synchronize();
            use(at, std::as_const(staged).span().first(count));
        }
    }

    demo_options options_;
    thread_pool* pool_;
    device_group* group_;
    std::vector<thinwire::parameter> shapes_;  ///< of the first device; the host does not read their memory
    ::thinwire::detail::chunk_plan plan_;
    std::uint32_t k_;  ///< of the payloads to come
    std::vector<std::unique_ptr<detail::device_chooser>> choosers_;
    std::vector<std::unique_ptr<detail::device_updater>> updaters_;
    detail::gathered_sections gathered_;
    std::vector<group_array> gradients_;       ///< of the choosers' parts, one chooser after the other
    std::vector<group_array> group_measures_;  ///< of the choosers that have any
    std::vector<event*> measured_;             ///< with a group: of all devices
    detail::staged_content received_;
    ::thinwire::detail::round_keeper rounds_;
    float gradient_norm_ = 0.0F;
    pinned_buffer<float> staged_share_;
    std::size_t share_elements_ = 0;
    bool share_staged_ = false;                     ///< that of this round was asked for
    detail::device_updater* share_from_ = nullptr;  ///< whose copy to staged_share_ nobody has waited for
    contribution_weights weigher_;
    pinned_buffer<contribution_weight> staged_weights_;
    ::thinwire::detail::payload_lanes lanes_;
    std::vector<sparse_content> decoded_;  ///< one for each lane
};

static_assert(optimizer<demo>);

}  // namespace thinwire::cuda

#endif  // THINWIRE_BACKEND_CUDA_DEMO_CUH
