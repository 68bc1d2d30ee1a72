#include <thinwire/core/error.hpp>
#include <thinwire/runtime/invite.hpp>
#include <thinwire/runtime/node.hpp>
#include <thinwire/version.hpp>

#include "commands.hpp"
#include "control.hpp"
#include "event_log.hpp"
#include "stop_signal.hpp"
#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace thinwire::launcher {
namespace {

constexpr const char* exit_codes = R"(Exit codes:
  0 done, or stopped by Ctrl-C with everything saved    5 another version, run, configuration or key: do not retry
  1 failed for another reason                           6 a file is unreadable, damaged, or cannot be written
  2 command line or configuration                       7 this replica differs from the majority's
  3 training or validation text                         8 all others were lost
  4 network: port in use, nobody reached                9 loss or gradient is not finite
  130 a second Ctrl-C)";

constexpr const char* keys_note = R"(
Every configuration key can be given as --section.key VALUE; it then overrides the file. `thinwire keys` lists them.
)";

constexpr const char* main_help = R"(
Begin with:
  thinwire train --data book.txt --out run --peers 4 --rounds 600     four peers on this machine
  thinwire generate run --prompt "In the beginning"                   text from what they learned

Or run each peer where it belongs:
  thinwire start run.toml --dir run --peer.address 10.0.0.7:4400      found a run
  thinwire invite run                                                 print a line that lets one machine in
  thinwire join LINE --dir peer --data book.txt                       enter it from there
  thinwire watch run                                                  see how a peer with --status does
  thinwire dashboard run                                              the same as a web page, live or afterwards

`thinwire COMMAND --help` says more about each.

)";

/// Everything that the options of all subcommands are read into.
struct arguments {
    std::string log_level = "info";
    bool log_json = false;
    std::string config, address, name, file, folder, key;
    invite_options invite;
    std::int64_t rounds = 0;
    train_options train;
    generate_options generate;
    evaluate_options evaluate;
    log_options log;
    watch_options watch;
    dashboard_options dashboard;
    ctl_options ctl;
};

/// CLI11 takes "-1" for the largest number.
const CLI::Validator whole_number(
    [](const std::string& text) {
        std::uint64_t number = 0;
        const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
        return problem == std::errc{} && end == text.data() + text.size()
                   ? std::string()
                   : "'" + text + "' is no whole number from 0 to 18446744073709551615";
    },
    "");

const CLI::Validator some_text(
    [](const std::string& text) { return std::string(text.empty() ? "an empty text, expected a value or none" : ""); },
    "");

/// Options that are other words for keys.
void add_key_option(CLI::App& command, std::vector<std::pair<std::string, std::string>>& overrides, const char* option,
                    const char* key, const char* help) {
    command.add_option_function<std::string>(
        option, [&overrides, key](const std::string& value) { overrides.emplace_back(key, value); }, help);
}

/// What lets others see how a peer does.
void add_watching(CLI::App& command, std::vector<std::pair<std::string, std::string>>& overrides) {
    add_key_option(command, overrides, "--status", "peer.status",
                   "host:port for `thinwire watch`, /status and /metrics; port 0: any");
    add_key_option(command, overrides, "--dashboard", "peer.dashboard",
                   "host:port of a page that shows the run to people; port 0: any");
    add_key_option(command, overrides, "--tensorboard", "peer.tensorboard", "folder for event files of TensorBoard");
    add_key_option(command, overrides, "--log-file", "peer.log_file", "events as JSON lines, a file in DIR");
}

configuration settings_of(const std::string& file, const std::vector<std::pair<std::string, std::string>>& overrides) {
    configuration settings;
    if (!file.empty()) read_toml_file(settings, file);
    for (const auto& [key, value] : overrides) set_key(settings, key, value);
    return settings;
}

using overrides_list = std::vector<std::pair<std::string, std::string>>;
using action = std::function<exit_code()>;

void add_train(CLI::App& app, arguments& a, overrides_list& overrides, action& chosen) {
    CLI::App* command = app.add_subcommand("train", "Train with several peers on this machine");
    add_key_option(*command, overrides, "--data", "data.train", "training text, a file");
    add_key_option(*command, overrides, "--valid", "data.valid", "validation text; default: the end of --data");
    add_key_option(*command, overrides, "--rounds", "run.rounds", "length of the run (default 600)");
    add_key_option(*command, overrides, "--out", "peer.directory", "folder for everything that is written");
    add_watching(*command, overrides);
    command->add_option("--peers", a.train.peers, "peers, each a process")
        ->capture_default_str()
        ->check(CLI::Range(1, 256));
    command->add_option("--config", a.config, "TOML file to begin with");
    command->add_option("--prompt", a.train.prompt, "beginning of the sample at the end")->capture_default_str();
    command->add_flag("--kill-and-return", a.train.kill_and_return,
                      "SIGKILL for one peer after a third of the rounds; it returns after half of them");
    command->add_flag("--solo,!--no-solo", a.train.solo, "then train one peer alone, for comparison (default)");
    command->footer(std::string(R"(
Starts the peers as processes that meet over TCP on 127.0.0.1, and shows them: a live table on a terminal, otherwise a
line every few seconds. The same command on the same folder goes on where a run was stopped.

  thinwire train --data book.txt --out run
  thinwire train --data book.txt --out run --peers 4 --rounds 600 --kill-and-return
  thinwire train --data book.txt --out run --no-solo --model.hidden_size 256 --optimizer.k 16

DIR then holds report.json, metrics.jsonl, replica.snapshot, log, run.toml, model.safetensors and config.json; the
other peers' folders are DIR/peers/1, 2, ... and DIR/solo.
)") + keys_note + "\n" +
                    exit_codes);
    command->callback([&] {
        chosen = [&] {
            watch_stop_signals();
            configuration settings = settings_of(a.config, overrides);
            if (settings.peer.directory.empty())
                throw launcher_error(exit_code::usage, "train: --out is not set: expected a folder");
            return train(settings, a.train);
        };
    });
}

void add_start(CLI::App& app, arguments& a, overrides_list& overrides, action& chosen) {
    CLI::App* command = app.add_subcommand("start", "Found a run, or go on with the one in its folder");
    command->add_option("config", a.config, "TOML file (`thinwire keys` lists what it can say)")->required();
    add_key_option(*command, overrides, "--dir", "peer.directory", "folder for everything that is written");
    add_key_option(*command, overrides, "--data", "data.train", "training text, a file");
    add_watching(*command, overrides);
    command->footer(std::string(R"(
Listens on peer.address, prints it, and trains as a peer itself. Others enter with the lines that `thinwire invite`
prints. Ctrl-C finishes the round, saves, and leaves the run to the others; the same command then goes on from there.

  thinwire start run.toml --dir run
  thinwire start run.toml --dir run --peer.address 0.0.0.0:4400 --run.min_peers 4
)") + keys_note + "\n" +
                    exit_codes);
    command->callback([&] {
        chosen = [&] {
            watch_stop_signals();
            return start(settings_of(a.config, overrides));
        };
    });
}

/// Until the line is there, a signal ends the program at once.
exit_code enter(const configuration& settings, const std::string& argument) {
    const std::string where = place_to_join(argument);
    watch_stop_signals();
    return join(settings, where);
}

void add_join(CLI::App& app, arguments& a, overrides_list& overrides, action& chosen) {
    CLI::App* command = app.add_subcommand("join", "Enter a run, or return to it");
    command
        ->add_option(
            "where", a.address,
            "the line of `thinwire invite`, or host:port of any peer of the run; - reads it from the standard input")
        ->required();
    command->add_option("--config", a.config, "TOML file; what it says of the run must be what the run says");
    add_key_option(*command, overrides, "--dir", "peer.directory", "folder for everything that is written");
    add_key_option(*command, overrides, "--data", "data.train", "the run's training text, a file");
    add_key_option(*command, overrides, "--name", "peer.name", "what tables call this peer");
    add_watching(*command, overrides);
    command->footer(std::string(R"(
With a line that `thinwire invite` printed, a new machine makes its key, is entered on the run's list, gets
configuration, weights and state, checks that --data is the run's text, and contributes from the next round on. A peer
that was away, killed or not, runs the same command, or gives the address of any peer instead of the line: it replays
what it missed and keeps its momentum.

  thinwire join thinwire1_ATEyNy4wLjAuMTo0NDAw... --dir peer1 --data book.txt
  thinwire join 10.0.0.7:4400 --dir peer1 --data book.txt
)") + keys_note + "\n" +
                    exit_codes);
    command->callback([&] { chosen = [&] { return enter(settings_of(a.config, overrides), a.address); }; });
}

void add_witness(CLI::App& app, arguments& a, overrides_list& overrides, action& chosen) {
    CLI::App* command =
        app.add_subcommand("witness", "Follow a run, vote and keep its log, without computing gradients");
    command->add_option("where", a.address, "as for `thinwire join`")->required();
    add_key_option(*command, overrides, "--dir", "peer.directory", "folder for everything that is written");
    add_key_option(*command, overrides, "--data", "data.train", "the run's training text, to evaluate; not needed");
    add_key_option(*command, overrides, "--name", "peer.name", "what tables call this peer");
    add_watching(*command, overrides);
    command->footer(std::string(R"(
A small machine that is always on: with it a run of two goes on when either of the two dies, and newcomers find weights
and log there. It applies every round, so its weights are those of all; with --data it also evaluates them.

  thinwire witness thinwire1_ATEyNy4wLjAuMTo0NDAw... --dir witness

)") + exit_codes);
    command->callback([&] {
        chosen = [&] {
            configuration settings = settings_of(a.config, overrides);
            settings.peer.contributes = false;
            return enter(settings, a.address);
        };
    });
}

void add_watch(CLI::App& app, arguments& a, action& chosen) {
    CLI::App* command = app.add_subcommand("watch", "Show how running peers do, and whether their weights agree");
    watch_options& w = a.watch;
    command->add_option("where", w.where, "host:port that a peer gave as --status, or its folder; up to 16")
        ->required();
    command->add_flag("--once", w.once, "show them once; exit code 4 when one does not answer");
    command->add_flag("--json", w.json, "JSON, one object a line");
    command->footer(std::string(R"(
A table that is redrawn every second on a terminal, otherwise a line for each change. Several peers are compared: digests
of the same weights after the same rounds. Ctrl-C ends it.

  thinwire start run.toml --dir run --status 127.0.0.1:9400
  thinwire watch run
  thinwire watch 127.0.0.1:9400 127.0.0.1:9401 --once --json

)") + exit_codes);
    command->callback([&] {
        chosen = [&] {
            watch_stop_signals();
            return watch(a.watch);
        };
    });
}

void add_dashboard(CLI::App& app, arguments& a, action& chosen) {
    CLI::App* command = app.add_subcommand("dashboard", "Show a run to people, live or finished, as a web page");
    dashboard_options& d = a.dashboard;
    command
        ->add_option("where", d.where,
                     "the folder of a peer, running or not; or host:port that peers gave as --status, up to 16")
        ->required()
        ->expected(1, 16);
    command->add_option("--listen", d.listen, "host:port of the page; port 0: any")->capture_default_str();
    command->add_flag("--public", d.open, "--listen may be an address that other machines reach");
    command->footer(std::string(R"(
Prints the page's address. A folder shows the whole run with a time slider and is followed while its peer trains; with
addresses the page begins with what they tell now, and the first one that answers is shown. Ctrl-C ends it.

  thinwire dashboard run
  thinwire dashboard 10.0.0.8:9400 10.0.0.9:9400 --listen 127.0.0.1:8080

)") + exit_codes);
    command->callback([&] {
        chosen = [&] {
            watch_stop_signals();
            return dashboard(a.dashboard);
        };
    });
}

void add_ctl(CLI::App& app, arguments& a, action& chosen) {
    CLI::App* command = app.add_subcommand("ctl", "Show or change a run through a peer that runs on this machine");
    command->add_option("dir", a.ctl.folder, "the peer's folder")->required();
    command
        ->add_option("command", a.ctl.command,
                     "status, pause, resume, stop, set KEY [VALUE], remove PEER, ban PEER, pardon PEER, promote PEER")
        ->required();
    command->add_option("object", a.ctl.object, "a peer's number or name, or a key");
    command->add_option("value", a.ctl.value, "set: the key's new value; none: what the run began with")
        ->check(some_text);
    command->add_flag("--json", a.ctl.json, "status: JSON");
    command->footer(std::string(R"(
The change is a commit of the run: all peers make it in the same round, and ctl returns when it is done. The user of the
peer's process and root may ask. A removed peer may come back, a banned one after pardon. stop ends the run for all,
saved. A promoted peer orders the rounds, and of an even number of peers the half with it decides. set changes one of
  )") + keys_that_can_be_set() +
                    R"(

  thinwire ctl run status
  thinwire ctl run pause
  thinwire ctl run set optimizer.learning_rate 0.002
  thinwire ctl run ban lab2

)" + exit_codes);
    command->callback([&] { chosen = [&] { return ctl(a.ctl); }; });
}

void add_invite(CLI::App& app, arguments& a, action& chosen) {
    CLI::App* command = app.add_subcommand("invite", "Print the line with which one new machine enters a run");
    command->add_option("dir", a.invite.folder, "the folder of a peer of the run")->required();
    command->add_option("--expires", a.invite.expires, "how long it may be used: 90s, 30m, 24h, 7d")
        ->capture_default_str();
    command->add_option("--address", a.invite.addresses,
                        "host:port at which the new machine reaches this peer, up to 8; default: where it listens");
    command->footer(std::string(R"(
The line holds addresses, the run, this peer's key and a secret that lets one machine in, once. Send it as you would
send a password. The peer may run or not while it is printed; `thinwire join LINE` needs it running.

  thinwire invite run
  thinwire invite run --expires 1h --address trainer.example.org:4400

)") + exit_codes);
    command->callback([&] { chosen = [&] { return print_invite(a.invite); }; });
}

void add_keys_of_peers(CLI::App& app, arguments& a, action& chosen) {
    CLI::App* show = app.add_subcommand("key", "Show a peer's key, and whose keys it lets in");
    show->add_option("dir", a.folder, "the peer's folder; made, with a key, where there is none")->required();
    show->footer(std::string("\n  thinwire key run\n\n") + exit_codes);
    show->callback([&] { chosen = [&] { return show_key(a.folder); }; });

    CLI::App* let_in = app.add_subcommand("allow", "Let a key in, without an invite");
    let_in->add_option("dir", a.folder, "the peer's folder")->required();
    let_in->add_option("key", a.key, "what `thinwire key` shows on the other machine")->required();
    let_in->add_option("--name", a.name, "what lists call it, at most 64 bytes; default: as before");
    let_in->footer(std::string(R"(
Both sides need it: a peer of the run the joiner's key, the joiner that peer's. A running peer has the run let it in.

  thinwire allow run mVpC...43 characters --name lab2

)") + exit_codes);
    let_in->callback([&] { chosen = [&] { return allow(a.folder, a.key, a.name); }; });

    CLI::App* keep_out = app.add_subcommand("revoke", "Let a key in no longer");
    keep_out->add_option("dir", a.folder, "the peer's folder")->required();
    keep_out->add_option("key", a.key, "key or name")->required();
    keep_out->footer(std::string(R"(
A running peer closes that connection within two seconds and has the run revoke the key, for all.

  thinwire revoke run lab2

)") + exit_codes);
    keep_out->callback([&] { chosen = [&] { return revoke(a.folder, a.key); }; });
}

void add_generate(CLI::App& app, arguments& a, action& chosen) {
    CLI::App* command = app.add_subcommand("generate", "Write text with a trained model");
    generate_options& g = a.generate;
    command->add_option("dir", g.model, "folder with config.json and model.safetensors")->required();
    command->add_option("--prompt", g.prompt, "what the text begins with")->required();
    command->add_option("--count", g.count, "bytes to write")->capture_default_str()->check(CLI::Range(1, 1000000));
    command->add_option("--temperature", g.temperature, "0: always the likeliest byte")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 100.0));
    command->add_option("--top-k", g.top_k, "choose among the k likeliest; 0: among all")
        ->capture_default_str()
        ->check(CLI::Range(0, 1 << 20));
    command->add_option("--seed", g.seed, "of the choices")->capture_default_str()->check(whole_number);
    command->add_option("--threads", g.threads, "0: one a processor")
        ->capture_default_str()
        ->check(CLI::Range(0, 1024));
    command->footer(std::string(R"(
  thinwire generate run --prompt "In the beginning"
  thinwire generate run --prompt "And he said" --count 500 --temperature 0.7 --top-k 40 --seed 3

)") + exit_codes);
    command->callback([&] { chosen = [&] { return generate(a.generate); }; });
}

void add_evaluate(CLI::App& app, arguments& a, action& chosen) {
    CLI::App* command = app.add_subcommand("eval", "Measure a trained model on a text");
    evaluate_options& e = a.evaluate;
    command->add_option("dir", e.model, "folder with config.json and model.safetensors")->required();
    command->add_option("--data", e.data, "text, a file")->required();
    command->add_option("--sequence-length", e.sequence_length, "bytes a row; 0: the model's longest, at most 1024")
        ->capture_default_str()
        ->check(CLI::Range(0, 1 << 20));
    command->add_option("--windows", e.windows, "rows, spread over the text; 0: all of it")
        ->capture_default_str()
        ->check(CLI::Range(0, 1 << 30));
    command->add_option("--threads", e.threads, "0: one a processor")
        ->capture_default_str()
        ->check(CLI::Range(0, 1024));
    command->add_flag("--json", e.json, "one JSON object");
    command->footer(std::string(R"(
  thinwire eval run --data other.txt
  thinwire eval run --data other.txt --windows 100 --json

)") + exit_codes);
    command->callback([&] { chosen = [&] { return evaluate(a.evaluate); }; });
}

void add_log(CLI::App& app, arguments& a, action& chosen) {
    log_options& o = a.log;
    CLI::App* command = app.add_subcommand("log", "Show or prove what a run did, or rebuild the weights of any round");
    command->require_subcommand(1);
    command->footer(std::string(R"(
  thinwire log show run --from 100 --to 110
  thinwire log verify run
  thinwire log rebuild run --round 250 --out at250

)") + exit_codes);
    const auto add = [&](const char* name, const char* help, exit_code (*run)(const log_options&)) {
        CLI::App* sub = command->add_subcommand(name, help);
        sub->add_option("dir", o.folder, "a peer's folder, or its log")->required();
        sub->callback([&, run] { chosen = [&o, run] { return run(o); }; });
        return sub;
    };
    const auto add_threads = [&](CLI::App* sub) {
        sub->add_option("--threads", o.threads, "0: one a processor")
            ->capture_default_str()
            ->check(CLI::Range(0, 1024));
    };
    CLI::App* show = add("show", "List the rounds: term, bytes, contributors, changes of the run", show_log);
    show->add_option("--from", o.from, "first round; default: the log's first")->check(whole_number);
    show->add_option("--to", o.to, "round to stop before; default: the log's end")->check(whole_number);
    show->add_flag("--json", o.json, "one JSON object a line, with the digest of every payload");
    add_threads(add("verify", "Read every byte, replay every round, compare with every payload's digest of the weights",
                    verify_log));
    CLI::App* rebuild = add("rebuild", "Write snapshot and model as they were after some rounds", rebuild_from_log);
    rebuild->add_option("--round", o.round, "how many rounds the weights hold")->required()->check(whole_number);
    rebuild->add_option("--out", o.out, "folder for replica.snapshot, model.safetensors and config.json")->required();
    add_threads(rebuild);
}

void add_inspect(CLI::App& app, arguments& a, action& chosen) {
    CLI::App* command = app.add_subcommand("inspect", "Say what a file is");
    command->add_option("file", a.file, "snapshot, payload, safetensors, or the folder of a run log")->required();
    command->footer(std::string(R"(
  thinwire inspect run/replica.snapshot
  thinwire inspect run/log
  thinwire inspect run/model.safetensors

)") + exit_codes);
    command->callback([&] { chosen = [&] { return inspect(a.file); }; });
}

/// CLI11 would only say that a command is missing.
void require_known_command(const std::vector<std::string>& words) {
    static constexpr std::array<std::string_view, 16> commands = {
        "dashboard", "train", "start",  "join",     "witness", "watch", "ctl",     "invite",
        "key",       "allow", "revoke", "generate", "eval",    "log",   "inspect", "keys"};
    if (words.empty() || words.front().starts_with('-') ||
        std::find(commands.begin(), commands.end(), words.front()) != commands.end())
        return;
    const std::string near = nearest(words.front(), commands);
    throw launcher_error(exit_code::usage,
                         "command line: unknown command '" + words.front() + "', expected " +
                             (near.empty() ? "one of those that `thinwire --help` lists" : "perhaps '" + near + "'"));
}

bool takes_keys(std::string_view command) {
    return command == "train" || command == "start" || command == "join" || command == "witness";
}

exit_code run(std::vector<std::string> words) {
    overrides_list overrides = extract_overrides(words);
    const overrides_list given_keys = overrides;
    require_known_command(words);
    const bool holds_invite = std::any_of(words.begin(), words.end(), [](const std::string& word) {
        return word.find(runtime::invite::prefix) != std::string::npos;
    });
    arguments a;
    action chosen;
    CLI::App app("thinwire trains one transformer from many places over ordinary links.", "thinwire");
    app.set_version_flag("--version", "thinwire " THINWIRE_VERSION_STRING);
    app.add_option("--log-level", a.log_level, "what goes to stderr")
        ->capture_default_str()
        ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
    app.add_flag("--log-json", a.log_json, "stderr in JSON, one event a line");
    app.require_subcommand(1);
    app.fallthrough();  // the options above also stand after a command
    add_train(app, a, overrides, chosen);
    add_start(app, a, overrides, chosen);
    add_join(app, a, overrides, chosen);
    add_witness(app, a, overrides, chosen);
    add_watch(app, a, chosen);
    add_dashboard(app, a, chosen);
    add_ctl(app, a, chosen);
    add_invite(app, a, chosen);
    add_keys_of_peers(app, a, chosen);
    add_generate(app, a, chosen);
    add_evaluate(app, a, chosen);
    add_log(app, a, chosen);
    add_inspect(app, a, chosen);
    CLI::App* list = app.add_subcommand("keys", "List every configuration key with default, meaning and range");
    list->footer("\n  thinwire keys\n  thinwire keys | grep rate");
    list->callback([&] {
        chosen = [] {
            std::fputs(describe_keys().c_str(), stdout);
            return exit_code::ok;
        };
    });
    app.footer(std::string(main_help) + exit_codes);  // last: the commands would take it over as theirs
    std::reverse(words.begin(), words.end());
    try {
        app.parse(words);
    } catch (const CLI::ParseError& problem) {
        if (problem.get_exit_code() == 0) return static_cast<exit_code>(app.exit(problem));
        // It names the words that it did not expect, which may be parts of an invite.
        const std::string why =
            holds_invite ? "an option that is not known, or an invite that blanks cut in pieces" : problem.what();
        throw launcher_error(exit_code::usage, "command line: " + why + ", expected what `thinwire --help` says");
    }
    const std::string command = app.get_subcommands().front()->get_name();
    if (!given_keys.empty() && !takes_keys(command))
        throw launcher_error(exit_code::usage,
                             "command line: --" + given_keys.front().first + ": `thinwire " + command +
                                 "` takes no configuration keys, expected those of `thinwire " + command + " --help`");
    configure_log(a.log_level, a.log_json);
    return chosen();
}

exit_code code_of(const runtime::node_error& problem) {
    using runtime::node_errc;
    switch (problem.code()) {
        case node_errc::port_in_use:
        case node_errc::unreachable: return exit_code::network;
        case node_errc::version_mismatch:
        case node_errc::run_mismatch:
        case node_errc::refused:
        case node_errc::untrusted:
        case node_errc::protocol: return exit_code::mismatch;
        case node_errc::peers_lost:
        case node_errc::behind:
        case node_errc::run_stopped: return exit_code::run_lost;
        case node_errc::replica_diverged: return exit_code::diverged;
        case node_errc::storage: return exit_code::storage;
    }
    return exit_code::failed;
}

exit_code complain(const char* line, exit_code code) {
    log_event(log_level::error, "error", line, {{"exit_code", static_cast<int>(code)}});
    return code;
}

/// What was printed may still lie in a buffer, which a full disk or a closed pipe does not take.
void require_printed() {
    errno = 0;
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
    const std::string why = errno != 0 ? std::strerror(errno) : "an earlier write failed";
    throw launcher_error(exit_code::storage,
                         "cannot write the standard output: " + why + ": expected a place that takes all of it");
}

exit_code guarded(const std::function<exit_code()>& body) {
    try {
        const exit_code code = body();
        require_printed();
        return code;
    } catch (const launcher_error& problem) {
        return complain(problem.what(), problem.code());
    } catch (const runtime::node_error& problem) {
        return complain(problem.what(), code_of(problem));
    } catch (const io_error& problem) {
        return complain(problem.what(), exit_code::storage);
    } catch (const std::filesystem::filesystem_error& problem) {
        const std::string line = "cannot look at '" + problem.path1().string() + "': " + problem.code().message();
        return complain(line.c_str(), exit_code::storage);
    } catch (const std::system_error& problem) {
        // What fmt::print throws does not say which file.
        if (std::ferror(stdout) == 0) return complain(problem.what(), exit_code::failed);
        const std::string line =
            "cannot write the standard output: " + problem.code().message() + ": expected a place that takes all of it";
        return complain(line.c_str(), exit_code::storage);
    } catch (const std::bad_alloc&) {
        return complain("not enough memory: expected room for the model of [model] and run.batch_size",
                        exit_code::failed);
    } catch (const std::exception& problem) {
        return complain(problem.what(), exit_code::failed);
    }
}

}  // namespace
}  // namespace thinwire::launcher

int main(int argc, char** argv) {
    using namespace thinwire::launcher;
    set_up_log();
    (void)std::signal(SIGXFSZ, SIG_IGN);  // an error of the write that met it, as a full disk is
    const std::vector<std::string> words(argv + 1, argv + argc);
    return static_cast<int>(guarded([&] { return run(words); }));
}
