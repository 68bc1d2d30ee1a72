#ifndef THINWIRE_CORE_RESULT_HPP
#define THINWIRE_CORE_RESULT_HPP

#include <thinwire/core/error.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace thinwire {

/// Why foreign bytes were refused.
enum class errc : std::uint8_t {
    truncated,     ///< the bytes end before what they announce
    trailing,      ///< bytes follow where none belong
    bad_magic,     ///< not this kind of data at all
    bad_version,   ///< a format version this build does not read
    bad_checksum,  ///< altered or damaged
    out_of_range,  ///< a number outside what the format allows
    too_large,     ///< a length above the caller's limit
    not_finite,    ///< NaN or infinity
    mismatch,      ///< well-formed, but of another run, round, peer or shape
    malformed,     ///< anything else that breaks the format
};

/// The name of a code, for messages and metrics.
[[nodiscard]] constexpr std::string_view to_string(errc code) noexcept {
    switch (code) {
        case errc::truncated: return "truncated";
        case errc::trailing: return "trailing";
        case errc::bad_magic: return "bad_magic";
        case errc::bad_version: return "bad_version";
        case errc::bad_checksum: return "bad_checksum";
        case errc::out_of_range: return "out_of_range";
        case errc::too_large: return "too_large";
        case errc::not_finite: return "not_finite";
        case errc::mismatch: return "mismatch";
        case errc::malformed: return "malformed";
    }
    return "unknown";
}

/// A refusal: a code for programs and one line for people.
struct failure {
    errc code{};
    std::string message;
};

/// A value or the reason there is none. What parses foreign bytes returns this and never throws.
template <class T>
class [[nodiscard]] result {
 public:
    using value_type = T;

    result(T value) : value_(std::move(value)) {}
    result(failure why) : why_(std::move(why)) {}

    [[nodiscard]] explicit operator bool() const noexcept { return value_.has_value(); }
    [[nodiscard]] bool has_value() const noexcept { return value_.has_value(); }

    /// Precondition of these four: has_value().
    [[nodiscard]] T& operator*() & noexcept { return *value_; }
    [[nodiscard]] const T& operator*() const& noexcept { return *value_; }
    [[nodiscard]] T* operator->() noexcept { return &*value_; }
    [[nodiscard]] const T* operator->() const noexcept { return &*value_; }

    /// Precondition: !has_value().
    [[nodiscard]] const failure& error() const noexcept { return why_; }

    /// The value, or an exception that carries the refusal's message.
    [[nodiscard]] T& value() & {
        require();
        return **this;
    }
    [[nodiscard]] const T& value() const& {
        require();
        return **this;
    }
    [[nodiscard]] T value() && {
        require();
        return std::move(**this);
    }

 private:
    void require() const {
        if (!has_value()) throw thinwire::error(error().message);
    }

    std::optional<T> value_;
    failure why_{};
};

/// What a check returns when there is nothing to hand over but success.
struct ok {};

}  // namespace thinwire

#endif  // THINWIRE_CORE_RESULT_HPP
