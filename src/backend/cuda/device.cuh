/* Device functions that the kernels share: launching, rounding, and the range protocol.
 *
 * A requantising operation whose blocks all run at once is one launch (meet.cuh). Any other is two launches of the same kernel.
 * The first writes int8 with the predicted shift and raises range->max; the second returns at once where that shift was right,
 * else computes the operation again with the true one. Its last block stores the exponent and the next prediction and clears the
 * range. So nothing waits for the host, and the result is the definition's whatever was predicted. Ranks exchange their maxima
 * between the launches. */
#ifndef NITI_BACKEND_CUDA_DEVICE_CUH
#define NITI_BACKEND_CUDA_DEVICE_CUH

#include "backend/cuda/cuda.h"
#include "backend/cuda/ptx.cuh"
#include "base/random.h"
#include "base/relu.h"
#include "base/shift_prediction.h"

/* Runs a kernel in the backend's stream; a failed launch shows in synchronise(). It may start while the kernel before it still
 * runs, so every kernel begins with niti_kernel_begin(), or with its two halves. */
#define NITI_LAUNCH(cuda, kernel, grid, block, shared, ...) \
  niti_launch((cuda), #kernel, kernel, dim3(grid), dim3(block), (shared), 1, __VA_ARGS__)

#ifdef __CUDACC__

/* cluster: blocks of a cluster, 1 for none. */
template <typename... Parameters, typename... Arguments>
static inline void niti_launch(NitiCuda *cuda, const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                               size_t shared, unsigned cluster, const Arguments &...arguments) {
  if (cuda->late) niti_cuda_set_clock(cuda);
  if (cuda->error != cudaSuccess) return; /* what a failed call should have left for it may be anything, addresses too */
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = cuda->stream;
  config.attrs = attributes;
  if (cuda->overlap && !cuda->beside.joined) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs].val.clusterDim.x = cluster;
    attributes[config.numAttrs].val.clusterDim.y = attributes[config.numAttrs].val.clusterDim.z = 1;
    ++config.numAttrs;
  }
  const auto launch = [&](Parameters... given) { /* of the kernel's own types */
                                                 void *list[] = {&given...};
                                                 const cudaError_t error =
                                                     niti_cuda_runtime.cudaLaunchKernelExC(&config, (const void *)kernel, list);
#ifdef NITI_EMULATED
                                                 if (error == cudaSuccess)
                                                   niti_emulated_run(config.gridDim, config.blockDim, [&] { kernel(given...); });
#endif
                                                 return error;
  };
  niti_cuda_note(cuda, launch(arguments...), name);
  if (cuda->stream != cuda->beside.side) cuda->beside.joined = false;
}

/* In this order, so that at most one kernel waits beside the one that runs: more would hold multiprocessors unevenly, on which
 * blocks of those in between then lie two by two. And so that, as no block of the next kernel starts before all that came before
 * this one has ended, the next may read that without waiting for this one, past the first-level cache (__ldcg). Of kernels that
 * use this the host sets NitiCuda.settled after the launch. */
__device__ inline void niti_kernel_begin() {
  niti_kernel_wait();
  niti_kernel_announce();
}

#endif

/* What requantising needs, by value to a kernel. e_a, e_b: exponents to add up (either may be NULL); e_c: a constant added. */
struct NitiRequantiseArgs {
  NitiRange *range;
  const NitiClock *clock;
  int32_t *prediction;
  int32_t *exponent; /* of the output */
  const int32_t *e_a, *e_b;
  int32_t e_c;
  NitiRounding mode;
  uint32_t purpose, layer;
  int share; /* of niti_shift_prediction_next */
  int clip;
  bool relu;
  uint64_t first;         /* the index in the whole batch of the output's first element */
  const int32_t *bias;    /* NULL, or what is added to the accumulators of each output channel (convolution forward), */
  const int64_t *means;   /* or the running means from which kernels that can make that themselves (wgmma, narrow) */
  int32_t limit;          /* 0, or of the output's ReLU, or of the ReLU whose output the mask is: the maximum in millionths, */
  const int32_t *e_limit; /* and the exponent at which it counts */
};

static inline NitiRequantiseArgs niti_requantise_args(const NitiCuda *cuda, const NitiRequantise *rq, int32_t *exponent,
                                                      const int32_t *e_a, const int32_t *e_b, int32_t e_c, bool relu) {
  return NitiRequantiseArgs{cuda->range,
                            cuda->clock,
                            rq->prediction,
                            exponent,
                            e_a,
                            e_b,
                            e_c,
                            rq->mode,
                            rq->purpose,
                            rq->layer,
                            NITI_PREDICTION_EVEN,
                            rq->clip,
                            relu,
                            niti_cuda_first(cuda, rq->image),
                            NULL,
                            NULL,
                            0,
                            NULL};
}

/* mask: NULL, or the operation's. */
static inline void niti_requantise_limit(NitiRequantiseArgs *a, const NitiTensor *mask) {
  a->limit = mask ? mask->limit : 0;
  a->e_limit = mask ? mask->exponent : NULL;
}

#ifdef __CUDACC__

/* Of a ReLU with a maximum in millionths, or 0, at that exponent: by how much its limit is below NITI_RELU_UNLIMITED, in each
 * byte: 0 (there is none) to 128. */
__device__ inline uint32_t niti_lowered(int32_t limit, const int32_t *exponent) {
  return limit == 0 ? 0 : 0x01010101u * (uint32_t)(NITI_RELU_UNLIMITED - niti_relu_limit(limit, *exponent));
}

/* The largest mantissa of an output whose ReLU, if there is one, has this limit. */
__device__ inline uint32_t niti_lowered_top(const NitiRequantiseArgs &a, uint32_t lowered) {
  const uint32_t limit = NITI_RELU_UNLIMITED - (lowered & 0xff);
  return a.relu && limit < NITI_MANTISSA_MAX ? limit : NITI_MANTISSA_MAX;
}

/* Bit 7 of the bytes that its backward passes, those above 0 and below the limit; the other bits are anything. Nothing carries
 * from a byte to the next. */
__device__ inline uint32_t niti_passing_signs(uint32_t v, uint32_t lowered) {
  const uint32_t low = v & 0x7f7f7f7fu;
  return (low + 0x7f7f7f7fu) & ~(low + lowered) & ~v;
}

/* 0xff in the bytes whose bit 7 is set. */
__device__ inline uint32_t niti_spread_signs(uint32_t v) { return niti_permute(v, 0, 0xba98); }

/* 0xff in the bytes that it passes. */
__device__ inline uint32_t niti_passing_bytes(uint32_t v, uint32_t lowered) {
  return niti_spread_signs(niti_passing_signs(v, lowered));
}

__device__ inline int niti_range_predicted(const NitiRequantiseArgs &a) {
  return niti_shift_prediction_next(*a.prediction, a.share);
}

/* The shift that this launch is to use; false: nothing to do (second launch, and the prediction was right). */
__device__ inline bool niti_range_begin(const NitiRequantiseArgs &a, bool second, int *shift) {
  const int predicted = niti_range_predicted(a);
  *shift = second ? niti_clipped_shift(a.range->max, a.clip) : predicted;
  return !second || *shift != predicted;
}

/* First launch: raises the maximum with each lane's largest |acc|; whole warps call it. */
__device__ inline void niti_range_raise(const NitiRequantiseArgs &a, uint32_t max) {
  max = __reduce_max_sync(0xffffffffu, max);
  if ((threadIdx.x & 31) == 0 && max > 0) atomicMax(&a.range->max, max);
}

/* One thread, when no block uses predicted and exponents any more. again: whether some of the operation was computed twice. */
__device__ inline void niti_range_record(const NitiRequantiseArgs &a, int shift, bool again) {
  a.range->predicted += 1;
  a.range->mispredicted += again;
  *a.prediction = niti_shift_prediction_update(*a.prediction, shift);
  *a.exponent = (a.e_a ? *a.e_a : 0) + (a.e_b ? *a.e_b : 0) + a.e_c + shift;
}

/* Second launch: one thread of every block calls it after the block's last use of range, predicted and exponents. Whether this
 * was the last block, which is to call niti_range_close(). */
__device__ inline bool niti_range_last(const NitiRequantiseArgs &a, uint32_t blocks) {
  __threadfence();
  return atomicAdd(&a.range->done, 1u) + 1 == blocks;
}

__device__ inline void niti_range_close(const NitiRequantiseArgs &a, bool again) {
  niti_range_record(a, niti_clipped_shift(a.range->max, a.clip), again);
  a.range->max = 0;
  a.range->done = 0;
}

/* Both, where the first launch used the predicted shift alone. */
__device__ inline void niti_range_end(const NitiRequantiseArgs &a, uint32_t blocks) {
  if (niti_range_last(a, blocks)) niti_range_close(a, niti_clipped_shift(a.range->max, a.clip) != niti_range_predicted(a));
}

/* One accumulator to int8, before any ReLU; index: flat index in the NHWC tensor (NITI_STOCHASTIC only). */
__device__ inline int niti_requantise_one(const NitiRequantiseArgs &a, int acc, int shift, uint64_t index) {
  int m;
  if (a.mode == NITI_NEAREST) {
    const int half = shift > 0 ? 1 << (shift - 1) : 0; /* ties away from zero: one less for negative accumulators */
    m = (int)(((int64_t)acc + half + (shift > 0 ? acc >> 31 : 0)) >> shift);
  } else {
    uint32_t word = 0;
    if (niti_rounding_draws(a.mode) && shift > 0) {
      const NitiDraw draw = {a.clock->seed, a.purpose, a.clock->step, a.layer};
      word = niti_rounding_word(&draw, a.mode, a.first + index);
    }
    m = (int)niti_round_inline(acc, shift, a.mode, word);
  }
  m = m > NITI_MANTISSA_MAX ? NITI_MANTISSA_MAX : m < -NITI_MANTISSA_MAX ? -NITI_MANTISSA_MAX : m;
  return m;
}

#endif
#endif
