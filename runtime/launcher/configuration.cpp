#include "configuration.hpp"

#include <thinwire/comm/message.hpp>

#include "directory.hpp"
#include "exit_code.hpp"
#include "log_keeper.hpp"
#include "parameter_groups.hpp"
#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>

namespace thinwire::launcher {
namespace {

using field = configuration_key::field;

constexpr double large = 9007199254740992.0;  // 2^53: every integer up to here is exact as a double

const std::array<configuration_key, 83> keys = {{
    {"model.family", [](configuration& c) -> field { return &c.model.family; }, true, 0, 0, "llama|qwen3|olmo2|gpt2",
     "kind of transformer"},
    {"model.vocab_size", [](configuration& c) -> field { return &c.model.vocab_size; }, true, 256, 1 << 20, "",
     "rows of the embedding; text is read as bytes"},
    {"model.hidden_size", [](configuration& c) -> field { return &c.model.hidden_size; }, true, 2, 65536, "",
     "width of the residual stream"},
    {"model.intermediate_size", [](configuration& c) -> field { return &c.model.intermediate_size; }, true, 1, 262144,
     "", "width of the feed-forward layer"},
    {"model.num_hidden_layers", [](configuration& c) -> field { return &c.model.num_hidden_layers; }, true, 1, 1024, "",
     "blocks"},
    {"model.num_attention_heads", [](configuration& c) -> field { return &c.model.num_attention_heads; }, true, 1, 1024,
     "", "query heads"},
    {"model.num_key_value_heads", [](configuration& c) -> field { return &c.model.num_key_value_heads; }, true, 0, 1024,
     "", "key and value heads; 0: as many as query heads"},
    {"model.head_dim", [](configuration& c) -> field { return &c.model.head_dim; }, true, 0, 1024, "",
     "width of a head; 0: hidden_size / num_attention_heads"},
    {"model.rope_theta", [](configuration& c) -> field { return &c.model.rope_theta; }, true, 1, 1e9, "",
     "base of the rotary embedding"},
    {"model.norm_eps", [](configuration& c) -> field { return &c.model.norm_eps; }, true, 1e-12, 1e-1, "",
     "epsilon of the normalisation layers"},
    {"model.initializer_range", [](configuration& c) -> field { return &c.model.initializer_range; }, true, 1e-6, 1e30,
     "", "standard deviation of the initial weights"},
    {"model.tie_word_embeddings", [](configuration& c) -> field { return &c.model.tie_word_embeddings; }, true, 0, 0,
     "", "one matrix for embedding and output"},

    {"data.train", [](configuration& c) -> field { return &c.data.train; }, false, 0, 0, "", "training text, a file"},
    {"data.valid", [](configuration& c) -> field { return &c.data.valid; }, false, 0, 0, "",
     "validation text, a file; empty: the last part of the training text"},
    {"data.valid_fraction", [](configuration& c) -> field { return &c.data.valid_fraction; }, true, 0, 0.5, "",
     "part of the training text that is kept for validation when data.valid is empty"},
    {"data.sequence_length", [](configuration& c) -> field { return &c.data.sequence_length; }, true, 1, 1 << 20, "",
     "tokens a row"},
    {"data.train_digest", [](configuration& c) -> field { return &c.data.train_digest; }, true, 0, 0, "",
     "SHA-256 of the training text; filled in by the founder, compared by those who join"},

    {"optimizer.kind", [](configuration& c) -> field { return &c.optimizer.kind; }, true, 0, 0, "demo|adamw",
     "demo exchanges a few coefficients, adamw dense gradients"},
    {"optimizer.learning_rate", [](configuration& c) -> field { return &c.optimizer.learning_rate; }, true, 0, 10, "",
     "peak of the schedule; 0: 0.004 for demo with muon, else 0.001"},
    {"optimizer.momentum_decay", [](configuration& c) -> field { return &c.optimizer.momentum_decay; }, true, 0, 1, "",
     "demo: what remains of the momentum each round"},
    {"optimizer.k", [](configuration& c) -> field { return &c.optimizer.k; }, true, 1, 65536, "",
     "demo: coefficients a chunk that are exchanged"},
    {"optimizer.chunk", [](configuration& c) -> field { return &c.optimizer.chunk; }, true, 1, 256, "",
     "demo: side of a chunk"},
    {"optimizer.values", [](configuration& c) -> field { return &c.optimizer.values; }, true, 0, 0,
     "f32|sign|bf16|q4|q2", "demo: how a coefficient's value is sent"},
    {"optimizer.error_feedback", [](configuration& c) -> field { return &c.optimizer.error_feedback; }, true, 0, 0, "",
     "demo: what optimizer.values rounds away stays in the momentum"},
    {"optimizer.alpha", [](configuration& c) -> field { return &c.optimizer.alpha; }, true, 0x1p-20, 1, "",
     "demo: part of what is sent that leaves the momentum"},
    {"optimizer.gradient", [](configuration& c) -> field { return &c.optimizer.gradient; }, true, 0, 0,
     "learning_rate|none|complement",
     "demo: what a gradient is multiplied by on its way into the momentum; complement: 1 - momentum_decay"},
    {"optimizer.rule", [](configuration& c) -> field { return &c.optimizer.rule; }, true, 0, 0, "signum|sgd|muon",
     "demo: how the mean of what was sent becomes a step; muon: embeddings and head by sign, at a quarter of the rate"},
    {"optimizer.basis", [](configuration& c) -> field { return &c.optimizer.basis; }, true, 0, 0,
     "dct|hadamard|random_orthogonal|resampled_orthogonal|identity",
     "demo: the transform of a chunk; the random ones are drawn from run.seed, resampled: anew each round"},
    {"optimizer.groups", [](configuration& c) -> field { return &c.optimizer.groups; }, true, 0, 0, "",
     "demo: settings of some parameters, such as \"*norm.weight weight_decay=0; lm_head.* learning_rate=0.5 k=64 "
     "rule=signum\""},
    {"optimizer.weight_decay", [](configuration& c) -> field { return &c.optimizer.weight_decay; }, true, 0, 1e3, "",
     "decoupled weight decay"},
    {"optimizer.clip_norm", [](configuration& c) -> field { return &c.optimizer.clip_norm; }, true, 0, 1e9, "",
     "a peer's gradient is scaled down to this norm; 0: never"},
    {"optimizer.weights", [](configuration& c) -> field { return &c.optimizer.weights; }, true, 0, 0, "equal|tokens",
     "what a peer's contribution weighs in the mean of a round: the same, or the tokens that it trained on"},
    {"optimizer.contribution_clip", [](configuration& c) -> field { return &c.optimizer.contribution_clip; }, true, 0,
     0x1p20, "",
     "demo: contributions are scaled down to so many times the median norm of their round, at least 1; 0: never"},
    {"optimizer.beta1", [](configuration& c) -> field { return &c.optimizer.beta1; }, true, 0, 1, "",
     "adamw: decay of the first moment"},
    {"optimizer.beta2", [](configuration& c) -> field { return &c.optimizer.beta2; }, true, 0, 1, "",
     "adamw: decay of the second moment"},
    {"optimizer.eps", [](configuration& c) -> field { return &c.optimizer.eps; }, true, 1e-16, 1, "",
     "adamw: epsilon of the denominator"},

    {"schedule.kind", [](configuration& c) -> field { return &c.schedule.kind; }, true, 0, 0, "constant|cosine|wsd",
     "course of the learning rate after the warm-up"},
    {"schedule.warmup", [](configuration& c) -> field { return &c.schedule.warmup; }, true, 0, large, "",
     "rounds of linear warm-up"},
    {"schedule.decay", [](configuration& c) -> field { return &c.schedule.decay; }, true, 0, large, "",
     "wsd: rounds of the final descent"},
    {"schedule.floor", [](configuration& c) -> field { return &c.schedule.floor; }, true, 0, 1, "",
     "where the learning rate ends, as a part of its peak"},

    {"run.rounds", [](configuration& c) -> field { return &c.run.rounds; }, true, 1, large, "", "length of the run"},
    {"run.id", [](configuration& c) -> field { return &c.run.id; }, true, 0, 0, "",
     "tells runs of equal settings apart; empty: drawn when the run is founded"},
    {"run.seed", [](configuration& c) -> field { return &c.run.seed; }, true, 0, large, "",
     "of the initial weights and of the order of the data"},
    {"run.batch_size", [](configuration& c) -> field { return &c.run.batch_size; }, true, 1, 65536, "",
     "rows of a micro-batch"},
    {"run.micro_batches", [](configuration& c) -> field { return &c.run.micro_batches; }, true, 1, 65536, "",
     "micro-batches that a peer trains on each round, with run.round_ms at most"},
    {"run.round_ms", [](configuration& c) -> field { return &c.run.round_ms; }, true, 0, 3600000, "",
     "a peer sends what it finished after so long, and nobody waits for a slower one; 0: all of its micro-batches"},
    {"run.round_tokens", [](configuration& c) -> field { return &c.run.round_tokens; }, true, 0, large, "",
     "as run.round_ms, with a time that makes about so many tokens of all peers together; 0: off"},
    {"run.overlap", [](configuration& c) -> field { return &c.run.overlap; }, true, 0, 0, "",
     "the next gradient is computed while a payload travels, on weights that lack that round"},
    {"run.max_staleness", [](configuration& c) -> field { return &c.run.max_staleness; }, false, 0, large, "",
     "a gradient that was begun more than so many rounds ago is not used"},
    {"run.max_peers", [](configuration& c) -> field { return &c.run.max_peers; }, true, 1, 1024, "",
     "so many peers may contribute; no two places see the same row of the data in one pass"},
    {"run.min_peers", [](configuration& c) -> field { return &c.run.min_peers; }, false, 1, 1024, "",
     "founder: peers that are present before its first round after each start"},
    {"run.eval_every", [](configuration& c) -> field { return &c.run.eval_every; }, false, 0, large, "",
     "rounds between two evaluations by the founder, a witness, or who orders the rounds; 0: only first and last"},
    {"run.eval_windows", [](configuration& c) -> field { return &c.run.eval_windows; }, false, 1, large, "",
     "rows of an evaluation, spread over the validation text"},
    {"run.sample_tokens", [](configuration& c) -> field { return &c.run.sample_tokens; }, false, 0, 4096, "",
     "bytes of text that the model writes at each evaluation, always from the same seed; 0: none"},
    {"run.snapshot_every", [](configuration& c) -> field { return &c.run.snapshot_every; }, false, 1, large, "",
     "rounds between two snapshots"},
    {"run.keep_log", [](configuration& c) -> field { return &c.run.keep_log; }, false, 0, 0, "",
     "how much of this peer's run log can be replayed: all, at least so many rounds (5000 rounds), or about so much "
     "at most (10 GB)"},
    {"run.min_round_ms", [](configuration& c) -> field { return &c.run.min_round_ms; }, true, 0, 3600000, "",
     "a round lasts at least this long"},

    {"peer.name", [](configuration& c) -> field { return &c.peer.name; }, false, 0, 0, "",
     "what tables and logs call this peer; no number"},
    {"peer.address", [](configuration& c) -> field { return &c.peer.address; }, false, 0, 0, "",
     "founder: host:port to listen on, port 0: any; others: the address of a peer of the run"},
    {"peer.listen", [](configuration& c) -> field { return &c.peer.listen; }, false, 0, 0, "",
     "others: host:port to listen on; auto: any free port, on 127.0.0.1 when "
     "peer.address begins with 127., else on all interfaces; none: this peer can only dial, and takes part in full"},
    {"peer.advertise", [](configuration& c) -> field { return &c.peer.advertise; }, false, 0, 0, "",
     "host:port that others are to dial instead, as a forwarded port of a router"},
    {"peer.directory", [](configuration& c) -> field { return &c.peer.directory; }, false, 0, 0, "",
     "DIR: snapshot, log, private state, metrics, weights"},
    {"peer.threads", [](configuration& c) -> field { return &c.peer.threads; }, false, 0, 1024, "",
     "threads of the computation; 0: one a processor"},
    {"peer.contributes", [](configuration& c) -> field { return &c.peer.contributes; }, false, 0, 0, "",
     "false: a witness, which follows, votes, keeps log and snapshots, and computes no gradient"},
    {"peer.save_private_every", [](configuration& c) -> field { return &c.peer.save_private_every; }, false, 1, large,
     "", "rounds between two copies of the momentum on disk; 1: kill -9 loses nothing"},
    {"peer.durable", [](configuration& c) -> field { return &c.peer.durable; }, false, 0, 0, "",
     "every round waits for the disk, so that a power cut loses nothing either; false: only kill -9 does not"},
    {"peer.payload_bytes", [](configuration& c) -> field { return &c.peer.payload_bytes; }, false, 0, large, "",
     "demo: about the most bytes of this peer's payloads, which send fewer than optimizer.k then; 0: no limit"},
    {"peer.stop_at", [](configuration& c) -> field { return &c.peer.stop_at; }, false, 0, large, "",
     "leave, saved, before this round, as after Ctrl-C; 0: never"},
    {"peer.connect_timeout_ms", [](configuration& c) -> field { return &c.peer.connect_timeout_ms; }, false, 1, 3600000,
     "", "how long the first connection of a peer without a log, or enrolling, may take"},
    {"peer.reconnect_timeout_ms", [](configuration& c) -> field { return &c.peer.reconnect_timeout_ms; }, false, 1,
     86400000, "", "how long the others are looked for when all are lost"},
    {"peer.min_deadline_ms", [](configuration& c) -> field { return &c.peer.min_deadline_ms; }, false, 1, 3600000, "",
     "a round waits at least this long for a peer that is present"},
    {"peer.max_deadline_ms", [](configuration& c) -> field { return &c.peer.max_deadline_ms; }, false, 1, 3600000, "",
     "and at most this long"},
    {"peer.takeover_ms", [](configuration& c) -> field { return &c.peer.takeover_ms; }, true, 500, 3600000, "",
     "who orders the rounds and is not heard for so long is replaced"},
    {"peer.plaintext", [](configuration& c) -> field { return &c.peer.plaintext; }, false, 0, 0, "",
     "no TLS, on loopback addresses only; equal for founder and joiners"},
    {"peer.status", [](configuration& c) -> field { return &c.peer.status; }, false, 0, 0, "",
     "host:port that serves /status and /metrics to programs and `thinwire watch`, port 0: any; empty: off"},
    {"peer.status_public", [](configuration& c) -> field { return &c.peer.status_public; }, false, 0, 0, "",
     "peer.status may be an address that other machines reach"},
    {"peer.dashboard", [](configuration& c) -> field { return &c.peer.dashboard; }, false, 0, 0, "",
     "host:port of a page that shows the run to people, port 0: any; empty: off"},
    {"peer.dashboard_public", [](configuration& c) -> field { return &c.peer.dashboard_public; }, false, 0, 0, "",
     "peer.dashboard may be an address that other machines reach"},
    {"peer.place", [](configuration& c) -> field { return &c.peer.place; }, false, 0, 0, "",
     "where this peer is, as the others may show it, at most 64 bytes; empty: not told"},
    {"peer.hardware", [](configuration& c) -> field { return &c.peer.hardware; }, false, 0, 0, "",
     "what it computes with, as the others may show it, at most 64 bytes; empty: not told"},
    {"peer.coordinates", [](configuration& c) -> field { return &c.peer.coordinates; }, false, 0, 0, "",
     "latitude and longitude in degrees for the others' maps, such as \"52.5, 13.4\"; empty: not told"},
    {"peer.tensorboard", [](configuration& c) -> field { return &c.peer.tensorboard; }, false, 0, 0, "",
     "folder for event files that TensorBoard reads; empty: none"},
    {"peer.log_file", [](configuration& c) -> field { return &c.peer.log_file; }, false, 0, 0, "",
     "events as JSON lines, a file in DIR, renamed at 16 MB with four older ones kept; empty: none"},
}};

[[noreturn]] void refuse(const std::string& line, exit_code code = exit_code::usage) {
    throw launcher_error(code, line);
}

const configuration_key* find(std::string_view name) {
    const auto found = std::find_if(keys.begin(), keys.end(), [&](const auto& key) { return key.name == name; });
    return found == keys.end() ? nullptr : &*found;
}

const configuration_key& find_or_refuse(std::string_view name, const std::string& source) {
    if (const configuration_key* key = find(name)) return *key;
    std::vector<std::string_view> known;
    for (const auto& key : keys) known.push_back(key.name);
    const std::string near = nearest(name, known);
    refuse("configuration: " + source + ": unknown key '" + std::string(name) + "'" +
           (near.empty() ? ", expected one of those that `thinwire keys` lists" : ", nearest known key: " + near));
}

[[noreturn]] void refuse_value(const configuration_key& key, std::string_view value, const std::string& source) {
    refuse("configuration: " + source + ": " + std::string(key.name) + " = " + std::string(value) + ": expected " +
           expectation(key));
}

std::string number_text(double value) {
    std::array<char, 32> buffer{};
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
    std::string text(buffer.data(), end);
    if (text.find_first_of(".en") == std::string::npos) text += ".0";
    return text;
}

std::string toml_string(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        const auto code = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (code < 0x20 || code == 0x7f) {
            constexpr std::string_view hex = "0123456789ABCDEF";
            out += "\\u00";
            out += hex[code >> 4U];
            out += hex[code & 15U];
        } else {
            out += c;
        }
    }
    return out + "\"";
}

bool allowed(const configuration_key& key, const std::string& text) {
    if (key.choices.empty()) return true;
    std::stringstream choices{std::string(key.choices)};
    for (std::string choice; std::getline(choices, choice, '|');)
        if (choice == text) return true;
    return false;
}

bool allowed(const configuration_key& key, double value) {
    return std::isfinite(value) && value >= key.low && value <= key.high;
}

/// Stores a value of the key's own type, after the range check.
template <class T>
void store(configuration& settings, const configuration_key& key, T value, std::string_view shown,
           const std::string& source) {
    if constexpr (std::is_same_v<T, std::string>) {
        if (!allowed(key, value)) refuse_value(key, shown, source);
    } else if constexpr (!std::is_same_v<T, bool>) {
        if (!allowed(key, static_cast<double>(value))) refuse_value(key, shown, source);
    }
    *std::get<T*>(key.at(settings)) = std::move(value);
    settings.stated.emplace(key.name);
}

template <class T>
std::optional<T> parse(std::string_view text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
    return value;
}

std::string shown(const toml::node& node) {
    if (const auto number = node.value_exact<double>()) return number_text(*number);
    std::ostringstream out;
    node.visit([&](const auto& value) { out << value; });
    return out.str();
}

void read_node(configuration& settings, const configuration_key& key, const toml::node& node,
               const std::string& source) {
    const field where = key.at(settings);
    if (std::holds_alternative<std::string*>(where) && node.is_string())
        return store(settings, key, node.ref<std::string>(), shown(node), source);
    if (std::holds_alternative<bool*>(where) && node.is_boolean())
        return store(settings, key, node.ref<bool>(), shown(node), source);
    if (std::holds_alternative<std::int64_t*>(where) && node.is_integer())
        return store(settings, key, node.ref<std::int64_t>(), shown(node), source);
    if (std::holds_alternative<double*>(where) && node.is_number())
        return store(settings, key, *node.value<double>(), shown(node), source);
    refuse_value(key, shown(node), source);
}

std::string toml_of(const configuration& settings, bool shared_only) {
    std::string text;
    std::string_view section;
    for (const configuration_key& key : keys) {
        if (shared_only && !key.shared) continue;
        const std::string_view of = key.name.substr(0, key.name.find('.'));
        if (of != section) {
            if (!section.empty()) text += '\n';
            text += "[" + std::string(of) + "]\n";
            section = of;
        }
        text += std::string(key.name.substr(of.size() + 1)) + " = " + value_text(key, settings) + "\n";
    }
    return text;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = std::exchange(row[0], i);
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
        }
    }
    return row.back();
}

}  // namespace

std::optional<std::uint16_t> port_of(std::string_view address) {
    const std::size_t colon = address.rfind(':');
    if (colon == std::string_view::npos || colon == 0) return std::nullopt;
    const std::string_view host = address.substr(0, colon);
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    const auto visible = [](char c) { return c > ' ' && c <= '~' && c != ','; };
    if (host.find_first_of(":[]") != host.npos && !bracketed) return std::nullopt;
    if (!std::all_of(host.begin(), host.end(), visible)) return std::nullopt;
    return parse<std::uint16_t>(address.substr(colon + 1));
}

std::span<const configuration_key> configuration_keys() {
    return keys;
}

std::string expectation(const configuration_key& key) {
    configuration defaults;
    const field where = key.at(defaults);
    if (std::holds_alternative<bool*>(where)) return "true or false";
    if (std::holds_alternative<std::string*>(where))
        return key.choices.empty() ? "text" : "one of " + std::string(key.choices);
    const auto integer = [](double value) { return std::to_string(static_cast<std::int64_t>(value)); };
    if (std::holds_alternative<std::int64_t*>(where))
        return key.high >= large ? "an integer of at least " + integer(key.low)
                                 : "an integer in " + integer(key.low) + ".." + integer(key.high);
    return "a number in " + number_text(key.low) + ".." + number_text(key.high);
}

std::string value_text(const configuration_key& key, const configuration& settings) {
    configuration copy = settings;
    const field where = key.at(copy);
    if (const auto* text = std::get_if<std::string*>(&where)) return toml_string(**text);
    if (const auto* flag = std::get_if<bool*>(&where)) return **flag ? "true" : "false";
    if (const auto* integer = std::get_if<std::int64_t*>(&where)) return std::to_string(**integer);
    return number_text(*std::get<double*>(where));
}

std::string describe_keys() {
    const configuration defaults;
    std::string text;
    std::string_view section;
    for (const configuration_key& key : keys) {
        const std::string_view of = key.name.substr(0, key.name.find('.'));
        if (of != section) text += (section.empty() ? "[" : "\n[") + std::string(of) + "]\n";
        section = of;
        std::string line = "  --" + std::string(key.name) + " " + value_text(key, defaults);
        line.resize(std::max<std::size_t>(line.size() + 2, 44), ' ');
        text += line + std::string(key.help) + " (" + expectation(key) + (key.shared ? "; shared" : "") + ")\n";
    }
    return text;
}

void set_key(configuration& settings, std::string_view name, std::string_view value) {
    const std::string source = "command line";
    const configuration_key& key = find_or_refuse(name, source);
    const field where = key.at(settings);
    if (std::holds_alternative<std::string*>(where)) return store(settings, key, std::string(value), value, source);
    if (std::holds_alternative<bool*>(where) && (value == "true" || value == "false"))
        return store(settings, key, value == "true", value, source);
    if (std::holds_alternative<std::int64_t*>(where)) {
        if (const auto number = parse<std::int64_t>(value)) return store(settings, key, *number, value, source);
    } else if (std::holds_alternative<double*>(where)) {
        if (const auto number = parse<double>(value)) return store(settings, key, *number, value, source);
    }
    refuse_value(key, value, source);
}

void read_toml(configuration& settings, std::string_view text, const std::string& source) {
    toml::table document;
    try {
        document = toml::parse(text);
    } catch (const toml::parse_error& problem) {
        refuse("configuration: " + source + ":" + std::to_string(problem.source().begin.line) + ": " +
               std::string(problem.description()));
    }
    for (const auto& [section, members] : document) {
        const toml::table* table = members.as_table();
        if (table == nullptr) {
            const std::string_view name = find_or_refuse(section.str(), source).name;
            const std::size_t dot = name.find('.');
            refuse("configuration: " + source + ": '" + std::string(name) + "' in quotation marks, expected '" +
                   std::string(name.substr(dot + 1)) + "' in section [" + std::string(name.substr(0, dot)) + "]");
        }
        const std::string prefix = std::string(section.str()) + ".";
        const bool known =
            std::any_of(keys.begin(), keys.end(), [&](const auto& key) { return key.name.starts_with(prefix); });
        if (!known && table->empty())
            refuse("configuration: " + source + ": unknown section [" + std::string(section.str()) +
                   "], expected one of model, data, optimizer, schedule, run, peer");
        for (const auto& [name, value] : *table)
            read_node(settings, find_or_refuse(prefix + std::string(name.str()), source), value, source);
    }
}

void read_toml_file(configuration& settings, const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    if (!in || std::filesystem::is_directory(file))
        refuse("configuration: cannot read '" + file.string() + "': expected a TOML file");
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    read_toml(settings, text, file.string());
}

void check(const configuration& settings) {
    const auto& m = settings.model;
    const auto complain = [](const char* key, const std::string& value, const std::string& expected) {
        refuse("configuration: " + std::string(key) + " = " + value + ": expected " + expected);
    };
    const std::int64_t area = settings.optimizer.chunk * settings.optimizer.chunk;
    if (settings.optimizer.k > area)
        complain("optimizer.k", std::to_string(settings.optimizer.k),
                 "at most optimizer.chunk squared = " + std::to_string(area));
    const double clip = settings.optimizer.contribution_clip;
    if (clip > 0 && (clip < 1 || settings.optimizer.kind == "adamw"))
        complain("optimizer.contribution_clip", std::to_string(clip), "0, or with optimizer.kind = demo at least 1");
    if (settings.peer.payload_bytes > 0 && settings.optimizer.kind == "adamw")
        complain("peer.payload_bytes", std::to_string(settings.peer.payload_bytes), "0, or optimizer.kind = demo");
    static_cast<void>(parse_groups(settings.optimizer.groups));
    static_cast<void>(parse_keep_log(settings.run.keep_log));
    if (m.head_dim == 0 && m.hidden_size % m.num_attention_heads != 0)
        complain("model.hidden_size", std::to_string(m.hidden_size),
                 "a multiple of model.num_attention_heads = " + std::to_string(m.num_attention_heads));
    const std::int64_t head = m.head_dim == 0 ? m.hidden_size / m.num_attention_heads : m.head_dim;
    if (m.family != "gpt2" && head % 2 != 0)
        complain(m.head_dim == 0 ? "model.num_attention_heads" : "model.head_dim",
                 std::to_string(m.head_dim == 0 ? m.num_attention_heads : m.head_dim),
                 "heads of an even width, found width " + std::to_string(head));
    if (m.num_key_value_heads > 0 && m.num_attention_heads % m.num_key_value_heads != 0)
        complain("model.num_key_value_heads", std::to_string(m.num_key_value_heads),
                 "a divisor of model.num_attention_heads = " + std::to_string(m.num_attention_heads));
    if (settings.run.round_ms > 0 && settings.run.round_tokens > 0)
        complain("run.round_tokens", std::to_string(settings.run.round_tokens),
                 "0 with run.round_ms, or the other way round");
    if (settings.run.min_peers > settings.run.max_peers)
        complain("run.min_peers", std::to_string(settings.run.min_peers),
                 "at most run.max_peers = " + std::to_string(settings.run.max_peers));
    std::stringstream addresses(settings.peer.address + (settings.peer.address.empty() ? "," : ""));
    for (std::string one; std::getline(addresses, one, ',');)
        if (!port_of(one)) complain("peer.address", toml_string(settings.peer.address), "host:port or [ipv6]:port");
    const std::string& listen = settings.peer.listen;
    if (!listen.empty() && listen != "auto" && listen != "none" && !port_of(listen))
        complain("peer.listen", toml_string(listen), "host:port or [ipv6]:port");
    const std::string& name = settings.peer.name;
    if (!name.empty() && name.find_first_not_of("0123456789") == std::string::npos)
        complain("peer.name", toml_string(name), "a name that is no number, which would look like a peer's");
    if (!settings.peer.log_file.empty() && !free_name(settings.peer.log_file))
        complain("peer.log_file", toml_string(settings.peer.log_file),
                 "the name of a file in DIR, such as events.jsonl, that is none of the program's own");
    if (settings.peer.min_deadline_ms > settings.peer.max_deadline_ms)
        complain("peer.min_deadline_ms", std::to_string(settings.peer.min_deadline_ms),
                 "at most peer.max_deadline_ms = " + std::to_string(settings.peer.max_deadline_ms));
    const std::string& advertise = settings.peer.advertise;
    if (advertise.size() > wire_limits::max_address || (!advertise.empty() && !can_be_dialled(advertise)))
        complain("peer.advertise", toml_string(advertise),
                 "host:port or [ipv6]:port of at most 256 bytes, with a port in 1..65535");
    if (settings.peer.name.size() > wire_limits::max_name)
        complain("peer.name", toml_string(settings.peer.name), "at most 64 bytes");
}

std::string manifest(const configuration& settings) {
    return toml_of(settings, true);
}

std::string full_toml(const configuration& settings) {
    return toml_of(settings, false);
}

void adopt_manifest(configuration& settings, const std::string& manifest) {
    configuration theirs;
    try {
        read_toml(theirs, manifest, "the run's manifest");
    } catch (const launcher_error& problem) {
        refuse(problem.what(), exit_code::mismatch);
    }
    if (settings.run.id.empty()) settings.stated.erase("run.id");  // whatever the founder drew
    for (const configuration_key& key : keys) {
        if (!key.shared) continue;
        const std::string run = value_text(key, theirs);
        if (settings.stated.contains(key.name) && value_text(key, settings) != run)
            refuse("configuration: " + std::string(key.name) + " = " + value_text(key, settings) + ": expected " + run +
                       ", the value of the run",
                   exit_code::mismatch);
        std::visit(
            [](auto* into, auto* from) {
                if constexpr (std::is_same_v<decltype(into), decltype(from)>) *into = *from;
            },
            key.at(settings), key.at(theirs));
    }
}

std::string nearest(std::string_view name, std::span<const std::string_view> known) {
    std::string_view best;
    std::size_t distance = std::max<std::size_t>(3, name.size() / 2);
    for (const std::string_view candidate : known) {
        // A key without its section counts as near as one letter off.
        const std::size_t bare = edit_distance(name, candidate.substr(candidate.find('.') + 1)) + 1;
        const std::size_t found = std::min(edit_distance(name, candidate), bare);
        if (found < distance) {
            distance = found;
            best = candidate;
        }
    }
    return std::string(best);
}

std::vector<std::pair<std::string, std::string>> extract_overrides(std::vector<std::string>& arguments) {
    std::vector<std::pair<std::string, std::string>> overrides;
    std::vector<std::string> rest;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const std::string& argument = arguments[i];
        const std::size_t equals = argument.find('=');
        if (argument == "--") {
            rest.insert(rest.end(), arguments.begin() + static_cast<std::ptrdiff_t>(i), arguments.end());
            break;
        }
        if (!argument.starts_with("--") || argument.substr(0, equals).find('.') == std::string::npos) {
            rest.push_back(argument);
        } else if (equals != std::string::npos) {
            overrides.emplace_back(argument.substr(2, equals - 2), argument.substr(equals + 1));
        } else if (i + 1 < arguments.size()) {
            overrides.emplace_back(argument.substr(2), arguments[i + 1]);
            ++i;
        } else {
            refuse("configuration: command line: " + argument.substr(2) + " has no value: expected " +
                   expectation(find_or_refuse(argument.substr(2), "command line")));
        }
    }
    arguments = std::move(rest);
    return overrides;
}

}  // namespace thinwire::launcher
