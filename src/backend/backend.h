/* The backend table: every operation a layer may ask for. One table a device kind (cpu/, cuda/); layers call nothing else.
 *
 * Rules for every operation
 * - Tensors, gradients, masks and exponents lie in the backend's memory (alloc); layers never look into them.
 * - Outputs come first; inputs are const. An output may alias an input only where its contract says so.
 * - Shapes were validated when the model was built: operations return nothing and only assert. A failure of the device shows
 *   in synchronise(). No operation allocates; what conv and linear need beyond their operands is reserved once by reserve().
 * - Results are exactly those of docs/arithmetic.md, whatever the instruction set, number of threads or tiles.
 * - Work may be queued: results are visible to the host after download() or synchronise().
 * - The first failure of a device stays: every later synchronise() and replay() reports it, and download() then gives zeros. So
 *   what was downloaded may be believed (and saved) only after a synchronise() that followed it. */
#ifndef NITI_BACKEND_BACKEND_H
#define NITI_BACKEND_BACKEND_H

#include "base/random.h"
#include "platform/status.h"
#include "tensor/tensor.h"

typedef struct NitiBackend NitiBackend;

/* How one operation brings its int32 accumulators to int8. `layer` and `purpose` select the random words of NITI_STOCHASTIC
 * (time is the step of begin_step, seed the backend's); the index is the flat index of the output element. */
typedef struct NitiRequantise {
  NitiRounding mode;
  uint32_t purpose, layer;
  int32_t *guess; /* backend memory: at the next shift (base/guess.h); any word gives the same bits */
} NitiRequantise;

/* A convolution (linear: 1x1 on 1x1 images). x [N][H][W][C], w [K][KH][KW][C], y [N][OH][OW][K]; OH = (H + 2 pad_h - KH) /
 * stride_h + 1. */
typedef struct NitiConv {
  int32_t n, h, w, c;
  int32_t oh, ow, k;
  int32_t kh, kw, stride_h, stride_w, pad_h, pad_w;
  void *packed; /* NULL, or conv_packed_bytes of backend memory, for weights that stay the same: conv_forward keeps them there as
                   it packed them, and takes them from there until the first 8 bytes are cleared */
  bool x_positive; /* x holds no negative mantissa, because it follows a ReLU: kernels may use that, results are the same */
} NitiConv;

/* A pooling window over x [N][H][W][C] giving y [N][OH][OW][C]. KH * KW <= 255 for max-pool. pad_h < KH, pad_w < KW; average
 * pool: no padding. */
typedef struct NitiPool {
  int32_t n, h, w, c;
  int32_t oh, ow;
  int32_t kh, kw, stride_h, stride_w, pad_h, pad_w;
} NitiPool;

/* No cell lies in two windows. */
static inline bool niti_pool_apart(const NitiPool *p) { return p->stride_h >= p->kh && p->stride_w >= p->kw; }

/* The exact gradient of one weight tensor. bits 32 where N * OH * OW <= NITI_MAX_TERMS can be proven, else 64. */
typedef struct NitiGradient {
  void *data; /* int32_t or int64_t [count], in the weights' layout; backend memory */
  int bits;
  size_t count;
} NitiGradient;

/* One image of a batch: which source image, where the window starts in it (may lie outside: those pixels are raw 0), mirrored or
 * not. */
typedef struct NitiPick {
  uint32_t image;
  int16_t dy, dx;
  uint32_t flip;
} NitiPick;

/* Sums over the images seen since they were last cleared; backend memory. */
typedef struct NitiMetrics {
  int64_t loss;    /* cross-entropy in bits, 16 fraction bits */
  int64_t correct; /* images whose largest logit (the first of equals) is the target's */
  int64_t images;
} NitiMetrics;

/* Requantising operations since the backend was opened, and those whose shift was predicted wrongly and which ran twice. */
typedef struct NitiPredictions {
  uint64_t made, wrong;
} NitiPredictions;

typedef enum NitiLossKind { NITI_LOSS_NITI = 0, NITI_LOSS_SOFTMAX } NitiLossKind;

/* Facts about a tensor for logs. */
typedef struct NitiTensorStats {
  int64_t count, saturated; /* saturated: |m| = 127 */
  int32_t exponent;
  int64_t histogram[255]; /* of mantissas -127 .. 127 */
} NitiTensorStats;

/* What recorded work depends on beside the contents of backend memory: every host value that reaches an operation. Work done
 * twice under equal keys enqueues the same operations with the same arguments. Unused members are zero. */
typedef struct NitiReplayKey {
  const void *pointers[6];
  int64_t numbers[10];
  bool steady; /* between its replays nothing else changes the tensors of this work: what it derived from them may be kept */
} NitiReplayKey;

typedef struct NitiBackendOps {
  const char *name;
  bool host_memory; /* operations may read host memory in place of alloc's: nothing needs to be copied there */
  void (*close)(NitiBackend *);
  const char *(*describe)(
      const NitiBackend *); /* the device and its kernels, for logs: "cpu, avx2 kernels, 2 threads"; owned by the backend */
  const char *(*hardware)(const NitiBackend *); /* the processor's own name and features; owned by the backend */
  int (*threads)(const NitiBackend *);          /* host threads it computes with */

  /* -- memory and order -- */
  /* 64-byte aligned (cuda: 256), zeroed. Fails with NITI_ERROR_MEMORY, naming what was asked for and, where known, what was free.
   */
  NitiStatus (*alloc)(NitiBackend *, void **out, size_t bytes);
  void (*release)(NitiBackend *, void *); /* work recorded by replay() is forgotten with it; NULL is allowed */
  size_t (*free_bytes)(NitiBackend *);    /* what alloc could still give; SIZE_MAX: not known */
  /* Bytes to reserve for an activation or error tensor that conv_gradient may read; at least its elements. */
  size_t (*tensor_bytes)(const NitiBackend *, NitiShape);
  void (*upload)(NitiBackend *, void *to, const void *host, size_t bytes);     /* `host` may change as soon as it returns */
  void (*download)(NitiBackend *, void *host, const void *from, size_t bytes); /* waits */
  void (*clear)(NitiBackend *, void *, size_t bytes);                          /* to zero */
  NitiStatus (*synchronise)(NitiBackend *); /* waits; reports the first failure there has been, NITI_ERROR_DEVICE */
  /* The step (the `time` of random words) and seed for what follows. */
  void (*begin_step)(NitiBackend *, uint64_t seed, uint32_t step);
  /* Writes the time, in nanoseconds of the device's own clock, once the work so far is done; at: backend memory. */
  void (*mark)(NitiBackend *, int64_t *at);
  /* Calls enqueue(context), which calls operations only, or repeats what it enqueued under an equal key before: then it is not
   * called. Waits where much work is queued, and reports a failure known by now. */
  NitiStatus (*replay)(NitiBackend *, const NitiReplayKey *key, void (*enqueue)(void *context), void *context);
  /* Scratch bytes a convolution needs in any of its three directions, and the request for the largest of them. */
  size_t (*conv_workspace)(const NitiBackend *, const NitiConv *);
  NitiStatus (*reserve)(NitiBackend *, size_t bytes);
  size_t (*conv_packed_bytes)(const NitiBackend *, const NitiConv *); /* NULL: it keeps none */
  /* The kernel that would serve this convolution ("forward", "backward", "gradient"), for `niti info` and summaries. */
  const char *(*conv_kernel)(const NitiBackend *, const NitiConv *, const char *direction);

  /* -- input -- */
  /* out [N][H][W][C] = table[c][pixel] of picks[n] in images [.][SH][SW][C] (source shape, uint8); exponent is stored as given.
   */
  void (*input)(NitiBackend *, NitiTensor *out, const uint8_t *images, NitiShape source, const NitiPick *picks,
                const int8_t *table, int32_t exponent);

  /* -- layers -- */
  /* y = requantise(x * w), e = e_x + e_w + shift. With relu, max(m, 0) after requantising. */
  void (*conv_forward)(NitiBackend *, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiConv *, bool relu,
                       const NitiRequantise *);
  /* dx = requantise(transposed convolution of dy with w). mask: NULL, or of dx's shape: dx is 0 (after requantising; the range is
   * that of all accumulators) wherever mask <= 0; its exponent does not matter. dx aliases none of the others. */
  void (*conv_backward)(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w, const NitiTensor *mask,
                        const NitiConv *, const NitiRequantise *);
  /* gradient = exact sum over batch and positions of dy x; overwrites. */
  void (*conv_gradient)(NitiBackend *, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x, const NitiConv *);
  /* y = max(x, 0), same exponent; y may alias x. */
  void (*relu_forward)(NitiBackend *, NitiTensor *y, const NitiTensor *x);
  /* dx = dy where y > 0, else 0, same exponent; y is the layer's output (y > 0 exactly where its input is); dx may alias dy. */
  void (*relu_backward)(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *y);
  /* winner [N][OH][OW][C]: the row-major position in the window (kh * KW + kw) of the first maximum. */
  void (*maxpool_forward)(NitiBackend *, NitiTensor *y, uint8_t *winner, const NitiTensor *x, const NitiPool *);
  /* mask: NULL, or of dy's shape: an error counts as 0 wherever mask <= 0; only where windows do not overlap (niti_pool_apart).
   */
  void (*maxpool_backward)(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const uint8_t *winner, const NitiTensor *mask,
                           const NitiPool *, const NitiRequantise *);
  void (*avgpool_forward)(NitiBackend *, NitiTensor *y, const NitiTensor *x, const NitiPool *, const NitiRequantise *);
  void (*avgpool_backward)(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiPool *, const NitiRequantise *);
  /* y = requantise(a + b) with aligned exponents (docs: "residual add"); y may alias a or b, also y.exponent theirs. */
  void (*add)(NitiBackend *, NitiTensor *y, const NitiTensor *a, const NitiTensor *b, const NitiRequantise *);
  /* y = x with its exponent; for a gradient that goes two ways. y may alias x. */
  void (*copy)(NitiBackend *, NitiTensor *y, const NitiTensor *x);
  /* y = masked x, exponent + 1; the mask is a function of (seed, step, layer, index): forward and backward call the same.
   * shared: one mask for all images. y may alias x. */
  void (*dropout)(NitiBackend *, NitiTensor *y, const NitiTensor *x, uint32_t layer, bool shared);

  /* -- loss and update -- */
  /* delta [N][1][1][classes] from logits of the same shape and labels[N] (int32, backend memory); adds to metrics.
   * delta NULL: metrics only. `rq` serves NITI_LOSS_SOFTMAX. delta must not alias logits. */
  void (*loss)(NitiBackend *, NitiTensor *delta, NitiMetrics *metrics, const NitiTensor *logits, const int32_t *labels,
               NitiLossKind, const NitiRequantise *);
  /* w -= update `niti` of the gradient. */
  void (*update_niti)(NitiBackend *, NitiTensor *w, const NitiGradient *gradient, int mu);
  /* host results; both wait. */
  NitiPredictions (*predictions)(NitiBackend *);
  void (*stats)(NitiBackend *, NitiTensorStats *out, const NitiTensor *);

  /* -- measuring -- */
  /* Does nothing but int8 multiply-adds in registers, on all threads, for about a millisecond, and returns how many: the
   * yardstick for kernels. 0: there is none for them. NULL: the backend has none; a large product serves. */
  uint64_t (*multiply_add)(NitiBackend *);
} NitiBackendOps;

struct NitiBackend {
  const NitiBackendOps *ops; /* first member of every backend's own structure */
};

typedef struct NitiBackendOptions {
  const char *name; /* "cpu", "cuda" or "auto" (NULL: auto, the fastest there is); "cuda:N" for one of several devices */
  const char *isa;  /* the kernels: NULL, "auto" or a name that NitiDevice (niti.h) tells */
  int threads;      /* 0: one a usable core */
  bool direct;      /* convolutions multiply every term, also where another way is faster: for measuring, the bits are the same */
} NitiBackendOptions;

/* Tells of each device that the backends of this build see: what --backend would take, and what it is. */
typedef void (*NitiDeviceTold)(void *context, const char *line);
void niti_backend_devices(NitiDeviceTold tell, void *context);

/* Opens a backend by name; fails with NITI_ERROR_UNSUPPORTED where it, or the instruction set, is not there. */
NitiStatus niti_backend_open(NitiBackend **out, const NitiBackendOptions *options);
static inline void niti_backend_close(NitiBackend *backend) {
  if (backend) backend->ops->close(backend);
}

#endif
