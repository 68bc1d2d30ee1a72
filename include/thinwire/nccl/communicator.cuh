#ifndef THINWIRE_NCCL_COMMUNICATOR_CUH
#define THINWIRE_NCCL_COMMUNICATOR_CUH

#include <thinwire/backend/cuda/device_group.cuh>
#include <thinwire/core/error.hpp>
#include <thinwire/nccl/detail/library.cuh>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace thinwire::nccl {

/// What NCCL refused, or what it did not finish in time: names the operation, the device and NCCL's result.
class collective_error : public error {
    using error::error;
};

/// The devices of one host as one peer, joined by NCCL: hand it to cuda::demo. One process and one thread drive them
/// all; the thread is the one that begins steps, and may be another than those that compute gradients, as long as both
/// do not use a stream at once.
///
/// No call waits without end. Communicators are of the kind that does not block, and everything that NCCL has to finish
/// is asked for until it is done, has failed, or took longer than `patience`. Then all communicators are aborted, which
/// ends what NCCL still does on the devices, and the call throws; all later ones throw collective_error as well. Who
/// waits for a stream by itself between begin_step() and the end of its wait has no such promise.
///
/// Refers to the streams, which must outlive it.
class communicator final : public cuda::device_group {
 public:
    /// A stream of each device, in the order in which all else counts devices. `patience` counts from the call and
    /// holds for all that the streams have to do before, such as a backward pass. Throws value_error for no streams, or
    /// two of one device; collective_error.
    explicit communicator(std::span<cuda::stream* const> streams,
                          std::chrono::milliseconds patience = std::chrono::minutes(5))
        : streams_(streams.begin(), streams.end()), patience_(patience) {
        for (cuda::stream* s : streams_) devices_.push_back(s->device());
        if (devices_.empty()) throw value_error("nccl::communicator: no streams, expected one of each device");
        for (std::size_t d = 0; d < devices_.size(); ++d)
            if (std::count(devices_.begin(), devices_.end(), devices_[d]) > 1)
                throw value_error("nccl::communicator: two streams of device " + std::to_string(devices_[d]) +
                                  ", expected one of each");
        try {
            connect();
        } catch (...) {
            abort();
            throw;
        }
    }
    /// Waits for what was given to the streams, no longer than it has patience.
    ~communicator() override {
        try {
            close();
        } catch (...) {
            abort();
        }
    }

    [[nodiscard]] std::size_t size() const noexcept override { return streams_.size(); }
    [[nodiscard]] cuda::stream& on(std::size_t device) const noexcept override { return *streams_[device]; }

    /// By ncclReduce with ncclAvg, in place at the owner, in one group.
    void average(std::span<const cuda::group_array> arrays) override {
        together("ncclReduce", arrays, [this](const cuda::group_array& array, std::size_t d) {
            void* const own = array.on_device[d];
            return ncclReduce(own, d == array.owner ? own : nullptr, array.bytes / sizeof(float), ncclFloat32, ncclAvg,
                              static_cast<int>(array.owner), comms_[d], streams_[d]->handle());
        });
    }
    /// By ncclBroadcast of bytes, in place, in one group.
    void broadcast(std::span<const cuda::group_array> arrays) override {
        together("ncclBroadcast", arrays, [this](const cuda::group_array& array, std::size_t d) {
            void* const own = array.on_device[d];
            return ncclBroadcast(own, own, array.bytes, ncclUint8, static_cast<int>(array.owner), comms_[d],
                                 streams_[d]->handle());
        });
    }
    /// Also throws the device_error of an event's device.
    void wait(std::span<cuda::event* const> events) override {
        require_alive("wait");
        watch("wait for the devices",
              [&] { return std::all_of(events.begin(), events.end(), [](cuda::event* e) { return e->reached(); }); });
    }

 private:
    using clock = std::chrono::steady_clock;

    void connect() {
        ncclUniqueId id;
        require(ncclGetUniqueId(&id), "ncclGetUniqueId", 0);
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        comms_.assign(streams_.size(), nullptr);
        in_group("ncclCommInitRankConfig", [&](std::size_t d) {
            const cuda::device_scope here(devices_[d]);
            return ncclCommInitRankConfig(&comms_[d], static_cast<int>(streams_.size()), id, static_cast<int>(d),
                                          &config);
        });
    }
    void close() {
        if (comms_.empty()) return;
        std::vector<cuda::event> ends;
        for (std::size_t d = 0; d < streams_.size(); ++d) {
            const cuda::device_scope here(devices_[d]);
            ends.emplace_back();
            ends.back().record(*streams_[d]);
        }
        watch("end", [&] { return std::all_of(ends.begin(), ends.end(), [](cuda::event& e) { return e.reached(); }); });
        in_group("ncclCommFinalize", [this](std::size_t d) { return ncclCommFinalize(comms_[d]); });
        for (std::size_t d = 0; d < comms_.size(); ++d) {  // what is destroyed, or failed to be, is not aborted as well
            const ncclResult_t result = ncclCommDestroy(std::exchange(comms_[d], nullptr));
            require(result, "ncclCommDestroy", d);
        }
        comms_.clear();
    }
    /// Ends what NCCL does on the devices, and all communicators.
    void abort() noexcept {
        for (ncclComm_t comm : comms_)
            if (comm != nullptr) static_cast<void>(ncclCommAbort(comm));
        comms_.clear();
    }

    /// Calls call(d) for all devices in one group, and returns when the group is given to the streams.
    template <class Call>
    void in_group(const char* operation, const Call& call) {
        require(ncclGroupStart(), "ncclGroupStart", 0);
        ncclResult_t result = ncclSuccess;
        std::size_t at = 0;
        std::exception_ptr thrown;
        try {
            for (std::size_t d = 0; d < streams_.size() && accepted(result); ++d) result = call(at = d);
        } catch (...) {
            thrown = std::current_exception();
        }
        const ncclResult_t end = ncclGroupEnd();  // in every case: a group must not stay open
        if (thrown != nullptr) {
            abort();
            std::rethrow_exception(thrown);
        }
        require(result, operation, at);
        require(end, operation, 0);
        watch(operation, [] { return true; });
    }
    template <class Call>
    void together(const char* operation, std::span<const cuda::group_array> arrays, const Call& call) {
        require_alive(operation);
        if (arrays.empty()) return;
        in_group(operation, [&](std::size_t d) {
            ncclResult_t result = ncclSuccess;
            for (std::size_t i = 0; i < arrays.size() && accepted(result); ++i) result = call(arrays[i], d);
            return result;
        });
    }

    /// Returns when reached() says so and no communicator has anything in progress.
    template <class Reached>
    void watch(const char* operation, const Reached& reached) {
        const clock::time_point begin = clock::now();
        for (unsigned tries = 0;; ++tries) {
            if (!in_progress(operation) && reached_or_abort(reached)) return;
            if (clock::now() - begin > patience_) {
                abort();
                throw collective_error(std::string("nccl::communicator: ") + operation + ": not done after " +
                                       std::to_string(patience_.count()) + " ms on devices " + names() + ", aborted");
            }
            if (tries < 64)
                std::this_thread::yield();
            else
                std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
    }
    [[nodiscard]] bool in_progress(const char* operation) {
        bool any = false;
        for (std::size_t d = 0; d < comms_.size(); ++d) {
            ncclResult_t state = ncclSuccess;
            require(ncclCommGetAsyncError(comms_[d], &state), "ncclCommGetAsyncError", d);
            require(state, operation, d);
            any = any || state == ncclInProgress;
        }
        return any;
    }
    template <class Reached>
    [[nodiscard]] bool reached_or_abort(const Reached& reached) {
        try {
            return reached();
        } catch (...) {
            abort();
            throw;
        }
    }

    [[nodiscard]] static bool accepted(ncclResult_t result) noexcept {
        return result == ncclSuccess || result == ncclInProgress;
    }
    void require(ncclResult_t result, const char* operation, std::size_t d) {
        if (accepted(result)) return;
        std::string what = std::string("nccl::communicator: ") + operation + ", device " + std::to_string(devices_[d]) +
                           " of " + names() + ": " + ncclGetErrorString(result) + " (ncclResult_t " +
                           std::to_string(static_cast<int>(result)) + ")";
        const char* const more = ncclGetLastError(comms_.empty() ? nullptr : comms_[d]);
        if (more != nullptr && *more != '\0') what += std::string("; ") + more;
        abort();
        throw collective_error(what);
    }
    void require_alive(const char* operation) const {
        if (comms_.empty())
            throw collective_error(std::string("nccl::communicator: ") + operation +
                                   ": aborted after an earlier error, expected a new communicator");
    }
    [[nodiscard]] std::string names() const {
        std::string out;
        for (const int device : devices_) out += (out.empty() ? "" : ", ") + std::to_string(device);
        return out;
    }

    std::vector<cuda::stream*> streams_;
    std::vector<int> devices_;
    std::chrono::milliseconds patience_;
    std::vector<ncclComm_t> comms_;  ///< none once aborted
};

}  // namespace thinwire::nccl

#endif  // THINWIRE_NCCL_COMMUNICATOR_CUH
