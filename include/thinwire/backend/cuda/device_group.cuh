#ifndef THINWIRE_BACKEND_CUDA_DEVICE_GROUP_CUH
#define THINWIRE_BACKEND_CUDA_DEVICE_GROUP_CUH

#include <thinwire/backend/cuda/device.cuh>

#include <cstddef>
#include <span>
#include <vector>

namespace thinwire::cuda {

/// An array that every device of a group has for itself, of equal length.
struct group_array {
    std::size_t owner = 0;           ///< a device of the group, by its place in it
    std::size_t bytes = 0;           ///< of one device's array
    std::vector<void*> on_device{};  ///< where it lies, for each device
};

/// Devices of one host that form one peer, and what they do together: all that cuda::demo asks of them.
/// nccl::communicator is one. Belongs to one thread, which also is the only one that uses the streams meanwhile.
class device_group {
 public:
    device_group() = default;
    device_group(const device_group&) = delete;
    device_group& operator=(const device_group&) = delete;
    virtual ~device_group() = default;

    [[nodiscard]] virtual std::size_t size() const noexcept = 0;
    /// The stream that the group uses on a device: what is given to it before and after comes before and after.
    /// Precondition: device < size().
    [[nodiscard]] virtual stream& on(std::size_t device) const noexcept = 0;

    /// For each array of floats: the mean over the devices, element by element, replaces the owner's; those of the
    /// others stay as they are. In which order is added is not said. Given to the streams; returns when what is given
    /// to them next comes after. Throws an error of the group's, which then is of no more use.
    virtual void average(std::span<const group_array> arrays) = 0;
    /// For each array: the owner's bytes replace those of all others. The same otherwise.
    virtual void broadcast(std::span<const group_array> arrays) = 0;
    /// Returns when every event is reached, one or more of each device's stream. A device that fails, or that does not
    /// come, ends in an error of the group's, in a bounded time, and frees the others' streams.
    virtual void wait(std::span<event* const> events) = 0;
};

}  // namespace thinwire::cuda

#endif  // THINWIRE_BACKEND_CUDA_DEVICE_GROUP_CUH
