#ifndef THINWIRE_CORE_DETAIL_FIELDS_HPP
#define THINWIRE_CORE_DETAIL_FIELDS_HPP

#include <thinwire/core/bytes.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace thinwire::detail {

/// `M` in a list of its fields: const where they are written, not where they are read.
template <class T, class M>
concept is_a = std::same_as<std::remove_const_t<T>, M>;

/// A text or shared bytes behind their 32-bit length. `cut`: what is longer is cut when it is written.
template <class T>
struct bounded {
    T& value;
    std::size_t limit;
    bool cut = false;
};
template <class T>
bounded(T&, std::size_t, bool = false) -> bounded<T>;

using shared_vector = std::shared_ptr<const std::vector<std::byte>>;

/// A number, an enumeration or a flag, and the unsigned number that stands for it in the bytes.
template <class T>
concept numeric = std::integral<T> || std::is_enum_v<T>;
template <numeric T>
using number_of =
    typename std::conditional_t<std::same_as<T, bool>, std::type_identity<std::uint8_t>, std::make_unsigned<T>>::type;

/// Writes what it is called with: numbers, enumerations, flags, digests, so many bytes, and what is bounded. A
/// function that calls it with the fields of a message reads the same message with a field_reader.
class field_writer : public byte_writer {
 public:
    static constexpr bool reading = false;
    using byte_writer::byte_writer;

    template <class... Fields>
    void operator()(const Fields&... values) {
        (field(values), ...);
    }
    /// A 32-bit number of elements, then each as `one` does it. Where they are read: at most `limit`, otherwise `why`.
    template <class Container, class One>
    void each(const Container& all, std::size_t /*limit*/, const char* /*why*/, One&& one) {
        put(static_cast<std::uint32_t>(all.size()));
        for (const auto& element : all) one(element);
    }
    /// Shared bytes without a length, which stands elsewhere.
    void raw(const shared_vector& bytes, std::size_t /*size*/) { put(*bytes); }
    /// What must hold where it is read; otherwise `why`.
    void require(bool, const char*) const noexcept {}

 private:
    template <numeric T>
    void field(T value) {
        put(static_cast<number_of<T>>(value));
    }
    void field(std::span<const std::byte> bytes) { put(bytes); }
    void field(const digest& d) { put(d.bytes); }
    template <class T>
    void field(const bounded<T>& f) {
        if constexpr (is_a<T, std::string>) {
            put(std::string_view(f.value).substr(0, f.cut ? f.limit : f.value.size()));
        } else {
            put(static_cast<std::uint32_t>(f.value ? f.value->size() : 0));
            if (f.value) put(*f.value);
        }
    }
};

/// Reads from foreign bytes what a field_writer wrote. Total, and nothing is allocated for a length before it is known
/// to be within its limit and there. The first thing that is wrong counts; what is read after it means nothing.
class field_reader : public byte_reader {
 public:
    static constexpr bool reading = true;
    using byte_reader::byte_reader;

    template <class... Fields>
    void operator()(Fields&&... values) {
        (field(values), ...);
    }
    template <class Container, class One>
    void each(Container& all, std::size_t limit, const char* why, One&& one) {
        const auto count = get<std::uint32_t>();
        require(count <= limit, why);
        for (std::uint32_t i = 0; i < count && !refused(); ++i) {
            auto element = blank<Container>();
            one(element);
            all.insert(all.end(), std::move(element));
        }
    }
    void raw(shared_vector& bytes, std::size_t size) {
        const auto found = refused() ? std::span<const std::byte>{} : get_bytes(size);
        bytes = std::make_shared<const std::vector<std::byte>>(found.begin(), found.end());
    }
    void require(bool condition, const char* why) noexcept {
        if (!condition && !refused()) why_ = why;
    }

    [[nodiscard]] bool refused() const noexcept { return failed() || why_ != nullptr; }
    /// Everything read, in range, and nothing left over.
    [[nodiscard]] bool whole() const noexcept { return !refused() && remaining() == 0; }
    /// Why it is not whole.
    [[nodiscard]] failure refusal(const std::string& what) const {
        if (why_ != nullptr) return {errc::out_of_range, what + ": " + why_};
        if (failed()) return {errc::truncated, what + ": ends before what it announces"};
        return {errc::trailing, what + ": bytes follow its end"};
    }

 private:
    template <class Container>
    [[nodiscard]] static auto blank() {
        if constexpr (requires { typename Container::mapped_type; })
            return std::pair<typename Container::key_type, typename Container::mapped_type>{};
        else
            return typename Container::value_type{};
    }
    template <numeric T>
    void field(T& value) {
        const auto number = get<number_of<T>>();
        if constexpr (std::same_as<T, bool>) require(number <= 1, "a flag that is neither 0 nor 1");
        value = static_cast<T>(number);
    }
    void field(std::span<std::byte> bytes) {
        const auto found = get_bytes(bytes.size());
        std::copy(found.begin(), found.end(), bytes.begin());
    }
    void field(digest& d) { field(d.bytes); }
    void field(const bounded<std::string>& f) { f.value = get_string(f.limit); }
    void field(const bounded<shared_vector>& f) {
        const auto size = get<std::uint32_t>();
        require(size <= f.limit, "a length above its limit");
        raw(f.value, size);
    }

    const char* why_ = nullptr;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_CORE_DETAIL_FIELDS_HPP
