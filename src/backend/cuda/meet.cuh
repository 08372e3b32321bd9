/* Meetings: how the blocks of one launch find its range. Each tells its largest value and hears those of all others; what it has
 * summed up it keeps meanwhile, and rounds with the shift that all demand. Where all blocks are known to run at once they wait
 * for as long as it takes, and the operation is a single launch: nothing is predicted, written twice or launched again. Elsewhere
 * they lose patience after a while, take what they know and the prediction, and leave it to a second launch to see whether that
 * was right.
 *
 * Blocks run at once if they are no more than the multiprocessors hold of them, so that each has its place as soon as the kernels
 * before have ended: those after cannot start before all blocks run. Kernels beside them that end by themselves only delay them,
 * if a block has a multiprocessor to itself: several of one could lie round a place that those leave, in which none fits. But two
 * launches that both wait for blocks that have no room would wait for ever, so no other process (MPS) and no other backend of
 * this process may have such.
 *
 * Meeting number `turn` has range->told[turn % NITI_MEETINGS]. The blocks clear the words of two meetings later, which nobody has
 * read since two meetings before. */
#ifndef NITI_BACKEND_CUDA_MEET_CUH
#define NITI_BACKEND_CUDA_MEET_CUH

#include "backend/cuda/device.cuh"

#define NITI_TOLD (1u << 31) /* beside a value: it has been told */
enum { NITI_MEETING_NANOSECONDS = 10000 /* of patience */ };

/* How many blocks may wait for each other without an end. With ranks none: they exchange their maxima between two launches. One
 * needs to wait for nobody, and on devices before 9.0 and where others may wait too that is all. */
static inline unsigned niti_meeting_most(const NitiCuda *cuda) {
  const unsigned all = cuda->multiprocessors < NITI_MEETING_MOST ? (unsigned)cuda->multiprocessors : (unsigned)NITI_MEETING_MOST;
  return cuda->base.together.whole > 0 ? 0 : cuda->overlap && !cuda->shared ? all : 1;
}

/* Whether that many blocks of a kernel may meet, which prefers shared memory to the first-level cache. */
static inline bool niti_meeting_holds(NitiCuda *cuda, const void *kernel, unsigned threads, size_t shared, unsigned blocks) {
  const unsigned most = niti_meeting_most(cuda);
  int each = 0;
  if (blocks <= most) return true;
  if (most <= 1 || cuda->beside.pending || blocks > NITI_MEETING_MOST) return false;
  niti_cuda_note(cuda, niti_cuda_runtime.cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, (int)threads, shared),
                 "blocks of a multiprocessor");
  return blocks <= (unsigned)(each * cuda->multiprocessors);
}

#ifdef __CUDACC__

/* The largest of what has been told by blocks of groups 0 .. groups - 1, with NITI_TOLD only where all have. */
__device__ inline uint32_t niti_meeting_hear(const NitiRange *range, uint32_t turn, int groups) {
  uint32_t largest = 0;
  bool missing = false;
  for (int group = 0; group < groups; ++group) {
    const volatile uint32_t *told = range->told[turn % NITI_MEETINGS][group];
#pragma unroll 5
    for (uint32_t block = threadIdx.x & 31; block < gridDim.x; block += 32) {
      const uint32_t word = told[block];
      largest = max(largest, word & ~NITI_TOLD);
      missing = missing || !(word & NITI_TOLD);
    }
  }
  return __reduce_max_sync(0xffffffffu, largest) | (__any_sync(0xffffffffu, missing) ? 0 : NITI_TOLD);
}

/* One warp of the block tells the largest of its group, < 2^31, and hears what niti_meeting_hear() says of groups 0 .. groups
 * - 1. turn: range->turn, read before. waits: for as long as it takes. */
__device__ inline uint32_t niti_meeting_tell(NitiRange *range, uint32_t turn, int group, int groups, uint32_t largest,
                                             bool waits) {
  const int64_t start = niti_device_nanoseconds();
  if ((threadIdx.x & 31) == 0) *(volatile uint32_t *)&range->told[turn % NITI_MEETINGS][group][blockIdx.x] = largest | NITI_TOLD;
  if (group == 0) { /* that meeting may have had more blocks and groups than this one */
    uint32_t *old = &range->told[(turn + NITI_MEETINGS / 2) % NITI_MEETINGS][0][0];
    for (uint32_t i = blockIdx.x + (threadIdx.x & 31) * gridDim.x; i < NITI_MEETING_GROUPS * NITI_MEETING_MOST;
         i += 32 * gridDim.x)
      old[i] = 0;
  }
  uint32_t heard = niti_meeting_hear(range, turn, groups);
  while (!(heard & NITI_TOLD) && (waits || niti_device_nanoseconds() - start < NITI_MEETING_NANOSECONDS))
    heard = niti_meeting_hear(range, turn, groups);
  return __shfl_sync(0xffffffffu, heard, 0); /* should clocks differ within the warp */
}

/* Where all waited: every thread of every block calls it, once, after its last use of exponents, and gets the shift. max: its
 * largest |acc|. */
__device__ inline int niti_meet(const NitiRequantiseArgs &a, uint32_t turn, uint32_t max) {
  __shared__ uint32_t maxima[32];
  __shared__ int shift;
  max = __reduce_max_sync(0xffffffffu, max);
  if ((threadIdx.x & 31) == 0) maxima[threadIdx.x / 32] = max;
  __syncthreads();
  if (threadIdx.x < 32) {
    max = __reduce_max_sync(0xffffffffu, threadIdx.x < blockDim.x / 32 ? maxima[threadIdx.x] : 0);
    max = niti_meeting_tell(a.range, turn, 0, 1, max, true) & ~NITI_TOLD;
    if (threadIdx.x == 0) shift = niti_clipped_shift(max, a.clip);
  }
  __syncthreads();
  return shift;
}

/* Ends an operation of a single launch: one thread of block 0, once it has heard all. */
__device__ inline void niti_meeting_end(const NitiRequantiseArgs &a, uint32_t turn, int shift) {
  niti_range_record(a, shift, false);
  a.range->turn = turn + 1;
}

/* Both, where no thread uses exponents any more. */
__device__ inline int niti_meet_all(const NitiRequantiseArgs &a, uint32_t max) {
  const uint32_t turn = a.range->turn;
  const int shift = niti_meet(a, turn, max);
  if (blockIdx.x == 0 && threadIdx.x == 0) niti_meeting_end(a, turn, shift);
  return shift;
}

#endif
#endif
