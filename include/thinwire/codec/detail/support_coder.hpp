#ifndef THINWIRE_CODEC_DETAIL_SUPPORT_CODER_HPP
#define THINWIRE_CODEC_DETAIL_SUPPORT_CODER_HPP

#include <thinwire/codec/bit_stream.hpp>
#include <thinwire/codec/detail/split_tables.hpp>
#include <thinwire/codec/detail/support_walk.hpp>
#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/config.hpp>
#include <thinwire/core/aligned.hpp>
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

/// Four interleaved coders, one where their states would weigh: each costs 16 bits.
[[nodiscard]] inline std::size_t coder_states(std::uint64_t coefficients) noexcept {
    return coefficients < 4096 ? 1 : 4;
}

[[nodiscard]] inline const subset_table& subsets() {
    static const subset_table table;
    return table;
}

[[nodiscard]] inline std::size_t chunks_of_batch(const payload_section& section) noexcept {
    return static_cast<std::size_t>(std::max<std::uint64_t>(1, batch_places / section.kept));
}

/// How much memory the sections of a layout need at most.
struct support_needs {
    std::size_t coefficients = 0, places = 0, chunks = 0;  ///< of a section, of a batch, of a batch
    std::size_t window = 0;                                ///< of tables made on the way

    support_needs() noexcept = default;
    explicit support_needs(const payload_layout& layout) noexcept {
        if (layout.kind != payload_kind::demo) return;
        for (const payload_section& s : layout.sections) {
            const auto batch = static_cast<std::size_t>(std::min<std::uint64_t>(s.chunks, chunks_of_batch(s)));
            coefficients = std::max(coefficients, static_cast<std::size_t>(s.coefficients()));
            places = std::max(places, batch * s.kept);
            chunks = std::max(chunks, batch);
            if (s.kept > split_tables::cached) window = 2048;
        }
    }
};

/// What writing and reading the positions of a section have in common.
class support_coder {
 protected:
    support_coder(const split_tables& tables, const support_needs& needs) : tables_(&tables), subsets_(&subsets()) {
        walk_.reserve(needs.places, needs.chunks);
        numbers_.reserve(needs.window);
        weights_.reserve(needs.window);
    }

    /// Codes the chunks of a batch, whose chosen places begin at multiples of `section.kept`.
    template <class Coder>
    void walk(const payload_section& section, std::span<const std::uint32_t> counts, Coder& coder) {
        for (std::size_t i = 0; i < counts.size(); ++i) {
            support_node node = {static_cast<std::uint32_t>(i * section.kept), 0, counts[i]};
            std::uint32_t size = section.chunk_size;
            for (; (size & (size - 1)) != 0 && node.count() > 0; size -= split_tables::half_of(size)) {
                select(size);
                const std::uint32_t half = split_tables::half_of(size), lower = coder.split(node);
                walk_.seed(level_of(half), {node.place(), node.base(), lower});
                node = {node.place() + lower, node.base() + half, node.count() - lower};
            }
            walk_.seed(level_of(size), node);
        }
        walk_.run(coder);
    }
    /// The size of the blocks that are split next.
    void select(std::uint32_t size) noexcept {
        if (size == size_) return;
        size_ = size;
        half_ = split_tables::half_of(size);
        known_ = tables_->of(size);
    }
    /// Valid until the next call.
    [[nodiscard]] const split_table& table(std::uint32_t count) {
        return count <= known_.size() ? known_[count - 1] : make(count);
    }

    [[nodiscard]] std::size_t walk_bytes() const noexcept {
        return walk_.memory_bytes() + bytes_held(numbers_, weights_);
    }

    std::uint32_t size_ = 0, half_ = 0;

 private:
    [[nodiscard]] static unsigned level_of(std::uint32_t size) noexcept {
        return static_cast<unsigned>(std::bit_width(size) - 1);
    }
    [[nodiscard]] const split_table& make(std::uint32_t count) {
        numbers_.clear();
        made_ = make_split(size_, half_, count, weights_, numbers_);
        made_.cumulative = numbers_.data();
        return made_;
    }

    const split_tables* tables_;

 protected:
    const subset_table* subsets_;

 private:
    support_walk walk_;
    std::span<const split_table> known_;
    split_table made_;
    std::vector<std::uint16_t> numbers_;
    std::vector<std::uint64_t> weights_;
};

/// Writes the positions of a section: the number of 16-bit words (7 bits a byte, lowest first), the words of the coded
/// symbols, the plain bits.
class support_encoder : support_coder {
 public:
    support_encoder(const split_tables& tables, const support_needs& needs)
        : support_coder(tables, needs),
          positions_(needs.places + 16),
          symbols_(3 * needs.coefficients + 16),
          words_(symbols_.size() + 8),
          plain_(4 * needs.coefficients + 64) {}
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return walk_bytes() + bytes_held(positions_, symbols_, words_, plain_);
    }

    /// Appends to `out`. Precondition: positions of each chunk rise and lie below chunk_size.
    void encode(const payload_section& section, std::span<const std::uint16_t> positions,
                std::span<const std::uint32_t> counts, std::vector<std::byte>& out) {
        const std::size_t chunks = chunks_of_batch(section);
        symbol_count_ = 0;
        bits_ = bit_writer(plain_);
        for (std::size_t first = 0; first < counts.size(); first += chunks) {
            const auto batch = counts.subspan(first, std::min(chunks, counts.size() - first));
            const std::size_t places = batch.size() * section.kept;
            std::copy_n(positions.begin() + static_cast<std::ptrdiff_t>(first * section.kept), places,
                        positions_.begin());
            walk(section, batch, *this);
        }
        bits_.flush();
        if (words_.size() < symbol_count_ + 8) words_.resize(symbol_count_ + 8);
        const std::span<const std::uint16_t> words = code(coder_states(section.coefficients()));
        for (std::size_t n = words.size();; n >>= 7U) {
            out.push_back(static_cast<std::byte>((n & 0x7fU) | (n > 0x7fU ? 0x80U : 0U)));
            if (n <= 0x7fU) break;
        }
        for (const std::uint16_t word : words) {
            out.push_back(static_cast<std::byte>(word & 0xffU));
            out.push_back(static_cast<std::byte>(word >> 8U));
        }
        out.insert(out.end(), plain_.begin(), plain_.begin() + static_cast<std::ptrdiff_t>(bits_.position()));
    }

 private:
    friend support_coder;
    friend support_walk;
    struct symbol {
        std::uint16_t start, frequency;
    };

    void level(unsigned level) noexcept { select(std::uint32_t{1} << level); }
    [[nodiscard]] THINWIRE_ALWAYS_INLINE std::uint32_t split(const support_node& node) {
        const std::uint16_t* const at = positions_.data() + node.place();
        const auto middle = static_cast<std::uint16_t>(node.base() + half_);
        std::uint32_t lower = 0;
        if (node.count() <= 16) {
            const auto count = static_cast<std::uint16_t>(node.count());
            std::uint16_t sum = 0;
            for (std::uint16_t i = 0; i < 16; ++i)
                sum = static_cast<std::uint16_t>(sum + ((at[i] < middle ? 1U : 0U) & (i < count ? 1U : 0U)));
            lower = sum;
        } else {
            for (std::uint32_t step = std::bit_floor(node.count()); step > 0; step /= 2) {
                const std::uint32_t last = std::min(lower + step, node.count());
                lower = at[last - 1] < middle ? last : lower;
            }
        }
        const split_table& t = table(node.count());
        const std::uint32_t which = std::min(lower - t.low, t.counts);
        push(t.cumulative[which], t.cumulative[which + 1], t.symbols > 1);
        if (which == t.counts) bits_.put(lower, 16);
        return lower;
    }
    void mask(unsigned level, const support_node& node) {
        std::uint32_t bits = 0;
        for (std::uint32_t i = 0; i < node.count(); ++i) bits |= 1U << (positions_[node.place() + i] - node.base());
        const auto n = static_cast<std::uint32_t>(subsets_->masks(level, node.count()).size());
        const std::uint32_t rank = subsets_->rank(bits);
        push((rank << split_bits) / n, ((rank + 1) << split_bits) / n, n > 1);
    }
    void single(unsigned level, const support_node& node) noexcept {
        bits_.put(static_cast<std::uint32_t>(positions_[node.place()] - node.base()), level);
    }
    /// The one from which the other is nearer when going up and round, and how far that is.
    void pair(unsigned level, const support_node& node) noexcept {
        const std::uint32_t size = std::uint32_t{1} << level;
        const auto a = static_cast<std::uint32_t>(positions_[node.place()] - node.base());
        const auto b = static_cast<std::uint32_t>(positions_[node.place() + 1U] - node.base());
        const bool near = b - a <= size / 2;
        bits_.put((near ? a : b) | ((near ? b - a : size + a - b) - 1) << level, 2 * level - 1);
    }
    void push(std::uint32_t from, std::uint32_t to, bool counts) {
        if (symbol_count_ == symbols_.size()) symbols_.resize(2 * symbols_.size());  // no usual support has so many
        symbols_[symbol_count_] = {static_cast<std::uint16_t>(from), static_cast<std::uint16_t>(to - from)};
        symbol_count_ += counts ? 1U : 0U;
    }

    /// Range asymmetric numeral systems, last symbol first: fills words_ from its end and returns what it filled.
    [[nodiscard]] std::span<const std::uint16_t> code(std::size_t states) noexcept {
        std::size_t at = words_.size();
        if (symbol_count_ == 0) return {};
        std::array<std::uint32_t, 4> state{};
        state.fill(coder_floor);
        for (std::size_t i = symbol_count_; i-- > 0;) {
            const symbol s = symbols_[i];
            std::uint32_t& x = state[i & (states - 1)];
            const std::uint32_t full = x >= std::uint64_t{s.frequency} << (32U - split_bits) ? 1U : 0U;
            words_[at - 1] = static_cast<std::uint16_t>(x & 0xffffU);
            at -= full;
            x >>= 16U * full;
            x = (x / s.frequency << split_bits) + x % s.frequency + s.start;
        }
        for (std::size_t i = states; i-- > 0;) {
            words_[--at] = static_cast<std::uint16_t>(state[i] >> 16U);
            words_[--at] = static_cast<std::uint16_t>(state[i] & 0xffffU);
        }
        return std::span<const std::uint16_t>(words_).subspan(at);
    }

    std::vector<std::uint16_t> positions_;  // of the batch, and 16 more so that 16 can be read anywhere
    std::vector<symbol> symbols_;
    std::size_t symbol_count_ = 0;
    std::vector<std::uint16_t> words_;
    std::vector<std::byte> plain_;
    bit_writer bits_{std::span<std::byte>{}};
};

/// Reads what support_encoder writes, from foreign bytes. Total; accepts exactly that.
class support_decoder : support_coder {
 public:
    support_decoder(const split_tables& tables, const support_needs& needs) : support_coder(tables, needs) {}

    [[nodiscard]] std::size_t memory_bytes() const noexcept { return walk_bytes(); }

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
        begin(bytes.subspan(prefix, 2 * words), coder_states(section.coefficients()));
        bytes = bytes.subspan(prefix + 2 * words);
        bits_ = bit_reader(bytes);
        const std::size_t chunks = chunks_of_batch(section);
        for (std::size_t first = 0; first < counts.size(); first += chunks) {
            positions_ = positions.data() + first * section.kept;
            walk(section, counts.subspan(first, std::min(chunks, counts.size() - first)), *this);
        }
        bits_.align();
        if (malformed_ || !settled() || bits_.failed()) return errc::malformed;
        bytes = bytes.subspan(bits_.position());
        return std::nullopt;
    }

 private:
    friend support_coder;
    friend support_walk;

    void begin(std::span<const std::byte> words, std::size_t states) noexcept {
        words_ = words;
        at_ = next_ = 0;
        last_state_ = states - 1;
        state_.fill(coder_floor);
        malformed_ = !words.empty() && words.size() < 4 * states;
        for (std::size_t i = 0; i < states && words.size() >= 4 * states; ++i, at_ += 4) {
            state_[i] = word() | static_cast<std::uint32_t>(std::to_integer<std::uint32_t>(words_[at_ + 2]) |
                                                            std::to_integer<std::uint32_t>(words_[at_ + 3]) << 8U)
                                     << 16U;
            malformed_ = malformed_ || state_[i] < coder_floor;
        }
    }
    /// All words taken, all states where they began, and words there are exactly where symbols are.
    [[nodiscard]] bool settled() const noexcept {
        bool is = at_ == words_.size() && words_.empty() == (next_ == 0);
        for (const std::uint32_t state : state_) is = is && state == coder_floor;
        return is;
    }
    /// The word at at_; past the end any, as then it is refused.
    [[nodiscard]] std::uint32_t word() const noexcept {
        static constexpr std::byte none[2] = {};
        const std::byte* at = words_.empty() ? none : words_.data() + std::min(at_, words_.size() - 2);
        return std::to_integer<std::uint32_t>(at[0]) | std::to_integer<std::uint32_t>(at[1]) << 8U;
    }
    [[nodiscard]] std::uint32_t slot() const noexcept {
        return state_[next_ & last_state_] & ((std::uint32_t{1} << split_bits) - 1);
    }
    void take(std::uint32_t slot, std::uint32_t from, std::uint32_t to, bool counts) noexcept {
        std::uint32_t& state = state_[next_ & last_state_];
        const std::uint32_t x = (to - from) * (state >> split_bits) + slot - from;
        const std::uint32_t low = 0U - (x < coder_floor ? 1U : 0U);  // as a mask: a branch would be hard to guess
        state = x << (low & 16U) | (word() & low);
        at_ += low & 2U;
        next_ += counts ? 1U : 0U;
    }

    void level(unsigned level) noexcept { select(std::uint32_t{1} << level); }
    [[nodiscard]] THINWIRE_ALWAYS_INLINE std::uint32_t split(const support_node& node) {
        const split_table& t = table(node.count());
        const std::uint32_t here = slot(), which = t.find(here);
        take(here, t.cumulative[which], t.cumulative[which + 1], t.symbols > 1);
        if (which < t.counts) return t.low + which;
        const std::uint32_t rest = size_ - half_, lower = bits_.get(16);
        const std::uint32_t lowest = node.count() > rest ? node.count() - rest : 0;
        if (lower >= lowest && lower <= std::min(half_, node.count()) && lower - t.low >= t.counts) return lower;
        malformed_ = true;
        return t.low;
    }
    void mask(unsigned level, const support_node& node) noexcept {
        const auto masks = subsets_->masks(level, node.count());
        const auto n = static_cast<std::uint32_t>(masks.size());
        const std::uint32_t here = slot(), rank = ((here + 1) * n - 1) >> split_bits;
        take(here, (rank << split_bits) / n, ((rank + 1) << split_bits) / n, n > 1);
        std::uint16_t* to = positions_ + node.place();
        for (std::uint32_t left = masks[rank]; left != 0; left &= left - 1)
            *to++ = static_cast<std::uint16_t>(node.base() + static_cast<unsigned>(std::countr_zero(left)));
    }
    void single(unsigned level, const support_node& node) noexcept {
        positions_[node.place()] = static_cast<std::uint16_t>(node.base() + bits_.get(level));
    }
    void pair(unsigned level, const support_node& node) noexcept {
        const std::uint32_t size = std::uint32_t{1} << level, both = bits_.get(2 * level - 1);
        const std::uint32_t first = both & (size - 1), apart = (both >> level) + 1;
        const std::uint32_t second = (first + apart) & (size - 1);
        malformed_ = malformed_ || (apart == size / 2 && first >= size / 2);
        positions_[node.place()] = static_cast<std::uint16_t>(node.base() + std::min(first, second));
        positions_[node.place() + 1U] = static_cast<std::uint16_t>(node.base() + std::max(first, second));
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
