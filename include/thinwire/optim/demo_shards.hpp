#ifndef THINWIRE_OPTIM_DEMO_SHARDS_HPP
#define THINWIRE_OPTIM_DEMO_SHARDS_HPP

#include <thinwire/codec/payload.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/demo_cut.hpp>
#include <thinwire/optim/detail/chunk_plan.hpp>
#include <thinwire/optim/detail/round_keeper.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// Payloads of the shards of a peer -> the payload of the peer, and back: the bytes that one demo over all parameters
/// sends. Between a peer's devices or processes travel the shards' own payloads, which are payloads of format 2 for the
/// shard's layout. Not thread-safe.
class shard_joiner {
 public:
    /// `whole` is the layout of a demo over all parameters, `parts` and `layouts` those of its shards.
    shard_joiner(const payload_layout& whole, std::vector<std::vector<shard_part>> parts,
                 std::vector<payload_layout> layouts, const digest& run)
        : whole_(whole),
          parts_(std::move(parts)),
          layouts_(std::move(layouts)),
          places_(detail::section_places(parts_, layouts_, whole_.sections.size())),
          run_(run),
          decoder_(whole_),
          coder_(whole_) {
        for (const payload_layout& layout : layouts_) {
            decoders_.emplace_back(layout);
            coders_.emplace_back(layout);
        }
        split_.resize(layouts_.size());
        content_.resize(whole_);
        for (const payload_layout& layout : layouts_) part_.resize(layout);
        for (const payload_section& section : whole_.sections) {
            coefficient_.push_back(coefficient_.back() + section.coefficients());
            chunk_.push_back(chunk_.back() + section.chunks);
        }
    }

    /// The peer's payload from those of all its shards, in their order. `replica`: the digest of the peer's share of
    /// weights; `reuse`: a buffer whose memory is taken. A failure where one of them is not such a payload.
    [[nodiscard]] result<std::vector<std::byte>> join(std::span<const std::span<const std::byte>> shards,
                                                      std::uint64_t round, peer_id self, const digest& replica,
                                                      std::vector<std::byte>&& reuse = {}) {
        payload_info info;
        for (std::size_t s = 0; s < layouts_.size(); ++s) {
            const auto read = decoders_[s].decode(shards[s], {.run = run_, .round = round, .peer = self}, part_);
            if (!read) return read.error();
            if (s > 0 && read->k != info.k)
                return failure{errc::mismatch, "shard_joiner: shard " + std::to_string(s) + " sends k " +
                                                   std::to_string(read->k) + ", expected " + std::to_string(info.k) +
                                                   " as those before it"};
            info = *read;
            move_part(s, content_, part_, true);
        }
        info.fingerprint = whole_.fingerprint;
        info.replica = replica;
        return write(info, whole_, coder_, content_, std::move(reuse));
    }
    /// Memory for payloads that state `k`, at most that of the layouts: then join() allocates nothing else.
    void reserve(std::uint32_t k) {
        coder_.reserve(whole_, k);
        for (payload_decoder& decoder : decoders_) decoder.reserve(k);
    }

    /// Reads a peer's payload and cuts it into those of the shards: split()[s] is valid until the next call.
    [[nodiscard]] result<payload_info> read(std::span<const std::byte> bytes, std::uint64_t round, peer_id peer) {
        auto info = decoder_.decode(bytes, {.run = run_, .round = round, .peer = peer}, content_);
        if (!info) return info;
        for (std::size_t s = 0; s < layouts_.size(); ++s) {
            part_.resize(layouts_[s]);
            move_part(s, content_, part_, false);
            payload_info cut = *info;
            cut.fingerprint = layouts_[s].fingerprint;
            split_[s] = write(cut, layouts_[s], coders_[s], part_, std::move(split_[s]));
        }
        return info;
    }
    [[nodiscard]] std::span<const std::vector<std::byte>> split() const noexcept { return split_; }
    /// Of the payload that was read last, for contribution_weights.
    [[nodiscard]] std::uint64_t norm() const noexcept { return norm_of(whole_, content_); }

    [[nodiscard]] const payload_layout& layout() const noexcept { return whole_; }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        std::size_t sum =
            bytes_held(whole_.sections, parts_, layouts_, places_, decoders_, coders_, coefficient_, chunk_, split_);
        for (const auto& held : parts_) sum += bytes_held(held);
        for (const auto& places : places_) sum += bytes_held(places);
        for (const auto& layout : layouts_) sum += bytes_held(layout.sections);
        const auto add = [&](const auto& each) { sum += each.memory_bytes() + each.table_bytes(); };
        add(decoder_);
        add(coder_);
        for (const payload_decoder& decoder : decoders_) add(decoder);
        for (const section_coder& coder : coders_) add(coder);
        for (const auto& payload : split_) sum += bytes_held(payload);
        return sum + content_.memory_bytes() + part_.memory_bytes();
    }

 private:
    friend class sharded_demo;

    /// Copies `part`, coefficients of shard s, to their places in `whole`, or from there.
    void move_part(std::size_t s, sparse_content& whole, sparse_content& part, bool into_whole) const {
        std::size_t coefficient = 0, chunk = 0;
        for (std::size_t i = 0; i < places_[s].size(); ++i) {
            const auto& [number, first] = places_[s][i];
            const payload_section& section = layouts_[s].sections[i];
            const section_slice one = part.slice(section, coefficient, chunk);
            const section_slice other = whole.slice(whole_.sections[number], coefficient_[number], chunk_[number])
                                            .chunks(first, section.chunks);
            into_whole ? copy_section(one, other) : copy_section(other, one);
            coefficient += section.coefficients();
            chunk += section.chunks;
        }
    }

    [[nodiscard]] static std::vector<std::byte> write(const payload_info& info, const payload_layout& layout,
                                                      section_coder& coder, sparse_content& content,
                                                      std::vector<std::byte>&& reuse) {
        payload_writer out(info, layout.sections.size(), std::move(reuse), room_of_payload(layout));
        std::size_t coefficient = 0, chunk = 0;
        for (std::size_t i = 0; i < layout.sections.size(); ++i) {
            const payload_section& section = layout.sections[i];
            coder.encode(layout.section(i, info.k), content.slice(section, coefficient, chunk), out.begin_section());
            out.end_section();
            coefficient += section.coefficients();
            chunk += section.chunks;
        }
        out.finish();
        return out.take();
    }

    payload_layout whole_;
    std::vector<std::vector<shard_part>> parts_;
    std::vector<payload_layout> layouts_;
    std::vector<std::vector<detail::section_place>> places_;  ///< of the shards' sections
    digest run_;
    payload_decoder decoder_;
    section_coder coder_;
    std::vector<payload_decoder> decoders_;
    std::vector<section_coder> coders_;
    sparse_content content_, part_;
    std::vector<std::size_t> coefficient_ = {0}, chunk_ = {0};  ///< where the sections begin in content_
    std::vector<std::vector<std::byte>> split_;
};

/// A demo whose tensors are split over shards by rows of chunks (cut_into_shards): payloads, weights and saved states
/// are, bit for bit, those of one demo over all of them, and a peer may go from one form to the other. Every shard is a
/// demo of its own, with its own momentum and working memory, and hands over nothing but payloads: the pattern for
/// shards on several devices, or in several processes, of which one speaks for the peer. Here they share a process;
/// with a pool, its threads take a shard each.
///
/// Refers to the parameters' memory, which must outlive it. Not thread-safe. Functions and errors as those of demo.
class sharded_demo {
 public:
    sharded_demo(std::span<const parameter> parameters, const demo_options& options, std::size_t shards,
                 thread_pool* pool = nullptr)
        : parameters_(parameters.begin(), parameters.end()),
          pool_(pool),
          meter_(parameters),
          weigher_(options.weights, options.contribution_clip),
          made_(shards),
          lists_(shards),
          reports_(shards) {
        static_cast<void>(detail::checked(options));
        check_apart(parameters);
        const detail::chunk_plan whole(parameters, options);
        parts_ = cut_into_shards(parameters, options, shards);
        std::vector<payload_layout> layouts;
        for (const std::vector<shard_part>& held : parts_) {
            std::vector<parameter> views;
            detail::plan_origin origin;
            for (const shard_part& part : held) {
                const parameter& p = parameters_[part.tensor];
                views.push_back({.name = p.name,
                                 .shape = part.shape,
                                 .values = p.values.subspan(part.first, part.shape.count()),
                                 .gradient = p.gradient.subspan(part.first, part.shape.count())});
                origin.tensors.push_back(part.tensor);
                origin.settings.push_back(whole.tensors()[part.tensor].settings);
            }
            shards_.push_back(std::make_unique<demo>(views, options, nullptr, &origin));
            layouts.push_back(shards_.back()->layout());
        }
        joiner_ = std::make_unique<shard_joiner>(whole.layout(), parts_, std::move(layouts), options.run);
    }
    sharded_demo(const sharded_demo&) = delete;
    sharded_demo& operator=(const sharded_demo&) = delete;

    template <transport T>
    step_report step(T& t) {
        const auto payload = begin_step(static_cast<peer_id>(t.self()));
        return end_step(t.exchange(round(), payload));
    }

    [[nodiscard]] std::span<const std::byte> begin_step(peer_id self) {
        rounds_.require_none_pending();
        const standard_float_mode mode;
        const double norm = meter_.norm(pool_, options().level);
        static_cast<void>(detail::checked_gain(options(), norm));
        for (const auto& shard : shards_) shard->reserve();
        rounds_.reserve(room_of_payload(layout()));
        gradient_norm_ = static_cast<float>(norm);
        try {  // from here on nothing fails but an own value code
            for_each_shard([&](std::size_t s) {
                made_[s] = shards_[s]->begin_step(self, norm, [](std::span<const std::byte>) {});
            });
            rounds_.start(self, round(), joiner_->join(made_, round(), self, share(), rounds_.reuse()).value());
        } catch (...) {
            for (const auto& shard : shards_) shard->abandon();
            rounds_.settle(false);
            throw;
        }
        return rounds_.payload();
    }
    /// The payload reaches the sink in one part.
    template <std::invocable<std::span<const std::byte>> Sink>
    std::span<const std::byte> begin_step(peer_id self, Sink&& sink) {
        const auto payload = begin_step(self);
        sink(payload);
        return payload;
    }

    step_report end_step(std::span<const commit> commits) {
        if (commits.empty())
            throw value_error("end_step: no commit, expected that of round " + std::to_string(round()));
        step_report report{.bytes_sent = rounds_.payload().size(), .gradient_norm = gradient_norm_};
        for (const commit& c : commits) detail::round_keeper::merge(report, apply(c));
        return report;
    }

    step_report apply(const commit& c) {
        const standard_float_mode mode;
        const step_report report = take_in(c);
        const std::span<const contribution_weight> weights = weigher_.finish();
        for_each_shard([&](std::size_t s) {
            reports_[s] = shards_[s]->take_in({.round = c.round, .contributions = lists_[s]}, false);
            if (reports_[s].rejected > 0)
                throw value_error("apply: shard " + std::to_string(s) +
                                  " refuses its part of a payload: the own value code reads what it does not write");
        });
        for_each_shard([&](std::size_t s) { shards_[s]->carry_out(reports_[s], weights); });
        if (rounds_.pending() && rounds_.pending_round() == c.round) rounds_.settle(report.own_included);
        rounds_.next_round();
        return report;
    }

    [[nodiscard]] std::uint64_t round() const noexcept { return rounds_.round(); }
    void set_round(std::uint64_t round) noexcept {
        rounds_.set_round(round);
        for (const auto& shard : shards_) shard->set_round(round);
    }
    [[nodiscard]] std::span<const std::byte> in_flight() const noexcept { return rounds_.payload(); }
    void abandon() noexcept {
        for (const auto& shard : shards_) shard->abandon();
        if (rounds_.pending()) rounds_.settle(false);
    }

    void set_gradient(std::size_t i, std::span<float> gradient) {
        thinwire::set_gradient(parameters_, i, gradient);
        meter_.move_gradient(i, gradient);
        for (std::size_t s = 0; s < shards_.size(); ++s)
            for (std::size_t n = 0; n < parts_[s].size(); ++n)
                if (const shard_part& part = parts_[s][n]; part.tensor == i)
                    shards_[s]->set_gradient(n, gradient.subspan(part.first, part.shape.count()));
    }
    void set_learning_rate(float rate) {
        for (const auto& shard : shards_) shard->set_learning_rate(rate);
    }
    void set_k(int k) {
        joiner_->reserve(detail::checked_k(k, layout()));
        for (const auto& shard : shards_) shard->set_k(k);
    }
    void set_tokens(std::uint32_t tokens) {
        for (const auto& shard : shards_) shard->set_tokens(tokens);
    }

    [[nodiscard]] const demo_options& options() const noexcept { return shards_.front()->options(); }
    [[nodiscard]] const payload_layout& layout() const noexcept { return joiner_->layout(); }

    [[nodiscard]] demo_memory memory_bytes() const noexcept {
        demo_memory held;
        for (const auto& shard : shards_) {
            const demo_memory of_shard = shard->memory_bytes();
            held.momentum += of_shard.momentum;
            held.workspace += of_shard.workspace + sizeof(demo);
            held.codec += of_shard.codec;
        }
        held.workspace += meter_.memory_bytes() + weigher_.memory_bytes() +
                          bytes_held(parameters_, parts_, shards_, made_, lists_, reports_);
        for (const auto& held_here : parts_) held.workspace += bytes_held(held_here);
        held.codec += sizeof(shard_joiner) + joiner_->memory_bytes() + rounds_.memory_bytes() + bytes_held(received_);
        for (const auto& payload : received_) held.codec += bytes_held(payload);
        for (const auto& list : lists_) held.codec += bytes_held(list);
        return held;
    }

    [[nodiscard]] digest replica_digest() const {
        sha256 sum;
        for (const parameter& p : parameters_) detail::digest_floats(sum, p.values);
        return sum.finish();
    }

    [[nodiscard]] std::vector<std::byte> save_private() const {
        aligned_vector<float> momentum;
        sparse_content own;
        own.resize(layout());
        for (std::size_t s = 0; s < shards_.size(); ++s) {
            momentum.insert(momentum.end(), shards_[s]->momentum_.begin(), shards_[s]->momentum_.end());
            joiner_->move_part(s, own, shards_[s]->own_, true);
        }
        return detail::save_private_state(private_part(), momentum, rounds_, own);
    }
    [[nodiscard]] result<ok> restore_private(std::span<const std::byte> bytes) {
        std::size_t elements = 0;
        for (const auto& shard : shards_) elements += shard->momentum_.size();
        aligned_vector<float> momentum(elements);
        detail::round_keeper next = rounds_;
        sparse_content own;
        own.resize(layout());
        if (const auto restored = detail::restore_private_state(bytes, private_part(), momentum, next, own); !restored)
            return restored;
        std::vector<std::vector<std::byte>> cut(shards_.size());
        if (next.sent() != detail::sent_state::none) {
            if (const auto read = joiner_->read(next.last_payload(), next.pending_round(), next.pending_self()); !read)
                return read.error();
            cut.assign(joiner_->split().begin(), joiner_->split().end());
        }
        rounds_ = std::move(next);
        const float* m = momentum.data();
        for (std::size_t s = 0; s < shards_.size(); ++s) {
            demo& shard = *shards_[s];
            std::copy_n(m, shard.momentum_.size(), shard.momentum_.begin());
            joiner_->move_part(s, own, shard.own_, false);
            m += shard.momentum_.size();
            shard.rounds_.start_as(rounds_, std::move(cut[s]));
        }
        return ok{};
    }

    [[nodiscard]] std::vector<std::byte> save_replica() const { return {}; }
    [[nodiscard]] result<ok> restore_replica(std::span<const std::byte> bytes) {
        rounds_.forget_share();
        for (const auto& shard : shards_)
            if (const auto restored = shard->restore_replica(bytes); !restored) return restored;
        return ok{};
    }

 private:
    /// One thread a shard at most; what one throws passes through when all are done.
    template <class Task>
    void for_each_shard(const Task& task) {
        detail::for_each_item(pool_, shards_.size(), [&](std::size_t, std::size_t s) { task(s); });
    }
    const digest& share() {
        return rounds_.share(parameters_, [](sha256&, std::size_t) {});
    }
    /// As that of a shard, whose momenta, one after the other, are those of all tensors.
    [[nodiscard]] detail::private_view private_part() const noexcept {
        detail::private_view part = shards_.front()->private_part();
        part.layout = &layout();
        return part;
    }

    /// Reads and counts what a commit holds, and cuts it: lists_[s] is what shard s is to apply. Nothing has changed
    /// when it throws.
    step_report take_in(const commit& c) {
        rounds_.require_round(c);
        static_cast<void>(share());
        step_report report{.round = c.round};
        weigher_.clear();
        for (auto& list : lists_) list.clear();
        std::size_t used = 0;  // of received_
        for (std::size_t i = 0; i < c.contributions.size(); ++i) {
            const contribution& from = c.contributions[i];
            if (detail::round_keeper::repeated(c, i)) {
                detail::round_keeper::reject(report, errc::malformed);
                continue;
            }
            const auto info = joiner_->read(from.payload, c.round, from.peer);
            if (!info) {
                detail::round_keeper::reject(report, info.error().code);
                continue;
            }
            rounds_.count(report, from, *info);
            weigher_.add(info->tokens, weigher_.needs_norms() ? joiner_->norm() : 0);
            const bool own = rounds_.is_own(from);
            for (std::size_t s = 0; s < shards_.size(); ++s)
                lists_[s].push_back(
                    {.peer = from.peer, .payload = own ? shards_[s]->in_flight() : keep(joiner_->split()[s], used++)});
        }
        return report;
    }
    /// A copy that lasts until the next commit.
    std::span<const std::byte> keep(std::span<const std::byte> payload, std::size_t at) {
        if (received_.size() <= at) received_.resize(at + 1);
        std::vector<std::byte>& copy = received_[at];
        if (copy.capacity() < payload.size()) copy.reserve(payload.size() + payload.size() / 8 + 64);
        copy.assign(payload.begin(), payload.end());
        return copy;
    }

    std::vector<parameter> parameters_;
    thread_pool* pool_;
    std::vector<std::vector<shard_part>> parts_;
    std::vector<std::unique_ptr<demo>> shards_;
    std::unique_ptr<shard_joiner> joiner_;
    detail::round_keeper rounds_;
    gradient_meter meter_;
    contribution_weights weigher_;
    float gradient_norm_ = 0.0F;
    std::vector<std::span<const std::byte>> made_;  ///< by the shards
    std::vector<std::vector<contribution>> lists_;  ///< of the commit at hand, for each shard
    std::vector<step_report> reports_;              ///< of the shards
    std::vector<std::vector<std::byte>> received_;  ///< parts of payloads, in lists_
};

static_assert(optimizer<sharded_demo>);

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_DEMO_SHARDS_HPP
