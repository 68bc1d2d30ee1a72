#include "watch_view.hpp"

#include "progress.hpp"
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <utility>

namespace thinwire::launcher {
namespace {

using nlohmann::json;

constexpr std::size_t max_bytes = std::size_t{4} << 20U;
constexpr int max_depth = 8;
constexpr std::size_t max_items = 4096;
constexpr std::size_t max_text = 80;

/// Fields of a foreign object; what is missing or of another type is not told.
class fields {
 public:
    explicit fields(const json& object) : object_(object) {}

    void take(const char* name, std::string& to) const {
        if (const json* found = find(name); found != nullptr && found->is_string())
            to = terminal_text(found->get_ref<const std::string&>(), max_text);
    }
    void take(const char* name, bool& to) const {
        if (const json* found = find(name); found != nullptr && found->is_boolean()) to = found->get<bool>();
    }
    void take(const char* name, std::uint64_t& to) const {
        if (const json* found = find(name); found != nullptr && found->is_number_unsigned())
            to = found->get<std::uint64_t>();
    }
    void take(const char* name, double& to) const {
        if (const json* found = find(name); found != nullptr && found->is_number())
            if (const double value = found->get<double>(); std::isfinite(value)) to = value;
    }
    template <class T>
    void take(const char* name, std::optional<T>& to) const {
        const json* found = find(name);
        if (found == nullptr || found->is_null()) return;
        T value{};
        if constexpr (std::is_same_v<T, bool>) {
            if (!found->is_boolean()) return;
        } else if (std::is_integral_v<T> ? !found->is_number_unsigned() : !found->is_number()) {
            return;
        }
        take(name, value);
        to = value;
    }
    /// The objects of an array.
    template <class Use>
    void each(const char* name, const Use& use) const {
        const json* found = find(name);
        if (found == nullptr || !found->is_array()) return;
        for (std::size_t i = 0; i < std::min(found->size(), max_items); ++i)
            if ((*found)[i].is_object()) use(fields((*found)[i]));
    }
    [[nodiscard]] const json* find(const char* name) const {
        const auto found = object_.find(name);
        return found != object_.end() ? &*found : nullptr;
    }

 private:
    const json& object_;
};

seen_peer read_peer(const fields& from) {
    seen_peer p;
    from.take("name", p.name);
    if (p.name.empty()) from.take("id", p.name);
    from.take("self", p.self);
    from.take("present", p.present);
    from.take("contributed_last", p.contributed_last);
    from.take("last_round", p.last_round);
    from.take("staleness_rounds", p.staleness);
    from.take("bytes_sent", p.bytes_sent);
    from.take("bytes_received", p.bytes_received);
    from.take("awaited", p.awaited);
    from.take("waited_for_last", p.waited_for_last);
    from.take("arrival_seconds", p.arrival_seconds);
    from.take("waited_rounds", p.waited_rounds);
    from.take("waited_seconds", p.waited_seconds);
    return p;
}

std::pair<std::uint64_t, std::string> read_digest(const fields& from) {
    std::pair<std::uint64_t, std::string> one;
    from.take("round", one.first);
    from.take("digest", one.second);
    return one;
}

void read_numbers(const fields& from, seen_status& s) {
    from.take("round", s.round);
    from.take("rounds", s.rounds);
    from.take("bytes_sent", s.bytes_sent);
    from.take("bytes_received", s.bytes_received);
    from.take("k", s.k);
    from.take("validation_round", s.validation_round);
    from.take("contributors", s.contributors);
    from.take("agreeing", s.agreeing);
    from.take("disagreeing", s.disagreeing);
    from.take("disagreeing_total", s.disagreeing_total);
    from.take("log_bytes", s.log_bytes);
    from.take("refused", s.refused);
    from.take("phase_seconds", s.phase_seconds);
    from.take("rounds_per_second_minute", s.rounds_per_second);
    from.take("tokens_per_second", s.tokens_per_second);
    from.take("learning_rate", s.learning_rate);
    from.take("compute_seconds", s.compute_seconds);
    from.take("wait_seconds", s.wait_seconds);
    from.take("loss", s.loss);
    from.take("validation_loss", s.validation_loss);
}

std::string number_or_dash(const std::optional<double>& value, int digits) {
    return value ? fmt::format("{:.{}f}", *value, digits) : "-";
}

std::string rate(double per_second) {
    return per_second >= 10000 ? fmt::format("{:.1f}k", per_second / 1000) : fmt::format("{:.0f}", per_second);
}

std::string bytes(std::uint64_t count) {
    return human_bytes(static_cast<double>(count));
}

std::string short_digest(const std::string& digest) {
    return digest.empty() ? "-" : digest.substr(0, 12);
}

/// Part of the time that went into waiting, in percent.
std::string waiting(const seen_status& s) {
    const double all = s.compute_seconds + s.wait_seconds;
    return all > 0 ? fmt::format("{:.0f} %", 100 * s.wait_seconds / all) : "-";
}

std::string peer_state(const seen_peer& p) {
    if (p.awaited.value_or(false)) return "awaited";
    if (!p.present) return "away";  // also of one that died after it contributed
    return p.contributed_last ? "in round" : "behind";
}

std::string awaited_names(const seen_status& s) {
    std::string names;
    for (const seen_peer& p : s.peers)
        if (p.awaited.value_or(false)) names += (names.empty() ? "" : ", ") + p.name;
    return names;
}

std::string phase_text(const seen_status& s) {
    const std::string names = awaited_names(s);
    return s.phase + fmt::format(" for {:.0f} s", s.phase_seconds) +
           (names.empty() ? "" : ", until " + names + " sends");
}

std::vector<std::string> draw_one(const watched& one) {
    std::vector<std::string> lines;
    if (!one.status) return {one.address + ": " + one.problem};
    const seen_status& s = *one.status;
    lines.push_back(fmt::format("run {}  round {}/{}  {:.2f} rounds/s  {} tokens/s", s.run.substr(0, 16), s.round,
                                s.rounds, s.rounds_per_second, rate(s.tokens_per_second)));
    lines.push_back(fmt::format(
        "loss {}  validation {}{}  rate {:.3g}  k {}", number_or_dash(s.loss, 4), number_or_dash(s.validation_loss, 4),
        s.validation_loss ? fmt::format(" (round {})", s.validation_round) : "", s.learning_rate, s.k));
    lines.push_back(fmt::format("sent {}  received {}  waiting {}  log {}  refused {}", bytes(s.bytes_sent),
                                bytes(s.bytes_received), waiting(s), bytes(s.log_bytes), s.refused));
    lines.push_back(fmt::format(
        "weights: {} of {} agree with these, {} ever differed; {}", s.agreeing, s.contributors, s.disagreeing_total,
        s.replica ? short_digest(s.replica->second) + fmt::format(" after round {}", s.replica->first)
                  : "no digest yet"));
    lines.push_back(one.problem.empty() ? s.peer + " (" + s.role + ") is " + phase_text(s)
                                        : one.address + ": " + one.problem);
    lines.push_back(fmt::format("{:<14} {:<8} {:>8} {:>6} {:>8} {:>8} {:>6} {:>8}", "peer", "state", "round", "behind",
                                "sent to", "received", "came s", "waited s"));
    for (const seen_peer& p : s.peers)
        lines.push_back(fmt::format("{:<14} {:<8} {:>8} {:>6} {:>8} {:>8} {:>6} {:>8}{}",
                                    terminal_text(p.name + (p.self ? " *" : ""), 14), peer_state(p), p.last_round,
                                    p.staleness, bytes(p.bytes_sent), bytes(p.bytes_received),
                                    number_or_dash(p.arrival_seconds, 2), number_or_dash(p.waited_seconds, 1),
                                    p.waited_for_last.value_or(false) ? " <" : ""));
    return lines;
}

std::vector<std::string> draw_several(const std::vector<watched>& all) {
    std::vector<std::string> lines = {fmt::format("{:<16} {:<9} {:>9} {:>8} {:>7} {:>8} {:>8}  {}", "peer", "phase",
                                                  "round", "rounds/s", "loss", "sent", "received", "")};
    for (const watched& one : all) {
        if (!one.status) {
            lines.push_back(fmt::format("{:<16} {}", terminal_text(one.address, 24), one.problem));
            continue;
        }
        const seen_status& s = *one.status;
        lines.push_back(fmt::format("{:<16} {:<9} {:>9} {:>8.2f} {:>7} {:>8} {:>8}  {}", terminal_text(s.peer, 16),
                                    terminal_text(s.phase, 9), s.round, s.rounds_per_second, number_or_dash(s.loss, 4),
                                    bytes(s.bytes_sent), bytes(s.bytes_received),
                                    one.problem.empty() ? "" : one.problem));
    }
    return lines;
}

}  // namespace

std::string terminal_text(std::string_view text, std::size_t width) {
    std::string out;
    for (const char c : text) {
        if (out.size() == width) {
            if (width > 0) out.back() = '~';
            break;
        }
        // The continuation of a character that already has its '?'.
        if ((static_cast<unsigned char>(c) & 0xC0U) == 0x80U && !out.empty() && out.back() == '?') continue;
        out += c >= 0x20 && c < 0x7f ? c : '?';
    }
    return out;
}

result<seen_status> read_status(std::string_view text) {
    if (text.size() > max_bytes) return failure{errc::too_large, "a status of more than 4 MiB"};
    bool deep = false;
    const auto shallow = [&deep](int depth, json::parse_event_t, json&) {
        deep = deep || depth > max_depth;
        return !deep;
    };
    json document = json::parse(text, shallow, false);
    if (deep) return failure{errc::malformed, "a status of more than 8 levels"};
    if (!document.is_object()) return failure{errc::malformed, "no status: expected a JSON object"};
    seen_status s;
    {
        const fields from(document);
        const json* round = from.find("round");
        if (round == nullptr || !round->is_number_unsigned())
            return failure{errc::malformed, "no status of a peer: expected run and round"};
        from.take("run", s.run);
        if (s.run.empty()) return failure{errc::malformed, "no status of a peer: expected run and round"};
        from.take("peer", s.peer);
        from.take("role", s.role);
        from.take("phase", s.phase);
        read_numbers(from, s);
        if (const json* replica = from.find("replica"); replica != nullptr && replica->is_object())
            s.replica = read_digest(fields(*replica));
        from.each("shares", [&](const fields& one) { s.shares.insert(read_digest(one)); });
        from.each("peers", [&](const fields& one) { s.peers.push_back(read_peer(one)); });
    }
    s.document = std::move(document);
    return s;
}

std::string agreement::text() const {
    const std::string at = round ? fmt::format(" in round {}", *round) : "";
    switch (is) {
        case verdict::unknown: return "not compared: fewer than two peers told of the same round";
        case verdict::agree: return fmt::format("weights agree: {} peers{}", peers, at);
        case verdict::differ: return "WEIGHTS DIFFER" + at;
        case verdict::other_runs: break;
    }
    return "peers of different runs";
}

agreement compare(const std::vector<watched>& all) {
    agreement found;
    std::vector<const seen_status*> told;
    for (const watched& one : all)
        if (one.status) told.push_back(&*one.status);
    std::set<const seen_status*> compared;
    std::optional<std::uint64_t> differs;
    const auto look = [&](const auto* a, const auto* b, std::uint64_t round, bool same) {
        compared.insert({a, b});
        if (!same)
            differs = std::min(differs.value_or(round), round);
        else
            found.round = std::max(found.round.value_or(round), round);
    };
    for (std::size_t i = 0; i < told.size(); ++i) {
        for (std::size_t j = i + 1; j < told.size(); ++j) {
            const seen_status* a = told[i];
            const seen_status* b = told[j];
            if (a->run != b->run) return {.is = agreement::verdict::other_runs, .peers = told.size(), .round = {}};
            if (a->replica && b->replica && a->replica->first == b->replica->first)
                look(a, b, a->replica->first, a->replica->second == b->replica->second);
            // Every round looks at another part: all that both told of, not only the newest.
            for (const auto& [round, digest] : a->shares)
                if (const auto other = b->shares.find(round); other != b->shares.end())
                    look(a, b, round, digest == other->second);
        }
    }
    found.peers = compared.size();
    if (differs) return {.is = agreement::verdict::differ, .peers = found.peers, .round = differs};
    found.is = found.peers > 0 ? agreement::verdict::agree : agreement::verdict::unknown;
    return found;
}

std::vector<std::string> draw(const std::vector<watched>& all, std::size_t width, std::size_t height) {
    std::vector<std::string> lines = all.size() == 1 ? draw_one(all.front()) : draw_several(all);
    std::vector<std::string> last;
    if (all.size() > 1) last.push_back(compare(all).text());
    if (lines.size() + last.size() > height && height > last.size()) {
        const std::size_t shown = height - last.size() - 1;
        last.insert(last.begin(), fmt::format("... and {} more", lines.size() - shown));
        lines.resize(shown);
    }
    lines.insert(lines.end(), last.begin(), last.end());
    for (std::string& line : lines) line = terminal_text(line, width);
    return lines;
}

std::string change_line(const std::vector<watched>& all) {
    std::string line;
    for (const watched& one : all) {
        if (!line.empty()) line += " | ";
        if (!one.status || !one.problem.empty()) {
            line += one.address + ": " + one.problem;
            continue;
        }
        const seen_status& s = *one.status;
        std::string there;
        for (const seen_peer& p : s.peers)
            if (p.present) there += (there.empty() ? "" : ",") + p.name;
        const std::string names = awaited_names(s);
        line += fmt::format("{}: round {}/{} loss {} agree {}/{} present {}{}", s.peer, s.round, s.rounds,
                            number_or_dash(s.loss, 4), s.agreeing, s.contributors, there,
                            names.empty() ? "" : " waits for " + names);
    }
    if (all.size() > 1) line += " | " + compare(all).text();
    return terminal_text(line, 4096);
}

nlohmann::ordered_json to_json(const std::vector<watched>& all) {
    nlohmann::ordered_json out;
    out["watched"] = nlohmann::ordered_json::array();
    for (const watched& one : all) {
        nlohmann::ordered_json entry;
        entry["address"] = one.address;
        entry["status"] = one.status ? nlohmann::ordered_json(one.status->document) : nlohmann::ordered_json(nullptr);
        entry["error"] = one.problem.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(one.problem);
        out["watched"].push_back(std::move(entry));
    }
    const agreement found = compare(all);
    static constexpr const char* names[] = {"unknown", "agree", "differ", "other_runs"};
    out["agreement"] = {
        {"verdict", names[static_cast<std::size_t>(found.is)]},
        {"peers", found.peers},
        {"round", found.round ? nlohmann::ordered_json(*found.round) : nlohmann::ordered_json(nullptr)}};
    return out;
}

}  // namespace thinwire::launcher
