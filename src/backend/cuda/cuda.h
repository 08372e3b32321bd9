/* The CUDA backend's inner interface: its state, and what its files offer each other. C and CUDA C include it.
 *
 * - Everything runs in one stream, in order, but for weight gradients in a recording (beside.c); kernels take what changes from
 * step to step (exponents, shifts, the step's number) from device memory, so that a whole step can be recorded once and replayed.
 * - An activation or delta tensor is NHWC. Beside it, or behind it (NitiTensor.placed), is its blocked layout, the same mantissas
 *   in the layout that weight gradients read: [N/16][H][W][C][16], the 16 images of a block innermost in the order of
 *   niti_blocked_slot; images past N are 0. niti_cuda_blocked_* keep count of which tensors' layouts are up to date. */
#ifndef NITI_BACKEND_CUDA_CUDA_H
#define NITI_BACKEND_CUDA_CUDA_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "backend/cuda/runtime.h"
#include "backend/kernels.h"
#include "base/bounds.h"
#include "base/sgd.h"

/* Device memory: what changes from step to step. Written by begin_step. */
typedef struct NitiClock {
  uint64_t seed;
  uint32_t step;
  int64_t scalars[NITI_SCALARS_MAX];
} NitiClock;

enum {
  NITI_RANGE_MARKS = 1 << 14,   /* 16 per block, one block per multiprocessor */
  NITI_SUMS_CHANNELS = 1 << 12, /* that one launch sums up */
  NITI_SUMS_SLICE = 256,        /* channels of a block of it */
  NITI_MEETINGS = 4,            /* a power of two */
  NITI_MEETING_GROUPS = 2,
  NITI_MEETING_MOST = NITI_RANGE_MARKS / 16, /* blocks */
};

typedef struct NitiSgdMaxima {
  uint64_t gradient;
  uint32_t velocity, weight;
  uint32_t above_low, above_high; /* weights beyond NITI_SGD_WEIGHT_LOW and _HIGH: fewer than 2^32 of a tensor */
  uint32_t done;                  /* blocks that have added theirs */
} NitiSgdMaxima;

/* A square's mantissa and exponent, each with a bit beside it that says that it has been written. */
typedef struct NitiToldSquare {
  uint64_t m, e;
} NitiToldSquare;
#define NITI_TOLD_SQUARE ((uint64_t)1 << 63)

/* Device memory: the range of the requantising operation under way; all zero between operations (device.cuh). */
typedef struct NitiRange {
  uint32_t max;                           /* largest |acc| so far */
  uint32_t done;                          /* blocks of the second launch that have ended */
  uint32_t again;                         /* wgmma_conv.cuh: whether some block of it computed again */
  NitiMetrics batch;                      /* loss.cu: of this rank's images, with ranks; zero between operations too */
  uint64_t predicted, mispredicted;       /* operations since the backend was opened, and those whose prediction was wrong */
  NitiSgdMaxima maxima[NITI_UPDATES_MAX]; /* sgd.cu, update.cu, clip.cu: of each tensor so far; zero between operations too */
  NitiSgdTerms terms[NITI_UPDATES_MAX];   /* sgd.cu: scratch */
  uint64_t squares[NITI_UPDATES_MAX];     /* clip.cu: of each tensor so far; zero between operations too */
  uint64_t sums[3 * NITI_SUMS_CHANNELS];  /* norm_sums.cuh: two or three of each channel so far; zero between operations too */
  NitiToldSquare squares_of[NITI_SUMS_CHANNELS];                        /* norm_fit.cu: likewise, */
  uint32_t norm_heard;                                                  /* and its slices' blocks that have heard them */
  uint64_t histogram[256];                                              /* stats.cu: scratch */
  uint32_t sample;                                                      /* wgmma_conv.cuh: likewise; 0: none */
  uint32_t marks[NITI_RANGE_MARKS];                                     /* wgmma_conv.cuh: between an operation's two launches */
  uint32_t turn;                                                        /* meet.cuh: meetings so far */
  uint32_t told[NITI_MEETINGS][NITI_MEETING_GROUPS][NITI_MEETING_MOST]; /* zero, but for the last two meetings' */
} NitiRange;

typedef enum NitiCudaFamily {
  NITI_CUDA_MMA = 0, /* mma.sync m16n8k32: sm_80 and later */
  NITI_CUDA_WGMMA,   /* wgmma and bulk tensor copies: sm_90a; shapes it does not serve go to mma.sync */
} NitiCudaFamily;

typedef struct NitiLayouts NitiLayouts;       /* host: the data pointers whose blocked layouts are up to date */
typedef struct NitiNccl NitiNccl;             /* host: how ranks with devices of their own exchange, */
typedef struct NitiPeers NitiPeers;           /* and what is small, where they can write each other's memory, */
typedef struct NitiCopies NitiCopies;         /* and gradients there */
typedef struct NitiSums NitiSums;             /* host: sums over all ranks that run after backward */
typedef struct NitiTravelling NitiTravelling; /* host: sums over all ranks that have begun */
typedef struct NitiQueue NitiQueue;           /* host: the last steps, so that no more than a few wait */
typedef struct NitiStaging NitiStaging;
typedef struct NitiPacks NitiPacks; /* host: weights that are to be packed (pack.h) */

/* A stream beside the one of all work, for recordings (beside.c). */
typedef struct NitiCudaBeside {
  cudaStream_t side, main;                            /* main: while `side` is in its place */
  cudaEvent_t reached, ended[NITI_BESIDE_WINDOW + 1]; /* by `stream`; by the last stretches in `side` */
  int32_t stretches;                                  /* ended so far */
  bool recording, overlap;
  bool pending; /* something is enqueued in `side` that `stream` has not been made to follow */
  bool joined;  /* what `stream` runs next follows both: not ahead of either */
} NitiCudaBeside;

typedef struct NitiCuda {
  NitiBackend base;                        /* first */
  int device, multiprocessors, capability; /* capability: 90 for 9.0 */
  NitiCudaFamily family;
  bool overlap; /* blocks may launch before the previous kernel completes: the code waits by itself */
  bool shared;  /* kernels of other processes (MPS), or of another backend of this one, may run beside ours and wait as they do */
  bool settled; /* what was enqueued last is a kernel that the next may run ahead of (niti_kernel_begin) */
  cudaStream_t stream;
  NitiCudaBeside beside;
  NitiClock *clock;   /* device */
  NitiClock now;      /* what belongs there */
  bool late;          /* it is not there yet: it goes with the first upload, or else before the first launch */
  NitiRange *range;   /* device */
  uint8_t *workspace; /* device; what was reserved */
  size_t workspace_bytes;
  uint8_t *scratch;   /* device; of the convolution under way: its call's, or what was reserved */
  cudaError_t error;  /* the first failure; sticky */
  const char *failed; /* what failed: a static string */
  NitiLayouts *layouts;
  NitiQueue *queue;
  uint64_t generation; /* of the workspace: recordings of an earlier one point into memory that is gone */
  NitiStaging *staging;
  NitiNccl *nccl;             /* NULL: by itself, or exchanges pass through the host, */
  NitiTravelling *travelling; /* these under way */
  NitiPeers *peers;           /* NULL: small exchanges go the same way as large ones */
  NitiCopies *copies;         /* NULL: sums of gradients go through NCCL, too; wants peers */
  NitiSums *sums;             /* NULL: what sums go through NCCL run beside backward */
  NitiMetrics *metrics; /* device: the loss's, to which range->batch is added once it is all ranks'; NULL: nothing is under way */
  char description[256], hardware[256];
} NitiCuda;

static inline NitiCuda *niti_cuda(NitiBackend *backend) { return (NitiCuda *)(void *)backend; }
static inline const NitiCuda *niti_cuda_const(const NitiBackend *backend) { return (const NitiCuda *)(const void *)backend; }

/* Keeps the first failure for synchronise(). what: a static string naming the call or kernel. */
void niti_cuda_note(NitiCuda *, cudaError_t error, const char *what);
/* The failure there has been, as a status with its message. */
NitiStatus niti_cuda_status(const NitiCuda *);

/* ---- the way in (staging.c, upload.cu) ---- */
/* A ring of pinned host memory through which uploads pass, so that none waits for the device. */
NitiStatus niti_staging_open(NitiStaging **out);
void niti_staging_close(NitiStaging *);
void niti_staging_upload(NitiCuda *, void *to, const void *host, size_t bytes);
/* Few bytes out of pinned memory, by a kernel: it starts sooner than a copy engine. */
void niti_cuda_upload_small(NitiCuda *, void *to, const void *pinned, size_t bytes);
void niti_cuda_mark(NitiBackend *, int64_t *at);
void niti_cuda_set_clock(NitiCuda *); /* where it is late; every launch calls it */
/* Whether the code that the device runs was made for capability 9.0 or later, so that its kernels wait for those before. */
bool niti_cuda_overlaps(void);

/* ---- recording (graph.c) ---- */
NitiStatus niti_queue_open(NitiQueue **out);
void niti_queue_close(NitiQueue *);
NitiStatus niti_cuda_replay(NitiBackend *, void **recordings, const NitiRecordingKey *, void (*enqueue)(void *), void *context);
void niti_cuda_close_recordings(NitiBackend *, void *recordings);

/* ---- beside.c ---- */
NitiStatus niti_cuda_beside_open(NitiCuda *);
void niti_cuda_beside_close(NitiCuda *);
void niti_cuda_begin_aside(NitiBackend *); /* backend/kernels.h */
void niti_cuda_end_aside(NitiBackend *);
void niti_cuda_rejoin(NitiBackend *, int32_t rest);

/* ---- ranks (together.c) ---- */
void niti_cuda_link_name(NitiBackend *, char name[NITI_LINK_NAME_MAX]);
NitiStatus niti_cuda_connect(NitiBackend *, NitiRanks *);
void niti_cuda_disconnect(NitiBackend *); /* backend/kernels.h */
NitiStatus niti_cuda_reserve_sums(NitiBackend *, size_t bytes);
/* The same where not all ranks come here; work under way has ended. */
void niti_cuda_leave(NitiCuda *);
/* Whether sums have begun that no work to end them has been enqueued for yet. */
bool niti_cuda_has_sums(const NitiCuda *);
/* Forgets them: what was enqueued since will not run. */
void niti_cuda_drop_sums(NitiCuda *);
/* Between an operation's two launches: the range's maximum becomes that of all ranks. */
void niti_cuda_share_range(NitiCuda *);
/* sums[count] of 32 or 64 bits become those over all ranks. */
void niti_cuda_all_sum(NitiBackend *, void *sums, size_t count, int bits);
void niti_cuda_all_sum_begin(NitiBackend *, void *sums, size_t count, int bits); /* backend/kernels.h */
void niti_cuda_all_sum_wait(NitiBackend *);
void niti_cuda_add_metrics(NitiCuda *); /* loss.cu: those under way, complete by now */
/* The index in the whole batch of a tensor's first element, whose images have so many elements. */
static inline uint64_t niti_cuda_first(const NitiCuda *cuda, size_t image) {
  return cuda->base.together.whole > 0 ? (uint64_t)cuda->base.together.first * image : 0;
}

/* ---- blocked layouts ---- */
enum { NITI_BLOCK_IMAGES = 16, NITI_BLOCKED_ALIGN = 256 };

/* The position of image i of a block of 16 among the 16 bytes: pairs (2q, 2q+1, 2q+8, 2q+9) for q = 0 .. 3, as mma fragments have
 * them. */
NITI_INLINE int niti_blocked_slot(int i) { return (i & 7) / 2 * 4 + (i & 1) + (i >> 3) * 2; }
NITI_INLINE size_t niti_blocked_offset(NitiShape s) {
  return ((size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)s.c + NITI_BLOCKED_ALIGN - 1) / NITI_BLOCKED_ALIGN *
         NITI_BLOCKED_ALIGN;
}
NITI_INLINE size_t niti_blocked_bytes(NitiShape s) {
  return (size_t)((s.n + NITI_BLOCK_IMAGES - 1) / NITI_BLOCK_IMAGES) * NITI_BLOCK_IMAGES * (size_t)s.h * (size_t)s.w *
         (size_t)s.c;
}
/* Whether an operation that writes t is to write its blocked layout too, or has room for it. */
static inline bool niti_cuda_is_blocked(const NitiTensor *t) {
  return t->placed ? t->layouts[0] != NULL : (t->uses & NITI_USE_GRADIENT) != 0;
}
static inline int8_t *niti_cuda_blocked(const NitiTensor *t) {
  return t->placed ? t->layouts[0] : t->data + niti_blocked_offset(t->shape);
}

/* After the blocked layout come the bits: whether a mantissa is positive and, where the tensor has a limit, below that,
 * [N/16][H][W][K/128][32] times 8 bytes, in the order in which the 32 threads of a warp hold 16 images by 128 channels when a
 * product ends (finish.cuh). They mask deltas in backward at an eighth of the cost of the mantissas. Up to 64 channels no thread
 * has more than 32 bits: they are narrow, 4 bytes. */
NITI_INLINE bool niti_bits_narrow(int channels) { return channels <= 64; }
NITI_INLINE size_t niti_bits_blocks(int channels) { return ((size_t)channels + 127) / 128; }
NITI_INLINE size_t niti_bits_offset(NitiShape s) {
  return (niti_blocked_offset(s) + niti_blocked_bytes(s) + NITI_BLOCKED_ALIGN - 1) / NITI_BLOCKED_ALIGN * NITI_BLOCKED_ALIGN;
}
/* Warps' shares of a tensor. */
NITI_INLINE size_t niti_bits_items(NitiShape s) {
  return (size_t)((s.n + NITI_BLOCK_IMAGES - 1) / NITI_BLOCK_IMAGES) * (size_t)s.h * (size_t)s.w * niti_bits_blocks(s.c);
}
NITI_INLINE size_t niti_bits_bytes(NitiShape s) { return niti_bits_items(s) * (niti_bits_narrow(s.c) ? 128 : 256); }
static inline uint2 *niti_cuda_bits(const NitiTensor *t) {
  return (uint2 *)(void *)(t->placed ? t->layouts[1] : t->data + niti_bits_offset(t->shape));
}
/* The bits where an operation that writes t's blocked layout has them at hand; NULL: they are not wanted, or have no room. */
static inline uint2 *niti_cuda_bits_wanted(const NitiTensor *t) { return niti_cuda_is_blocked(t) ? niti_cuda_bits(t) : NULL; }
/* Channels whose bits tiles of 128 positions by 16 images write and read (wide.cuh). */
static inline bool niti_cuda_bits_tiled(int32_t channels) { return channels % 128 == 0 || channels == 64; }
/* The record of blocked layouts that are up to date; room for a fixed number, beyond which a blocked layout counts as not ready.
 * NULL: out of memory. */
NitiLayouts *niti_layouts_open(void);
void niti_layouts_close(NitiLayouts *);
/* The bytes from `data` on were written by other means, or released: no blocked layout of a tensor with mantissas there is up to
 * date. */
void niti_layouts_forget(NitiLayouts *, const void *data, size_t bytes);
/* No blocked layout is up to date any more. */
static inline void niti_layouts_clear(NitiLayouts *layouts) { niti_layouts_forget(layouts, NULL, SIZE_MAX); }
/* Every operation that writes a tensor says whether it wrote its blocked layout too. */
void niti_cuda_blocked_set(NitiCuda *, const NitiTensor *, bool written);
bool niti_cuda_blocked_ready(const NitiCuda *, const NitiTensor *);
/* Writes the blocked layout from the NHWC mantissas unless it is up to date, as a placed one is. */
void niti_cuda_blocked_make(NitiCuda *, const NitiTensor *);
/* After niti_cuda_blocked_set: the operation wrote the bits too. */
void niti_cuda_bits_set(NitiCuda *, const NitiTensor *);
/* The same of the bits. C is a multiple of 16. */
void niti_cuda_bits_make(NitiCuda *, const NitiTensor *);
/* The other way round: mantissas [N][H][W][C] that are 1 where the bits are set, else 0. to: aligned to 16. */
void niti_cuda_bits_spread(NitiCuda *, int8_t *to, const NitiTensor *);
void niti_cuda_complete(NitiBackend *, const NitiTensor *);
void niti_cuda_download_elements(NitiBackend *, int8_t *host, const NitiTensor *, int32_t n);
int niti_cuda_mask_uses(const NitiBackend *, const NitiOperation *, NitiShape mask, const NitiConvCall *);
/* add.cu: whether an addition of that shape and rounding reads a mask as bits, where the mask has them. */
bool niti_cuda_add_reads_bits(NitiShape, NitiRounding, int clip);

/* ---- operations (backend/kernels.h) ---- */
void niti_cuda_input(NitiBackend *, NitiTensor *out, const uint8_t *images, NitiShape source, const NitiSample *samples,
                     const NitiTensor *table, bool changes);
void niti_cuda_bias_gradient(NitiBackend *, NitiTensor *gradient, const NitiTensor *dy);
void niti_cuda_relu_forward(NitiBackend *, NitiTensor *y, const NitiTensor *x, int32_t limit);
void niti_cuda_relu_backward(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *y, int32_t limit);
void niti_cuda_maxpool_forward(NitiBackend *, NitiTensor *y, uint8_t *winner, const NitiTensor *x, const NitiPool *);
void niti_cuda_maxpool_backward(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const uint8_t *winner,
                                const NitiTensor *mask, const NitiPool *, const NitiRequantise *);
void niti_cuda_avgpool_forward(NitiBackend *, NitiTensor *y, const NitiTensor *x, const NitiPool *, const NitiRequantise *);
void niti_cuda_avgpool_backward(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiPool *, const NitiRequantise *);
void niti_cuda_add(NitiBackend *, NitiTensor *y, const NitiTensor *a, const NitiTensor *b, const NitiTensor *mask, bool relu,
                   const NitiRequantise *);
void niti_cuda_dropout(NitiBackend *, NitiTensor *y, const NitiTensor *x, uint32_t layer, const NitiDropout *);
void niti_cuda_loss(NitiBackend *, NitiTensor *delta, NitiMetrics *metrics, const NitiTensor *logits, const int32_t *labels,
                    NitiLoss, const NitiRequantise *);
void niti_cuda_norm_fit(NitiBackend *, NitiTensor *affine, NitiTensor *running, NitiTensor *sums, const NitiTensor *x,
                        const NitiTensor *weight, const NitiTensor *bias, bool centred);
void niti_cuda_norm_forward(NitiBackend *, NitiTensor *y, const NitiTensor *x, const NitiTensor *affine, bool relu,
                            const NitiRequantise *);
void niti_cuda_norm_delta_fit(NitiBackend *, NitiTensor *affine, NitiTensor *weight_gradient, NitiTensor *bias_gradient,
                              NitiTensor *delta_sums, const NitiTensor *dy, const NitiTensor *x, const NitiTensor *sums,
                              const NitiTensor *weight, int64_t positions);
void niti_cuda_norm_backward(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *x, const NitiTensor *affine,
                             const NitiRequantise *);
bool niti_cuda_norm_pool_serves(const NitiBackend *, const NitiOperation *, const NitiPool *);
void niti_cuda_norm_pool_forward(NitiBackend *, NitiTensor *y, uint8_t *winner, NitiTensor *won, const NitiTensor *x,
                                 const NitiTensor *affine, bool relu, const NitiPool *, const NitiRequantise *);
void niti_cuda_norm_pool_backward(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *x,
                                  const NitiTensor *affine, const uint8_t *winner, const NitiPool *, const NitiRequantise *);
void niti_cuda_update_niti(NitiBackend *, const NitiWeightUpdate *updates, int count);
void niti_cuda_gradient_squares(NitiBackend *, const NitiSquareSum *sums, int count);
void niti_cuda_update_sgd(NitiBackend *, const NitiSgdUpdate *updates, int count);
void niti_cuda_stats(NitiBackend *, NitiTensorStats *out, const NitiTensor *);

/* conv.c: the family that handles a convolution. */
int niti_cuda_conv_ways(const NitiBackend *, const NitiConvCall *, NitiWay ways[NITI_WAYS_MAX]);
size_t niti_cuda_conv_workspace(const NitiBackend *, const NitiConvCall *);
/* The way that the cost model takes, one of niti_cuda_conv_ways'; for tests. */
int niti_cuda_conv_choice(const NitiBackend *, const NitiConvCall *);
const char *niti_cuda_conv_kernel(const NitiBackend *, const NitiConvCall *);
size_t niti_cuda_conv_packed_bytes(const NitiBackend *, const NitiConvCall *);
void niti_cuda_conv_pack(NitiBackend *, const NitiPacking *packings, int count);
void niti_cuda_conv_forward(NitiBackend *, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiTensor *bias,
                            const NitiConvCall *, const NitiRequantise *);
void niti_cuda_conv_backward(NitiBackend *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w, const NitiTensor *mask,
                             const NitiConvCall *, const NitiRequantise *);
void niti_cuda_conv_gradient(NitiBackend *, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x,
                             const NitiConvCall *);

/* Bytes of a bias at its accumulators' exponent, int32 and 0 past the last channel to the end of a tile of any family. */
NITI_INLINE size_t niti_cuda_bias_bytes(int k) { return ((size_t)k + 255) / 256 * 256 * sizeof(int32_t); }
/* A bias forward: of the layer, or where `centred` a norm's running statistics. */
typedef struct NitiCudaBias {
  const NitiTensor *of; /* NULL: there is none */
  bool centred;
  int channels;
  int32_t *room; /* niti_cuda_bias_bytes(channels) */
} NitiCudaBias;
/* Makes it in its room; NULL where there is none. */
const int32_t *niti_cuda_bias_prepare(NitiCuda *, const NitiCudaBias *, const NitiTensor *x, const NitiTensor *w);

/* Copies rows of `bytes` to rows of `pitch`, a multiple of 16, with zeros at the end. to: aligned to 16. */
typedef struct NitiPad {
  int8_t *to;
  const int8_t *from;
  size_t rows, bytes, pitch;
} NitiPad;
void niti_cuda_pad(NitiCuda *, const NitiPad *pads, int count); /* one or two */

/* Copies images [n][h][w][c] to `to` [n][rows][columns][pitch], 16-byte-aligned, where a pixel is a block of kh by kw pixels, row
 * by row, and zeros up to `pitch`, a multiple of 16. The first block begins pad_h rows and pad_w columns before the image, the
 * next one a stride further; pixels outside are 0. */
typedef struct NitiStack {
  int8_t *to;
  const int8_t *from;
  int32_t n, h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w, rows, columns, pitch;
} NitiStack;
void niti_cuda_stack(NitiCuda *, const NitiStack *stacks, int count); /* one or two */

/* A family of kernels for convolution and linear: the same contracts as kernels.h's. Outputs are NHWC; where
 * niti_cuda_is_blocked(y) the blocked layout is written too (by the family or niti_cuda_blocked_make). Gradients read the blocked
 * layouts of dy and x, which conv.c has made; those of `grouped`, which takes all convolutions in groups, the mantissas. way: 0,
 * or one of `ways`; the workspace is enough for each. packed: what `pack` of the same way has packed. */
typedef struct NitiCudaConv {
  const char *name;
  bool (*serves_forward)(const NitiConv *); /* each also says whether scratch and layout permit it */
  bool (*serves_backward)(const NitiConv *);
  bool (*serves_gradient)(const NitiConv *);
  size_t (*workspace)(const NitiCuda *, const NitiConv *, NitiDirection); /* bytes of scratch; 0 where it does not serve */
  /* Adds what packs weights for forward or backward at `to`, aligned to 256, as many bytes as its `workspace`; nothing where they
   * are read as they are. w: [own][kh][kw][c], filters from `own` on count as 0. NULL: its kernels do that themselves, in the
   * workspace. */
  void (*pack)(NitiPacks *, int8_t *to, const int8_t *w, int own, const NitiConv *, NitiDirection, int way);
  /* Its ways for a convolution that it serves, from number 1 on, beside its own choice, which is 0: adds them at ways[count] and
   * returns the new count. */
  int (*ways)(NitiWay ways[NITI_WAYS_MAX], int count, const NitiConv *, NitiDirection);
  /* The cost model: the way that 0 stands for, or 0 where that is none of `ways`; and how many picoseconds it expects of it,
   * INT64_MAX where it cannot tell. For a convolution that the family serves. */
  int (*choose)(const NitiCuda *, const NitiConv *, NitiDirection, int64_t *picoseconds);
  void (*forward)(NitiCuda *, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiCudaBias *bias,
                  const int8_t *packed, const NitiConv *, bool relu, const NitiRequantise *, int way);
  void (*backward)(NitiCuda *, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w, const NitiTensor *mask,
                   const int8_t *packed, const NitiConv *, const NitiRequantise *, int way);
  void (*gradient)(NitiCuda *, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x, const NitiConv *, int way);
} NitiCudaConv;
int niti_cuda_add_way(NitiWay ways[NITI_WAYS_MAX], int count, int number, const char *name);
extern const NitiCudaConv niti_cuda_conv_mma, niti_cuda_conv_wgmma, niti_cuda_conv_grouped;

#ifdef __cplusplus
}
#endif
#endif
