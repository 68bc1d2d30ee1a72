#ifndef THINWIRE_CODEC_DETAIL_SUPPORT_CODER_HPP
#define THINWIRE_CODEC_DETAIL_SUPPORT_CODER_HPP

#include <thinwire/codec/bit_stream.hpp>
#include <thinwire/codec/detail/split_tables.hpp>
#include <thinwire/codec/detail/support_walk.hpp>
#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace thinwire::detail {

inline constexpr std::uint32_t coder_floor = std::uint32_t{1} << 16U;  ///< states lie in [2^16, 2^32)
inline constexpr std::uint64_t batch_places = 4096;

/// Four interleaved coders, one where the 16 bytes of their states would weigh.
[[nodiscard]] inline std::size_t coder_states(const payload_section& section) noexcept {
    return section.coefficients() < 1024 ? 1 : 4;
}

[[nodiscard]] inline const subset_table& subsets() {
    static const subset_table table;
    return table;
}

/// What writing and reading the positions of a section have in common.
class support_coder {
 protected:
    explicit support_coder(const split_tables& tables) noexcept : tables_(&tables), subsets_(&subsets()) {}

    /// Calls `batch(first chunk)` with roots_ filled for as many chunks as have about 4096 places.
    template <class Counts, class Batch>
    void for_each_batch(const payload_section& section, const Counts& counts, const Batch& batch) {
        const std::size_t chunks = std::max<std::uint64_t>(1, batch_places / section.kept);
        for (std::size_t first = 0; first < counts.size(); first += chunks) {
            roots_.clear();
            for (std::size_t i = first; i < std::min(first + chunks, counts.size()); ++i)
                roots_.push_back({static_cast<std::uint32_t>((i - first) * section.kept), 0, counts[i]});
            batch(first);
        }
    }
    /// Valid until the next call.
    [[nodiscard]] split_table table(std::uint32_t size, std::uint32_t count) {
        if (size != size_) {
            size_ = size;
            known_ = tables_->of(size);
        }
        if (count <= known_.size()) return known_[count - 1];
        fresh_.clear();
        split_table made = make_split(size, split_tables::half_of(size), count, weights_, fresh_);
        made.cumulative = fresh_.data();
        return made;
    }

    const split_tables* tables_;
    const subset_table* subsets_;
    support_walk walk_;
    std::vector<support_node> roots_;

 private:
    std::uint32_t size_ = 0;
    std::span<const split_table> known_;
    std::vector<std::uint16_t> fresh_;
    std::vector<std::uint64_t> weights_;
};

/// Writes the positions of a section: the number of 16-bit words (7 bits a byte, lowest first), the words of the coded
/// symbols, the plain bits.
class support_encoder : support_coder {
 public:
    explicit support_encoder(const split_tables& tables) noexcept : support_coder(tables) {}

    /// Appends to `out`. Precondition: positions of each chunk rise and lie below chunk_size.
    void encode(const payload_section& section, std::span<const std::uint16_t> positions,
                std::span<const std::uint32_t> counts, std::vector<std::byte>& out) {
        symbols_.clear();
        plain_.resize(4 * section.coefficients() + 64 * counts.size() + 64);
        bits_ = bit_writer(plain_);
        for_each_batch(section, counts, [&](std::size_t first) {
            positions_ = positions.data() + first * section.kept;
            walk_.run(section.chunk_size, roots_, *this);
        });
        bits_.flush();
        code(coder_states(section));
        for (std::size_t n = words_.size();; n >>= 7U) {
            out.push_back(static_cast<std::byte>((n & 0x7fU) | (n > 0x7fU ? 0x80U : 0U)));
            if (n <= 0x7fU) break;
        }
        const std::size_t begin = out.size();
        out.resize(begin + 2 * words_.size() + bits_.position());
        for (std::size_t i = 0; i < words_.size(); ++i) {
            const std::uint16_t word = words_[words_.size() - 1 - i];
            out[begin + 2 * i] = static_cast<std::byte>(word & 0xffU);
            out[begin + 2 * i + 1] = static_cast<std::byte>(word >> 8U);
        }
        std::copy_n(
            plain_.begin(), bits_.position(),
            out.begin() + static_cast<std::ptrdiff_t>(out.size()) - static_cast<std::ptrdiff_t>(bits_.position()));
    }

 private:
    friend support_walk;
    struct symbol {
        std::uint16_t start, frequency;
    };

    [[nodiscard]] std::uint32_t split(std::uint32_t size, const support_node& node) {
        const std::uint32_t middle = node.base + split_tables::half_of(size);
        const std::uint16_t* at = positions_ + node.place;
        std::uint32_t lower = 0;
        if (node.count <= 16)
            for (std::uint32_t i = 0; i < node.count; ++i) lower += at[i] < middle ? 1U : 0U;
        else
            lower = static_cast<std::uint32_t>(
                std::partition_point(at, at + node.count, [&](std::uint16_t p) { return p < middle; }) - at);
        const split_table t = table(size, node.count);
        if (t.symbols() == 1) return lower;
        const bool outside = lower - t.low >= t.counts;
        const std::uint32_t which = outside ? t.counts : lower - t.low;
        push(t.cumulative[which], t.cumulative[which + 1]);
        if (outside) bits_.put(lower, 16);
        return lower;
    }
    void mask(unsigned level, const support_node& node) {
        std::uint32_t bits = 0;
        for (std::uint32_t i = 0; i < node.count; ++i) bits |= 1U << (positions_[node.place + i] - node.base);
        const auto n = static_cast<std::uint32_t>(subsets_->masks(level, node.count).size());
        if (n == 1) return;
        const std::uint32_t rank = subsets_->rank(bits);
        push((rank << split_bits) / n, ((rank + 1) << split_bits) / n);
    }
    void leaf(unsigned level, const support_node& node) noexcept {
        const std::uint32_t size = std::uint32_t{1} << level;
        const std::uint32_t a = positions_[node.place] - node.base;
        if (node.count == 1) {
            bits_.put(a, level);
            return;
        }
        const std::uint32_t b = positions_[node.place + 1] - node.base, apart = b - a;
        const bool near = apart <= size / 2;
        bits_.put(near ? a : b, level);
        bits_.put((near ? apart : size - apart) - 1, level - 1);
    }
    void push(std::uint32_t from, std::uint32_t to) {
        symbols_.push_back({static_cast<std::uint16_t>(from), static_cast<std::uint16_t>(to - from)});
    }

    /// Range asymmetric numeral systems, last symbol first; words_ come out in the reverse of their order.
    void code(std::size_t states) {
        words_.clear();
        if (symbols_.empty()) return;
        std::array<std::uint32_t, 4> state{};
        state.fill(coder_floor);
        for (std::size_t i = symbols_.size(); i-- > 0;) {
            const symbol s = symbols_[i];
            std::uint32_t& x = state[i % states];
            if (x >= std::uint64_t{s.frequency} << (32U - split_bits)) {
                words_.push_back(static_cast<std::uint16_t>(x & 0xffffU));
                x >>= 16U;
            }
            x = (x / s.frequency << split_bits) + x % s.frequency + s.start;
        }
        for (std::size_t i = states; i-- > 0;) {
            words_.push_back(static_cast<std::uint16_t>(state[i] >> 16U));
            words_.push_back(static_cast<std::uint16_t>(state[i] & 0xffffU));
        }
    }

    const std::uint16_t* positions_ = nullptr;
    std::vector<symbol> symbols_;
    std::vector<std::uint16_t> words_;
    std::vector<std::byte> plain_;
    bit_writer bits_{std::span<std::byte>{}};
};

/// Reads what support_encoder writes, from foreign bytes. Total; accepts exactly that.
class support_decoder : support_coder {
 public:
    explicit support_decoder(const split_tables& tables) noexcept : support_coder(tables) {}

    /// Takes its part off the front of `bytes`.
    [[nodiscard]] std::optional<errc> decode(std::span<const std::byte>& bytes, const payload_section& section,
                                             std::span<const std::uint32_t> counts,
                                             std::span<std::uint16_t> positions) {
        std::uint64_t words = 0;
        std::size_t prefix = 0;
        for (bool more = true; more; ++prefix) {
            if (prefix == bytes.size()) return errc::truncated;
            const auto byte = std::to_integer<std::uint64_t>(bytes[prefix]);
            if (prefix == 5 || (prefix > 0 && byte == 0)) return errc::malformed;
            words |= (byte & 0x7fU) << (7 * prefix);
            more = byte >= 0x80U;
        }
        if (words > (bytes.size() - prefix) / 2) return errc::truncated;
        words_ = bytes.subspan(prefix, 2 * words);
        bytes = bytes.subspan(prefix + 2 * words);
        bits_ = bit_reader(bytes);
        at_ = next_ = 0;
        malformed_ = false;
        begin(coder_states(section));
        for_each_batch(section, counts, [&](std::size_t first) {
            positions_ = positions.data() + first * section.kept;
            walk_.run(section.chunk_size, roots_, *this);
        });
        bits_.align();
        bool settled = at_ == words_.size() && (words == 0) == (next_ == 0);
        for (std::size_t i = 0; words > 0 && i <= last_state_; ++i) settled = settled && state_[i] == coder_floor;
        if (malformed_ || !settled || bits_.failed()) return errc::malformed;
        bytes = bytes.subspan(bits_.position());
        return std::nullopt;
    }

 private:
    friend support_walk;

    void begin(std::size_t states) noexcept {
        last_state_ = states - 1;
        state_.fill(coder_floor);
        if (words_.empty()) return;
        for (std::size_t i = 0; i < states; ++i) {
            const std::uint32_t low = word();
            state_[i] = low | word() << 16U;
            malformed_ = malformed_ || state_[i] < coder_floor;
        }
    }
    [[nodiscard]] std::uint32_t word() noexcept {
        if (at_ + 2 > words_.size()) {
            malformed_ = true;
            return 0;
        }
        const std::uint32_t value =
            std::to_integer<std::uint32_t>(words_[at_]) | std::to_integer<std::uint32_t>(words_[at_ + 1]) << 8U;
        at_ += 2;
        return value;
    }
    [[nodiscard]] std::uint32_t slot() const noexcept {
        return state_[next_ & last_state_] & ((std::uint32_t{1} << split_bits) - 1);
    }
    void take(std::uint32_t slot, std::uint32_t from, std::uint32_t to) noexcept {
        std::uint32_t& x = state_[next_++ & last_state_];
        x = (to - from) * (x >> split_bits) + slot - from;
        if (x < coder_floor) x = x << 16U | word();
    }

    [[nodiscard]] std::uint32_t split(std::uint32_t size, const support_node& node) {
        const split_table t = table(size, node.count);
        if (t.symbols() == 1) return t.low;
        const std::uint32_t here = slot(), which = t.find(here);
        take(here, t.cumulative[which], t.cumulative[which + 1]);
        if (which < t.counts) return t.low + which;
        const std::uint32_t half = split_tables::half_of(size), rest = size - half, lower = bits_.get(16);
        const std::uint32_t lowest = node.count > rest ? node.count - rest : 0;
        if (lower >= lowest && lower <= std::min(half, node.count) && lower - t.low >= t.counts) return lower;
        malformed_ = true;
        return t.low;
    }
    void mask(unsigned level, const support_node& node) noexcept {
        const auto masks = subsets_->masks(level, node.count);
        std::uint32_t rank = 0;
        if (const auto n = static_cast<std::uint32_t>(masks.size()); n > 1) {
            const std::uint32_t here = slot();
            rank = ((here + 1) * n - 1) >> split_bits;
            take(here, (rank << split_bits) / n, ((rank + 1) << split_bits) / n);
        }
        std::uint32_t place = node.place;
        for (std::uint32_t left = masks[rank]; left != 0; left &= left - 1)
            positions_[place++] = static_cast<std::uint16_t>(node.base + static_cast<unsigned>(std::countr_zero(left)));
    }
    void leaf(unsigned level, const support_node& node) noexcept {
        const std::uint32_t first = bits_.get(level);
        if (node.count == 1) {
            positions_[node.place] = static_cast<std::uint16_t>(node.base + first);
            return;
        }
        const std::uint32_t size = std::uint32_t{1} << level, apart = bits_.get(level - 1) + 1;
        const std::uint32_t second = (first + apart) & (size - 1);
        malformed_ = malformed_ || (apart == size / 2 && first >= size / 2);
        positions_[node.place] = static_cast<std::uint16_t>(node.base + std::min(first, second));
        positions_[node.place + 1] = static_cast<std::uint16_t>(node.base + std::max(first, second));
    }

    std::span<const std::byte> words_;
    std::size_t at_ = 0;
    std::size_t next_ = 0;  // symbols taken
    std::array<std::uint32_t, 4> state_{};
    std::size_t last_state_ = 0;
    bool malformed_ = false;
    bit_reader bits_{std::span<const std::byte>{}};
    std::uint16_t* positions_ = nullptr;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_CODEC_DETAIL_SUPPORT_CODER_HPP
