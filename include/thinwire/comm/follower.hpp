#ifndef THINWIRE_COMM_FOLLOWER_HPP
#define THINWIRE_COMM_FOLLOWER_HPP

#include <thinwire/comm/detail/outflow.hpp>
#include <thinwire/comm/effect.hpp>
#include <thinwire/comm/message.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

struct follower_settings {
    peer_id self = 0;
    std::uint64_t session = 0;  ///< drawn once per process
    std::string name;
    std::string where = "the founder";  ///< how messages name the other side
    digest run{};                       ///< zero: whatever runs there
    std::uint64_t next_round = 0;       ///< ignored when fresh
    bool fresh = true;

    timestamp connect_timeout = 15'000'000;
    timestamp reconnect_timeout = 30'000'000;
    timestamp attempt_timeout = 5'000'000;  ///< one try to connect
    timestamp first_pause = 100'000;        ///< between tries; doubles up to the last
    timestamp last_pause = 2'000'000;
    timestamp keepalive_interval = 5'000'000;
    timestamp keepalive_timeout = 20'000'000;
    std::size_t max_untaken = std::size_t{1} << 30U;  ///< bytes of commits that may wait for the replica
    std::size_t max_snapshot = std::size_t{16} << 30U;
};

/// The protocol of a peer that follows a sequencer: a pure state machine. Its driver hands in events, each with the
/// time, performs take_effects() in order after each of them, and calls tick() at wake_at().
class follower {
 public:
    follower(follower_settings settings, timestamp now) : settings_(std::move(settings)) {
        if (!settings_.fresh) received_ = taken_ = settings_.next_round;
        flow_ = detail::comm::outflow(received_);
        run_ = settings_.run;
        give_up_at_ = now + settings_.connect_timeout;
        dial(now);
    }

    void dialled(link_id link, timestamp now) {
        if (over() || link != link_ || phase_ != phase::dialling) return;
        phase_ = phase::greeting;
        heard_ = now;
        hello_message hello;
        hello.run = run_;
        hello.peer = settings_.self;
        hello.session = settings_.session;
        hello.name = settings_.name;
        hello.next_round = received_;
        hello.wants_snapshot = settings_.fresh;
        send(std::move(hello), now);
    }

    void dial_failed(link_id link, const std::string& why, timestamp now) {
        if (over() || link != link_ || phase_ != phase::dialling) return;
        pause(why, now);
    }

    void link_closed(link_id link, const std::string& why, timestamp now) {
        if (over() || link != link_ || phase_ == phase::pausing) return;
        pause(why, now);
    }

    /// Bytes came in, whether or not they end a message.
    void heard(link_id link, timestamp now) noexcept {
        if (link == link_) heard_ = now;
    }

    /// The link carried something that is no message of this protocol.
    void broken(link_id link, const std::string& why, timestamp now) {
        if (over() || link != link_ || phase_ == phase::pausing) return;
        close(why, true);
        if (++faults_ == max_faults && admitted_once_)
            return end(run_end::protocol, settings_.where + " breaks the protocol: " + why);
        if (!admitted_once_)
            return end(run_end::protocol, settings_.where + " does not answer as a thinwire founder: " + why);
        pause(why, now);
    }

    void received(link_id link, message m, timestamp now) {
        if (over() || link != link_) return;
        heard_ = now;
        if (phase_ != phase::greeting && phase_ != phase::fetching && phase_ != phase::live) return;
        std::visit([&](auto& body) { on(body, now); }, m);
    }

    /// The local replica's payload for `round`, the next that it applies. Replaces one that was not committed.
    void payload_ready(std::uint64_t round, shared_bytes payload, timestamp now) {
        if (over()) return;
        active_ = true;
        if (round < received_) return;
        pending_ = pending{round, digest_of(*payload), std::move(payload)};
        if (phase_ == phase::live) submit(now);
    }

    /// The local replica has everything below `round`. Precondition: those commits were delivered.
    void taken(std::uint64_t round, timestamp now) {
        if (over() || round <= taken_) return;
        flow_.take(round);
        taken_ = round;
        if (phase_ == phase::live) report(now);
    }

    void leave(timestamp now) {
        if (over()) return;
        if (phase_ != phase::dialling && phase_ != phase::pausing) send(goodbye_message{false, "left"}, now);
        if (phase_ != phase::pausing) close("left", false);
        end(run_end::left, "left the run");
    }

    void tick(timestamp now) {
        if (over()) return;
        if (give_up_at_ && now >= *give_up_at_) return give_up();
        switch (phase_) {
            case phase::pausing:
                if (now >= until_) dial(now);
                break;
            case phase::dialling:
                if (now >= until_) {
                    close("no answer", false);
                    pause("no answer", now);
                }
                break;
            default:
                if (now >= heard_ + settings_.keepalive_timeout) {
                    close("silent", true);
                    pause("nothing heard for " + std::to_string(settings_.keepalive_timeout / 1'000'000) + " s", now);
                } else if (now >= sent_ + settings_.keepalive_interval) {
                    send(ping_message{}, now);
                }
        }
    }

    /// When to call tick(); nothing once the machine is over.
    [[nodiscard]] std::optional<timestamp> wake_at() const noexcept {
        if (over()) return std::nullopt;
        const bool linked = phase_ != phase::pausing && phase_ != phase::dialling;
        timestamp at =
            linked ? std::min(heard_ + settings_.keepalive_timeout, sent_ + settings_.keepalive_interval) : until_;
        if (give_up_at_) at = std::min(at, *give_up_at_);
        return at;
    }

    [[nodiscard]] std::vector<effect> take_effects() noexcept { return std::exchange(effects_, {}); }

    [[nodiscard]] bool over() const noexcept { return over_; }
    [[nodiscard]] bool live() const noexcept { return phase_ == phase::live && !over_; }
    /// The next round that this peer has no commit for.
    [[nodiscard]] std::uint64_t round() const noexcept { return received_; }

 private:
    enum class phase : std::uint8_t { dialling, greeting, fetching, live, pausing };
    struct pending {
        std::uint64_t round = 0;
        digest payload_digest;
        shared_bytes payload;
    };
    struct incoming {
        welcome_message welcome;
        std::vector<std::byte> bytes;
        std::uint64_t asked = 0;
    };
    static constexpr std::uint64_t pieces_ahead = 8;
    static constexpr int max_faults = 3;  ///< broken links without a commit between them

    void on(const hello_message&, timestamp now) { broken(link_, "a hello from the founder", now); }
    void on(const submit_message&, timestamp now) { broken(link_, "a submit from the founder", now); }
    void on(const progress_message&, timestamp now) { broken(link_, "a progress from the founder", now); }
    void on(const fetch_message&, timestamp now) { broken(link_, "a fetch from the founder", now); }
    void on(const ping_message&, timestamp) {}
    template <class Other>
    void on(const Other&, timestamp now) {
        broken(link_, "a message that no founder sends", now);
    }

    void on(const welcome_message& m, timestamp now) {
        if (phase_ != phase::greeting) return broken(link_, "a second welcome", now);
        if (run_ != digest{} && m.run != run_) {
            close("another run", false);
            return end(run_end::run_mismatch, settings_.where + " is of run " + to_string(m.run, 16) +
                                                  ", expected run " + to_string(run_, 16));
        }
        if (settings_.fresh && !m.has_snapshot) return broken(link_, "a welcome without the snapshot asked for", now);
        if (settings_.fresh && (m.snapshot_size > settings_.max_snapshot || m.snapshot_round > m.round))
            return broken(link_, "a snapshot of " + std::to_string(m.snapshot_size) + " bytes", now);
        if (!settings_.fresh && m.round < received_) return ahead(m.round);
        if (m.term < term_) return broken(link_, "an earlier term", now);
        run_ = m.run;
        term_ = m.term;
        admitted_once_ = true;
        give_up_at_.reset();
        pause_ = 0;
        effects_.push_back(welcomed_effect{m});
        if (settings_.fresh) return begin_fetch(m, now);
        phase_ = phase::live;
        enter(now);
    }

    void on(const refuse_message& m, timestamp) {
        close("refused", false);
        const std::string line = settings_.where + " refused: " + m.text;
        switch (m.code) {
            case refusal::version_mismatch: return end(run_end::version_mismatch, line);
            case refusal::run_mismatch: return end(run_end::run_mismatch, line);
            case refusal::ahead: return end(run_end::diverged, line);
            default: return end(run_end::refused, line);
        }
    }

    void on(const reject_message& m, timestamp) {
        if (pending_ && pending_->round == m.round) effects_.push_back(rejected_effect{m.round, m.text});
    }

    void on(const goodbye_message& m, timestamp now) {
        close("goodbye", false);
        if (m.stop_run) return end(run_end::stopped, settings_.where + " stopped the run: " + m.text);
        pause("it said goodbye: " + m.text, now);
    }

    void on(const piece_message& m, timestamp now) {
        if (phase_ != phase::fetching || m.content != fetch_->welcome.snapshot_digest ||
            m.offset != fetch_->bytes.size() || m.bytes->size() > fetch_->welcome.snapshot_size - m.offset)
            return broken(link_, "a piece that was not asked for", now);
        fetch_->bytes.insert(fetch_->bytes.end(), m.bytes->begin(), m.bytes->end());
        ask(now);
    }

    void on(const commit_message& m, timestamp now) {
        if (phase_ != phase::live) return broken(link_, "a commit before it was asked for", now);
        if (m.record->round < received_) return;
        if (m.record->round > received_) return broken(link_, "a commit out of order", now);
        commit_ptr record = complete(m.record);
        if (!record) return broken(link_, "a commit whose payloads do not match their digests", now);
        flow_.sent(detail::comm::weight(*record));
        if (!flow_.room(0, settings_.max_untaken)) return broken(link_, "more commits than may wait", now);
        ++received_;
        faults_ = 0;
        const bool awaited = pending_ && pending_->round < received_;
        if (awaited) pending_.reset();
        effects_.push_back(deliver_effect{std::move(record)});
        if (!awaited) report(now);
    }

    /// The record with this peer's own payload filled in; null when something does not fit its digest or the peers
    /// are not in ascending order.
    [[nodiscard]] commit_ptr complete(const commit_ptr& record) const {
        std::shared_ptr<commit_record> filled;
        for (std::size_t i = 0; i < record->contributions.size(); ++i) {
            const committed_payload& c = record->contributions[i];
            if (i > 0 && record->contributions[i - 1].peer >= c.peer) return nullptr;
            if (c.payload) {
                if (digest_of(*c.payload) != c.payload_digest) return nullptr;
                continue;
            }
            if (c.peer != settings_.self || !pending_ || pending_->round != record->round ||
                pending_->payload_digest != c.payload_digest)
                return nullptr;
            if (!filled) filled = std::make_shared<commit_record>(*record);
            filled->contributions[i].payload = pending_->payload;
        }
        return filled ? commit_ptr(std::move(filled)) : record;
    }

    void begin_fetch(const welcome_message& m, timestamp now) {
        phase_ = phase::fetching;
        if (!fetch_ || fetch_->welcome.snapshot_digest != m.snapshot_digest ||
            fetch_->welcome.snapshot_size != m.snapshot_size)
            fetch_ = incoming{m, {}, 0};
        fetch_->welcome = m;
        fetch_->asked = fetch_->bytes.size();
        ask(now);
    }

    void ask(timestamp now) {
        incoming& f = *fetch_;
        const std::uint64_t size = f.welcome.snapshot_size;
        if (f.bytes.size() == size) return finish_fetch(now);
        const std::uint64_t horizon = std::min(size, f.bytes.size() + pieces_ahead * wire_limits::max_piece);
        while (f.asked < horizon) {
            const std::uint64_t count = std::min<std::uint64_t>(size - f.asked, wire_limits::max_piece);
            send(fetch_message{f.welcome.snapshot_digest, f.asked, static_cast<std::uint32_t>(count)}, now);
            f.asked += count;
        }
    }

    void finish_fetch(timestamp now) {
        incoming f = std::move(*fetch_);
        fetch_.reset();
        if (digest_of(f.bytes) != f.welcome.snapshot_digest)
            return broken(link_, "a snapshot that does not match its digest", now);
        settings_.fresh = false;
        received_ = taken_ = f.welcome.snapshot_round;
        flow_ = detail::comm::outflow(received_);
        phase_ = phase::live;
        effects_.push_back(snapshot_effect{f.welcome.snapshot_round, share(std::move(f.bytes)), nullptr, 0});
        enter(now);
    }

    /// From here on commits come: say from where, and repeat the payload that waits for its commit.
    void enter(timestamp now) {
        report(now);
        if (pending_) submit(now);
    }

    void submit(timestamp now) { send(submit_message{term_, pending_->round, pending_->payload}, now); }
    void report(timestamp now) { send(progress_message{term_, received_, taken_, active_}, now); }

    void ahead(std::uint64_t round) {
        close("ahead of the run", false);
        end(run_end::diverged, "this replica is at round " + std::to_string(received_) + ", " + settings_.where +
                                   " only at round " + std::to_string(round));
    }

    void dial(timestamp now) {
        phase_ = phase::dialling;
        ++link_;
        until_ = now + settings_.attempt_timeout;
        effects_.push_back(dial_effect{link_, "", ""});
    }

    /// The link is gone: wait a little, then dial again, unless that goes on for too long.
    void pause(const std::string& why, timestamp now) {
        phase_ = phase::pausing;
        trouble_ = why;
        pause_ = pause_ == 0 ? settings_.first_pause : std::min(2 * pause_, settings_.last_pause);
        until_ = now + pause_;
        if (!give_up_at_) give_up_at_ = now + settings_.reconnect_timeout;
    }

    void give_up() {
        if (phase_ != phase::pausing) close("gave up", false);
        const auto seconds = [](timestamp t) {
            return t % 1'000'000 == 0 ? std::to_string(t / 1'000'000) + " s" : std::to_string(t / 1000) + " ms";
        };
        const std::string why = phase_ == phase::greeting ? "connected, but not admitted" : trouble_;
        if (admitted_once_)
            return end(run_end::lost, "lost " + settings_.where + " and could not reach it again within " +
                                          seconds(settings_.reconnect_timeout) + (why.empty() ? "" : ": " + why));
        end(run_end::unreachable, "cannot reach " + settings_.where + " within " + seconds(settings_.connect_timeout) +
                                      (why.empty() ? "" : ": " + why));
    }

    void send(message m, timestamp now) {
        sent_ = now;
        effects_.push_back(send_effect{link_, std::move(m)});
    }
    void close(std::string reason, bool fault) { effects_.push_back(close_effect{link_, std::move(reason), fault}); }
    void end(run_end code, std::string text) {
        over_ = true;
        effects_.push_back(end_effect{code, std::move(text)});
    }

    follower_settings settings_;
    phase phase_ = phase::dialling;
    bool over_ = false;
    bool admitted_once_ = false;
    bool active_ = false;
    int faults_ = 0;
    link_id link_ = 0;
    digest run_;
    std::uint64_t term_ = 0;
    std::uint64_t received_ = 0;
    std::uint64_t taken_ = 0;
    detail::comm::outflow flow_;
    std::optional<pending> pending_;
    std::optional<incoming> fetch_;
    timestamp heard_ = 0;
    timestamp sent_ = 0;
    timestamp until_ = 0;  ///< end of the pause or of the try to connect
    timestamp pause_ = 0;
    std::optional<timestamp> give_up_at_;
    std::string trouble_;
    std::vector<effect> effects_;
};

}  // namespace thinwire

#endif  // THINWIRE_COMM_FOLLOWER_HPP
