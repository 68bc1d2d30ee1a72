#ifndef THINWIRE_BACKEND_CUDA_DETAIL_FIBER_HPP
#define THINWIRE_BACKEND_CUDA_DETAIL_FIBER_HPP

#include <thinwire/core/error.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define THINWIRE_FIBER_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define THINWIRE_FIBER_ADDRESS_SANITIZER 1
#endif
#endif
#if defined(THINWIRE_FIBER_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace thinwire::cuda::detail {

#if defined(__x86_64__)
/// Leaves the stack pointer of this stack in *from and goes on where `to` was left. Keeps what the System V ABI says a
/// call keeps.
__attribute__((naked, noinline)) inline void switch_stack(void** /*from*/, void* /*to*/) {
    asm volatile(
        "pushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
        "movq %rsp, (%rdi)\n\tmovq %rsi, %rsp\n\t"
        "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbx\n\tpopq %rbp\n\tret");
}
#endif

/// A stack on which a function runs, stops in the middle and goes on: one thread of a block of the emulator. What runs
/// on it must return, and must throw nothing, before the fiber is destroyed. Belongs to one thread. AddressSanitizer is
/// told of every switch; ThreadSanitizer is not.
class fiber {
 public:
    using function = void (*)(void*);

    /// Throws io_error where the system has no memory for the stack; there is a page below it that cannot be touched.
    fiber() {
        page_ = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
        memory_ = ::mmap(nullptr, stack_bytes + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory_ == MAP_FAILED || ::mprotect(memory_, page_, PROT_NONE) != 0)
            throw io_error("fiber: a stack of " + std::to_string(stack_bytes) + " bytes: " + std::strerror(errno));
        prepare();
    }
    fiber(const fiber&) = delete;
    fiber& operator=(const fiber&) = delete;
    ~fiber() {
#if defined(THINWIRE_FIBER_ADDRESS_SANITIZER)
        __asan_unpoison_memory_region(stack(), stack_bytes);
#endif
        ::munmap(memory_, stack_bytes + page_);
    }

    /// The next resume() calls run(argument). Precondition: the last function has returned.
    void start(function run, void* argument) noexcept {
        run_ = run;
        argument_ = argument;
    }
    /// Goes on with the function until it calls pause() or returns. Not from within a fiber.
    void resume() noexcept {
        running() = this;
#if defined(THINWIRE_FIBER_ADDRESS_SANITIZER)
        __sanitizer_start_switch_fiber(&caller_fake_, stack(), stack_bytes);
#endif
        enter();
#if defined(THINWIRE_FIBER_ADDRESS_SANITIZER)
        __sanitizer_finish_switch_fiber(caller_fake_, nullptr, nullptr);
#endif
    }
    /// From within: back to whoever called resume().
    void pause() noexcept {
#if defined(THINWIRE_FIBER_ADDRESS_SANITIZER)
        __sanitizer_start_switch_fiber(&fake_, caller_stack_, caller_bytes_);
#endif
        leave();
#if defined(THINWIRE_FIBER_ADDRESS_SANITIZER)
        __sanitizer_finish_switch_fiber(fake_, &caller_stack_, &caller_bytes_);
#endif
    }

 private:
    static constexpr std::size_t stack_bytes = 256 * 1024;

    [[nodiscard]] static fiber*& running() noexcept {
        static thread_local fiber* current = nullptr;
        return current;
    }
    [[nodiscard]] std::byte* stack() const noexcept {
        return static_cast<std::byte*>(memory_) + page_;
    }

    /// What the stack begins with; never returns.
    static void entry() noexcept {
        fiber& self = *running();
#if defined(THINWIRE_FIBER_ADDRESS_SANITIZER)
        __sanitizer_finish_switch_fiber(nullptr, &self.caller_stack_, &self.caller_bytes_);
#endif
        for (;;) {
            self.run_(self.argument_);
            self.pause();
        }
    }

#if defined(__x86_64__)
    void prepare() noexcept {
        void** top = reinterpret_cast<void**>(stack() + stack_bytes);
        *--top = nullptr;                                 // where entry() would return to
        *--top = reinterpret_cast<void*>(&fiber::entry);  // where the first switch returns to
        for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
        here_ = top;
    }
    void enter() noexcept {
        switch_stack(&caller_, here_);
    }
    void leave() noexcept {
        switch_stack(&here_, caller_);
    }
    void* here_ = nullptr;
    void* caller_ = nullptr;
#else
    void prepare() noexcept {
        ::getcontext(&here_);
        here_.uc_stack.ss_sp = stack();
        here_.uc_stack.ss_size = stack_bytes;
        here_.uc_link = nullptr;
        ::makecontext(&here_, &fiber::entry, 0);
    }
    void enter() noexcept {
        ::swapcontext(&caller_, &here_);
    }
    void leave() noexcept {
        ::swapcontext(&here_, &caller_);
    }
    ucontext_t here_{}, caller_{};
#endif

    std::size_t page_ = 0;
    void* memory_ = nullptr;
    function run_ = nullptr;
    void* argument_ = nullptr;
#if defined(THINWIRE_FIBER_ADDRESS_SANITIZER)
    void* fake_ = nullptr;
    void* caller_fake_ = nullptr;
    const void* caller_stack_ = nullptr;
    std::size_t caller_bytes_ = 0;
#endif
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_FIBER_HPP
