#include "control.hpp"

#include <thinwire/comm/message.hpp>
#include <thinwire/core/error.hpp>

#include "about.hpp"
#include "commands.hpp"
#include "configuration.hpp"
#include "control_socket.hpp"
#include "event_log.hpp"
#include "exit_code.hpp"
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace thinwire::launcher {
namespace {

using kind = control_change::kind;
using clock = std::chrono::steady_clock;

constexpr std::chrono::seconds longest_disorder{10};  ///< without a majority

enum class object : std::uint8_t { none, key, peer };
struct command {
    std::string_view name;
    kind what;
    object of;
};
constexpr std::array commands = {
    command{"pause", kind::pause, object::none},   command{"resume", kind::resume, object::none},
    command{"stop", kind::stop, object::none},     command{"set", kind::set, object::key},
    command{"remove", kind::remove, object::peer}, command{"ban", kind::ban, object::peer},
    command{"pardon", kind::pardon, object::peer}, command{"promote", kind::promote, object::peer}};
constexpr std::array<std::string_view, 6> settable = {"optimizer.learning_rate", "optimizer.k",  "run.batch_size",
                                                      "run.micro_batches",       "run.round_ms", "run.round_tokens"};

const command* command_named(std::string_view name) {
    for (const command& one : commands)
        if (one.name == name) return &one;
    return nullptr;
}

/// A peer's number; 0: it is none.
peer_id peer_number(const std::string& text) {
    peer_id id = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), id);
    return problem == std::errc{} && end == text.data() + text.size() ? id : 0;
}

/// A number as every status writes it, "007" too; a name as it is.
std::string as_peer(const std::string& text) {
    const peer_id number = peer_number(text);
    return number != 0 ? std::to_string(number) : text;
}

/// How long a change may take while somebody orders the rounds: one waits for a payload for so long and then for the
/// others', as far as this peer's deadlines are those of who orders them.
std::chrono::milliseconds longest_change(const configuration& settings, const runtime::node_status& s) {
    configuration now = settings;
    try {
        now = tuned(settings, s.settings);
    } catch (const launcher_error&) {  // which this peer did not take over either
    }
    constexpr std::int64_t longest_planned = 3'600'000;
    const std::int64_t by_time = now.run.round_tokens > 0 ? longest_planned : now.run.round_ms;
    const std::int64_t round = std::max({now.peer.max_deadline_ms, by_time, now.run.min_round_ms});
    return std::chrono::milliseconds(2 * round) + longest_disorder;
}

nlohmann::json status_of(const runtime::node& node, const configuration& settings) {
    const runtime::node_status s = node.status();
    nlohmann::json out = {
        {"self", std::to_string(node.self())},
        {"round", s.round},
        {"term", s.term},
        {"sequencer", s.sequencer == 0 ? nlohmann::json() : nlohmann::json(std::to_string(s.sequencer))},
        {"members", s.members},
        {"ordered", s.ordered},
        {"ended", s.ended},
        {"longest_change_ms", longest_change(settings, s).count()},
        {"paused", s.paused},
        {"settings", s.settings},
        {"banned", nlohmann::json::array()},
        {"peers", nlohmann::json::array()}};
    for (const peer_id peer : s.banned) out["banned"].push_back(std::to_string(peer));
    for (const runtime::peer_status& p : s.peers)
        out["peers"].push_back({{"id", std::to_string(p.peer)},
                                {"name", p.name},
                                {"member", p.member},
                                {"present", p.present},
                                {"last_round", p.last_round}});
    return out;
}

nlohmann::json ask(const directory& where, const nlohmann::json& request) {
    nlohmann::json answer = ask_peer(where, request);
    if (answer.contains("error")) throw launcher_error(exit_code::usage, "ctl: " + answer["error"].get<std::string>());
    return answer;
}

nlohmann::json status_in(const directory& where) {
    return ask(where, {{"command", "status"}})["status"];
}

bool is_banned(const nlohmann::json& status, const std::string& peer) {
    const nlohmann::json banned = status.value("banned", nlohmann::json::array());
    return std::find(banned.begin(), banned.end(), peer) != banned.end();
}

/// The number of the peer that is meant, where it can be what the command asks for.
std::string resolve(const nlohmann::json& status, const command& what, const std::string& given) {
    const std::vector<const nlohmann::json*> meant = peers_meant(status, given);
    const std::string peer = as_peer(given);
    const bool by_number = meant.empty() && peer_number(peer) != 0;
    if (by_number && (what.what == kind::ban || what.what == kind::pardon)) {
        if (!is_banned(status, peer))
            log_event(log_level::info, "ctl",
                      "no peer that was here has the number " + peer + ": it counts when one comes");
        return peer;
    }
    const auto refuse = [](const std::string& why) { throw launcher_error(exit_code::usage, "ctl: " + why); };
    if (by_number)
        refuse(std::string(what.name) + " " + peer + ": expected a peer that `thinwire ctl DIR status` shows");
    if (meant.size() != 1)
        refuse(std::to_string(meant.size()) + " peers are meant by '" + peer +
               "', expected one: give the number that `thinwire ctl DIR status` shows");
    const nlohmann::json& one = *meant.front();
    if (what.what == kind::promote && !(one["member"].get<bool>() && one["present"].get<bool>()))
        refuse("promote " + peer +
               ": expected a member of the run that the peer in DIR is connected with, this one is " +
               (one["present"].get<bool>() ? "no member" : "away"));
    return one["id"].get<std::string>();
}

/// Whether the run, as a peer of it shows it, is as was asked for.
bool done(const nlohmann::json& status, const command& what, const std::string& of, const std::string& value) {
    if (what.what == kind::pause) return status["paused"].get<bool>();
    if (what.what == kind::resume) return !status["paused"].get<bool>();
    if (what.what == kind::pardon) return !is_banned(status, of);
    if (what.what == kind::ban && !is_banned(status, of)) return false;
    if (what.what == kind::set) return status["settings"].value(of, "") == value;
    if (what.what == kind::promote) return status["sequencer"] == of;
    for (const auto& p : status["peers"])
        if (p["id"] == of) return !p["member"].get<bool>();
    return true;
}

/// What a peer says of itself. With `ends`, null: it does not answer now, and nothing: it is gone.
std::optional<nlohmann::json> look(const directory& where, bool ends) {
    try {
        return std::optional<nlohmann::json>(std::in_place, status_in(where));
    } catch (const launcher_error& problem) {
        if (!ends) throw;
        if (problem.code() == exit_code::network) return std::nullopt;
        return std::optional<nlohmann::json>(std::in_place);
    }
}

/// Waits until the peer in a folder shows what was asked for; with `ends`, until it is gone.
void await(const directory& where, const command& what, const std::string& of, const std::string& value, bool ends) {
    const auto give_up = [&](const std::string& why) {
        throw launcher_error(exit_code::failed, fmt::format("ctl: {} was asked for and is not done{}", what.name, why));
    };
    const auto begin = clock::now();
    auto orderly = begin;  // when somebody ordered the rounds, or the peer was seen to end
    while (const auto status = look(where, ends)) {
        if (!status->is_null()) {
            const bool ended = (*status)["ended"].get<bool>();
            if (!ends && done(*status, what, of, value)) return;
            if (!ends && ended) give_up(": the peer in '" + where.root.string() + "' has ended");
            if (ended || (*status)["ordered"].get<bool>()) orderly = clock::now();
            const std::chrono::milliseconds longest((*status)["longest_change_ms"].get<std::int64_t>());
            if (clock::now() > begin + longest)
                give_up(fmt::format(" after {} s: another change may have taken its place", longest.count() / 1000));
        }
        if (clock::now() > orderly + longest_disorder)
            give_up(": nobody has ordered the rounds for " + std::to_string(longest_disorder.count()) +
                    " s; it may still be, with the next round that a majority of the members closes");
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
}

std::string shown_name(const nlohmann::json& peer) {
    return clean_text(peer["name"].get_ref<const std::string&>(), wire_limits::max_name);
}

void print_status(const nlohmann::json& s) {
    fmt::print("round      {}{}\nterm       {}\nsequencer  {}\nmembers    {}\n", s["round"].get<std::uint64_t>(),
               s["paused"].get<bool>() ? ", paused" : "", s["term"].get<std::uint64_t>(),
               s["sequencer"].is_null() ? "not known" : s["sequencer"].get<std::string>(),
               s["members"].get<std::uint64_t>());
    for (const auto& [key, value] : s["settings"].items())
        fmt::print("set        {} = {}\n", printable(key), printable(value.get<std::string>()));
    for (const auto& p : s["peers"])
        fmt::print("peer       {:>20} {:<10} {}{}{}{}\n", p["id"].get<std::string>(),
                   p["present"].get<bool>() ? "present" : "away", p["member"].get<bool>() ? "" : "not a member, ",
                   p["id"] == s["self"] ? "this peer, " : "", p["id"] == s["sequencer"] ? "sequencer, " : "",
                   shown_name(p));
    for (const auto& peer : s.value("banned", nlohmann::json::array())) {
        const auto meant = peers_meant(s, peer.get<std::string>());
        fmt::print("banned     {:>20} {:<10} {}\n", peer.get<std::string>(), "",
                   meant.empty() ? "" : shown_name(*meant.front()));
    }
    std::fflush(stdout);
}

}  // namespace

bool can_be_set(std::string_view key) noexcept {
    return std::find(settable.begin(), settable.end(), key) != settable.end();
}

std::string keys_that_can_be_set() {
    return fmt::format("{}", fmt::join(settable, ", "));
}

configuration tuned(const configuration& settings, const std::map<std::string, std::string>& values) {
    configuration next = settings;
    for (const auto& [key, value] : values) {
        if (!can_be_set(key))
            throw launcher_error(exit_code::usage,
                                 "set '" + printable(key) + "': expected one of " + keys_that_can_be_set());
        set_key(next, key, value);
        if (key == "optimizer.learning_rate" && next.optimizer.learning_rate == 0.0)
            throw launcher_error(exit_code::usage,
                                 "set optimizer.learning_rate " + value +
                                     ": expected more than 0, or no value for what the run began with");
    }
    const std::int64_t most = 16 * settings.run.batch_size;
    if (next.run.batch_size > most)
        throw launcher_error(exit_code::usage, "set run.batch_size " + std::to_string(next.run.batch_size) +
                                                   ": expected at most " + std::to_string(most) +
                                                   ", 16 times what the run began with");
    if (next.optimizer.k > settings.optimizer.k)
        throw launcher_error(exit_code::usage, "set optimizer.k " + std::to_string(next.optimizer.k) +
                                                   ": expected at most " + std::to_string(settings.optimizer.k) +
                                                   ", what the run began with");
    if (values.contains("optimizer.k") && settings.optimizer.kind != "demo")
        throw launcher_error(
            exit_code::usage,
            "set optimizer.k: expected a run with optimizer.kind = demo, this one has " + settings.optimizer.kind);
    check(next);
    return next;
}

std::vector<const nlohmann::json*> peers_meant(const nlohmann::json& status, const std::string& peer) {
    const std::string wanted = as_peer(peer);
    for (const char* by : {"id", "name"}) {
        std::vector<const nlohmann::json*> meant;
        for (const auto& p : status["peers"])
            if (p[by] == wanted) meant.push_back(&p);
        if (!meant.empty() || peer_number(peer) != 0) return meant;
    }
    return {};
}

nlohmann::json control(runtime::node& node, const configuration& settings, const nlohmann::json& request) {
    const std::string name = request.value("command", "");
    if (name == "status") return {{"status", status_of(node, settings)}};
    const command* what = command_named(name);
    if (what == nullptr) throw value_error("command '" + printable(name) + "' is not known");
    control_change change{what->what, 0, "", ""};
    if (what->of == object::key) {
        change.key = request.value("key", "");
        change.value = request.value("value", "");
        std::map<std::string, std::string> values = node.status().settings;
        if (change.value.empty())
            values.erase(change.key);
        else
            values[change.key] = change.value;
        if (!can_be_set(change.key)) values[change.key] = change.value;
        static_cast<void>(tuned(settings, values));
    } else if (what->of == object::peer) {
        change.peer = peer_number(request.value("peer", ""));
        if (change.peer == 0) throw value_error(name + " needs the number of a peer");
        const auto peers = node.status().peers;
        const bool shows_out = change.what == control_change::kind::remove || change.what == control_change::kind::ban;
        if (shows_out &&
            std::none_of(peers.begin(), peers.end(), [&](const auto& p) { return p.member && p.peer != change.peer; }))
            throw value_error(name + " of peer " + std::to_string(change.peer) +
                              ": it is the only member, expected one that others can go on without");
    }
    node.request(change);
    return nlohmann::json::object();
}

exit_code ctl(const ctl_options& options) {
    const directory where{options.folder};
    if (options.command == "status") {
        if (!options.object.empty() || !options.value.empty())
            throw launcher_error(exit_code::usage, "ctl: status takes nothing more");
        const nlohmann::json status = status_in(where);
        if (options.json)
            fmt::print("{}\n", status.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
        else
            print_status(status);
        return exit_code::ok;
    }
    const command* what = command_named(options.command);
    if (what == nullptr)
        throw launcher_error(exit_code::usage, "ctl: '" + options.command +
                                                   "': expected status, pause, resume, stop, set, promote, remove (a "
                                                   "peer, which may come back), ban (for good) or pardon");
    if (options.json)
        throw launcher_error(exit_code::usage, "ctl: " + options.command + " prints nothing: --json is for status");
    const bool of_peer = what->of == object::peer;
    if ((what->of == object::none) != options.object.empty())
        throw launcher_error(exit_code::usage,
                             "ctl: " + options.command +
                                 (of_peer                   ? " needs a peer: its number or name"
                                  : what->of == object::key ? " needs a key: " + keys_that_can_be_set()
                                                            : " takes nothing more"));
    if (what->of != object::key && !options.value.empty())
        throw launcher_error(exit_code::usage, "ctl: " + options.command + " takes no value");
    std::string of = options.object;
    bool ends = what->what == kind::stop;
    if (of_peer) {
        const nlohmann::json status = status_in(where);
        of = resolve(status, *what, options.object);
        ends = status["self"] == of && (what->what == kind::remove || what->what == kind::ban);
    }
    static_cast<void>(
        ask(where, {{"command", options.command}, {of_peer ? "peer" : "key", of}, {"value", options.value}}));
    await(where, *what, of, options.value, ends);
    if (ends && of_peer)
        log_event(log_level::info, "ctl",
                  "the peer in '" + where.root.string() + "' was meant: it has ended, and the others go on");
    return exit_code::ok;
}

}  // namespace thinwire::launcher
