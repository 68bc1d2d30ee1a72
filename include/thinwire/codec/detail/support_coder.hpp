#ifndef THINWIRE_CODEC_DETAIL_SUPPORT_CODER_HPP
#define THINWIRE_CODEC_DETAIL_SUPPORT_CODER_HPP

#include <thinwire/codec/bit_stream.hpp>
#include <thinwire/codec/detail/split_tables.hpp>
#include <thinwire/codec/detail/support_walk.hpp>
#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/codec/sparse_content.hpp>
#include <thinwire/config.hpp>
#include <thinwire/core/aligned.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
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

/// Symbols that the positions of a section take at most. For the parts that a chunk is cut into down to a power of two:
/// one each but for the last. Then one for every block that neither is empty nor goes in plain bits: on each level from
/// pair_level on those hold three of the coefficients or more, below two or more, and of the levels that are coded at
/// once a coefficient meets one.
[[nodiscard]] inline std::size_t most_symbols(const payload_section& section) noexcept {
    const auto top = static_cast<unsigned>(std::bit_width(section.chunk_size) - 1);
    const std::uint64_t wide = top < pair_level ? 0 : top - pair_level + 1, narrow = pair_level - mask_level;
    const auto cuts = static_cast<std::uint64_t>(std::popcount(section.chunk_size) - 1);
    return static_cast<std::size_t>(section.chunks * cuts + section.coefficients() * (2 * wide + 3 * narrow) / 6);
}

/// How much memory the sections of a layout need at most, in payloads that state `k`.
struct support_needs {
    std::size_t coefficients = 0, symbols = 0, places = 0, chunks = 0;  ///< two of a section, two of a batch
    std::size_t window = 0;                                             ///< of tables made on the way

    support_needs() noexcept = default;
    explicit support_needs(const payload_layout& layout) noexcept : support_needs(layout, layout.k) {}
    support_needs(const payload_layout& layout, std::uint32_t k) noexcept {
        if (layout.kind != payload_kind::demo) return;
        for (std::size_t i = 0; i < layout.sections.size(); ++i) {
            const payload_section s = layout.section(i, k);
            const auto batch = static_cast<std::size_t>(std::min<std::uint64_t>(s.chunks, chunks_of_batch(s)));
            coefficients = std::max(coefficients, static_cast<std::size_t>(s.coefficients()));
            symbols = std::max(symbols, most_symbols(s));
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

    /// Room for batches of a section. A payload that sends fewer coefficients than most has larger ones.
    void prepare(std::size_t places, std::size_t chunks) { walk_.reserve(places, chunks); }
    /// Codes the chunks of a batch, whose chosen places begin at multiples of `section.kept`.
    template <class Coder>
    void walk(const payload_section& section, std::span<const std::uint32_t> counts, Coder& coder) {
        for (std::size_t i = 0; i < counts.size(); ++i) {
            support_node node = {static_cast<std::uint32_t>(i * section.kept), 0, counts[i]};
            std::uint32_t size = section.chunk_size;
            for (; (size & (size - 1)) != 0 && node.count() > 0; size -= split_tables::half_of(size)) {
                auto splitter = coder.splitter(size, 1);
                const std::uint32_t half = split_tables::half_of(size), lower = splitter.split(node);
                splitter.close();
                walk_.seed(level_of(half), {node.place(), node.base(), lower});
                node = {node.place() + lower, node.base() + half, node.count() - lower};
            }
            walk_.seed(level_of(size), node);
        }
        walk_.run(coder);
    }
    /// The tables of blocks of one size.
    struct block_tables {
        support_coder* coder;
        std::uint32_t size, half;
        std::span<const split_table> known;

        /// Valid until the next call.
        [[nodiscard]] THINWIRE_ALWAYS_INLINE const split_table& of(std::uint32_t count) const {
            return count <= known.size() ? known[count - 1] : coder->make(size, half, count);
        }
    };
    [[nodiscard]] block_tables tables_of(std::uint32_t size) noexcept {
        return {this, size, split_tables::half_of(size), tables_->of(size)};
    }

    [[nodiscard]] std::size_t walk_bytes() const noexcept {
        return walk_.memory_bytes() + bytes_held(numbers_, weights_);
    }

 private:
    [[nodiscard]] static unsigned level_of(std::uint32_t size) noexcept {
        return static_cast<unsigned>(std::bit_width(size) - 1);
    }
    [[nodiscard]] const split_table& make(std::uint32_t size, std::uint32_t half, std::uint32_t count) {
        numbers_.clear();
        made_ = make_split(size, half, count, weights_, numbers_);
        made_.cumulative = numbers_.data();
        return made_;
    }

    const split_tables* tables_;

 protected:
    const subset_table* subsets_;

 private:
    support_walk walk_;
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
          symbols_(needs.symbols + 16),
          words_(symbols_.size() + 8),
          plain_(4 * needs.coefficients + 64) {}
    /// Room for the sections that these are the needs of.
    void reserve(const support_needs& needs) {
        prepare(needs.places, needs.chunks);
        if (positions_.size() < needs.places + 16) positions_.resize(needs.places + 16);
    }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return walk_bytes() + bytes_held(positions_, symbols_, words_, plain_);
    }

    /// Appends to `out`. Precondition: positions of each chunk rise and lie below chunk_size.
    void encode(const payload_section& section, const section_slice& in, std::vector<std::byte>& out) {
        const std::span<const std::uint32_t> counts = in.counts;
        const std::size_t chunks = std::min(chunks_of_batch(section), counts.size());
        prepare(chunks * section.kept, chunks);
        symbol_count_ = 0;
        bits_ = bit_writer(plain_);
        for (std::size_t first = 0; first < counts.size(); first += chunks) {
            const auto batch = counts.subspan(first, std::min(chunks, counts.size() - first));
            take_positions(in, first, batch.size(), section.kept);
            walk(section, batch, *this);
        }
        bits_.flush();
        if (words_.size() < symbol_count_ + 8) words_.resize(symbol_count_ + 8);
        const std::span<const std::uint16_t> words = code(coder_states(section.coefficients()));
        for (std::size_t n = words.size();; n >>= 7U) {
            out.push_back(static_cast<std::byte>((n & 0x7fU) | (n > 0x7fU ? 0x80U : 0U)));
            if (n <= 0x7fU) break;
        }
        std::size_t at = out.size();
        out.resize(at + 2 * words.size());
        if (std::endian::native == std::endian::little && !words.empty())
            std::memcpy(out.data() + at, words.data(), words.size_bytes());
        else
            for (const std::uint16_t word : words) {
                out[at++] = static_cast<std::byte>(word & 0xffU);
                out[at++] = static_cast<std::byte>(word >> 8U);
            }
        out.insert(out.end(), plain_.begin(), plain_.begin() + static_cast<std::ptrdiff_t>(bits_.position()));
    }

 private:
    friend support_coder;
    friend support_walk;

    /// The positions of a batch of chunks, those of each at a multiple of `kept`.
    void take_positions(const section_slice& in, std::size_t first, std::size_t chunks, std::size_t kept) {
        if (positions_.size() < chunks * kept + 16) positions_.resize(chunks * kept + 16);
        const std::uint16_t* from = in.positions.data() + first * in.stride;
        if (kept == in.stride)
            std::copy_n(from, chunks * kept, positions_.begin());
        else
            for (std::size_t i = 0; i < chunks; ++i)
                std::copy_n(from + i * in.stride, kept, positions_.data() + i * kept);
    }

    /// Halves blocks of one size.
    class block_splitter {
     public:
        block_splitter(support_encoder& coder, std::uint32_t size) noexcept
            : tables_(coder.tables_of(size)),
              coder_(&coder),
              positions_(coder.positions_.data()),
              next_(coder.symbols_.data() + coder.symbol_count_) {}
        [[nodiscard]] THINWIRE_ALWAYS_INLINE std::uint32_t split(const support_node& node) {
            const std::uint32_t count = node.count();
            const std::uint32_t lower = below(positions_ + node.place(), count, (node.base() + tables_.half) & 0xffffU);
            const split_table& t = tables_.of(count);
            std::uint32_t which = lower - t.low;
            if (which >= t.counts) [[unlikely]] {
                which = t.counts;
                coder_->bits_.put(lower, 16);
            }
            const std::uint16_t from = t.cumulative[which], to = t.cumulative[which + 1];
            *next_ = {from, static_cast<std::uint16_t>(to - from)};
            next_ += next_->frequency >> split_bits ^ 1U;  // a single symbol is not coded
            return lower;
        }
        void close() noexcept { coder_->symbol_count_ = static_cast<std::size_t>(next_ - coder_->symbols_.data()); }

     private:
        /// How many of `count` positions, which rise, are below the middle; 16 can be read.
        [[nodiscard]] THINWIRE_ALWAYS_INLINE static std::uint32_t below(const std::uint16_t* at, std::uint32_t count,
                                                                        std::uint32_t middle) noexcept {
            if (count <= 16) return std::min(leading_below(at, middle), count);
            std::uint32_t lower = 0;
            if (count <= 64) {
                std::uint32_t more = 16;
                for (; more == 16 && lower < count; lower += more) more = leading_below(at + lower, middle);
                return std::min(lower, count);
            }
            for (std::uint32_t step = std::bit_floor(count); step > 0; step /= 2) {
                const std::uint32_t last = std::min(lower + step, count);
                lower = at[last - 1] < middle ? last : lower;
            }
            return lower;
        }

        block_tables tables_;
        support_encoder* coder_;
        const std::uint16_t* positions_;
        coded_part* next_;
    };
    [[nodiscard]] block_splitter splitter(std::uint32_t size, std::size_t most) {
        make_room(most);
        return {*this, size};
    }
    void masks(unsigned level, std::span<const support_node> nodes) {
        make_room(nodes.size());
        coded_part* next = symbols_.data() + symbol_count_;
        for (const support_node& node : nodes) {
            std::uint32_t bits = 0;
            for (std::uint32_t i = 0; i < node.count(); ++i) bits |= 1U << (positions_[node.place() + i] - node.base());
            *next = subsets_->part(level, bits);
            next += next->frequency >> split_bits ^ 1U;
        }
        symbol_count_ = static_cast<std::size_t>(next - symbols_.data());
    }
    void singles(unsigned level, std::span<const support_node> nodes) noexcept {
        bit_writer bits = bits_;
        for (const support_node& node : nodes)
            bits.put(static_cast<std::uint32_t>(positions_[node.place()] - node.base()), level);
        bits_ = bits;
    }
    /// The one from which the other is nearer when going up and round, and how far that is.
    void pairs(unsigned level, std::span<const support_node> nodes) noexcept {
        const std::uint32_t size = std::uint32_t{1} << level;
        bit_writer bits = bits_;
        for (const support_node& node : nodes) {
            const auto a = static_cast<std::uint32_t>(positions_[node.place()] - node.base());
            const auto b = static_cast<std::uint32_t>(positions_[node.place() + 1U] - node.base());
            const bool near = b - a <= size / 2;
            bits.put((near ? a : b) | ((near ? b - a : size + a - b) - 1) << level, 2 * level - 1);
        }
        bits_ = bits;
    }
    /// For so many symbols more; only a section of another layout has more than there is room for.
    void make_room(std::size_t more) {
        if (symbol_count_ + more >= symbols_.size()) symbols_.resize(2 * (symbol_count_ + more));
    }

    /// Range asymmetric numeral systems, last symbol first: fills words_ from its end and returns what it filled.
    [[nodiscard]] std::span<const std::uint16_t> code(std::size_t states) noexcept {
        std::size_t at = words_.size();
        if (symbol_count_ == 0) return {};
        std::array<std::uint32_t, 4> state{};
        state.fill(coder_floor);
        for (std::size_t i = symbol_count_; i-- > 0;) {
            const coded_part s = symbols_[i];
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
    std::vector<coded_part> symbols_;
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
    /// Room for the sections that these are the needs of.
    void reserve(const support_needs& needs) { prepare(needs.places, needs.chunks); }

    /// Takes its part off the front of `bytes`. The positions of chunk i begin at i * section.kept.
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
        const std::size_t chunks = std::min(chunks_of_batch(section), counts.size());
        prepare(chunks * section.kept, chunks);
        bytes = bytes.subspan(prefix + 2 * words);
        bits_ = bit_reader(bytes);
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
            state_[i] =
                word(words_, at_) | static_cast<std::uint32_t>(std::to_integer<std::uint32_t>(words_[at_ + 2]) |
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
    /// The states and where their next word lies, while symbols are taken.
    class symbol_reader {
     public:
        explicit symbol_reader(support_decoder& coder) noexcept
            : words_(coder.words_),
              at_(coder.at_),
              next_(coder.next_),
              last_(coder.last_state_),
              state_(coder.state_) {}
        [[nodiscard]] std::uint32_t slot() const noexcept {
            return state_[next_ & last_] & ((std::uint32_t{1} << split_bits) - 1);
        }
        THINWIRE_ALWAYS_INLINE void take(std::uint32_t slot, coded_part part, bool counts) noexcept {
            std::uint32_t& state = state_[next_ & last_];
            const std::uint32_t x = part.frequency * (state >> split_bits) + slot - part.start;
            const std::uint32_t low = 0U - (x < coder_floor ? 1U : 0U);  // as a mask: a branch would be hard to guess
            state = x << (low & 16U) | (word(words_, at_) & low);
            at_ += low & 2U;
            next_ += counts ? 1U : 0U;
        }
        void close(support_decoder& coder) const noexcept {
            coder.at_ = at_;
            coder.next_ = next_;
            coder.state_ = state_;
        }

     private:
        std::span<const std::byte> words_;
        std::size_t at_, next_, last_;
        std::array<std::uint32_t, 4> state_;
    };
    /// The word at `at`; past the end any, as then it is refused.
    [[nodiscard]] THINWIRE_ALWAYS_INLINE static std::uint32_t word(std::span<const std::byte> words,
                                                                   std::size_t at) noexcept {
        static constexpr std::byte none[2] = {};
        const std::byte* from = words.empty() ? none : words.data() + std::min(at, words.size() - 2);
        return std::to_integer<std::uint32_t>(from[0]) | std::to_integer<std::uint32_t>(from[1]) << 8U;
    }

    /// Halves blocks of one size.
    class block_splitter {
     public:
        block_splitter(support_decoder& coder, std::uint32_t size) noexcept
            : tables_(coder.tables_of(size)), coder_(&coder), symbols_(coder) {}
        [[nodiscard]] THINWIRE_ALWAYS_INLINE std::uint32_t split(const support_node& node) {
            const split_table& t = tables_.of(node.count());
            const std::uint32_t here = symbols_.slot(), which = t.find(here);
            const std::uint16_t from = t.cumulative[which], to = t.cumulative[which + 1];
            symbols_.take(here, {from, static_cast<std::uint16_t>(to - from)}, t.symbols > 1);
            return which < t.counts ? t.low + which : escaped(t, node);
        }
        void close() const noexcept { symbols_.close(*coder_); }

     private:
        [[nodiscard]] std::uint32_t escaped(const split_table& t, const support_node& node) noexcept {
            const std::uint32_t rest = tables_.size - tables_.half, lower = coder_->bits_.get(16);
            const std::uint32_t lowest = node.count() > rest ? node.count() - rest : 0;
            if (lower >= lowest && lower <= std::min(tables_.half, node.count()) && lower - t.low >= t.counts)
                return lower;
            coder_->malformed_ = true;
            return t.low;
        }

        block_tables tables_;
        support_decoder* coder_;
        symbol_reader symbols_;
    };
    [[nodiscard]] block_splitter splitter(std::uint32_t size, std::size_t) noexcept { return {*this, size}; }
    void masks(unsigned level, std::span<const support_node> nodes) noexcept {
        symbol_reader symbols(*this);
        for (const support_node& node : nodes) {
            const auto masks = subsets_->masks(level, node.count());
            const auto n = static_cast<std::uint32_t>(masks.size());
            const std::uint32_t here = symbols.slot(), rank = ((here + 1) * n - 1) >> split_bits;
            symbols.take(here, subsets_->parts(level, node.count())[rank], n > 1);
            std::uint16_t* to = positions_ + node.place();
            for (std::uint32_t left = masks[rank]; left != 0; left &= left - 1)
                *to++ = static_cast<std::uint16_t>(node.base() + static_cast<unsigned>(std::countr_zero(left)));
        }
        symbols.close(*this);
    }
    void singles(unsigned level, std::span<const support_node> nodes) noexcept {
        bit_reader bits = bits_;
        for (const support_node& node : nodes)
            positions_[node.place()] = static_cast<std::uint16_t>(node.base() + bits.get(level));
        bits_ = bits;
    }
    void pairs(unsigned level, std::span<const support_node> nodes) noexcept {
        const std::uint32_t size = std::uint32_t{1} << level;
        bit_reader bits = bits_;
        for (const support_node& node : nodes) {
            const std::uint32_t both = bits.get(2 * level - 1);
            const std::uint32_t first = both & (size - 1), apart = (both >> level) + 1;
            const std::uint32_t second = (first + apart) & (size - 1);
            malformed_ = malformed_ || (apart == size / 2 && first >= size / 2);
            positions_[node.place()] = static_cast<std::uint16_t>(node.base() + std::min(first, second));
            positions_[node.place() + 1U] = static_cast<std::uint16_t>(node.base() + std::max(first, second));
        }
        bits_ = bits;
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
