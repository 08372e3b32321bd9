/* Internal to src/backend: what a device's folder provides to the executor that all devices share (executable.h).
 *
 * - A kernel enqueues one operation. Outputs come first; inputs are const. An output may alias an input only where its contract
 *   allows it. Shapes were checked when the network was lowered: kernels return nothing, and synchronise() reports a failure of
 *   the device. No kernel allocates; scratch memory is reserved once.
 * - A NULL kernel means that the device does not support the opcode: compiling a program with it fails. */
#ifndef NITI_BACKEND_KERNELS_H
#define NITI_BACKEND_KERNELS_H

#include "backend/backend.h"
#include "program/fuse.h"
#include "program/places.h"

/* A tensor in the backend's memory, as one operation sees it. value = mantissa * 2^exponent. */
typedef struct NitiTensor {
  int8_t *data;      /* [n][h][w][c], mantissas in [-127, 127] */
  int32_t *exponent; /* NULL where the tensor has none */
  NitiShape shape;
  int uses;      /* NitiUses, or'ed */
  int32_t limit; /* of the output of a ReLU with a maximum: that, in millionths, at most 2 * 10^9; 0: it has none */
  /* `placed`: layouts are where these point, NULL for those that nothing reads, and up to date from the operation on that wrote
   * the elements, which last no longer than they are read. Else layouts are behind the elements (tensor_bytes), and made from
   * them when they are read and not up to date. */
  bool placed;
  int8_t *layouts[NITI_LAYOUTS]; /* for NITI_USE_GRADIENT, and for NITI_USE_MASK */
} NitiTensor;

/* How one operation requantises its int32 accumulators. `layer` and `purpose` select the random words of NITI_STOCHASTIC
 * (time is the step of begin_step, seed the backend's); the index is the flat index of the output element. */
typedef struct NitiRequantise {
  NitiRounding mode;
  uint32_t purpose, layer;
  int32_t *prediction; /* backend memory: predicts the next shift (base/shift_prediction.h); any word gives the same result */
  int clip;            /* of the record: values beyond the largest / 2^clip are clipped */
  size_t image;        /* elements of one image of the output */
} NitiRequantise;

/* The exact gradient of one weight tensor. bits 32 where N * OH * OW <= NITI_ACCUMULATION_MAX can be proven, else 64. */
typedef struct NitiGradient {
  void *data; /* int32_t or int64_t [count], in the weights' layout; backend memory */
  int bits;
  size_t count;
  const int32_t *exponents[2]; /* whose sum is its exponent; NULL counts as 0 */
} NitiGradient;

/* One weight tensor of an update `sgd`, or where scalars->normalised `niti16`. */
typedef struct NitiSgdUpdate {
  NitiTensor *w, *master, *velocity; /* the latter two int16_t; master NULL: w itself is int16_t and the master */
  const NitiGradient *gradient;
  const NitiSgdScalars *scalars;
  const NitiRequantise *rq; /* selects the random words; its mode does not count */
  const int64_t
      *squares; /* NULL, or where scalars->clip is one, the scalar of all gradients' squares: the same for a whole call */
} NitiSgdUpdate;

/* One gradient whose squares are summed: total[2] = before[2] (NULL: 0) and they, scalars in backend memory. */
typedef struct NitiSquareSum {
  const NitiGradient *gradient;
  const int64_t *before;
  int64_t *total;
} NitiSquareSum;

/* One weight tensor of an update `niti`. */
typedef struct NitiWeightUpdate {
  NitiTensor *w;
  const NitiGradient *gradient;
  int32_t scalar; /* the number of mu, in millionths */
} NitiWeightUpdate;

enum { NITI_UPDATES_MAX = 256 /* tensors of one call */, NITI_LINK_NAME_MAX = 96 };

typedef enum NitiDirection { NITI_FORWARD, NITI_BACKWARD, NITI_GRADIENT } NitiDirection;

/* A convolution as one operation runs it. */
typedef struct NitiConvCall {
  NitiConv shape;
  NitiDirection direction;
  bool relu;          /* forward: max(m, 0) after rounding */
  bool nonnegative;   /* no mantissa of x is negative: kernels may use that, with the same results */
  bool centred;       /* forward: the bias is the running statistics of a norm */
  bool constant;      /* the weights do not change until conv_forget: packed weights may be kept */
  int way;            /* how the device runs it: 0, as its cost model says, or a number of conv_ways */
  bool tuned;         /* the way is a tuning file's */
  void *prepared;     /* owned by the device, from conv_prepare; NULL: none */
  int8_t *packed;     /* backend memory with the weights, packed by conv_pack; NULL: the call packs them, if it wants to */
  uint8_t *workspace; /* backend memory for scratch, conv_workspace bytes, aligned to NITI_ALIGN; NULL: what was reserved */
} NitiConvCall;

/* Weights that are to be packed at call->packed. */
typedef struct NitiPacking {
  const NitiConvCall *call;
  const NitiTensor *w;
} NitiPacking;

/* The images of the batch under way, of which this process has `own`. */
static inline int32_t niti_whole_batch(const NitiBackend *b, int32_t own) {
  return b->together.whole > 0 ? b->together.whole : own;
}

/* The image that is mixed into image i of a run's `own`: the next one, after the last the one ahead or else the first. */
static inline size_t niti_mixed_in(const NitiBackend *b, size_t i, size_t own) {
  return i + 1 < own || b->together.ahead ? i + 1 : 0;
}

enum { NITI_BESIDE_WINDOW = 2 /* gradients that one may run beside, where memory is short */ };

/* What a recorded range depends on besides the contents of backend memory. */
typedef struct NitiRecordingKey {
  int32_t first, end, batch, repeat;
  const uint8_t *pixels;
  NitiShape source;
  int64_t *marks;
  int32_t whole, part; /* of the bindings the whole batch and the number of the first image, */
  bool idle, ahead;    /* 0 without ranks */
} NitiRecordingKey;

typedef struct NitiKernels {
  /* ---- order ---- */
  /* The seed and step (the `time`) of random words, and the bound scalars [NITI_SCALARS_MAX], for what follows. */
  void (*begin_step)(NitiBackend *, uint64_t seed, uint32_t step, const int64_t *scalars);
  void (*mark)(NitiBackend *, int64_t *at); /* writes the time once the work so far is done; at: backend memory */
  /* Calls enqueue(context), which calls kernels only, or repeats what it enqueued under an equal key before. *recordings is the
   * executable's own, NULL at first. Waits if much work is queued, and reports a failure known by then. NULL: work is never
   * queued. */
  NitiStatus (*replay)(NitiBackend *, void **recordings, const NitiRecordingKey *, void (*enqueue)(void *), void *context);
  void (*close_recordings)(NitiBackend *, void *recordings);
  /* What is enqueued between the first two may run beside what is enqueued after them, until `rejoin`; what was enqueued before
   * has ended for both. Several such stretches run one after the other. rest: stretches, the last, that may go on; any number
   * but 0 is at most NITI_BESIDE_WINDOW. NULL, all three: everything runs in order. */
  void (*begin_aside)(NitiBackend *);
  void (*end_aside)(NitiBackend *);
  void (*rejoin)(NitiBackend *, int32_t rest);

  /* ---- memory ---- */
  /* Bytes of an s8 activation or delta with the layouts for these uses behind its elements. NULL: its elements. */
  size_t (*tensor_bytes)(const NitiBackend *, NitiShape, int uses);
  /* Bytes of one of its layouts alone (NitiTensor.layouts). NULL: there are none, nor is any of the next three. */
  size_t (*layout_bytes)(const NitiBackend *, NitiShape, int layout);
  /* How the operation reads its mask, of this shape: NITI_USE_MASK, NITI_USE_OTHER or, where that depends on the way, both. call:
   * of a convolution. */
  int (*mask_uses)(const NitiBackend *, const NitiOperation *, NitiShape mask, const NitiConvCall *call);
  /* Makes the layouts of a placed tensor that the operation which wrote its elements did not. */
  void (*complete)(NitiBackend *, const NitiTensor *);
  /* The elements of a placed tensor's first n images out of its layout for gradients; waits. */
  void (*download_elements)(NitiBackend *, int8_t *host, const NitiTensor *, int32_t n);
  NitiStatus (*reserve)(NitiBackend *, size_t workspace_bytes); /* the largest request counts */
  bool takes_workspace; /* convolutions use call->workspace; else only what was reserved */

  /* ---- convolution and linear ---- */
  /* Fills call->prepared; everything else is set. NULL: nothing to prepare. conv_release undoes it. */
  NitiStatus (*conv_prepare)(NitiBackend *, NitiConvCall *);
  void (*conv_release)(NitiBackend *, NitiConvCall *);
  void (*conv_forget)(NitiBackend *, NitiConvCall *); /* constant weights have been written: packed weights are invalid */
  size_t (*conv_workspace)(const NitiBackend *, const NitiConvCall *); /* scratch bytes, at this batch and any smaller one */
  /* Bytes that weights take which are packed for the call, at this batch and any smaller one, whatever their ways; 0: it takes
   * none. NULL: no call does. */
  size_t (*conv_packed_bytes)(const NitiBackend *, const NitiConvCall *);
  /* Packs weights of forward and backward calls. A call finds them until they are written; its shape and way are the same. */
  void (*conv_pack)(NitiBackend *, const NitiPacking *packings, int count);
  const char *(*conv_kernel)(const NitiBackend *, const NitiConvCall *); /* the kernel's human-readable name */
  /* The ways in which the device can run the call, whose own way and `prepared` do not matter: all give the same bits. The first
   * is what the cost model takes. Returns their number, at least 1; no two have the same name. */
  int (*conv_ways)(const NitiBackend *, const NitiConvCall *, NitiWay ways[NITI_WAYS_MAX]);
  /* y = requantise(x * w + bias), e = e_x + e_w + shift. With relu, max(m, 0) after requantising. bias: NULL, or int16_t [K] with
   * an exponent of its own; where the call is `centred` a norm's int64_t [2][K], of which the means are subtracted. */
  void (*conv_forward)(NitiBackend *, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiTensor *bias,
                       const NitiConvCall *, const NitiRequantise *);
  /* dx = requantise(transposed convolution of dy with w). mask: NULL, or of dx's shape: dx is 0 (after requantising; the range is
   * that of all accumulators) wherever mask <= 0, and where the mask has a limit also wherever it is not below that; else its
   * exponent does not matter. dx aliases none of the others. */
  void (*conv_backward)(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w, const NitiTensor *mask,
                        const NitiConvCall *, const NitiRequantise *);
  /* gradient = exact sum over batch and positions of dy x; overwrites. */
  void (*conv_gradient)(NitiBackend *, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x, const NitiConvCall *);

  /* gradient: int64_t [C], with its exponent, the exact sums of dy over all but the last dimension; overwrites. */
  void (*bias_gradient)(NitiBackend *, NitiTensor *gradient, const NitiTensor *dy);

  /* ---- other layers ---- */
  /* out [N][H][W][C] = table[c][pixel] of samples[n] in images [.][SH][SW][C] (source shape, uint8), exponent the table's; the
   * pixel scaled and coloured, and the mantissa cut out, as the sample says. changes: whether any sample may be scaled, coloured
   * or mixed; the workspace then has room for one image, the one that is ahead. */
  void (*input)(NitiBackend *, NitiTensor *out, const uint8_t *images, NitiShape source, const NitiSample *samples,
                const NitiTensor *table, bool changes);
  /* y = max(x, 0), same exponent; y may alias x. limit: the largest value of y in millionths, at most 2 * 10^9; 0: none. */
  void (*relu_forward)(NitiBackend *, NitiTensor *y, const NitiTensor *x, int32_t limit);
  /* dx = dy where y > 0 and y is below the limit, else 0, same exponent; y is the layer's output (y > 0 exactly where its input
   * is), of which only a limit needs the exponent; dx may alias dy. */
  void (*relu_backward)(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *y, int32_t limit);
  /* winner [N][OH][OW][C]: the row-major position in the window (kh * KW + kw) of the first maximum. */
  void (*maxpool_forward)(NitiBackend *, NitiTensor *y, uint8_t *winner, const NitiTensor *x, const NitiPool *);
  /* mask: NULL, or of dy's shape, without a limit: a delta counts as 0 wherever mask <= 0; only where windows do not overlap
   * (niti_pool_apart). */
  void (*maxpool_backward)(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const uint8_t *winner, const NitiTensor *mask,
                           const NitiPool *, const NitiRequantise *);
  void (*avgpool_forward)(NitiBackend *, NitiTensor *y, const NitiTensor *x, const NitiPool *, const NitiRequantise *);
  void (*avgpool_backward)(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiPool *, const NitiRequantise *);
  /* y = requantise(a + b) with aligned exponents (docs: "residual add"); y may alias a or b. mask: NULL, or of y's shape, without
   * a limit: y is 0 (after requantising) wherever mask <= 0. With relu, max(m, 0) after requantising. */
  void (*add)(NitiBackend *, NitiTensor *y, const NitiTensor *a, const NitiTensor *b, const NitiTensor *mask, bool relu,
              const NitiRequantise *);
  /* y = masked and scaled x; the mask is a function of (seed, step, layer, index): forward and backward call the same. y may
   * alias x. */
  void (*dropout)(NitiBackend *, NitiTensor *y, const NitiTensor *x, uint32_t layer, const NitiDropout *);

  /* ---- batch norm: docs/arithmetic.md, "Batch norm"; channels are the last dimension ---- */
  /* affine: NitiAffine [C], exponent y's. running: int64_t [2][C], means then variances. sums: int64_t [C][2] of x and of its
   * squares, exponent x's; NULL: affine from the running statistics, which stay, and of x only the exponent is read. weight,
   * bias: int16_t [C]. centred: x is measured from the running means. */
  void (*norm_fit)(NitiBackend *, NitiTensor *affine, NitiTensor *running, NitiTensor *sums, const NitiTensor *x,
                   const NitiTensor *weight, const NitiTensor *bias, bool centred);
  /* y = affine map of x, rounded; with relu, max(m, 0) after rounding, and where y has a limit at most that. y does not alias x.
   */
  void (*norm_forward)(NitiBackend *, NitiTensor *y, const NitiTensor *x, const NitiTensor *affine, bool relu,
                       const NitiRequantise *);
  /* Whether the device has the next, or norm_pool_backward, for this operation and pool. NULL: it has neither. */
  bool (*norm_pool_serves)(const NitiBackend *, const NitiOperation *, const NitiPool *);
  /* norm_forward, then maxpool_forward. won: NULL, or x of each window's winner. */
  void (*norm_pool_forward)(NitiBackend *, NitiTensor *y, uint8_t *winner, NitiTensor *won, const NitiTensor *x,
                            const NitiTensor *affine, bool relu, const NitiPool *, const NitiRequantise *);
  /* affine: NitiAffineDelta [C], exponent dx's. Gradients of weight and bias: int64_t [C] with their exponents. delta_sums:
   * int64_t [C][3] of dy, dy x and dy dy, exponent dy's. sums: as norm_fit made them of x. positions: of an image; all but those
   * of dy have deltas of 0. */
  void (*norm_delta_fit)(NitiBackend *, NitiTensor *affine, NitiTensor *weight_gradient, NitiTensor *bias_gradient,
                         NitiTensor *delta_sums, const NitiTensor *dy, const NitiTensor *x, const NitiTensor *sums,
                         const NitiTensor *weight, int64_t positions);
  /* dx = affine map of dy and x, rounded. dx aliases neither. */
  void (*norm_backward)(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *x, const NitiTensor *affine,
                        const NitiRequantise *);
  /* The same, where dy is of windows: a value's delta is its window's where it won, else 0. */
  void (*norm_pool_backward)(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *x, const NitiTensor *affine,
                             const uint8_t *winner, const NitiPool *, const NitiRequantise *);

  /* ---- loss, update, facts ---- */
  /* delta [N][1][1][classes] from logits of the same shape and labels[N] (int32, backend memory); adds to metrics.
   * delta NULL: metrics only. `rq` is used by NITI_LOSS_SOFTMAX only. delta must not alias logits. */
  void (*loss)(NitiBackend *, NitiTensor *delta, NitiMetrics *metrics, const NitiTensor *logits, const int32_t *labels, NitiLoss,
               const NitiRequantise *);
  /* The device's name among all that a faster way than the ranks' transport could connect; "": none. NULL: none. */
  void (*link_name)(NitiBackend *, char name[NITI_LINK_NAME_MAX]);
  /* Where all ranks have such names, no two the same: from now on exchanges go that way. All ranks call it. */
  NitiStatus (*connect)(NitiBackend *, NitiRanks *);
  /* After the last exchange, whether or not connect was called or succeeded: ends what only all ranks together can. */
  void (*disconnect)(NitiBackend *);
  /* Room for all sums that begin between two waits: `bytes`, each row of them rounded up to NITI_ALIGN. It may be given only
   * where all ranks exchange something else between a wait and the next sum that begins, in however many runs. All ranks call it
   * with the same, once, between connecting and their first run; what there is no room for is summed all the same. Fails only
   * where the ranks' own exchanges do. NULL: it needs none. */
  NitiStatus (*reserve_sums)(NitiBackend *, size_t bytes);
  /* sums[count] of 32 or 64 bits begin to become the sums over all ranks of the run under way; until all_sum_wait nothing else
   * may use them. That also completes the metrics of a loss with a delta. NULL: the device cannot join ranks. */
  void (*all_sum_begin)(NitiBackend *, void *sums, size_t count, int bits);
  void (*all_sum_wait)(NitiBackend *);
  /* w -= update `niti` of the gradient, of each. No two share a w. 0 < count <= NITI_UPDATES_MAX. */
  void (*update_niti)(NitiBackend *, const NitiWeightUpdate *updates, int count);
  /* One after the other: each may read what the one before it wrote. 0 < count <= NITI_UPDATES_MAX. */
  void (*gradient_squares)(NitiBackend *, const NitiSquareSum *squares, int count);
  /* Update `sgd` or `niti16` of each, with the bound scalars; writes weights, velocities and their exponents. No two share any of
   * these. 0 < count <= NITI_UPDATES_MAX. */
  void (*update_sgd)(NitiBackend *, const NitiSgdUpdate *updates, int count);
  void (*stats)(NitiBackend *, NitiTensorStats *out, const NitiTensor *); /* host result; waits */
} NitiKernels;

#endif
