#ifndef THINWIRE_OPTIM_DEMO_SHARDS_HPP
#define THINWIRE_OPTIM_DEMO_SHARDS_HPP

#include <thinwire/codec/payload.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/demo_cut.hpp>
#include <thinwire/optim/detail/chunk_plan.hpp>
#include <thinwire/optim/detail/round_keeper.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
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
          run_(run),
          decoder_(whole_),
          coder_(whole_) {
        for (const payload_layout& layout : layouts_) {
            decoders_.emplace_back(layout);
            coders_.emplace_back(layout);
        }
        split_.resize(layouts_.size());
    }

    /// The peer's payload from those of all its shards, in their order. `replica`: the digest of the peer's share of
    /// weights. A failure where one of them is not such a payload.
    [[nodiscard]] result<std::vector<std::byte>> join(std::span<const std::span<const std::byte>> shards,
                                                      std::uint64_t round, peer_id self, const digest& replica) {
        content_.resize(whole_);
        begin_places();
        payload_info info;
        for (std::size_t s = 0; s < layouts_.size(); ++s) {
            const auto read = decoders_[s].decode(shards[s], {.run = run_, .round = round, .peer = self}, part_);
            if (!read) return read.error();
            if (s > 0 && read->k != info.k)
                return failure{errc::mismatch, "shard_joiner: shard " + std::to_string(s) + " sends k " +
                                                   std::to_string(read->k) + ", expected " + std::to_string(info.k) +
                                                   " as those before it"};
            info = *read;
            move_parts(s, true);
        }
        info.fingerprint = whole_.fingerprint;
        info.replica = replica;
        return write(info, whole_, coder_, content_);
    }

    /// Reads a peer's payload and cuts it into those of the shards: split()[s] is valid until the next call.
    [[nodiscard]] result<payload_info> read(std::span<const std::byte> bytes, std::uint64_t round, peer_id peer) {
        auto info = decoder_.decode(bytes, {.run = run_, .round = round, .peer = peer}, content_);
        if (!info) return info;
        begin_places();
        for (std::size_t s = 0; s < layouts_.size(); ++s) {
            part_.resize(layouts_[s]);
            move_parts(s, false);
            payload_info cut = *info;
            cut.fingerprint = layouts_[s].fingerprint;
            split_[s] = write(cut, layouts_[s], coders_[s], part_);
        }
        return info;
    }
    [[nodiscard]] std::span<const std::vector<std::byte>> split() const noexcept { return split_; }
    /// Of the payload that was read last, for contribution_weights.
    [[nodiscard]] std::uint64_t norm() const noexcept { return norm_of(whole_, content_); }

 private:
    void begin_places() {
        coefficient_.assign(1, 0);
        chunk_.assign(1, 0);
        for (const payload_section& section : whole_.sections) {
            coefficient_.push_back(coefficient_.back() + section.coefficients());
            chunk_.push_back(chunk_.back() + section.chunks);
        }
    }
    /// Copies part_, the content of shard s, to the next places of content_, or from there.
    void move_parts(std::size_t s, bool into_whole) {
        std::size_t at = 0, at_chunk = 0;
        for (std::size_t i = 0; i < parts_[s].size(); ++i) {
            const payload_section& section = layouts_[s].sections[i];
            const std::size_t tensor = parts_[s][i].tensor;
            section_slice one = part_.slice(section, at, at_chunk);
            section_slice other = content_.slice(section, coefficient_[tensor], chunk_[tensor]);
            const section_slice& from = into_whole ? one : other;
            const section_slice& to = into_whole ? other : one;
            std::ranges::copy(from.positions, to.positions.begin());
            std::ranges::copy(from.values, to.values.begin());
            std::ranges::copy(from.counts, to.counts.begin());
            at += section.coefficients();
            at_chunk += section.chunks;
            coefficient_[tensor] += section.coefficients();
            chunk_[tensor] += section.chunks;
        }
    }

    [[nodiscard]] static std::vector<std::byte> write(const payload_info& info, const payload_layout& layout,
                                                      section_coder& coder, sparse_content& content) {
        payload_writer out(info, layout.sections.size(), {});
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
    digest run_;
    payload_decoder decoder_;
    section_coder coder_;
    std::vector<payload_decoder> decoders_;
    std::vector<section_coder> coders_;
    sparse_content content_, part_;
    std::vector<std::size_t> coefficient_, chunk_;  ///< of each tensor: the next places in content_
    std::vector<std::vector<std::byte>> split_;
};

/// A demo whose tensors are split over shards by rows of chunks: payloads and weights are, bit for bit, those of one
/// demo over all of them, and any of the two may take part in a run. Every shard is a demo of its own, with its own
/// momentum and working memory, and hands over nothing but payloads: the pattern for shards on several devices, or in
/// several processes, of which one speaks for the peer. Here they share a process; with a pool, its threads take a
/// shard each.
///
/// Refers to the parameters' memory, which must outlive it. Not thread-safe. Errors as those of demo.
class sharded_demo {
 public:
    sharded_demo(std::span<const parameter> parameters, const demo_options& options, std::size_t shards,
                 thread_pool* pool = nullptr)
        : parameters_(parameters.begin(), parameters.end()),

          pool_(pool),
          meter_(parameters),
          level_(options.level),
          weigher_(options.weights, options.contribution_clip) {
        static_cast<void>(detail::checked(options));
        const detail::chunk_plan whole(parameters, options);
        const auto parts = cut_into_shards(parameters, options, shards);
        std::vector<payload_layout> layouts;
        for (const std::vector<shard_part>& held : parts) {
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
        joiner_ = std::make_unique<shard_joiner>(whole.layout(), parts, std::move(layouts), options.run);
    }

    [[nodiscard]] std::span<const std::byte> begin_step(peer_id self) {
        rounds_.require_none_pending();
        const standard_float_mode mode;
        gradient_norm_ = meter_.norm(pool_, level_);
        std::vector<std::span<const std::byte>> made(shards_.size());
        try {
            for_each_shard([&](std::size_t s) {
                made[s] = shards_[s]->begin_step(self, gradient_norm_, [](std::span<const std::byte>) {});
            });
        } catch (...) {
            for (const auto& shard : shards_) shard->abandon();
            throw;
        }
        const digest& share = rounds_.share(parameters_, [](sha256&, std::size_t) {});
        rounds_.start(self, round(), joiner_->join(made, round(), self, share).value());
        return rounds_.payload();
    }

    step_report end_step(std::span<const commit> commits) {
        if (commits.empty())
            throw value_error("end_step: no commit, expected that of round " + std::to_string(round()));
        step_report report{.bytes_sent = rounds_.payload().size(), .gradient_norm = static_cast<float>(gradient_norm_)};
        for (const commit& c : commits) detail::round_keeper::merge(report, apply(c));
        return report;
    }

    step_report apply(const commit& c) {
        rounds_.require_round(c);
        static_cast<void>(rounds_.share(parameters_, [](sha256&, std::size_t) {}));
        step_report report{.round = c.round};
        std::vector<std::vector<std::vector<std::byte>>> bytes(shards_.size());
        std::vector<peer_id> senders;
        weigher_.clear();
        for (std::size_t i = 0; i < c.contributions.size(); ++i) {
            const contribution& from = c.contributions[i];
            std::optional<payload_info> info;
            if (!detail::round_keeper::repeated(c, i))
                if (const auto read = joiner_->read(from.payload, c.round, from.peer)) info = *read;
            if (!info) {
                ++report.rejected;
                continue;
            }
            if (senders.empty()) report.learning_rate = info->learning_rate;
            const bool own = rounds_.is_own(from);
            if (!rounds_.pending() || from.peer != rounds_.pending_self()) report.bytes_received += from.payload.size();
            rounds_.count(report, from, *info);
            senders.push_back(from.peer);
            weigher_.add(info->tokens, weigher_.needs_norms() ? joiner_->norm() : 0);
            for (std::size_t s = 0; s < shards_.size(); ++s) {
                const auto sent = shards_[s]->in_flight();
                bytes[s].push_back(own ? std::vector<std::byte>(sent.begin(), sent.end()) : joiner_->split()[s]);
            }
        }
        const std::span<const contribution_weight> weights = weigher_.finish();
        for_each_shard([&](std::size_t s) {
            std::vector<contribution> list;
            for (std::size_t i = 0; i < senders.size(); ++i)
                list.push_back({.peer = senders[i], .payload = bytes[s][i]});
            static_cast<void>(shards_[s]->apply({.round = c.round, .contributions = list}, weights));
        });
        if (rounds_.pending() && rounds_.pending_round() == c.round) rounds_.settle();
        rounds_.next_round();
        return report;
    }

    /// The payload in flight stays in the momentum.
    void abandon() noexcept {
        for (const auto& shard : shards_) shard->abandon();
        rounds_.settle();
    }
    [[nodiscard]] std::uint64_t round() const noexcept { return rounds_.round(); }
    /// For the payloads to come.
    void set_learning_rate(float rate) {
        for (const auto& shard : shards_) shard->set_learning_rate(rate);
    }
    /// As those of demo.
    void set_k(int k) {
        for (const auto& shard : shards_) shard->set_k(k);
    }
    void set_tokens(std::uint32_t tokens) {
        for (const auto& shard : shards_) shard->set_tokens(tokens);
    }
    /// Each with its own momentum, to save and restore.
    [[nodiscard]] std::span<const std::unique_ptr<demo>> shards() const noexcept { return shards_; }

 private:
    /// One thread a shard at most; what one throws passes through when all are done.
    template <class Task>
    void for_each_shard(const Task& task) {
        std::vector<std::exception_ptr> thrown(shards_.size());
        detail::for_each_item(pool_, shards_.size(), [&](std::size_t, std::size_t s) {
            try {
                task(s);
            } catch (...) {
                thrown[s] = std::current_exception();
            }
        });
        for (const std::exception_ptr& e : thrown)
            if (e != nullptr) std::rethrow_exception(e);
    }

    std::vector<parameter> parameters_;
    thread_pool* pool_;
    std::vector<std::unique_ptr<demo>> shards_;
    std::unique_ptr<shard_joiner> joiner_;
    detail::round_keeper rounds_;
    gradient_meter meter_;
    isa level_;
    contribution_weights weigher_;
    double gradient_norm_ = 0.0;
};

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_DEMO_SHARDS_HPP
