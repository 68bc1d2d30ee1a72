#include "run_status.hpp"

#include <thinwire/version.hpp>

#include "about.hpp"
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

namespace thinwire::launcher {
namespace {

using nlohmann::ordered_json;

/// JSON has no NaN.
ordered_json finite(double value) {
    return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}
ordered_json finite(const std::optional<double>& value) {
    return value ? finite(*value) : ordered_json(nullptr);
}

/// The identity of a peer as text: JSON readers keep 53 bits of a number.
std::string id_text(peer_id peer) {
    return std::to_string(peer);
}

std::uint64_t staleness(const run_status& s, const runtime::peer_status& p) {
    // A peer in the newest commit has last_round = round - 1.
    const std::uint64_t newest = s.node.round == 0 ? 0 : s.node.round - 1;
    return p.last_round < newest && !p.contributed_last ? newest - p.last_round : 0;
}

const arrivals::cost* cost_of(const run_status& s, peer_id peer) {
    const auto found = s.costs.find(peer);
    return s.sees_arrivals && found != s.costs.end() ? &found->second : nullptr;
}

bool is_awaited(const run_status& s, peer_id peer) {
    return std::find(s.awaited.begin(), s.awaited.end(), peer) != s.awaited.end();
}

ordered_json peer_json(const run_status& s, const runtime::peer_status& p) {
    ordered_json one;
    one["id"] = id_text(p.peer);
    one["name"] = p.name;
    one["self"] = p.peer == s.self;
    const peer_about about = read_about(p.about);
    one["place"] = about.place;
    one["hardware"] = about.hardware;
    one["latitude"] = finite(about.latitude);
    one["longitude"] = finite(about.longitude);
    one["present"] = p.present;
    one["member"] = p.member;
    one["witness"] = p.member && !p.contributes;
    one["contributed_last"] = p.contributed_last;
    one["last_round"] = p.last_round;
    one["staleness_rounds"] = staleness(s, p);
    one["bytes_sent"] = p.bytes_sent;
    one["bytes_received"] = p.bytes_received;
    const auto tokens = s.tokens_of.find(p.peer);
    one["tokens"] = tokens != s.tokens_of.end() ? tokens->second : 0;
    one["round_trip_seconds"] = finite(p.round_trip_seconds);
    const arrivals::cost* cost = cost_of(s, p.peer);
    const auto known = [&](auto value) { return s.sees_arrivals ? ordered_json(value) : ordered_json(nullptr); };
    one["awaited"] = known(is_awaited(s, p.peer));
    one["waited_for_last"] = known(cost != nullptr && cost->waited_for);
    one["arrival_seconds"] = cost != nullptr ? finite(cost->seconds) : ordered_json(nullptr);
    one["waited_rounds"] = known(cost != nullptr ? cost->waited_rounds : 0);
    one["waited_seconds"] = known(cost != nullptr ? cost->waited_seconds : 0.0);
    return one;
}

ordered_json digest_json(const digest_at& one) {
    return {{"round", one.round}, {"digest", one.digest}};
}

/// Valid UTF-8: names are foreign bytes, and a metrics page with others is refused whole.
std::string valid_utf8(const std::string& text) {
    const std::string quoted = nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    return nlohmann::json::parse(quoted).get<std::string>();
}

std::string label_value(const std::string& text) {
    std::string out;
    for (const char c : valid_utf8(text)) {
        if (c == '\\' || c == '"') out += '\\';
        if (c == '\n')
            out += "\\n";
        else
            out += c;
    }
    return out;
}

/// Writes families of samples: each with its help and type once, in front.
class metrics_page {
 public:
    void gauge(std::string_view name, std::string_view help, double value) { single(name, "gauge", help, value); }
    void counter(std::string_view name, std::string_view help, double value) { single(name, "counter", help, value); }
    void gauge(std::string_view name, std::string_view help, const std::optional<double>& value) {
        if (value) gauge(name, help, *value);
    }
    /// A family with labels: sample() adds to it.
    void family(std::string_view name, std::string_view type, std::string_view help) {
        family_ = "thinwire_" + std::string(name);
        text_ += "# HELP " + family_ + " " + std::string(help) + "\n# TYPE " + family_ + " " + std::string(type) + "\n";
    }
    void sample(const std::string& labels, double value) { text_ += family_ + labels + " " + number(value) + "\n"; }

    [[nodiscard]] std::string take() { return std::move(text_); }

 private:
    void single(std::string_view name, std::string_view type, std::string_view help, double value) {
        family(name, type, help);
        sample("", value);
    }
    static std::string number(double value) {
        if (std::isnan(value)) return "NaN";
        if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
        // Counts below 2^53 as they are, without an exponent.
        return value == std::floor(value) && std::abs(value) < 9e15 ? fmt::format("{:.0f}", value)
                                                                    : fmt::format("{}", value);
    }

    std::string text_, family_;
};

double count(std::uint64_t value) {
    return static_cast<double>(value);
}

void add_run(metrics_page& page, const run_status& s) {
    page.family("build_info", "gauge", "The program's version; always 1.");
    page.sample("{version=\"" THINWIRE_VERSION_STRING "\"}", 1);
    page.family("run_info", "gauge", "The run and this peer; always 1.");
    page.sample(fmt::format("{{run=\"{}\",peer=\"{}\",peer_id=\"{}\",role=\"{}\"}}", label_value(s.run),
                            label_value(s.peer), s.self, s.founder ? "founder" : "joiner"),
                1);
    page.gauge("uptime_seconds", "Since this process entered the run.", s.uptime_seconds);
    page.gauge("round", "Rounds that this replica has applied.", count(s.round));
    page.gauge("run_rounds", "Length of the run in rounds.", count(s.rounds));
    page.gauge("rounds_per_second", "Over the last minute.", s.rounds_per_second_minute);
    page.gauge("loss", "This peer's training loss in the last round.", s.loss);
    page.gauge("validation_loss", "The newest validation loss.", s.validation_loss);
    if (s.validation_loss)
        page.gauge("validation_round", "The round that validation loss is of.", count(s.validation_round));
    page.gauge("learning_rate", "Learning rate of the last round.", s.learning_rate);
    page.gauge("coefficients_per_chunk", "How many coefficients of a chunk this peer sends at most.",
               static_cast<double>(s.k));
    page.counter("tokens_total", "Tokens that this process trained on.", count(s.tokens));
    page.gauge("tokens_per_second", "Of all contributors in the last round.", s.tokens_per_second);
    page.gauge("parameters", "Of the model.", count(s.parameters));
    page.counter("run_tokens_total", "Tokens of all contributions since this process entered.", count(s.run_tokens));
    if (s.energy_joules)
        page.counter("energy_joules_total", "Energy of this machine by its counters.", *s.energy_joules);
    page.gauge("momentum_energy", "Mean square of this peer's momentum at its newest snapshot.", s.momentum_energy);
    page.counter("compute_seconds_total", "Time in forward, backward and encoding.", s.compute_seconds);
    page.counter("wait_seconds_total", "Time in the exchange of payloads.", s.wait_seconds);
    page.counter("paused_seconds_total", "Time that the run was paused for.", s.node.paused_seconds);
}

void add_rounds(metrics_page& page, const run_status& s) {
    page.gauge("contributors", "Contributions in the last round.", s.contributors);
    page.gauge("agreeing", "Contributions of the last round whose weights equal this replica's.", s.agreeing);
    page.gauge("disagreeing", "Contributions of the last round from other weights than this replica's.", s.disagreeing);
    page.counter("contributions_total", "Contributions applied.", count(s.contributions_total));
    page.counter("disagreeing_contributions_total", "Contributions from other weights.", count(s.disagreeing_total));
    page.counter("rejected_contributions_total", "Contributions that every replica skipped.", count(s.rejected_total));
    page.counter("missed_rounds_total", "Rounds without this peer's payload.", count(s.missed_total));
    page.counter("payload_bytes_total", "Payloads that this process published.", count(s.payload_bytes));
    page.counter("sent_bytes_total", "On the wire.", count(s.node.bytes_sent));
    page.counter("received_bytes_total", "On the wire.", count(s.node.bytes_received));
    page.counter("connections_total", "Connections made or accepted.", count(s.node.connections));
    page.counter("refused_connections_total", "Connections closed for what they sent or did not send.",
                 count(s.node.refused));
    page.gauge("term", "How often the run has chosen who orders its rounds.", count(s.node.term));
    page.gauge("members", "Members of the run's view.", static_cast<double>(s.node.members));
    page.gauge("log_first_round", "The first round in the run log here.", count(s.node.log_begin));
    page.gauge("log_bytes", "Size of the run log here.", count(s.node.log_bytes));
}

void add_peers(metrics_page& page, const run_status& s) {
    const auto each = [&](std::string_view name, std::string_view type, std::string_view help, const auto& value) {
        page.family(name, type, help);
        for (const runtime::peer_status& p : s.node.peers)
            if (const std::optional<double> found = value(p))
                page.sample(fmt::format("{{peer_id=\"{}\",name=\"{}\"}}", p.peer, label_value(p.name)), *found);
    };
    const auto cost = [&](const runtime::peer_status& p, const auto& value) -> std::optional<double> {
        if (!s.sees_arrivals) return std::nullopt;
        const arrivals::cost* found = cost_of(s, p.peer);
        return found != nullptr ? value(*found) : std::optional<double>(0.0);
    };
    using optional = std::optional<double>;
    using status = runtime::peer_status;
    each("peer_present", "gauge", "1 while it is connected and admitted.",
         [](const status& p) -> optional { return p.present ? 1 : 0; });
    each("peer_last_round", "gauge", "The newest round it contributed to.",
         [](const status& p) -> optional { return count(p.last_round); });
    // Of a witness, and of one that left, it would grow without end.
    each("peer_staleness_rounds", "gauge", "Rounds since then, of a member that contributes.",
         [&](const status& p) { return p.contributes ? optional(count(staleness(s, p))) : std::nullopt; });
    each("peer_sent_bytes_total", "counter", "Sent to it by this process.",
         [](const status& p) -> optional { return count(p.bytes_sent); });
    each("peer_received_bytes_total", "counter", "Received from it by this process.",
         [](const status& p) -> optional { return count(p.bytes_received); });
    each("peer_tokens_total", "counter", "Tokens behind its contributions since this process entered.",
         [&](const status& p) -> optional {
             const auto found = s.tokens_of.find(p.peer);
             return count(found != s.tokens_of.end() ? found->second : 0);
         });
    each("peer_round_trip_seconds", "gauge", "Of the connection to it, smoothed.",
         [](const status& p) { return p.round_trip_seconds; });
    if (!s.sees_arrivals) return;
    each("peer_awaited", "gauge", "1 while this peer waits for its payload.",
         [&](const status& p) -> optional { return is_awaited(s, p.peer) ? 1 : 0; });
    each("peer_waited_rounds_total", "counter", "Rounds in which its payload came last, or not at all.",
         [&](const status& p) { return cost(p, [](const auto& c) -> optional { return count(c.waited_rounds); }); });
    each("peer_waited_seconds_total", "counter", "How long the last payload came after the one before it.",
         [&](const status& p) { return cost(p, [](const auto& c) -> optional { return c.waited_seconds; }); });
}

}  // namespace

std::vector<roster_entry> run_status::roster() const {
    std::vector<roster_entry> all;
    for (const runtime::peer_status& p : node.peers) all.push_back({p.peer, p.present, p.member});
    return all;
}

ordered_json to_json(const run_status& s) {
    ordered_json out;
    out["version"] = THINWIRE_VERSION_STRING;
    out["run"] = s.run;
    out["peer"] = s.peer;
    out["peer_id"] = id_text(s.self);
    out["role"] = s.founder ? "founder" : "joiner";
    out["phase"] = s.phase;
    out["phase_seconds"] = s.phase_seconds;
    out["uptime_seconds"] = s.uptime_seconds;
    out["round"] = s.round;
    out["rounds"] = s.rounds;
    out["rounds_per_second"] = s.rounds_per_second;
    out["rounds_per_second_minute"] = s.rounds_per_second_minute;
    out["loss"] = finite(s.loss);
    out["validation_loss"] = finite(s.validation_loss);
    out["validation_round"] = s.validation_loss ? ordered_json(s.validation_round) : ordered_json(nullptr);
    out["sample"] = s.sample;
    out["learning_rate"] = finite(s.learning_rate);
    out["k"] = s.k;
    out["parameters"] = s.parameters;
    out["tokens"] = s.tokens;
    out["round_tokens"] = s.round_tokens;
    out["run_tokens"] = s.run_tokens;
    out["tokens_per_second"] = finite(s.tokens_per_second);
    out["compute_seconds"] = s.compute_seconds;
    out["wait_seconds"] = s.wait_seconds;
    out["energy_joules"] = finite(s.energy_joules);
    out["momentum_energy"] = finite(s.momentum_energy);
    out["payload_bytes"] = s.payload_bytes;
    out["bytes_sent"] = s.node.bytes_sent;
    out["bytes_received"] = s.node.bytes_received;
    out["contributors"] = s.contributors;
    out["own_included"] = s.own_included;
    out["agreeing"] = s.agreeing;
    out["disagreeing"] = s.disagreeing;
    out["contributions_total"] = s.contributions_total;
    out["disagreeing_total"] = s.disagreeing_total;
    out["rejected_total"] = s.rejected_total;
    out["missed_total"] = s.missed_total;
    out["replica"] = s.replica.digest.empty() ? ordered_json(nullptr) : digest_json(s.replica);
    out["shares"] = ordered_json::array();
    for (const digest_at& one : s.shares) out["shares"].push_back(digest_json(one));
    out["term"] = s.node.term;
    out["sequencer"] = s.node.sequencer == 0 ? ordered_json(nullptr) : ordered_json(id_text(s.node.sequencer));
    out["members"] = s.node.members;
    out["paused"] = s.node.paused;
    out["paused_seconds"] = s.node.paused_seconds;
    out["banned"] = ordered_json::array();
    for (const peer_id peer : s.node.banned) out["banned"].push_back(id_text(peer));
    out["log_first_round"] = s.node.log_begin;
    out["log_bytes"] = s.node.log_bytes;
    out["connections"] = s.node.connections;
    out["refused"] = s.node.refused;
    out["last_refusal"] = s.node.last_refusal;
    out["peers"] = ordered_json::array();
    for (const runtime::peer_status& p : s.node.peers) out["peers"].push_back(peer_json(s, p));
    return out;
}

std::string to_metrics(const run_status& status) {
    metrics_page page;
    add_run(page, status);
    add_rounds(page, status);
    add_peers(page, status);
    return page.take();
}

}  // namespace thinwire::launcher
