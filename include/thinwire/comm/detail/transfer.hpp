#ifndef THINWIRE_COMM_DETAIL_TRANSFER_HPP
#define THINWIRE_COMM_DETAIL_TRANSFER_HPP

#include <thinwire/comm/effect.hpp>
#include <thinwire/comm/message.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace thinwire::detail::comm {

/// Content on its way in pieces, from several links at a time: what is here, what was asked of whom, and when each
/// source last gave something. What arrived stays when a source is lost.
class transfer {
 public:
    static constexpr std::size_t piece = wire_limits::max_piece;

    transfer(digest content, std::uint64_t round, std::size_t size)
        : content_(content), round_(round), size_(size), pieces_((size + piece - 1) / piece) {}

    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] bool complete() const noexcept { return have_ == pieces_.size(); }
    [[nodiscard]] bool has_source() const noexcept { return !sources_.empty(); }
    [[nodiscard]] bool from(link_id link) const noexcept { return sources_.contains(link); }

    /// One that said it does not have the content stays out.
    void add_source(link_id link, timestamp now) {
        if (!without_.contains(link)) sources_.try_emplace(link, now);
    }
    /// Gives how many pieces are no longer expected from it.
    std::size_t remove_source(link_id link) {
        if (sources_.erase(link) == 0) return 0;
        std::size_t asked = 0;
        for (state& s : pieces_)
            if (!s.here && s.asked == link) {
                s.asked = 0;
                ++asked;
            }
        return asked;
    }

    /// What to ask of a source next, and notes that it is asked.
    [[nodiscard]] std::optional<fetch_message> ask(link_id link) {
        for (; first_open_ < pieces_.size() && pieces_[first_open_].here; ++first_open_) {
        }
        for (std::size_t i = first_open_; i < pieces_.size(); ++i) {
            if (pieces_[i].here || pieces_[i].asked != 0) continue;
            pieces_[i].asked = link;
            return fetch_message{content_, i * piece, static_cast<std::uint32_t>(length(i)), round_};
        }
        return std::nullopt;
    }

    /// Whether the piece at `offset` was asked of a link and is not here.
    [[nodiscard]] bool expects(link_id link, std::uint64_t offset) const noexcept {
        const std::size_t i = offset / piece;
        return i < pieces_.size() && !pieces_[i].here && pieces_[i].asked == link;
    }

    enum class outcome : std::uint8_t { wrong, taken, missing };
    /// A piece from a source. Without bytes, the source does not have it.
    outcome put(link_id link, std::uint64_t offset, std::span<const std::byte> bytes, timestamp now) {
        const std::size_t i = offset / piece;
        if (offset % piece != 0 || i >= pieces_.size() || (!bytes.empty() && bytes.size() != length(i)))
            return outcome::wrong;
        if (expects(link, offset)) pieces_[i].asked = 0;
        if (bytes.empty()) {
            remove_source(link);
            without_.insert(link);
            return outcome::missing;
        }
        if (const auto it = sources_.find(link); it != sources_.end()) it->second = now;
        if (pieces_[i].here) return outcome::taken;
        if (bytes_.empty()) bytes_.resize(size_);
        std::copy(bytes.begin(), bytes.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
        pieces_[i].here = true;
        givers_.insert(link);
        ++have_;
        return outcome::taken;
    }

    /// The sources that were asked and gave nothing since `before`.
    [[nodiscard]] std::vector<link_id> stalled(timestamp before) const {
        std::vector<link_id> out;
        for (const auto& [link, since] : sources_)
            if (since < before && std::any_of(pieces_.begin(), pieces_.end(),
                                              [&, id = link](const state& s) { return !s.here && s.asked == id; }))
                out.push_back(link);
        return out;
    }
    /// Those that were asked and gave nothing since `soon` while another source did, or nothing since `late`.
    [[nodiscard]] std::vector<link_id> idle(timestamp soon, timestamp late) const {
        const bool moves = std::any_of(sources_.begin(), sources_.end(), [&](const auto& source) {
            return source.second >= soon && givers_.contains(source.first);
        });
        return stalled(moves ? soon : late);
    }
    /// By link, with when each last gave something.
    [[nodiscard]] const std::map<link_id, timestamp>& sources() const noexcept { return sources_; }

    /// Whether nobody else gave any of what is here.
    [[nodiscard]] bool only_from(link_id link) const { return givers_ == std::set{link}; }

    /// The content when its digest is right. Precondition: complete(). Spent afterwards, right or wrong.
    [[nodiscard]] shared_bytes finish() {
        shared_bytes bytes = share(std::move(bytes_));
        if (digest_of(*bytes) == content_) return bytes;
        bytes_ = {};
        pieces_.assign(pieces_.size(), {});
        have_ = first_open_ = 0;
        givers_.clear();
        return nullptr;
    }

 private:
    struct state {
        link_id asked = 0;
        bool here = false;
    };
    [[nodiscard]] std::size_t length(std::size_t i) const noexcept { return std::min(piece, size_ - i * piece); }

    digest content_;
    std::uint64_t round_;
    std::size_t size_;
    std::vector<state> pieces_;
    std::vector<std::byte> bytes_;
    std::size_t have_ = 0;
    std::size_t first_open_ = 0;
    std::map<link_id, timestamp> sources_;
    std::set<link_id> without_;
    std::set<link_id> givers_;  ///< of the pieces that are here
};

}  // namespace thinwire::detail::comm

#endif  // THINWIRE_COMM_DETAIL_TRANSFER_HPP
