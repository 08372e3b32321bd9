/* Requantising in one launch. Where all blocks run at once, each keeps what it has summed up, waits until all have raised the
 * range, and rounds with the true shift: nothing is predicted, written twice or launched again. It takes no more blocks than
 * there are multiprocessors, so that each has one to itself as soon as the kernels before have ended; those after cannot start
 * before all blocks run. Blocks that find all others waiting have the operation's NitiMeeting; the last to come clears that of
 * two operations later, which nobody has read since two operations before. */
#ifndef NITI_BACKEND_CUDA_MEET_CUH
#define NITI_BACKEND_CUDA_MEET_CUH

#include <stddef.h>

#include "backend/cuda/device.cuh"

static_assert(offsetof(NitiRange, meetings) % 8 == 0 && offsetof(NitiMeeting, done) == 4, "what niti_wait_for reads");

/* How many blocks may meet. With ranks none: they exchange their maxima between two launches. One needs to wait for nobody, and
 * on devices before 9.0 and where others have blocks of their own that is all. */
static inline unsigned niti_meeting_most(const NitiCuda *cuda) {
  return cuda->base.together.whole > 0 ? 0 : cuda->overlap && !cuda->shared ? (unsigned)cuda->multiprocessors : 1;
}

#ifdef __CUDACC__

/* What meeting gave. */
struct NitiMet {
  int shift;
  bool last; /* this thread is to call niti_meeting_end() */
};

/* Every thread of every block calls it, once, after its last use of exponents. max: its largest |acc|. turn: range->turn, read
 * before. */
__device__ inline NitiMet niti_meet(const NitiRequantiseArgs &a, uint32_t turn, uint32_t max) {
  __shared__ uint32_t maxima[32];
  __shared__ int shift;
  bool last = false;
  max = __reduce_max_sync(0xffffffffu, max);
  if ((threadIdx.x & 31) == 0) maxima[threadIdx.x / 32] = max;
  __syncthreads();
  if (threadIdx.x < 32) {
    max = __reduce_max_sync(0xffffffffu, threadIdx.x < blockDim.x / 32 ? maxima[threadIdx.x] : 0);
    if (threadIdx.x == 0) {
      NitiMeeting *meeting = &a.range->meetings[turn % NITI_MEETINGS];
      if (max > 0) atomicMax(&meeting->max, max);
      last = niti_count_up(&meeting->done) + 1 == gridDim.x;
      shift = niti_clipped_shift(niti_wait_for(&meeting->max, gridDim.x).x, a.clip);
    }
  }
  __syncthreads();
  return NitiMet{shift, last};
}

/* One thread of all. */
__device__ inline void niti_meeting_end(const NitiRequantiseArgs &a, uint32_t turn, int shift) {
  niti_range_record(a, shift);
  a.range->meetings[(turn + NITI_MEETINGS / 2) % NITI_MEETINGS] = NitiMeeting{0, 0};
  a.range->turn = turn + 1;
}

#endif
#endif
