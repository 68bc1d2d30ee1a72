#ifndef THINWIRE_NCCL_DETAIL_EMULATED_NCCL_HPP
#define THINWIRE_NCCL_DETAIL_EMULATED_NCCL_HPP

#include <thinwire/backend/cuda/detail/emulated_device.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::nccl {

/// In the emulator, the part of nccl.h that is used here, with its names and its answers. What NCCL documents as
/// refused is refused with the same result; what it leaves undefined, or what would wait for ever, is an
/// emulation_error. Every operation of a communicator that does not block is in progress until it was asked for twice,
/// and only then given to the streams.
enum ncclResult_t {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1,
    ncclSystemError = 2,
    ncclInternalError = 3,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6,
    ncclInProgress = 7,
};
enum ncclDataType_t { ncclUint8 = 1, ncclFloat32 = 7 };
enum ncclRedOp_t { ncclAvg = 4 };
struct ncclUniqueId {
    char internal[128];
};
struct ncclConfig_t {
    int blocking = 1;
};
inline constexpr ncclConfig_t NCCL_CONFIG_INITIALIZER = {};

namespace detail {

struct emulated_comm;

/// What the emulator does to a device of a communicator.
struct emulated_failure {
    int device = -1;        ///< the collectives of this one do not come
    bool reported = false;  ///< and NCCL notices
    int undying = -1;       ///< ncclCommDestroy of the communicator of this one fails, which is gone all the same
};
inline thread_local emulated_failure failure;

/// Communicators that were made with one id.
struct emulated_clique {
    std::vector<emulated_comm*> ranks;
};

/// The array that one rank gives to a collective.
struct emulated_part {
    cuda::stream* on = nullptr;
    const void* send = nullptr;
    void* receive = nullptr;
    std::uint64_t place = 0;  ///< of the collective in the stream
};

/// One collective of all ranks.
struct emulated_collective {
    const char* name = "";
    std::size_t count = 0;
    ncclDataType_t type = ncclUint8;
    int root = 0;
    std::vector<emulated_comm*> ranks;
    std::vector<emulated_part> parts;
    bool done = false;

    [[nodiscard]] std::size_t element() const noexcept { return type == ncclFloat32 ? sizeof(float) : 1; }
    [[nodiscard]] bool arrive(std::size_t rank);
    void compute() const;
};

/// ncclComm.
struct emulated_comm {
    std::shared_ptr<emulated_clique> clique;
    int rank = 0, device = 0;
    bool blocking = true, alive = true, aborted = false, finalized = false;
    unsigned polls = 0;  ///< until what is in progress is done
    bool stuck = false;  ///< it never will be
    ncclResult_t result = ncclSuccess;
    std::vector<std::shared_ptr<emulated_collective>> pending;  ///< not given to the streams
    std::vector<std::shared_ptr<emulated_collective>> given;
};

/// All communicators, also those that are gone, and the group that is open.
struct emulated_nccl {
    [[nodiscard]] static emulated_nccl& get() {
        static thread_local emulated_nccl one;
        return one;
    }
    std::vector<std::unique_ptr<emulated_comm>> comms;
    std::map<std::string, std::shared_ptr<emulated_clique>> cliques;
    std::uint64_t ids = 0;
    int depth = 0;
    ncclResult_t refused = ncclSuccess;                                     ///< by a call of the group
    std::vector<emulated_comm*> initialised;                                ///< in the group
    std::vector<std::pair<emulated_comm*, emulated_collective>> collected;  ///< likewise

    /// How many were neither destroyed nor aborted.
    [[nodiscard]] std::size_t alive() const {
        return static_cast<std::size_t>(
            std::count_if(comms.begin(), comms.end(), [](const auto& c) { return c->alive; }));
    }
};

[[nodiscard]] inline cuda::emulation_error misuse(cuda::defect kind, const std::string& what) {
    return {kind, "NCCL: " + what};
}

/// The elements of an allocation that an array covers. Throws emulation_error unless it is one of this device's.
struct emulated_array {
    emulated_array(const void* at, std::size_t bytes, int device, const std::string& what)
        : memory(cuda::detail::emulated_memory::get().find(at)) {
        if (!memory->alive) throw misuse(cuda::defect::freed, what + ": array '" + memory->name + "' is freed");
        cuda::detail::require_device(memory->device, device, "NCCL: " + what + ": array '" + memory->name + "'");
        const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(at) - memory->base);
        if (offset + bytes > memory->elements * memory->element_bytes)
            throw misuse(cuda::defect::out_of_bounds,
                         what + ": " + std::to_string(bytes) + " bytes reach beyond array '" + memory->name + "'");
        first = offset / memory->element_bytes;
        elements = (bytes + memory->element_bytes - 1) / memory->element_bytes;
    }
    void require_written(const std::string& what) const {
        for (std::size_t i = 0; i < elements; ++i)
            if (!memory->cells[first + i].written_since(1))
                throw misuse(
                    cuda::defect::uninitialised,
                    what + " reads " + cuda::detail::describe(*memory, first + i) + ", which nothing has written");
    }
    void initialise() const {
        for (std::size_t i = 0; i < elements; ++i) memory->cells[first + i].initialise();
    }
    cuda::detail::allocation* memory;
    std::size_t first = 0, elements = 0;
};

/// Called when the stream of a rank gets here: false until all others get here, too.
inline bool emulated_collective::arrive(std::size_t rank) {
    if (done || ranks[rank]->aborted) return true;
    for (const emulated_comm* comm : ranks)
        if (comm->aborted || comm->device == failure.device) return false;
    for (std::size_t r = 0; r < ranks.size(); ++r)
        if (r != rank && !parts[r].on->try_until(parts[r].place)) return false;
    compute();
    done = true;
    return true;
}

/// Each input of a mean is multiplied first, as NCCL does with floats. Sums go by rank, up or down.
inline void emulated_collective::compute() const {
    const std::size_t bytes = count * element(), owner = static_cast<std::size_t>(root);
    std::vector<std::byte> out(bytes);
    if (type == ncclUint8) {
        emulated_array(parts[owner].send, bytes, ranks[owner]->device, name).require_written(name);
        std::memcpy(out.data(), parts[owner].send, bytes);
    } else {
        std::vector<float> sum(count);
        const float share = 1.0F / static_cast<float>(ranks.size());
        for (std::size_t n = 0; n < ranks.size(); ++n) {
            const bool rising = cuda::detail::order_of_threads == cuda::thread_order::rising;
            const std::size_t r = rising ? n : ranks.size() - 1 - n;
            emulated_array(parts[r].send, bytes, ranks[r]->device, name).require_written(name);
            const auto* from = static_cast<const float*>(parts[r].send);
            for (std::size_t i = 0; i < count; ++i) sum[i] = n == 0 ? share * from[i] : sum[i] + share * from[i];
        }
        std::memcpy(out.data(), sum.data(), bytes);
    }
    for (std::size_t r = 0; r < ranks.size(); ++r) {
        if (type != ncclUint8 && r != owner) continue;
        const emulated_array to(parts[r].receive, bytes, ranks[r]->device, name);
        std::memcpy(parts[r].receive, out.data(), bytes);
        to.initialise();
    }
}

/// What every call checks first.
[[nodiscard]] inline ncclResult_t usable(emulated_comm* comm, const char* call) {
    if (comm == nullptr) return ncclInvalidArgument;
    if (!comm->alive) throw misuse(cuda::defect::freed, std::string(call) + " of a communicator that is gone");
    return ncclSuccess;
}

[[nodiscard]] inline ncclResult_t checked_collect(emulated_comm* comm, emulated_collective one, const void* send,
                                                  void* receive, cuda::stream* on) {
    emulated_nccl& all = emulated_nccl::get();
    const auto refuse = [&](ncclResult_t with) { return all.refused = with; };
    if (const ncclResult_t result = usable(comm, one.name); result != ncclSuccess) return refuse(result);
    if (comm->polls > 0 || comm->stuck) return refuse(ncclInvalidArgument);  // what was begun is not done
    if (comm->result != ncclSuccess) return refuse(comm->result);
    if (comm->finalized) return refuse(ncclInvalidUsage);
    const int ranks = static_cast<int>(comm->clique->ranks.size());
    if (on == nullptr || one.root < 0 || one.root >= ranks) return refuse(ncclInvalidArgument);
    const bool is_root = comm->rank == one.root, reads = one.type != ncclUint8 || is_root;
    const bool writes = one.type == ncclUint8 || is_root;
    if ((reads && send == nullptr) || (writes && receive == nullptr)) return refuse(ncclInvalidArgument);
    if (all.depth == 0 && ranks > 1)
        throw misuse(cuda::defect::hang,
                     std::string(one.name) + " of one thread with several devices outside of a group");
    cuda::detail::require_device(on->device(), comm->device, std::string("NCCL: ") + one.name + ": a stream");
    const std::size_t bytes = one.count * one.element();
    for (const void* array : {reads ? send : nullptr, writes ? static_cast<const void*>(receive) : nullptr}) {
        if (array == nullptr) continue;
        static_cast<void>(emulated_array(array, bytes, comm->device, one.name));
        if (reinterpret_cast<std::uintptr_t>(array) % one.element() != 0)
            throw misuse(cuda::defect::misaligned,
                         std::string(one.name) + ": an array that is not aligned for its type");
    }
    const auto from = reinterpret_cast<std::uintptr_t>(send), to = reinterpret_cast<std::uintptr_t>(receive);
    if (reads && writes && from != to && from < to + bytes && to < from + bytes)
        throw misuse(cuda::defect::arguments, std::string(one.name) + ": arrays that overlap and are not the same");
    one.parts.resize(static_cast<std::size_t>(ranks));
    one.parts[static_cast<std::size_t>(comm->rank)] = {on, reads ? send : nullptr, writes ? receive : nullptr, 0};
    all.collected.emplace_back(comm, std::move(one));
    return ncclSuccess;
}

/// A call that throws is refused, too: its group is not matched.
[[nodiscard]] inline ncclResult_t collect(emulated_comm* comm, emulated_collective one, const void* send, void* receive,
                                          cuda::stream* on) {
    try {
        return checked_collect(comm, std::move(one), send, receive, on);
    } catch (...) {
        emulated_nccl::get().refused = ncclInvalidArgument;
        throw;
    }
}

/// The collectives of a group, matched: call n of a rank is one with call n of every other.
inline void match_group(emulated_nccl& all) {
    std::map<emulated_comm*, std::vector<emulated_collective>> calls;
    for (auto& [comm, one] : all.collected) calls[comm].push_back(std::move(one));
    std::vector<emulated_clique*> cliques;
    for (const auto& [comm, list] : calls)
        if (std::find(cliques.begin(), cliques.end(), comm->clique.get()) == cliques.end())
            cliques.push_back(comm->clique.get());
    for (const emulated_clique* clique : cliques) {
        const std::size_t expected = calls[clique->ranks[0]].size();
        for (emulated_comm* comm : clique->ranks)
            if (calls[comm].size() != expected)
                throw misuse(cuda::defect::hang,
                             "a group with " + std::to_string(expected) + " collectives of rank 0 and " +
                                 std::to_string(calls[comm].size()) + " of rank " + std::to_string(comm->rank));
        for (std::size_t n = 0; n < expected; ++n) {
            const auto joined = std::make_shared<emulated_collective>(calls[clique->ranks[0]][n]);
            joined->ranks = clique->ranks;
            for (std::size_t r = 0; r < clique->ranks.size(); ++r) {
                const emulated_collective& one = calls[clique->ranks[r]][n];
                if (std::string(one.name) != joined->name || one.count != joined->count || one.root != joined->root)
                    throw misuse(cuda::defect::hang,
                                 "collective " + std::to_string(n) + " of a group: rank " + std::to_string(r) +
                                     " calls " + one.name + " of " + std::to_string(one.count) + " with root " +
                                     std::to_string(one.root) + ", rank 0 " + joined->name + " of " +
                                     std::to_string(joined->count) + " with root " + std::to_string(joined->root));
                joined->parts[r] = one.parts[r];
            }
            for (emulated_comm* comm : clique->ranks) comm->pending.push_back(joined);
        }
        for (emulated_comm* comm : clique->ranks) comm->polls = 2;
    }
}

inline void give_pending(emulated_comm& comm) {
    const auto rank = static_cast<std::size_t>(comm.rank);
    for (const auto& one : comm.pending) {
        emulated_part& part = one->parts[rank];
        part.place = part.on->given();
        part.on->give_when([one, rank] { return one->arrive(rank); });
        comm.given.push_back(one);
    }
    comm.pending.clear();
}

/// Ranks that are there, on devices of their own.
inline void finish_init(emulated_nccl& all) {
    for (emulated_comm* comm : all.initialised) {
        comm->polls = 2;
        for (const emulated_comm* other : comm->clique->ranks) {
            if (other == nullptr)
                comm->stuck = true;
            else if (other != comm && other->device == comm->device)
                comm->result = ncclInvalidUsage;
        }
        if (comm->device == failure.device) comm->result = ncclUnhandledCudaError;
    }
}

}  // namespace detail

using ncclComm_t = detail::emulated_comm*;

[[nodiscard]] inline const char* ncclGetErrorString(ncclResult_t result) {
    switch (result) {
        case ncclSuccess: return "no error";
        case ncclUnhandledCudaError: return "unhandled cuda error";
        case ncclInvalidArgument: return "invalid argument";
        case ncclInvalidUsage: return "invalid usage";
        case ncclRemoteError: return "remote process exited or there was a network error";
        case ncclInProgress: return "NCCL operation in progress";
        default: return "internal or system error";
    }
}
[[nodiscard]] inline const char* ncclGetLastError(ncclComm_t) {
    return "";
}
[[nodiscard]] inline ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    if (id == nullptr) return ncclInvalidArgument;
    *id = {};
    const std::uint64_t number = ++detail::emulated_nccl::get().ids;
    std::memcpy(id->internal, &number, sizeof number);
    return ncclSuccess;
}

[[nodiscard]] inline ncclResult_t ncclGroupStart() {
    detail::emulated_nccl& all = detail::emulated_nccl::get();
    if (all.depth++ == 0) {
        all.refused = ncclSuccess;
        all.initialised.clear();
        all.collected.clear();
    }
    return ncclSuccess;
}
[[nodiscard]] inline ncclResult_t ncclGroupEnd() {
    detail::emulated_nccl& all = detail::emulated_nccl::get();
    if (all.depth == 0) return ncclInvalidUsage;
    if (--all.depth > 0) return ncclSuccess;
    if (all.refused != ncclSuccess) return all.refused;
    if (!all.initialised.empty() && !all.collected.empty()) return ncclInvalidUsage;
    detail::finish_init(all);
    detail::match_group(all);
    return all.initialised.empty() && all.collected.empty() ? ncclSuccess : ncclInProgress;
}

[[nodiscard]] inline ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                                         ncclConfig_t* config) {
    detail::emulated_nccl& all = detail::emulated_nccl::get();
    if (comm == nullptr || config == nullptr || ranks < 1 || rank < 0 || rank >= ranks)
        return all.refused = ncclInvalidArgument;
    if (config->blocking != 0 || (all.depth == 0 && ranks > 1))
        throw detail::misuse(cuda::defect::hang, "ncclCommInitRankConfig that waits for the other ranks");
    std::shared_ptr<detail::emulated_clique>& clique = all.cliques[std::string(id.internal, sizeof id.internal)];
    if (clique == nullptr) {
        clique = std::make_shared<detail::emulated_clique>();
        clique->ranks.resize(static_cast<std::size_t>(ranks));
    }
    if (clique->ranks.size() != static_cast<std::size_t>(ranks) ||
        clique->ranks[static_cast<std::size_t>(rank)] != nullptr)
        return all.refused = ncclInvalidUsage;
    all.comms.push_back(std::make_unique<detail::emulated_comm>());
    *comm = all.comms.back().get();
    (*comm)->clique = clique;
    (*comm)->rank = rank;
    (*comm)->device = cuda::detail::device_in_use;
    (*comm)->blocking = false;
    clique->ranks[static_cast<std::size_t>(rank)] = *comm;
    all.initialised.push_back(*comm);
    if (all.depth == 0) detail::finish_init(all);
    return ncclInProgress;
}

[[nodiscard]] inline ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* result) {
    if (result == nullptr) return ncclInvalidArgument;
    if (const ncclResult_t refused = detail::usable(comm, "ncclCommGetAsyncError"); refused != ncclSuccess)
        return refused;
    if (detail::failure.reported && detail::failure.device >= 0)
        comm->result = comm->device == detail::failure.device ? ncclUnhandledCudaError : ncclRemoteError;
    if (comm->polls > 0 && --comm->polls == 0) detail::give_pending(*comm);
    *result = comm->result != ncclSuccess      ? comm->result
              : comm->polls > 0 || comm->stuck ? ncclInProgress
                                               : ncclSuccess;
    return ncclSuccess;
}

[[nodiscard]] inline ncclResult_t ncclReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                                             ncclRedOp_t, int root, ncclComm_t comm, cuda::stream* on) {
    if (type != ncclFloat32) throw detail::misuse(cuda::defect::arguments, "ncclReduce of another type than float");
    return detail::collect(comm,
                           {.name = "ncclReduce", .count = count, .type = type, .root = root, .ranks = {}, .parts = {}},
                           send, receive, on);
}
[[nodiscard]] inline ncclResult_t ncclBroadcast(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                                                int root, ncclComm_t comm, cuda::stream* on) {
    if (type != ncclUint8) throw detail::misuse(cuda::defect::arguments, "ncclBroadcast of another type than bytes");
    return detail::collect(
        comm, {.name = "ncclBroadcast", .count = count, .type = type, .root = root, .ranks = {}, .parts = {}}, send,
        receive, on);
}

[[nodiscard]] inline ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    if (const ncclResult_t refused = detail::usable(comm, "ncclCommFinalize"); refused != ncclSuccess) return refused;
    if (comm->finalized) return ncclInvalidUsage;
    for (const auto& one : comm->given)
        if (!one->done) throw detail::misuse(cuda::defect::hang, "ncclCommFinalize before the streams are done");
    comm->finalized = true;
    comm->polls = 2;
    return ncclInProgress;
}
[[nodiscard]] inline ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    if (const ncclResult_t refused = detail::usable(comm, "ncclCommDestroy"); refused != ncclSuccess) return refused;
    if (!comm->finalized || comm->polls > 0)
        throw detail::misuse(cuda::defect::arguments, "ncclCommDestroy of a communicator that is not finalized");
    comm->alive = false;
    return comm->device == detail::failure.undying ? ncclUnhandledCudaError : ncclSuccess;
}
[[nodiscard]] inline ncclResult_t ncclCommAbort(ncclComm_t comm) {
    if (const ncclResult_t refused = detail::usable(comm, "ncclCommAbort"); refused != ncclSuccess) return refused;
    comm->alive = false;
    comm->aborted = true;
    return ncclSuccess;
}

}  // namespace thinwire::nccl

#endif  // THINWIRE_NCCL_DETAIL_EMULATED_NCCL_HPP
