/* The CPU backend's internals: its state, its instruction sets, and the operations that its files provide to the table in cpu.c.
 * One file per operation chooses tiles and threads; the innermost kernels are in ref/ (portable C), x86/ and arm/. */
#ifndef NITI_BACKEND_CPU_CPU_H
#define NITI_BACKEND_CPU_CPU_H

#include "backend/kernels.h"
#include "base/relu.h"
#include "platform/threads.h"

/* In ascending order for each processor: a kernel table is filled for REF first, then overridden up to the chosen set. */
typedef enum NitiIsa {
  NITI_ISA_REF = 0,
  NITI_ISA_AVX2, /* x86-64 */
  NITI_ISA_AVX512VNNI,
  NITI_ISA_AMX,
  NITI_ISA_NEON_DOTPROD, /* 64-bit ARM */
  NITI_ISA_NEON_I8MM,
  NITI_ISAS /* their number */
} NitiIsa;

/* How a kernel rounds one tile: everything but the index of the element. */
typedef struct NitiRounder {
  NitiRounding mode;
  int shift;          /* in the first pass, the minimum shift */
  bool relu;          /* max(m, 0) after rounding, and at most the limit */
  NitiDraw draw;      /* NITI_STOCHASTIC: the stream; word at the flat index of the element */
  const int8_t *mask; /* NULL, or of the output's layout: outputs are 0 where it is <= 0 or not below the limit (a
                         NitiRequantiseKernel ignores it) */
  bool again;         /* the second of two passes; the workspace is as the first left it */
  int clip;           /* of the operation's record */
  uint64_t first;     /* the index in the whole batch of element 0 */
  int lowered; /* by how much the limit of a ReLU with a maximum is below NITI_RELU_UNLIMITED, 0 .. 128; 0: there is none */
} NitiRounder;

/* The largest mantissa that such a ReLU gives, and the largest that its backward passes, from -1 on. */
static inline int32_t niti_rounder_top(const NitiRounder *r) {
  return r->relu && r->lowered > 1 ? NITI_RELU_UNLIMITED - r->lowered : NITI_MANTISSA_MAX;
}
static inline int8_t niti_rounder_last(const NitiRounder *r) { return (int8_t)(NITI_MANTISSA_MAX - r->lowered); }
/* What makes `lowered` of a tensor's limit at an exponent. */
static inline int niti_lowered(int32_t limit, int32_t exponent) { return NITI_RELU_UNLIMITED - niti_relu_limit(limit, exponent); }

/* out[count] = round(acc[count]); `index` is the flat index of out[0] in its tensor. Returns the largest |acc| (before ReLU),
 * at least `max`. out must not overlap acc. */
typedef uint32_t (*NitiRequantiseKernel)(int8_t *out, const int32_t *acc, size_t count, const NitiRounder *, uint64_t index,
                                         uint32_t max);

/* The largest magnitude of a gradient that the step has computed and no update has used yet. */
typedef struct NitiLargest {
  const void *gradient;
  uint64_t magnitude;
} NitiLargest;

typedef struct NitiCpu {
  NitiBackend base;
  NitiThreads *threads, *alone; /* alone: no thread but the caller's */
  NitiIsa isa;
  NitiRequantiseKernel requantise;     /* the instruction set's */
  bool direct;                         /* as asked for in NitiBackendOptions */
  char description[64], hardware[512]; /* for logs */
  uint64_t seed;
  uint32_t step;
  int64_t scalars[NITI_SCALARS_MAX]; /* bound for the run under way */
  uint8_t *workspace;                /* 64-byte aligned */
  size_t workspace_bytes;
  uint64_t mispredicted, predicted;      /* shifts predicted wrongly, and predicted at all: for tests and measurements */
  NitiLargest largest[NITI_UPDATES_MAX]; /* since begin_step */
  int largest_count;
  NitiMetrics batch;    /* whose sums over all ranks are under way, */
  NitiMetrics *metrics; /* and what they are added to; NULL: none are */
} NitiCpu;

static inline NitiCpu *niti_cpu(NitiBackend *backend) { return (NitiCpu *)backend; }

/* What the CPU and the operating system support, and the CPU's name for `niti info`. Querying AMX requests permission from the
 * system for the process to use the tile registers. */
bool niti_isa_supported(NitiIsa isa);
NitiIsa niti_cpu_best_isa(void); /* all smaller sets of the processor are supported too */
const char *niti_isa_name(NitiIsa isa);
NitiStatus niti_isa_parse(NitiIsa *out, const char *name); /* NULL or "auto": the best; unsupported ones fail */
bool niti_cpu_halves_512(void);                            /* instructions on 512 bits take two turns of units of 256 bits */
void niti_cpu_model(char *text, size_t size);              /* the processor's name, or "CPU" if the system does not report it */
void niti_cpu_features(char *text, size_t size);           /* "avx2 avx512f avx512vnni ...", "asimd asimddp i8mm ..." */

/* The index in the whole batch of a tensor's first element, whose images have so many elements. */
static inline uint64_t niti_cpu_first(const NitiCpu *cpu, size_t image) {
  return cpu->base.together.whole > 0 ? (uint64_t)cpu->base.together.first * image : 0;
}
/* Keeps a gradient's largest magnitude for its update, which takes it: false, and nothing written, where it is not known, as
 * where ranks add theirs. Whoever writes a gradient forgets it first. */
void niti_cpu_keep_largest(NitiCpu *, const NitiGradient *, uint64_t magnitude);
bool niti_cpu_take_largest(NitiCpu *, const NitiGradient *, uint64_t *magnitude);
void niti_cpu_forget_largest(NitiCpu *, const NitiGradient *);
/* The largest of all ranks' magnitudes. */
uint32_t niti_cpu_largest(NitiCpu *, uint32_t max);
/* sums[count] of 32 or 64 bits become the sums over all ranks. */
void niti_cpu_all_sum(NitiBackend *, void *sums, size_t count, int bits);
static inline void niti_cpu_add_metrics(NitiMetrics *sums, const NitiMetrics *batch) {
  sums->loss += batch->loss;
  sums->correct += batch->correct;
  sums->images += batch->images;
}

/* Operations: contracts in backend/kernels.h. */
void niti_cpu_all_sum_begin(NitiBackend *, void *sums, size_t count, int bits);
void niti_cpu_all_sum_wait(NitiBackend *);
void niti_cpu_input(NitiBackend *, NitiTensor *out, const uint8_t *images, NitiShape source, const NitiSample *samples,
                    const NitiTensor *table, bool changes);
void niti_cpu_bias_gradient(NitiBackend *, NitiTensor *gradient, const NitiTensor *dy);
void niti_cpu_relu_forward(NitiBackend *, NitiTensor *y, const NitiTensor *x, int32_t limit);
void niti_cpu_relu_backward(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *y, int32_t limit);
void niti_cpu_maxpool_forward(NitiBackend *, NitiTensor *y, uint8_t *winner, const NitiTensor *x, const NitiPool *);
void niti_cpu_maxpool_backward(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const uint8_t *winner, const NitiTensor *mask,
                               const NitiPool *, const NitiRequantise *);
void niti_cpu_avgpool_forward(NitiBackend *, NitiTensor *y, const NitiTensor *x, const NitiPool *, const NitiRequantise *);
void niti_cpu_avgpool_backward(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiPool *, const NitiRequantise *);
void niti_cpu_add(NitiBackend *, NitiTensor *y, const NitiTensor *a, const NitiTensor *b, const NitiTensor *mask, bool relu,
                  const NitiRequantise *);
void niti_cpu_dropout(NitiBackend *, NitiTensor *y, const NitiTensor *x, uint32_t layer, const NitiDropout *);
void niti_cpu_loss(NitiBackend *, NitiTensor *delta, NitiMetrics *, const NitiTensor *logits, const int32_t *labels, NitiLoss,
                   const NitiRequantise *);
void niti_cpu_update_niti(NitiBackend *, const NitiWeightUpdate *updates, int count);
void niti_cpu_norm_fit(NitiBackend *, NitiTensor *affine, NitiTensor *running, NitiTensor *sums, const NitiTensor *x,
                       const NitiTensor *weight, const NitiTensor *bias, bool centred);
void niti_cpu_norm_forward(NitiBackend *, NitiTensor *y, const NitiTensor *x, const NitiTensor *affine, bool relu,
                           const NitiRequantise *);
void niti_cpu_norm_delta_fit(NitiBackend *, NitiTensor *affine, NitiTensor *weight_gradient, NitiTensor *bias_gradient,
                             NitiTensor *delta_sums, const NitiTensor *dy, const NitiTensor *x, const NitiTensor *sums,
                             const NitiTensor *weight, int64_t positions);
void niti_cpu_norm_backward(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *x, const NitiTensor *affine,
                            const NitiRequantise *);
void niti_cpu_gradient_squares(NitiBackend *, const NitiSquareSum *squares, int count);
void niti_cpu_update_sgd(NitiBackend *, const NitiSgdUpdate *updates, int count);
void niti_cpu_stats(NitiBackend *, NitiTensorStats *out, const NitiTensor *);
uint64_t niti_cpu_multiply_add(NitiBackend *);

#endif
