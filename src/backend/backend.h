/* Backends: devices that compile programs and run them. There is one backend per kind of device (cpu/, cuda/); all other code
 * uses them only through this header.
 *
 * - A backend compiles a program (program/program.h) into an executable, which owns the program's tensors in the backend's
 *   memory. Compiling fails, naming the layer, if the backend does not support an operation.
 * - Running enqueues a range of the program's operations. What changes from run to run - batch, seed, step, learning rates, the
 *   images - is bound by name in NitiBindings. Results are exactly those of docs/arithmetic.md, whatever the instruction set,
 *   number of threads or tiles; running allocates nothing, except that a smaller batch is prepared when it first occurs.
 * - A backend may fuse and reorder work, and choose layouts and recordings: a tensor that only a fused operation used need not
 *   exist in memory (NitiCompileOptions.plain keeps them all).
 * - Work may be queued: results are visible to the host after a read, download() or synchronise().
 * - The first failure of a device persists: every later synchronise() and run reports it, and reads then return zeros. So data
 *   that was read is valid only after a later synchronise() has succeeded.
 * - Calls that violate these contracts are errors of the caller. In debug builds (NDEBUG undefined) they fail an assertion, as
 *   do operands that violate an operation's own contract. In release builds nothing aborts: niti_executable_run returns
 *   NITI_ERROR_ARGUMENT. */
#ifndef NITI_BACKEND_BACKEND_H
#define NITI_BACKEND_BACKEND_H

#include "program/program.h"
#include "ranks/ranks.h"

typedef struct NitiBackend NitiBackend;
typedef struct NitiExecutable NitiExecutable;

/* Sums over the images seen since they were last cleared. */
typedef struct NitiMetrics {
  int64_t loss;    /* cross-entropy in bits, 16 fraction bits */
  int64_t correct; /* images whose largest logit (the first of equals) is the target's */
  int64_t images;
} NitiMetrics;

/* The number of requantising operations since the backend was opened, and of those whose predicted shift was wrong, so that part
 * of their work was repeated. */
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
  int32_t batch; /* 1 .. the program's */
  int32_t whole; /* 0, or the images of all ranks, which then run the same operations together, each its own
                    images from number `first` of that batch on */
  int32_t first;
  bool idle;     /* this rank's images are another's too: they add nothing to sums (program/portion.h) */
  bool ahead;    /* samples and labels have one more: of the whole batch's image after these, which is mixed into the last one */
  uint64_t seed; /* of all random words */
  uint32_t step; /* the `time` of random words */
  int64_t scalars[NITI_SCALARS_MAX]; /* by the program's scalar numbers */
  const uint8_t *pixels;             /* source images [.][H][W][C] of `source`'s shape, in memory that the backend reads */
  NitiShape source;                  /* of one source image; n does not matter */
  const NitiSample *samples;         /* [batch + ahead], host memory; may change as soon as the run returns */
  const int32_t *labels;             /* [batch + ahead], likewise; base/mix.h has their form */
  int32_t repeat;                    /* how many times the range runs, for measuring; 0: once */
  int64_t *marks;                    /* NULL, or backend memory [operations + 1]: nanoseconds of the device's clock before the
                                        range's first operation, once its weights are packed, and after each of its operations */
} NitiBindings;

/* One way in which a device can run a convolution. */
enum { NITI_WAYS_MAX = 32, NITI_WAY_NAME_MAX = 48, NITI_CONVOLUTION_MAX = 128 };
typedef struct NitiWay {
  char name[NITI_WAY_NAME_MAX]; /* "avx512vnni winograd, small parts" */
  int number;                   /* the device's own */
} NitiWay;

typedef struct NitiTuning NitiTuning;

typedef struct NitiBackendOps {
  const char *name;
  bool host_memory;    /* operations may read host memory directly, so nothing needs to be copied */
  size_t update_bytes; /* of gradients that are worth a call of their own for their updates; 0: any */
  void (*close)(NitiBackend *);
  /* The device and its kernels, for logs: "cpu, avx2 kernels, 2 threads"; owned by the backend. */
  const char *(*describe)(const NitiBackend *);
  const char *(*hardware)(const NitiBackend *); /* the processor's own name and features; owned by the backend */
  const char *(*kernels)(const NitiBackend *);  /* the name of its kernels, as NitiBackendOptions.isa takes it */
  int (*threads)(const NitiBackend *);          /* number of host threads that compute */

  /* 64-byte aligned (cuda: 256), zeroed. Fails with NITI_ERROR_MEMORY, naming the bytes requested and, where known, those free.
   */
  NitiStatus (*alloc)(NitiBackend *, void **out, size_t bytes);
  void (*release)(NitiBackend *, void *); /* NULL is allowed */
  size_t (*free_bytes)(NitiBackend *);    /* what alloc could still provide; SIZE_MAX: not known */
  void (*upload)(NitiBackend *, void *to, const void *host, size_t bytes);     /* `host` may change as soon as it returns */
  void (*download)(NitiBackend *, void *host, const void *from, size_t bytes); /* waits */
  NitiStatus (*synchronise)(NitiBackend *);       /* waits; reports the first failure so far, NITI_ERROR_DEVICE */
  NitiShiftCounts (*shift_counts)(NitiBackend *); /* waits */
  /* Runs only int8 multiply-adds in registers, on all threads, for about a millisecond, and returns their number: kernels are
   * measured against this peak. 0: these kernels have no peak. NULL: the backend has none. */
  uint64_t (*multiply_add)(NitiBackend *);
} NitiBackendOps;

/* What a run's collectives need. */
typedef struct NitiTogether {
  NitiRanks *ranks;     /* borrowed; NULL: a process by itself */
  int32_t whole, first; /* of the bindings of the run under way */
  bool idle, ahead;
} NitiTogether;

struct NitiBackend {
  const NitiBackendOps *ops;
  NitiTogether together;
  const struct NitiKernels *kernels; /* for the files of src/backend: backend/kernels.h */
  NitiTuning *tuning;                /* owned; NULL: none */
};

typedef struct NitiBackendOptions {
  const char *name;   /* "cpu", "cuda" or "auto" (NULL: auto, the fastest there is); "cuda:N" for one of several devices */
  const char *isa;    /* the kernels: NULL, "auto" or a name that NitiDevice (niti.h) lists */
  int threads;        /* 0: one per usable core */
  int local;          /* this process's number among the host's ranks: of several devices it takes that one by default */
  bool direct;        /* convolutions multiply every term even where Winograd is faster, for measuring; same results */
  const char *tuning; /* a file of niti_tuning_write, by which compiling chooses ways where it has them for this device; NULL or
                         "": none. A file that is missing, damaged or of another device or build is left out; niti_backend_tuning
                         has the reason */
} NitiBackendOptions;

/* Calls `tell` with one line per device that the backends of this build find: its name for --backend, and its description. */
typedef void (*NitiDeviceTold)(void *context, const char *line);
void niti_backend_devices(NitiDeviceTold tell, void *context);

/* Opens a backend by name; fails with NITI_ERROR_UNSUPPORTED if it, or the instruction set, is not available. */
NitiStatus niti_backend_open(NitiBackend **out, const NitiBackendOptions *options);
void niti_backend_close(NitiBackend *backend); /* NULL is allowed */

/* From now on, runs whose bindings have a `whole` exchange with these ranks; all of them call it. Fails with
 * NITI_ERROR_UNSUPPORTED where the device cannot. */
NitiStatus niti_backend_join(NitiBackend *, NitiRanks *);
/* After joining, and before the first run of the program, which is the same on all ranks: room for the sums of its gradients,
 * where the device can use some. From then on all ranks run the program from its beginning to its end, step by step, in however
 * many runs. All ranks that have joined call it. Fails only where their own exchanges do. */
NitiStatus niti_backend_reserve_sums(NitiBackend *, const NitiProgram *);
/* Before closing, where all ranks come here, each after its last run; without it a device may keep some memory until the process
 * ends. NULL, and a backend that has not joined ranks, are allowed. */
void niti_backend_leave(NitiBackend *);

/* The name of the kernel that runs a convolution of this shape (opcode: one of NITI_OP_CONV_*); "" if memory runs out. */
const char *niti_backend_conv_kernel(NitiBackend *, NitiOpcode opcode, const NitiConv *conv);

/* ---- tuning: ways of convolutions as measured, in a file (docs/benchmarks.md) ---- */

/* What a tuning file had for the backend. The texts are the backend's. */
typedef struct NitiTuningFacts {
  const char *path;
  int32_t entries;  /* convolutions that the file has for this device */
  const char *note; /* one line: why the file, or an entry that was asked for, was left out; NULL: there was nothing to say */
  bool damaged;     /* the note is of what no `niti tune` of this version has written, or of a file that cannot be read */
} NitiTuningFacts;

/* NULL: the backend was opened without a file, or there is none at that path. */
const NitiTuningFacts *niti_backend_tuning(const NitiBackend *);

/* Adds the ways of convolutions, by name (NITI_CONVOLUTION_MAX), to what the file has for this device; what other devices or
 * other processes put there stays. Replaces the file whole or not at all; waits a moment for another process that writes it.
 * Entries of another build of niti for this device go. A file that cannot be read as a tuning file is replaced,
 * and so is one that could not be once this is added. */
NitiStatus niti_tuning_write(const char *path, const NitiBackend *, const char *const *convolutions, const char *const *ways,
                             int32_t count);

/* ---- executables ---- */

typedef struct NitiCompileOptions {
  /* NULL, or an executable of the same backend whose weights, state, constants and metrics this one uses if names and shapes
   * match, and whose arena it shares: only one of the two may hold results at a time. It must be closed after this one. */
  NitiExecutable *shared;
  bool plain; /* no fusing, and every tensor has its own memory: for inspecting and testing */
} NitiCompileOptions;

/* The program is copied. Weights are zero until written. Fails with NITI_ERROR_UNSUPPORTED naming the layer of an operation that
 * the backend does not support, in general or for operands of these dtypes and exponents, or NITI_ERROR_MEMORY. options may be
 * NULL. */
NitiStatus niti_backend_compile(NitiExecutable **out, NitiBackend *, const NitiProgram *, const NitiCompileOptions *options);
/* The bytes that compiling would allocate. */
NitiStatus niti_backend_estimate(size_t *bytes, NitiBackend *, const NitiProgram *, const NitiCompileOptions *options);
void niti_executable_close(NitiExecutable *); /* NULL is allowed */
const NitiProgram *niti_executable_program(const NitiExecutable *);
size_t niti_executable_bytes(const NitiExecutable *); /* allocated for it, without what it shares */
/* The kernel that runs an operation ("winograd avx2"); "" if it has no name of its own, "fused" if the operation is fused into
 * another. */
const char *niti_executable_kernel(const NitiExecutable *, int32_t operation);

/* Ways of a convolution: its name (niti_tuning_write) and all that the device has; returns their number, 0 for any other
 * operation. The first is the cost model's. */
int niti_executable_ways(const NitiExecutable *, int32_t operation, char convolution[NITI_CONVOLUTION_MAX],
                         NitiWay ways[NITI_WAYS_MAX]);
/* From now on the whole batch's convolution runs so; results are the same. number: of one of its ways. Waits. */
NitiStatus niti_executable_choose(NitiExecutable *, int32_t operation, int number);
enum { NITI_TUNED_MAX = 512 };
/* "20 of 24 convolutions as measured in PATH"; false, and "": the backend uses no tuning file. */
bool niti_executable_tuned(const NitiExecutable *, char text[NITI_TUNED_MAX]);

/* Enqueues operations first .. end - 1. Waits if much work is queued, and reports a failure known by then. NITI_ERROR_ARGUMENT
 * (an assertion, in debug builds): no such operations, a batch outside 1 .. the program's, or a binding that an operation of the
 * range reads is NULL or out of range (labels, learning rates, the channels of the source images). Samples are not checked. */
NitiStatus niti_executable_run(NitiExecutable *, int32_t first, int32_t end, const NitiBindings *);

/* A tensor's elements at batch n (the program's for tensors without one) and its exponent; either pointer may be NULL. Reading
 * waits. A tensor of the arena holds what the last run left there, which a later operation may have overwritten; exponents remain
 * valid. NITI_ERROR_ARGUMENT if the elements are requested and the tensor has no memory. */
NitiStatus niti_executable_read(NitiExecutable *, int32_t tensor, int32_t n, void *elements, int32_t *exponent);
NitiStatus niti_executable_write(NitiExecutable *, int32_t tensor, int32_t n, const void *elements, const int32_t *exponent);
/* Whether a tensor's elements have memory: not those that only a fused operation used. */
bool niti_executable_has(const NitiExecutable *, int32_t tensor);
/* Whether an operation takes no work of its own: a fused one does it, or it only gives a tensor another shape. */
bool niti_executable_is_idle(const NitiExecutable *, int32_t operation);
/* The shift with which an operation last requantised. Waits. */
NitiStatus niti_executable_shift(NitiExecutable *, int32_t operation, int32_t *shift);
/* Statistics of an s8 tensor; waits. */
NitiStatus niti_executable_stats(NitiExecutable *, int32_t tensor, NitiTensorStats *out);

#endif
