/* A training or evaluation step as data: tensors and the operations on them, in the order in which they take effect.
 *
 * A program has no pointer into any memory and knows no backend: it can be printed, compared, checked and measured. Layers and
 * optimisers append to it (layer/lowering.h), passes over it prove that no accumulator overflows (bounds.h) and place its
 * tensors in memory (places.h), and a backend compiles and runs it (backend/backend.h).
 *
 * Each tensor is written by one operation, except that weights, state and metrics are updated in place: they are then an input
 * and an output of the same operation. Operations are in the order of their phases. docs/arithmetic.md defines what each
 * opcode computes. */
#ifndef NITI_PROGRAM_PROGRAM_H
#define NITI_PROGRAM_PROGRAM_H

#include "base/colour.h"
#include "base/mix.h"
#include "base/random.h"
#include "platform/status.h"
#include "program/shape.h"

enum {
  NITI_LAYER_NAME_MAX = 64,
  NITI_TENSOR_NAME_MAX = NITI_LAYER_NAME_MAX + 24,
  NITI_RANK_MAX = 4,
  NITI_OPERANDS_MAX = 5, /* inputs, and outputs, of one operation */
  NITI_SCALARS_MAX = 8,
  NITI_NONE = -1, /* no tensor, no scalar */
};

typedef enum NitiDtype { NITI_DTYPE_S8, NITI_DTYPE_U8, NITI_DTYPE_S16, NITI_DTYPE_S32, NITI_DTYPE_S64, NITI_DTYPES } NitiDtype;

/* How many exponents a tensor's values share: value = mantissa * 2^exponent. */
typedef enum NitiExponents { NITI_EXPONENTS_NONE, NITI_EXPONENTS_ONE, NITI_EXPONENTS_PER_CHANNEL } NitiExponents;

typedef enum NitiRole {
  NITI_ROLE_INPUT,      /* bound anew for every run: pixels, samples, labels */
  NITI_ROLE_CONSTANT,   /* written before the first run: the input table */
  NITI_ROLE_ACTIVATION, /* a layer's output */
  NITI_ROLE_DELTA,      /* the delta of a layer's output or input */
  NITI_ROLE_WEIGHT,     /* learned, and part of the network's hash */
  NITI_ROLE_GRADIENT,   /* the exact sum of a weight's gradient */
  NITI_ROLE_STATE,      /* an optimiser's or layer's memory from step to step */
  NITI_ROLE_SAVED,      /* from a layer's forward to its backward: a pool's winners, a norm's sums */
  NITI_ROLE_METRIC,     /* sums over the images seen since they were cleared: NitiMetrics */
  NITI_ROLES
} NitiRole;

/* What a weight or a state holds before the first step. */
typedef enum NitiInitial {
  NITI_INITIAL_ZERO,
  NITI_INITIAL_UNIFORM, /* s8: drawn (docs/arithmetic.md, "Input and initial weights") */
  NITI_INITIAL_ONE,     /* s16: 2^14 at exponent -14 */
  NITI_INITIAL_RUNNING, /* s64 [2][C] at exponent -32: means 0, variances 1 */
  NITI_INITIAL_MASTER,  /* state, s16: 256 times its weight, at the weight's exponent - 8 */
} NitiInitial;

/* A tensor's description. dims[0] is the largest batch where `batched`: a run may use fewer images. Layouts are
 * docs/arithmetic.md's: activations and deltas [N][H][W][C] or [N][features], weights [out][KH][KW][in / groups] or [out][in]. */
typedef struct NitiTensorDesc {
  char name[NITI_TENSOR_NAME_MAX]; /* unique in its layer: "conv1.weight", "relu2.delta" */
  NitiDtype dtype;
  NitiExponents exponents;
  NitiRole role;
  bool batched;
  int32_t rank;
  int64_t dims[NITI_RANK_MAX]; /* 1 from rank on */
  int32_t layer;               /* the number of the layer that it belongs to; 0: the network's */
  NitiInitial initial;
  int64_t fan_in, fan_out; /* NITI_INITIAL_UNIFORM: determine the values (docs/arithmetic.md); else 0 */
  int32_t weight;          /* gradients, and an optimiser's state: the weight tensor that they belong to; else NITI_NONE */
} NitiTensorDesc;

typedef enum NitiOpcode {
  NITI_OP_NONE,             /* does nothing: replaces an operation that a backend has fused into another */
  NITI_OP_INPUT,            /* activation = table[pixels of the samples]; inputs pixels, samples, table */
  NITI_OP_CONV_FORWARD,     /* y = round(x * w + bias), then ReLU where `relu`; inputs x, w and optionally bias s16 [K],
                             * or a norm's running s64 [2][K], whose means are subtracted */
  NITI_OP_CONV_BACKWARD,    /* dx = round(dy * transposed w); inputs dy, w and optionally a mask: dx is 0 where mask <= 0 */
  NITI_OP_CONV_GRADIENT,    /* gradient = exact sum of dy x; inputs dy, x */
  NITI_OP_BIAS_GRADIENT,    /* gradient s64 [K] = exact sum of dy over all but the last dimension, at dy's exponent; input dy */
  NITI_OP_RELU_FORWARD,     /* y = max(x, 0), at most relu_max where that is not 0 */
  NITI_OP_RELU_BACKWARD,    /* dx = dy where y > 0 and below relu_max, else 0; inputs dy, y */
  NITI_OP_MAXPOOL_FORWARD,  /* y and winner; input x */
  NITI_OP_MAXPOOL_BACKWARD, /* inputs dy, winner and optionally a mask: dy counts as 0 where mask <= 0 */
  NITI_OP_AVGPOOL_FORWARD,
  NITI_OP_AVGPOOL_BACKWARD,
  NITI_OP_ADD, /* y = round(a + b) at aligned exponents; 0 where the mask inputs[2] <= 0, if there is one, and ReLU where `relu`
                */
  NITI_OP_DROPOUT,  /* y = masked x, scaled by what is left out; forward and backward alike */
  NITI_OP_RESHAPE,  /* y = x with other dims: the same memory */
  NITI_OP_LOSS,     /* outputs metrics and optionally the logits' delta; inputs logits, labels, metrics */
  NITI_OP_NORM_FIT, /* affine s32 [C][2], y's exponent; inputs x, weight, bias, running s64 [2][C]; outputs affine, running, sums
                     * s64 [C][2] of x and of its squares. Where `norm.running` of x only the exponent is read, and affine alone
                     * is written */
  NITI_OP_NORM_FORWARD,   /* y = round(affine map of x), then ReLU where `relu`, at most relu_max; inputs x, affine */
  NITI_OP_NORM_DELTA_FIT, /* affine s32 [C][3], dx's exponent, the gradients of weight and bias, and sums s64 [C][3] of dy, dy x
                           * and dy dy; inputs dy, x, sums of x, weight */
  NITI_OP_NORM_BACKWARD,  /* dx = round(affine map of dy and x); inputs dy, x, affine */
  NITI_OP_NORM_POOL_FORWARD,  /* NORM_FORWARD, then MAXPOOL_FORWARD: outputs y, winner and optionally x of the winners, at x's
                               * exponent; inputs x, affine. A backend makes it of the two (fuse.h), and the next */
  NITI_OP_NORM_POOL_BACKWARD, /* NORM_BACKWARD of dy's values where they won, else of 0; inputs dy, x, affine, winner. The
                               * NORM_DELTA_FIT before it has dy and x of the winners */
  NITI_OP_ALL_SUM,      /* begins, in place, the sum over all ranks of a gradient, which only ALL_SUM_WAIT completes; those in a
                         * row travel together; nothing in a process by itself */
  NITI_OP_ALL_SUM_WAIT, /* completes all sums that were begun, and those of the loss's metrics; no operands */
  NITI_OP_UPDATE_NITI,  /* w -= the update `niti` of the gradient; inputs w, gradient; output w; scalar mu */
  NITI_OP_GRADIENT_SQUARES, /* output s64 [2], a scalar: the squares so far and those of a gradient; inputs squares so far, or
                             * none, and gradient */
  NITI_OP_UPDATE_NITI16,    /* the same operands as of the next */
  NITI_OP_UPDATE_SGD, /* inputs w, gradient, master (none where w is s16), velocity, and where gradients are clipped the squares
                       * of all; outputs w, none, master, velocity */
  NITI_OPCODES
} NitiOpcode;

typedef enum NitiPhase {
  NITI_PHASE_INPUT,
  NITI_PHASE_FORWARD,
  NITI_PHASE_LOSS,
  NITI_PHASE_BACKWARD,
  NITI_PHASE_REDUCE, /* waits for the sums over ranks; empty in a program for a process by itself */
  NITI_PHASE_UPDATE,
  NITI_PHASES
} NitiPhase;

/* A convolution (linear: 1x1 on 1x1 images). x [N][H][W][C], w [K][KH][KW][C / groups], y [N][OH][OW][K]; OH = (H + 2 pad_h -
 * KH) / stride_h + 1. Output channel k reads the input channels of its own group, k / (K / groups); groups divides C and K. */
typedef struct NitiConv {
  int32_t n, h, w, c;
  int32_t oh, ow, k;
  int32_t kh, kw, stride_h, stride_w, pad_h, pad_w;
  int32_t groups; /* 0 counts as 1 */
} NitiConv;

static inline bool niti_conv_grouped(const NitiConv *c) { return c->groups > 1; }
/* Input channels, and output channels, of one group. */
static inline int32_t niti_conv_group_inputs(const NitiConv *c) { return niti_conv_grouped(c) ? c->c / c->groups : c->c; }
static inline int32_t niti_conv_group_outputs(const NitiConv *c) { return niti_conv_grouped(c) ? c->k / c->groups : c->k; }

/* A pooling window over x [N][H][W][C] giving y [N][OH][OW][C]. KH * KW <= 255 for max-pool. pad_h < KH, pad_w < KW. */
typedef struct NitiPool {
  int32_t n, h, w, c;
  int32_t oh, ow;
  int32_t kh, kw, stride_h, stride_w, pad_h, pad_w;
} NitiPool;

/* Whether the windows do not overlap. */
static inline bool niti_pool_apart(const NitiPool *p) { return p->stride_h >= p->kh && p->stride_w >= p->kw; }

/* What batch norm knows of its tensors. */
typedef struct NitiNorm {
  int64_t positions; /* of an image: H * W */
  bool running;      /* statistics of earlier steps instead of the batch's */
  bool centred;      /* x is measured from the running means, which the product before subtracts */
} NitiNorm;

/* Numbers of bound scalars: a learning rate, momentum and weight decay in billionths, the number of images that share a gradient,
 * and the norm to which gradients are clipped, in billionths. decay, clip NITI_NONE: none. */
typedef struct NitiSgdScalars {
  int32_t rate, momentum, decay, images, clip;
  bool nesterov, normalised; /* normalised: update `niti16`, and images is NITI_NONE */
} NitiSgdScalars;

typedef struct NitiDropout {
  bool shared;  /* one mask for all images */
  int32_t rate; /* millionths, 0 to 999999 */
} NitiDropout;

typedef enum NitiLossKind { NITI_LOSS_NITI = 0, NITI_LOSS_SOFTMAX } NitiLossKind;

typedef struct NitiLoss {
  NitiLossKind kind;
  int32_t off; /* softmax with smoothed labels: what is expected of every class but the target, at exponent -24 */
} NitiLoss;

/* One image of a batch, a row of the tensor `samples`: which source image, where the window starts in it (pixels outside are
 * raw 0), whether it is mirrored, and what else docs/arithmetic.md, "Augmentation", does to it. */
typedef struct NitiSample {
  uint32_t image;
  int16_t dy, dx;
  uint32_t flip;
  uint16_t h, w;        /* of a rectangle inside the source image that is scaled to the window; 0: the window itself */
  int16_t cut_y, cut_x; /* cut x cut mantissas of the window, from here on, are 0, as far as they are in it */
  uint16_t cut;
  uint8_t coloured; /* pixels are mapped by `colours`; only of 1 or 3 channels */
  uint8_t share;    /* of the next image of the batch, mixed in: 256ths, at most NITI_SHARE_MAX */
  NitiColours colours;
} NitiSample;
enum { NITI_SAMPLE_WORDS = 8 }; /* its size in int32 */

/* How accumulators are rounded to int8, and which random words NITI_STOCHASTIC draws (docs/arithmetic.md, "Random numbers"). */
typedef struct NitiRoundingRecord {
  NitiRounding mode;
  uint32_t purpose, stream; /* NitiPurpose; the word's `layer` */
  int32_t clip;             /* values beyond the largest / 2^clip are clipped, so that small ones keep more bits */
} NitiRoundingRecord;

typedef struct NitiOperation {
  NitiOpcode opcode;
  NitiPhase phase;
  int32_t layer;                                                 /* the layer's number, from 1; 0: the network's own */
  int32_t inputs[NITI_OPERANDS_MAX], outputs[NITI_OPERANDS_MAX]; /* tensor numbers, NITI_NONE where there is none */
  union {
    NitiConv conv; /* CONV_*, at the program's batch */
    NitiPool pool; /* MAXPOOL_*, AVGPOOL_*, NORM_POOL_* */
    NitiLoss loss; /* LOSS */
    NitiDropout dropout;
    NitiNorm norm;      /* NORM_* */
    int32_t scalar;     /* UPDATE_NITI: the number of the bound scalar mu, in millionths */
    NitiSgdScalars sgd; /* UPDATE_SGD, UPDATE_NITI16 */
    bool changes;       /* INPUT: samples may be scaled, coloured or mixed; false: none is */
  };
  NitiRoundingRecord rounding;
  bool relu;        /* CONV_FORWARD, NORM_FORWARD, NORM_POOL_FORWARD, ADD: max(m, 0) after rounding */
  int32_t relu_max; /* RELU_*, and NORM_FORWARD with `relu`: the largest value in millionths, 0: none */
} NitiOperation;

typedef struct NitiProgram {
  int32_t batch; /* the largest number of images of a run */
  int32_t whole; /* the same of all ranks' runs together; `batch` for a process by itself */
  NitiTensorDesc *tensors;
  int32_t tensor_count;
  NitiOperation *operations;
  int32_t operation_count;
  char (*layers)[NITI_LAYER_NAME_MAX]; /* names; layers[0] is "" */
  int32_t layer_count;                 /* without layers[0] */
  char scalars[NITI_SCALARS_MAX][16];  /* names of the values bound for each run: "mu" */
  int32_t scalar_count;
  int32_t capacity[3];                  /* of tensors, operations and layers */
  bool out_of_memory, too_many_scalars; /* niti_program_check reports them */
} NitiProgram;

/* Properties of an opcode that hold for all its operations. */
typedef struct NitiOpcodeInfo {
  const char *name;
  bool rounds;   /* accumulators are requantised: the operation has a rounding record */
  bool in_place; /* outputs[0] may reuse the memory of inputs[0] if nothing reads that later */
} NitiOpcodeInfo;

extern const NitiOpcodeInfo niti_opcodes[NITI_OPCODES];
const char *niti_dtype_name(NitiDtype);
size_t niti_dtype_bytes(NitiDtype);
const char *niti_role_name(NitiRole);
const char *niti_phase_name(NitiPhase);
const char *niti_rounding_name(NitiRounding);

/* ---- building ----
 * Appending never returns a failure: if memory runs out, the program records it, and niti_program_check reports it. */

NitiStatus niti_program_open(NitiProgram **out, int32_t batch);
NitiProgram *niti_program_copy(const NitiProgram *); /* NULL: out of memory */
void niti_program_close(NitiProgram *);
/* Appends a layer's name and returns its number, from 1. */
int32_t niti_program_add_layer(NitiProgram *, const char *name);
/* Appends a tensor and returns its number. A name already in use receives a suffix: "relu1.delta", "relu1.delta.2". */
int32_t niti_program_add_tensor(NitiProgram *, const NitiTensorDesc *);
void niti_program_add_operation(NitiProgram *, const NitiOperation *);
/* The number of the scalar of this name, declared by the first call; NITI_NONE, and niti_program_check fails, where
 * NITI_SCALARS_MAX are declared. */
int32_t niti_program_scalar(NitiProgram *, const char *name);
/* NITI_ERROR_MEMORY if something could not be appended. */
NitiStatus niti_program_check(const NitiProgram *);

/* ---- asking ---- */

/* An operation with no operands; a description of an [N][H][W][C] tensor of s8 with one exponent. */
NitiOperation niti_operation(NitiOpcode, NitiPhase, int32_t layer);
NitiTensorDesc niti_tensor_desc(NitiRole, NitiShape);
/* Elements at a batch of n images (n is ignored where the tensor is not batched). */
size_t niti_tensor_count(const NitiTensorDesc *, int32_t n);
/* dims as {n, h, w, c}; a matrix [N][features] is {N, 1, 1, features}. */
NitiShape niti_tensor_shape(const NitiTensorDesc *, int32_t n);
int32_t niti_program_find(const NitiProgram *, const char *tensor); /* NITI_NONE */
int32_t niti_program_find_scalar(const NitiProgram *, const char *scalar);
/* The operations [*first, *end) of phases from .. to. */
void niti_program_phases(const NitiProgram *, NitiPhase from, NitiPhase to, int32_t *first, int32_t *end);
bool niti_program_equal(const NitiProgram *, const NitiProgram *);

#endif
