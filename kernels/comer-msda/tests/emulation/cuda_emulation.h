// Just enough of CUDA to run kernels.cuh on a CPU, and to be stricter than a GPU about it:
//   - the threads of a block are fibers that switch at every shuffle and __syncwarp, where all lanes of the warp must
//     meet: a lane that ends early or stands elsewhere is an error, not a hang;
//   - lanes, warps and blocks run in an order that a seed permutes, so that a forgotten __syncwarp shows as a wrong
//     result, and shared memory starts as NaN and is checked for writes beyond its end;
//   - reads through __ldg and __ldcg and all atomics must be aligned and inside the arrays that were declared.
// Include it before kernels.cuh. Single-threaded and deterministic.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct alignas(16) uint4 {
  unsigned int x, y, z, w;
};

struct alignas(16) float4 {
  float x, y, z, w;
};

inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct Index3 {
  unsigned int x, y, z;
};

inline Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr int kWarpSize = 32;
constexpr size_t kStackBytes = 64 * 1024;
constexpr size_t kSharedBytes = 48 * 1024;
constexpr unsigned char kGuard = 0xa5;

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// -----------------------------------------------------------------------------------------------------------------
// Global memory

class Memory {
 public:
  void clear() { ranges_.clear(); }

  void declare(const void* begin, size_t bytes) {
    ranges_.push_back({reinterpret_cast<uintptr_t>(begin), reinterpret_cast<uintptr_t>(begin) + bytes});
  }

  template <class Word>
  void check(const Word* place, const char* access) const {
    const auto begin = reinterpret_cast<uintptr_t>(place);
    if (begin % sizeof(Word) != 0) fail(access, " of ", sizeof(Word), " bytes at an address not aligned to it");
    for (const auto& [first, last] : ranges_) {
      if (first <= begin && begin + sizeof(Word) <= last) return;
    }
    fail(access, " of ", sizeof(Word), " bytes outside all arrays");
  }

 private:
  std::vector<std::array<uintptr_t, 2>> ranges_;
};

inline Memory memory;

// Accesses of 16 bytes, since the caller last set these to zero.
inline int64_t wide_loads, wide_adds;

// -----------------------------------------------------------------------------------------------------------------
// Threads

// Where a lane waits for the others of its warp.
struct SyncPoint {
  const char* kind;
  unsigned line, column;
  unsigned mask;
  int argument;

  bool operator==(const SyncPoint& other) const {
    return std::strcmp(kind, other.kind) == 0 && line == other.line && column == other.column && mask == other.mask &&
           argument == other.argument;
  }
};

// `context` starts the fiber. After that jumps switch, which spares two system calls each.
struct Fiber {
  ucontext_t context;
  jmp_buf resume_here;
  bool started;
  std::unique_ptr<unsigned char[]> stack = std::make_unique<unsigned char[]>(kStackBytes);
  unsigned thread;
  bool finished;
  SyncPoint point;
  // What the lane offers in an exchange. Two, because a lane may already offer the next before all have read this.
  unsigned char offer[2][16];
  int turn;
};

class Block {
 public:
  // Runs `body` once for each thread.
  void run(unsigned threads, const std::function<void()>& body, std::mt19937_64* random) {
    if (threads % kWarpSize != 0) fail("a block of ", threads, " threads is not made of whole warps");
    while (fibers_.size() < threads) fibers_.emplace_back(std::make_unique<Fiber>());
    body_ = &body;
    for (unsigned warp : order(threads / kWarpSize, random)) run_warp(warp, random);
  }

  // Waits for the other lanes of the warp.
  void wait(const SyncPoint& point) {
    current_->point = point;
    switch_to_scheduler();
  }

  template <class T>
  T exchange(T value, int lane_mask, const SyncPoint& point) {
    static_assert(sizeof(T) <= sizeof(Fiber::offer[0]) && std::is_trivially_copyable_v<T>);
    const int turn = current_->turn ^= 1;
    std::memcpy(current_->offer[turn], &value, sizeof(T));
    wait(point);
    const unsigned lane = current_->thread % kWarpSize, other = lane ^ static_cast<unsigned>(lane_mask);
    if (other >= kWarpSize) fail("shuffle with lane ", other);
    std::memcpy(&value, fibers_[current_->thread - lane + other]->offer[turn], sizeof(T));
    return value;
  }

 private:
  static std::vector<unsigned> order(unsigned size, std::mt19937_64* random) {
    std::vector<unsigned> indices(size);
    std::iota(indices.begin(), indices.end(), 0u);
    if (random) std::shuffle(indices.begin(), indices.end(), *random);
    return indices;
  }

  static void entry(unsigned high, unsigned low) {
    auto* block = reinterpret_cast<Block*>((static_cast<uintptr_t>(high) << 32) | low);
    try {
      (*block->body_)();
    } catch (...) {
      block->error_ = std::current_exception();
    }
    block->current_->finished = true;
    block->switch_to_scheduler();
  }

  void start(Fiber& fiber, unsigned thread) {
    fiber.thread = thread;
    fiber.started = fiber.finished = false;
    fiber.turn = 0;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    const auto address = reinterpret_cast<uintptr_t>(this);
    makecontext(&fiber.context, reinterpret_cast<void (*)()>(&Block::entry), 2, static_cast<unsigned>(address >> 32),
                static_cast<unsigned>(address));
  }

  void resume(Fiber& fiber) {
    current_ = &fiber;
    threadIdx = {fiber.thread, 0, 0};
    if (_setjmp(scheduler_) == 0) {
      if (fiber.started) _longjmp(fiber.resume_here, 1);
      fiber.started = true;
      setcontext(&fiber.context);
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  void switch_to_scheduler() {
    if (_setjmp(current_->resume_here) == 0) _longjmp(scheduler_, 1);
  }

  void run_warp(unsigned warp, std::mt19937_64* random) {
    const unsigned first = warp * kWarpSize;
    for (unsigned lane = 0; lane < kWarpSize; ++lane) start(*fibers_[first + lane], first + lane);
    const std::vector<unsigned> lanes = order(kWarpSize, random);
    // Each turn takes every lane to its next meeting point.
    while (true) {
      for (unsigned lane : lanes) resume(*fibers_[first + lane]);
      const auto finished = [&](unsigned lane) { return fibers_[first + lane]->finished; };
      if (std::all_of(lanes.begin(), lanes.end(), finished)) return;
      check_meeting(first);
    }
  }

  void check_meeting(unsigned first) const {
    const Fiber& reference = *fibers_[first];
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      const Fiber& fiber = *fibers_[first + lane];
      if (fiber.finished != reference.finished) {
        const SyncPoint& point = (fiber.finished ? reference : fiber).point;
        fail("divergence: lane ", fiber.finished ? lane : 0, " has ended while lane ", fiber.finished ? 0 : lane,
             " waits at ", point.kind, ", line ", point.line);
      }
      if (!(fiber.point == reference.point)) {
        fail("divergence: lane 0 waits at ", reference.point.kind, ", line ", reference.point.line, ", lane ", lane,
             " at ", fiber.point.kind, ", line ", fiber.point.line);
      }
      if (fiber.point.mask != 0xffffffffu) fail("only full masks are emulated, line ", fiber.point.line);
    }
  }

  std::vector<std::unique_ptr<Fiber>> fibers_;
  Fiber* current_ = nullptr;
  jmp_buf scheduler_;
  const std::function<void()>* body_ = nullptr;
  std::exception_ptr error_;
};

inline Block block;

// The array that the kernels see as their shared memory, with room for writes beyond the end to show.
struct SharedMemory {
  unsigned char* begin;
  size_t capacity;

  void poison(size_t used) const {
    std::memset(begin, 0xff, used);
    std::memset(begin + used, kGuard, capacity - used);
  }

  void check(size_t used) const {
    const auto untouched = [](unsigned char byte) { return byte == kGuard; };
    if (!std::all_of(begin + used, begin + capacity, untouched)) {
      fail("write beyond ", used, " bytes of shared memory");
    }
  }
};

// Runs a grid. Seed 0 is the natural order of blocks, warps and lanes; any other permutes them.
inline void run_grid(int64_t blocks, unsigned threads, size_t shared_bytes, const SharedMemory& shared, uint64_t seed,
                     const std::function<void()>& body) {
  if (blocks <= 0 || blocks > INT32_MAX) fail("a grid of ", blocks, " blocks");
  if (shared_bytes > kSharedBytes) fail(shared_bytes, " bytes of shared memory");
  std::mt19937_64 random(seed);
  std::vector<unsigned> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  if (seed != 0) std::shuffle(order.begin(), order.end(), random);
  gridDim = {static_cast<unsigned>(blocks), 1, 1};
  blockDim = {threads, 1, 1};
  for (unsigned index : order) {
    blockIdx = {index, 0, 0};
    shared.poison(shared_bytes);
    block.run(threads, body, seed != 0 ? &random : nullptr);
    shared.check(shared_bytes);
  }
}

}  // namespace emulation

// -----------------------------------------------------------------------------------------------------------------
// CUDA's intrinsics

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask,
                  const std::source_location where = std::source_location::current()) {
  const emulation::SyncPoint point{"__shfl_xor_sync", where.line(), where.column(), mask, lane_mask};
  return emulation::block.exchange(value, lane_mask, point);
}

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       const std::source_location where = std::source_location::current()) {
  emulation::block.wait({"__syncwarp", where.line(), where.column(), mask, 0});
}

template <class Word>
Word __ldg(const Word* place) {
  emulation::memory.check(place, "read");
  emulation::wide_loads += sizeof(Word) == 16;
  return *place;
}

template <class Word>
Word __ldcg(const Word* place) {
  emulation::memory.check(place, "read");
  return *place;
}

template <class Number>
Number atomicAdd(Number* place, Number term) {
  emulation::memory.check(place, "atomicAdd");
  return std::exchange(*place, *place + term);
}

inline float4 atomicAdd(float4* place, float4 term) {
  emulation::memory.check(place, "atomicAdd");
  ++emulation::wide_adds;
  const float4 old = *place;
  return std::exchange(*place, float4{old.x + term.x, old.y + term.y, old.z + term.z, old.w + term.w});
}

template <class Number>
Number atomicMax(Number* place, Number number) {
  emulation::memory.check(place, "atomicMax");
  return std::exchange(*place, std::max(*place, number));
}
