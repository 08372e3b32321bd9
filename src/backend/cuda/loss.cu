/* Integer softmax cross-entropy: one warp per image. */
#include "backend/cuda/tile.cuh"
#include "base/mix.h"
#include "base/softmax.h"

enum Kind { KIND_METRICS, KIND_NITI, KIND_SOFTMAX };

typedef struct Loss {
  int8_t *delta, *blocked; /* blocked may be NULL */
  int32_t *e_delta;
  NitiMetrics *metrics;
  const int8_t *logits;
  const int32_t *exponent, *labels;
  const NitiClock *clock;
  int32_t n, rounded_n; /* images; with the blocked layout those that its last block lacks too */
  int32_t classes;
  int off, on;    /* what smoothed labels expect */
  uint64_t first; /* the index in the whole batch of the first logit */
  int after;      /* the number of the label whose class is mixed into the last one's */
} Loss;

/* What the delta of every class depends on. */
typedef struct Sums {
  int32_t exponent;
  int64_t top;            /* largest t_j */
  int first_of_top;       /* its first class */
  uint64_t softmax, niti; /* sums of the two variants' weights */
} Sums;

static __device__ inline uint64_t sum_warp(uint64_t v) {
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, (unsigned long long)v, step);
  return v;
}

template <int KIND>
static __device__ inline Sums sum_image(const int8_t *logits, int32_t exponent, int classes) {
  const int lane = (int)(threadIdx.x & 31);
  Sums s = {exponent, 0, 0, 0, 0};
  int largest = -NITI_MANTISSA_MAX - 1, first = classes;
  for (int j = lane; j < classes; j += 32) {
    if (logits[j] > largest) {
      largest = logits[j];
      first = j;
    }
  }
  const int top = __reduce_max_sync(0xffffffffu, largest);
  s.first_of_top = __reduce_min_sync(0xffffffffu, largest == top ? first : classes);
  s.top = niti_loss_base2((int8_t)top, exponent);
  for (int j = lane; j < classes; j += 32) {
    const int64_t d = niti_loss_base2(logits[j], exponent) - s.top;
    s.softmax += niti_loss_weight_softmax(d);
    if (KIND == KIND_NITI) s.niti += niti_loss_weight_niti(d);
  }
  s.softmax = sum_warp(s.softmax);
  if (KIND == KIND_NITI) s.niti = sum_warp(s.niti);
  return s;
}

static __device__ inline void store(const Loss &l, int n, int j, int8_t delta) {
  l.delta[(size_t)n * (size_t)l.classes + (size_t)j] = delta;
  if (l.blocked) {
    const size_t unit = (size_t)(n / NITI_BLOCK_IMAGES) * (size_t)l.classes + (size_t)j;
    l.blocked[unit * NITI_BLOCK_IMAGES + (size_t)niti_blocked_slot(n % NITI_BLOCK_IMAGES)] = delta;
  }
}

static __device__ inline void clear_blocked(const Loss &l, int n) {
  for (int j = (int)(threadIdx.x & 31); j < l.classes; j += 32) {
    const size_t unit = (size_t)(n / NITI_BLOCK_IMAGES) * (size_t)l.classes + (size_t)j;
    l.blocked[unit * NITI_BLOCK_IMAGES + (size_t)niti_blocked_slot(n % NITI_BLOCK_IMAGES)] = 0;
  }
}

static __device__ inline int64_t share(const Sums &s, int8_t logit) {
  return niti_loss_share_niti(niti_loss_weight_niti(niti_loss_base2(logit, s.exponent) - s.top), s.niti);
}

static __device__ inline void delta_niti(const Loss &l, const Sums &s, const int8_t *logits, int n, int target) {
  const NitiDraw draw = {l.clock->seed, NITI_DRAW_LOSS, l.clock->step, 0};
  const int lane = (int)(threadIdx.x & 31);
  uint64_t total = 0;
  for (int j = lane; j < l.classes; j += 32) total += (uint64_t)share(s, logits[j]);
  total = sum_warp(total);
  for (int j = lane; j < l.classes; j += 32) {
    const uint32_t word = niti_draw(&draw, l.first + (uint64_t)n * (uint64_t)l.classes + (uint64_t)j);
    store(l, n, j, niti_loss_round_niti(share(s, logits[j]) - (j == target ? (int64_t)total : 0), word));
  }
}

static __device__ inline uint32_t delta_softmax(const Loss &l, const Sums &s, const int8_t *logits, int n, int target,
                                                const NitiRequantiseArgs &a, int shift, uint32_t max) {
  const int share = niti_label_share(l.labels[n]), next = niti_label_class(l.labels[n + 1 < l.n ? n + 1 : l.after]);
  const bool alone = share == 0 || next == target;
  const int part = alone ? 0 : niti_mixed_part(l.on, l.off, share), other = alone ? target : next;
  for (int j = (int)(threadIdx.x & 31); j < l.classes; j += 32) {
    const uint64_t p = niti_loss_weight_softmax(niti_loss_base2(logits[j], s.exponent) - s.top);
    const int acc = niti_loss_acc_softmax(p, s.softmax, j == target ? l.on - part : j == other ? l.off + part : l.off);
    max = niti_magnitude(acc) > max ? niti_magnitude(acc) : max;
    store(l, n, j, (int8_t)niti_word_requantise<1>(a, &acc, shift, (uint64_t)n * (uint64_t)l.classes + (uint64_t)j));
  }
  return max;
}

/* The block's sums to the metrics: integer additions, whose order makes no difference. */
static __device__ void add_metrics(const Loss &l, int64_t loss, int correct, int images) {
  __shared__ unsigned long long sums[3][NITI_TILE_WARPS];
  const int warp = (int)threadIdx.x / 32;
  if ((threadIdx.x & 31) == 0) {
    sums[0][warp] = (unsigned long long)loss;
    sums[1][warp] = (unsigned long long)correct;
    sums[2][warp] = (unsigned long long)images;
  }
  __syncthreads();
  if (threadIdx.x >= 3) return;
  unsigned long long sum = 0;
  for (int i = 0; i < NITI_TILE_WARPS; ++i) sum += sums[threadIdx.x][i];
  int64_t *to = threadIdx.x == 0 ? &l.metrics->loss : threadIdx.x == 1 ? &l.metrics->correct : &l.metrics->images;
  atomicAdd((unsigned long long *)to, sum);
}

template <int KIND>
static __global__ void __launch_bounds__(NITI_TILE_THREADS) loss_kernel(Loss l, NitiRequantiseArgs a, bool second) {
  niti_kernel_begin();
  int64_t loss = 0;
  int correct = 0, images = 0, shift = 0;
  uint32_t max = 0;
  if (KIND != KIND_SOFTMAX || niti_range_begin(a, second, &shift)) {
    const int32_t exponent = *l.exponent;
    for (int n = (int)niti_tile_first(); n < l.rounded_n; n += (int)niti_tile_step()) {
      if (n >= l.n) {
        clear_blocked(l, n);
        continue;
      }
      const int8_t *logits = l.logits + (size_t)n * (size_t)l.classes;
      const int target = niti_label_class(l.labels[n]);
      const Sums s = sum_image<KIND>(logits, exponent, l.classes);
      if (KIND == KIND_NITI) delta_niti(l, s, logits, n, target);
      if (KIND == KIND_SOFTMAX) max = delta_softmax(l, s, logits, n, target, a, shift, max);
      loss += niti_loss_bits(s.softmax, niti_loss_base2(logits[target], exponent) - s.top);
      correct += s.first_of_top == target;
      ++images;
    }
  }
  if (!second) add_metrics(l, loss, correct, images);
  if (KIND == KIND_NITI && blockIdx.x == 0 && threadIdx.x == 0) *l.e_delta = 0;
  if (KIND == KIND_SOFTMAX) niti_pass_end(a, second, max);
}

/* Moves a batch's metrics to the sums. */
static __global__ void metrics_kernel(NitiMetrics *sums, NitiMetrics *batch) {
  niti_kernel_begin();
  if (threadIdx.x > 0) return;
  sums->loss += batch->loss;
  sums->correct += batch->correct;
  sums->images += batch->images;
  *batch = NitiMetrics{0, 0, 0};
}

extern "C" void niti_cuda_add_metrics(NitiCuda *cuda) {
  if (cuda->metrics) NITI_LAUNCH(cuda, metrics_kernel, 1, 32, 0, cuda->metrics, &cuda->range->batch);
  cuda->metrics = NULL;
}

/* Adds the batch's metrics of all ranks; of a step that trains they travel until its sums are waited for. */
static void share_metrics(NitiCuda *cuda, NitiMetrics *metrics, bool trains) {
  const size_t count = sizeof *metrics / sizeof(int64_t);
  cuda->metrics = metrics;
  if (trains) {
    niti_cuda_all_sum_begin(&cuda->base, &cuda->range->batch, count, 64);
  } else {
    niti_cuda_all_sum(&cuda->base, &cuda->range->batch, count, 64);
    niti_cuda_add_metrics(cuda);
  }
}

extern "C" void niti_cuda_loss(NitiBackend *backend, NitiTensor *delta, NitiMetrics *metrics, const NitiTensor *logits,
                               const int32_t *labels, NitiLoss loss_kind, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const NitiLossKind kind = loss_kind.kind;
  const bool together = backend->together.whole > 0;
  const int32_t n = logits->shape.n, classes = (int32_t)niti_shape_image(logits->shape);
  Loss l = {NULL,
            NULL,
            NULL,
            together ? &cuda->range->batch : metrics,
            logits->data,
            logits->exponent,
            labels,
            cuda->clock,
            n,
            n,
            classes,
            loss_kind.off,
            niti_loss_on(loss_kind.off, classes),
            niti_cuda_first(cuda, (size_t)classes),
            (int)niti_mixed_in(backend, (size_t)n - 1, (size_t)n)};
  NitiRequantiseArgs requantise = {};
  if (delta) {
    l.delta = delta->data;
    l.e_delta = delta->exponent;
    l.blocked = niti_blocked_of(delta, 4);
    if (l.blocked) l.rounded_n = (n + NITI_BLOCK_IMAGES - 1) / NITI_BLOCK_IMAGES * NITI_BLOCK_IMAGES;
    if (kind == NITI_LOSS_SOFTMAX) {
      requantise = niti_requantise_args(cuda, rq, delta->exponent, NULL, NULL, -NITI_LOSS_SOFTMAX_BITS, false);
    }
  }
  const unsigned all = ((unsigned)l.rounded_n + NITI_TILE_WARPS - 1) / NITI_TILE_WARPS;
  const unsigned most = (unsigned)(cuda->multiprocessors * NITI_TILE_BLOCKS), grid = all < most ? all : most;
  void (*loss)(Loss, NitiRequantiseArgs, bool) = !delta                      ? loss_kernel<KIND_METRICS>
                                                 : kind == NITI_LOSS_SOFTMAX ? loss_kernel<KIND_SOFTMAX>
                                                                             : loss_kernel<KIND_NITI>;
  NITI_LAUNCH(cuda, loss, grid, NITI_TILE_THREADS, 0, l, requantise, false);
  if (together) share_metrics(cuda, metrics, delta != NULL);
  if (!delta) return;
  if (kind == NITI_LOSS_SOFTMAX) {
    niti_cuda_share_range(cuda);
    NITI_LAUNCH(cuda, loss, grid, NITI_TILE_THREADS, 0, l, requantise, true);
  }
  niti_cuda_blocked_set(cuda, delta, l.blocked != NULL);
}
