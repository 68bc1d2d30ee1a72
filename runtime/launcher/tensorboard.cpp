#include "tensorboard.hpp"

#include <thinwire/core/error.hpp>

#include "event_log.hpp"
#include "exit_code.hpp"
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <system_error>
#include <utility>

namespace thinwire::launcher {
namespace {

constexpr std::array<std::uint32_t, 256> crc_table = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t sum = i;
        for (int bit = 0; bit < 8; ++bit) sum = (sum >> 1U) ^ ((sum & 1U) != 0 ? 0x82f63b78U : 0U);
        table[i] = sum;
    }
    return table;
}();

template <class T>
void put_number(std::string& out, T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(value >> (8 * i) & 0xffU);
}

void put_varint(std::string& out, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7U) out += static_cast<char>(value | 0x80U);
    out += static_cast<char>(value);
}

// Fields of a protocol buffer: number and kind, then the value.
enum class wire : std::uint8_t { varint = 0, eight = 1, bytes = 2, four = 5 };

void put_key(std::string& out, unsigned number, wire how) {
    put_varint(out, number << 3U | static_cast<unsigned>(how));
}
void put_bytes(std::string& out, unsigned number, std::string_view bytes) {
    put_key(out, number, wire::bytes);
    put_varint(out, bytes.size());
    out += bytes;
}
void put_varint(std::string& out, unsigned number, std::uint64_t value) {
    put_key(out, number, wire::varint);
    put_varint(out, value);
}

/// As TFRecord wants it, so that a sum of bytes with sums in them is no constant.
std::uint32_t masked(std::uint32_t sum) {
    return (sum >> 15U | sum << 17U) + 0xa282ead8U;
}

std::string event_at(std::uint64_t step) {
    std::string event;
    put_key(event, 1, wire::eight);  // wall_time
    put_number(event, std::bit_cast<std::uint64_t>(unix_seconds()));
    put_varint(event, 2, step);
    return event;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) noexcept {
    std::uint32_t sum = 0xffffffffU;
    for (const char c : bytes) sum = (sum >> 8U) ^ crc_table[(sum ^ static_cast<unsigned char>(c)) & 0xffU];
    return sum ^ 0xffffffffU;
}

tensorboard_writer::tensorboard_writer(const std::filesystem::path& folder) {
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    const auto now =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch());
    // TensorBoard sorts the files of a folder by their names.
    name_ =
        (folder / ("events.out.tfevents." + std::to_string(now.count()) + ".thinwire." + std::to_string(::getpid())))
            .string();
    file_ = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file_ < 0)
        throw io_error("peer.tensorboard: open '" + name_ + "': " + strerror(errno) +
                       ", expected a folder to write to");
    std::string event = event_at(0);
    put_bytes(event, 3, "brain.Event:2");
    write(event);
}

tensorboard_writer::~tensorboard_writer() {
    if (file_ >= 0) (void)::close(file_);
}

void tensorboard_writer::scalars(std::uint64_t step,
                                 std::initializer_list<std::pair<std::string_view, double>> values) {
    std::string summary;
    for (const auto& [tag, value] : values) {
        if (!std::isfinite(value)) continue;
        std::string one;
        put_bytes(one, 1, tag);
        put_key(one, 2, wire::four);  // simple_value
        put_number(one, std::bit_cast<std::uint32_t>(static_cast<float>(value)));
        put_bytes(summary, 1, one);
    }
    std::string event = event_at(step);
    put_bytes(event, 5, summary);
    write(event);
}

void tensorboard_writer::text(std::uint64_t step, std::string_view tag, std::string_view value) {
    constexpr std::uint64_t string_type = 7;
    std::string dimension, shape, tensor, plugin, metadata, one, summary;
    put_varint(dimension, 1, 1);
    put_bytes(shape, 2, dimension);
    put_varint(tensor, 1, string_type);
    put_bytes(tensor, 2, shape);
    put_bytes(tensor, 8, value);
    put_bytes(plugin, 1, "text");
    put_bytes(metadata, 1, plugin);
    put_bytes(one, 1, tag);
    put_bytes(one, 8, tensor);
    put_bytes(one, 9, metadata);
    put_bytes(summary, 1, one);
    std::string event = event_at(step);
    put_bytes(event, 5, summary);
    write(event);
}

void tensorboard_writer::write(const std::string& event) {
    if (file_ < 0) return;
    std::string record;
    put_number(record, static_cast<std::uint64_t>(event.size()));
    put_number(record, masked(crc32c(record)));
    record += event;
    put_number(record, masked(crc32c(event)));
    std::string_view rest = record;
    while (!rest.empty()) {
        const ssize_t written = ::write(file_, rest.data(), rest.size());
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            log_event(log_level::warning, "message",
                      "peer.tensorboard: write '" + name_ + "': " + strerror(errno) + "; no more is written there");
            (void)::close(std::exchange(file_, -1));
            return;
        }
        rest.remove_prefix(static_cast<std::size_t>(written));
    }
}

}  // namespace thinwire::launcher
