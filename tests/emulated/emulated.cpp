/* The threads of emulated.h, and the table of the CUDA runtime's functions. */
#include "emulated.h"

#include <setjmp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include "backend/cuda/runtime.h"

NitiEmulatedPlace niti_emulated;
alignas(1024) uint8_t niti_emulated_shared[NITI_EMULATED_SHARED];

enum { THREADS_MAX = 1024, STACK_BYTES = 1 << 18, WARP = 32 };

void niti_emulated_fail(const char *why) {
  (void)fprintf(stderr, "emulated device: block %u, thread %u: %s\n", niti_emulated.block.x, niti_emulated.thread.x, why);
  abort();
}

/* ---- threads: each has a stack of its own; ucontext begins them, longjmp goes from one to the next ---- */

namespace {

struct Lane {
  jmp_buf at;
  ucontext_t first;
  bool begun;
  void *mine; /* offered to those it meets */
  uint32_t mask;
  NitiEmulatedAll all;
};

struct Warp {
  uint32_t live, runnable, meeting, at_barrier;
};

Lane lanes[THREADS_MAX];
Warp warps[THREADS_MAX / WARP];
int count, warp_count, current, left, waiting; /* left: threads that have not ended; waiting: of these, at the barrier */
jmp_buf host;
const std::function<void()> *kernel;

[[noreturn]] void enter(int lane);
void go_on();

void thread_loop() {
  for (;;) {
    (*kernel)();
    Warp &w = warps[current / WARP];
    const uint32_t bit = 1u << current % WARP;
    w.live &= ~bit;
    w.runnable &= ~bit;
    --left;
    go_on();
  }
}

/* To the next thread of the same warp that may run, else of another warp; to the host where all have ended. */
[[noreturn]] void leave() {
  if (left == 0) _longjmp(host, 1);
  const int own = current / WARP;
  for (int i = 0; i < warp_count; ++i) {
    const int w = (own + i) % warp_count;
    uint32_t may = warps[w].runnable;
    if (!may) continue;
    const uint32_t after = i == 0 ? may & ~((2u << current % WARP) - 1) : may;
    if (after) may = after;
    enter(w * WARP + __builtin_ctz(may));
  }
  niti_emulated_fail("no thread can go on: some wait at a barrier or for their warp, and others have ended or wait elsewhere");
}

void release_barrier() {
  if (waiting == 0 || waiting != left) return;
  for (int w = 0; w < warp_count; ++w) {
    warps[w].runnable |= warps[w].at_barrier;
    warps[w].at_barrier = 0;
  }
  waiting = 0;
}

/* Lanes that wait for each other, and are all there by now. */
bool complete(Warp &w, int first, uint32_t mask) {
  const uint32_t wanted = mask & w.live;
  if (wanted == 0 || (w.meeting & wanted) != wanted) return false;
  void *offered[WARP] = {};
  const Lane *some = &lanes[first + __builtin_ctz(wanted)];
  for (int i = 0; i < WARP; ++i) {
    if (!(wanted >> i & 1)) continue;
    const Lane &lane = lanes[first + i];
    if (lane.all != some->all || lane.mask != mask) niti_emulated_fail("the lanes of a warp meet at different instructions");
    offered[i] = lane.mine;
  }
  some->all(offered, wanted);
  w.meeting &= ~wanted;
  w.runnable |= wanted;
  return true;
}

[[noreturn]] void enter(int lane) {
  current = lane;
  niti_emulated.thread = make_uint3((unsigned)lane, 0, 0);
  if (lanes[lane].begun) _longjmp(lanes[lane].at, 1);
  lanes[lane].begun = true;
  (void)setcontext(&lanes[lane].first);
  niti_emulated_fail("no context");
}

/* Another thread runs until this one may go on. */
void give_way() {
  if (_setjmp(lanes[current].at) == 0) leave();
}

/* A thread has ended: those that wait for it need not. */
void go_on() {
  Warp &w = warps[current / WARP];
  const int first = current / WARP * WARP;
  for (uint32_t open = w.meeting; open;) {
    const uint32_t mask = lanes[first + __builtin_ctz(open)].mask;
    (void)complete(w, first, mask);
    open &= ~mask;
  }
  release_barrier();
  give_way(); /* until the next block */
}

void begin_lane(int lane) {
  Lane &l = lanes[lane];
  if (l.first.uc_stack.ss_sp) return;
  void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED || getcontext(&l.first) != 0) niti_emulated_fail("no memory for stacks");
  l.first.uc_stack.ss_sp = stack;
  l.first.uc_stack.ss_size = STACK_BYTES;
  l.first.uc_link = NULL;
  makecontext(&l.first, thread_loop, 0);
}

void run_block() {
  left = count;
  waiting = 0;
  warp_count = (count + WARP - 1) / WARP;
  for (int w = 0; w < warp_count; ++w) {
    const int in = count - w * WARP;
    const uint32_t all = in >= WARP ? 0xffffffffu : (1u << in) - 1;
    warps[w] = Warp{all, all, 0, 0};
  }
  if (_setjmp(host) == 0) enter(0);
}

}  // namespace

void niti_emulated_run(dim3 grid, dim3 block, const std::function<void()> &body) {
  count = (int)block.x;
  if (block.y != 1 || block.z != 1 || count < 1 || count > THREADS_MAX)
    niti_emulated_fail("blocks have one dimension, of 1 to 1024");
  for (int i = 0; i < count; ++i) begin_lane(i);
  kernel = &body;
  niti_emulated.threads = block;
  niti_emulated.blocks = grid;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        niti_emulated.block = make_uint3(x, y, z);
        run_block();
      }
    }
  }
}

void niti_emulated_barrier() {
  const uint32_t bit = 1u << current % WARP;
  Warp &w = warps[current / WARP];
  w.runnable &= ~bit;
  w.at_barrier |= bit;
  ++waiting;
  release_barrier();
  give_way();
}

void niti_emulated_meet(uint32_t mask, void *mine, NitiEmulatedAll all) {
  Warp &w = warps[current / WARP];
  const uint32_t bit = 1u << current % WARP;
  Lane &lane = lanes[current];
  if (!(mask & bit)) niti_emulated_fail("a lane that its own mask leaves out");
  lane.mine = mine;
  lane.mask = mask;
  lane.all = all;
  w.meeting |= bit;
  w.runnable &= ~bit;
  if (!complete(w, current / WARP * WARP, mask)) give_way();
}

int64_t niti_device_nanoseconds() {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
