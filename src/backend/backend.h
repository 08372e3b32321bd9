/* Backends: a device that compiles programs and runs them. One per kind of device (cpu/, cuda/); nothing above knows more of them
 * than this page.
 *
 * - A backend compiles a program (program/program.h) into an executable, which owns the program's tensors in the backend's memory.
 *   An operation that it cannot do fails at that point, with the layer's name.
 * - Running enqueues a range of the program's operations. What changes from run to run - batch, seed, step, learning rates, the
 *   images - is bound by name in NitiBindings. Results are exactly those of docs/arithmetic.md, whatever the instruction set,
 *   number of threads or tiles; running allocates nothing, except that a smaller
 *   batch is prepared when it is first met.
 * - A backend fuses and reorders work, chooses layouts and keeps recordings as it likes: a tensor that only a fused operation used
 *   need not exist in memory (NITI_COMPILE_PLAIN keeps them all).
 * - Work may be queued: results are visible to the host after a read, download() or synchronise().
 * - The first failure of a device stays: every later synchronise() and run reports it, and reads then give zeros. So what was read
 *   may be believed (and saved) only after a synchronise() that followed it.
 * - Calls outside these contracts are mistakes of the caller. In debug builds (NDEBUG undefined) they stop at an assertion, as do
 *   operands that break an operation's own contract. In release builds nothing aborts: niti_executable_run returns
 *   NITI_ERROR_ARGUMENT. */
#ifndef NITI_BACKEND_BACKEND_H
#define NITI_BACKEND_BACKEND_H

#include "program/program.h"

typedef struct NitiBackend NitiBackend;
typedef struct NitiExecutable NitiExecutable;

/* Sums over the images seen since they were last cleared. */
typedef struct NitiMetrics {
  int64_t loss;    /* cross-entropy in bits, 16 fraction bits */
  int64_t correct; /* images whose largest logit (the first of equals) is the target's */
  int64_t images;
} NitiMetrics;

/* Operations that brought accumulators to int8 since the backend was opened, and those whose predicted shift was wrong, so that
 * some of their work was done again. */
typedef struct NitiShiftCounts {
  uint64_t predictions, retries;
} NitiShiftCounts;

/* Facts about a tensor for logs. */
typedef struct NitiTensorStats {
  int64_t count, saturated; /* saturated: |m| = 127 */
  int32_t exponent;
  int64_t histogram[255]; /* of mantissas -127 .. 127 */
} NitiTensorStats;

/* What a run depends on besides the executable's tensors. Members that no operation of the range reads may be zero. */
typedef struct NitiBindings {
  int32_t batch;                       /* 1 .. the program's */
  uint64_t seed;                       /* of all random words */
  uint32_t step;                       /* the `time` of random words */
  int64_t scalars[NITI_SCALARS_MAX];   /* by the program's scalar numbers */
  const uint8_t *pixels;               /* source images [.][H][W][C] of `source`'s shape, in memory that the backend reads */
  NitiShape source;                    /* of one source image; n does not matter */
  const NitiSample *samples;           /* [batch], host memory; may change as soon as the run returns */
  const int32_t *labels;               /* [batch], likewise */
  int32_t repeat;                      /* the range runs so many times, for measuring; 0: once */
  int64_t *marks;                      /* NULL, or backend memory [operations + 1]: nanoseconds of the device's own clock before the
                                          range's first operation and after each of its operations */
} NitiBindings;

typedef struct NitiBackendOps {
  const char *name;
  bool host_memory; /* operations may read host memory in place of alloc's: nothing needs to be copied there */
  void (*close)(NitiBackend *);
  /* The device and its kernels, for logs: "cpu, avx2 kernels, 2 threads"; owned by the backend. */
  const char *(*describe)(const NitiBackend *);
  const char *(*hardware)(const NitiBackend *); /* the processor's own name and features; owned by the backend */
  int (*threads)(const NitiBackend *);          /* host threads it computes with */

  /* 64-byte aligned (cuda: 256), zeroed. Fails with NITI_ERROR_MEMORY, naming what was asked for and, where known, what was free.
   */
  NitiStatus (*alloc)(NitiBackend *, void **out, size_t bytes);
  void (*release)(NitiBackend *, void *); /* NULL is allowed */
  size_t (*free_bytes)(NitiBackend *);    /* what alloc could still give; SIZE_MAX: not known */
  void (*upload)(NitiBackend *, void *to, const void *host, size_t bytes);     /* `host` may change as soon as it returns */
  void (*download)(NitiBackend *, void *host, const void *from, size_t bytes); /* waits */
  void (*clear)(NitiBackend *, void *, size_t bytes);                          /* to zero */
  NitiStatus (*synchronise)(NitiBackend *);            /* waits; reports the first failure there has been, NITI_ERROR_DEVICE */
  NitiShiftCounts (*shift_counts)(NitiBackend *);      /* waits */
  /* Does nothing but int8 multiply-adds in registers, on all threads, for about a millisecond, and returns how many: the
   * yardstick for kernels. 0: there is none for them. NULL: the backend has none. */
  uint64_t (*multiply_add)(NitiBackend *);
} NitiBackendOps;

struct NitiBackend {
  const NitiBackendOps *ops;
  const struct NitiKernels *kernels; /* for the files of src/backend: backend/kernels.h */
};

typedef struct NitiBackendOptions {
  const char *name; /* "cpu", "cuda" or "auto" (NULL: auto, the fastest there is); "cuda:N" for one of several devices */
  const char *isa;  /* the kernels: NULL, "auto" or a name that NitiDevice (niti.h) lists */
  int threads;      /* 0: one per usable core */
  bool direct;      /* convolutions multiply every term, also where another way is faster: for measuring, the bits are the same */
} NitiBackendOptions;

/* Calls `tell` with a line for each device that the backends of this build see: what --backend would take, and what it is. */
typedef void (*NitiDeviceTold)(void *context, const char *line);
void niti_backend_devices(NitiDeviceTold tell, void *context);

/* Opens a backend by name; fails with NITI_ERROR_UNSUPPORTED where it, or the instruction set, is not there. */
NitiStatus niti_backend_open(NitiBackend **out, const NitiBackendOptions *options);
static inline void niti_backend_close(NitiBackend *backend) {
  if (backend) backend->ops->close(backend);
}

/* The name of the kernel that a convolution of this shape gets (opcode: one of NITI_OP_CONV_*); "" where memory runs out. */
const char *niti_backend_conv_kernel(NitiBackend *, NitiOpcode opcode, const NitiConv *conv);

/* ---- executables ---- */

typedef struct NitiCompileOptions {
  /* NULL, or an executable of the same backend whose weights, state, constants and metrics this one uses where names and shapes
   * agree, and whose arena it shares: only one of the two may hold results at a time. It must be closed after this one. */
  NitiExecutable *shared;
  bool plain; /* no fusing, and every tensor keeps memory of its own: for inspecting and testing */
} NitiCompileOptions;

/* The program is copied. Weights are zero until written. Fails with NITI_ERROR_UNSUPPORTED naming the layer of an operation that
 * the backend cannot do, or NITI_ERROR_MEMORY. options may be NULL. */
NitiStatus niti_backend_compile(NitiExecutable **out, NitiBackend *, const NitiProgram *, const NitiCompileOptions *options);
/* The bytes that compiling would allocate. */
NitiStatus niti_backend_estimate(size_t *bytes, NitiBackend *, const NitiProgram *, const NitiCompileOptions *options);
void niti_executable_close(NitiExecutable *); /* NULL is allowed */
const NitiProgram *niti_executable_program(const NitiExecutable *);
size_t niti_executable_bytes(const NitiExecutable *); /* allocated for it alone */
/* The kernel that serves an operation ("winograd avx2"); "" where it has no name of its own, "fused" where another operation does its
 * work as well. */
const char *niti_executable_kernel(const NitiExecutable *, int32_t operation);

/* Enqueues operations first .. end - 1. Waits where much work is queued, and reports a failure known by now. NITI_ERROR_ARGUMENT
 * (an assertion, in debug builds): no such operations, a batch outside 1 .. the program's, or a binding that an operation of the
 * range reads is NULL or out of range (labels, learning rates, the channels of the source images). Samples are not checked. */
NitiStatus niti_executable_run(NitiExecutable *, int32_t first, int32_t end, const NitiBindings *);

/* A tensor's elements at batch n (the program's for tensors without one) and its exponent; either pointer may be NULL. Reading
 * waits. A tensor of the arena holds what the last run left there, which a later operation may have overwritten; exponents stay.
 * NITI_ERROR_ARGUMENT where the tensor's elements are wanted and have no memory. */
NitiStatus niti_executable_read(NitiExecutable *, int32_t tensor, int32_t n, void *elements, int32_t *exponent);
NitiStatus niti_executable_write(NitiExecutable *, int32_t tensor, int32_t n, const void *elements, const int32_t *exponent);
/* The shift with which an operation last brought accumulators to int8. Waits. */
NitiStatus niti_executable_shift(NitiExecutable *, int32_t operation, int32_t *shift);
/* Of an s8 tensor; waits. */
NitiStatus niti_executable_stats(NitiExecutable *, int32_t tensor, NitiTensorStats *out);

#endif
