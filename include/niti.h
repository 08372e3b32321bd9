/* niti: training neural networks with integers only.
 *
 * The whole public interface. Every fallible function returns a NitiStatus; on failure niti_error() gives one line for
 * people that names the file, the place and what was expected. The library never prints, exits or aborts.
 * Handles are opaque, owned by whoever opened them, and released by the matching _close (which accepts NULL).
 * A handle must not be used by two threads at once; different handles may be.
 *
 * The arithmetic is specified in docs/arithmetic.md; the functions of the section "Arithmetic" define it in code, so that
 * other hardware can be checked against them. */
#ifndef NITI_H
#define NITI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NITI_VERSION "0.1.0"

#if defined(__GNUC__)
#define NITI_API __attribute__((visibility("default")))
#else
#define NITI_API
#endif

typedef enum NitiStatus {
  NITI_OK = 0,
  NITI_ERROR_ARGUMENT,    /* a value the caller gave is out of range or unknown */
  NITI_ERROR_FILE,        /* a file cannot be opened, read or written */
  NITI_ERROR_FORMAT,      /* a file's content is not what its format demands */
  NITI_ERROR_MODEL,       /* a model or recipe that cannot be built: impossible shapes, possible overflow */
  NITI_ERROR_UNSUPPORTED, /* a backend, CPU feature or operation that is not there */
  NITI_ERROR_MEMORY,      /* memory ran out */
  NITI_ERROR_DEVICE,      /* the device failed at its work; a run ends, its last checkpoint is intact */
  NITI_INTERRUPTED,       /* the progress callback asked to stop; the state has been saved */
} NitiStatus;

/* The message of the last failure in this thread: one line, never NULL, valid until the next failing call. */
NITI_API const char *niti_error(void);
NITI_API const char *niti_version(void);

/* ---- Arithmetic (docs/arithmetic.md) ------------------------------------------------------------------------------ */

typedef enum NitiRounding {
  NITI_NEAREST = 0,
  NITI_PSEUDO_STOCHASTIC,
  NITI_STOCHASTIC,
  NITI_TRUNCATE,
} NitiRounding;

/* The random-number purposes of docs/arithmetic.md. */
typedef enum NitiPurpose {
  NITI_DRAW_INIT = 1,
  NITI_DRAW_SHUFFLE,
  NITI_DRAW_CROP,
  NITI_DRAW_FLIP,
  NITI_DRAW_DROPOUT,
  NITI_DRAW_ROUND_ACT,
  NITI_DRAW_ROUND_DELTA,
  NITI_DRAW_LOSS,
  NITI_DRAW_FORK,
} NitiPurpose;

/* B(v): the smallest b with v <= 2^b; 0 for v <= 1. v <= 2^63. */
NITI_API int niti_bits(uint64_t v);
/* x / 2^shift rounded in the given mode, not clipped. 0 <= shift <= 62, |x| < 2^62; shift 0 returns x. `word` is the random word of
 * NITI_STOCHASTIC (then shift <= 32) and ignored by the other modes. */
NITI_API int64_t niti_round(int64_t x, int shift, NitiRounding mode, uint32_t word);
/* niti_round, then clipped to [-127, 127]. */
NITI_API int8_t niti_round_int8(int64_t x, int shift, NitiRounding mode, uint32_t word);
/* The shift that brings accumulators of this largest magnitude into int8: max(0, B(max) - 7). */
NITI_API int niti_requantise_shift(uint32_t max);
/* The random word for (seed, purpose, time, layer, index); index < 2^34. */
NITI_API uint32_t niti_random(uint64_t seed, NitiPurpose purpose, uint32_t time, uint32_t layer, uint64_t index);
/* 2^(f / 2^16) with 30 fraction bits, 0 <= f < 2^16. */
NITI_API uint32_t niti_exp2_frac(uint32_t f);
/* log2(v) with 16 fraction bits, 1 <= v < 2^47. */
NITI_API int64_t niti_log2(uint64_t v);
/* The error of one image under loss `niti`: delta[classes] int8 at exponent 0, from logits[classes] int8 at `exponent`.
 * index0 is the flat index of the image's first logit in the batch (random words: purpose NITI_DRAW_LOSS). classes <= 65536. */
NITI_API void niti_loss_niti(int8_t *delta, const int8_t *logits, int32_t exponent, int classes, int target, uint64_t seed,
                             uint32_t step, uint64_t index0);
/* The same under loss `softmax`: acc[classes] int32 at exponent -24, still to be requantised. */
NITI_API void niti_loss_softmax(int32_t *acc, const int8_t *logits, int32_t exponent, int classes, int target);
/* Cross-entropy of one image in bits, 16 fraction bits. */
NITI_API int64_t niti_loss_value(const int8_t *logits, int32_t exponent, int classes, int target);
/* The exponent of freshly initialised weights: (least k with 4^k (fan_in + fan_out) >= 6) - 7. */
NITI_API int niti_init_exponent(int64_t fan_in, int64_t fan_out);
/* The initial weight at a flat index: uniform in [-127, 127]. */
NITI_API int8_t niti_init_weight(uint64_t seed, uint32_t layer, uint64_t index);
/* weight[count] -= the update `niti` of gradient[count] (exact sums, |g| < 2^62), learning rate mu in 0..30. */
NITI_API void niti_update_niti(int8_t *weight, const int64_t *gradient, size_t count, int mu);
/* table[channels][256] of input mantissas and their common exponent; mean and std in millionths (std > 0).
 * Fails with NITI_ERROR_ARGUMENT if no exponent in [-20, 20] fits. */
NITI_API NitiStatus niti_input_table(int8_t *table, int32_t *exponent, int channels, const int32_t *mean, const int32_t *std);

/* ---- Training ----------------------------------------------------------------------------------------------------- */

/* Where the work runs. All zero: the best there is. Results never depend on it. */
typedef struct NitiDevice {
  const char *backend; /* NULL or "auto", "cpu", "cuda", "cuda:1" (the second GPU; from 0) */
  const char *isa;     /* its kernels: NULL or "auto"; cpu: "ref", "avx2", "avx512vnni", "amx", "neon-dotprod", "neon-i8mm"; cuda:
                          "mma", "wgmma" */
  int threads;         /* of the CPU; 0: one a usable core */
} NitiDevice;

/* A recipe: everything that decides a run's bits (docs/recipe-reference.md). */
typedef struct NitiRecipe NitiRecipe;
/* recipe: a built-in's name or a file. sets: `key.path=value` strings applied in order over its values. */
NITI_API NitiStatus niti_recipe_load(NitiRecipe **out, const char *recipe, const char *const *sets, int set_count);
NITI_API void niti_recipe_close(NitiRecipe *recipe);

/* Sums over images; accuracy = correct / images; mean loss in bits = loss / 65536 / images (times ln 2: nats). */
typedef struct NitiScore {
  int64_t loss, correct, images;
} NitiScore;

typedef enum NitiProgressKind {
  NITI_PROGRESS_NOTE,  /* text for people: what was initialised, resumed, fallen back to */
  NITI_PROGRESS_BATCH, /* after every step */
  NITI_PROGRESS_TEST,  /* while testing, after every batch */
  NITI_PROGRESS_EPOCH, /* an epoch was trained and tested, and is being saved in the background */
} NitiProgressKind;

typedef struct NitiProgress {
  NitiProgressKind kind;
  const char *text;            /* NOTE only; valid during the call */
  int32_t epoch, epochs;       /* epoch counts from 1 */
  int64_t batch, batches;      /* of this epoch */
  int64_t step, steps;         /* done, of the whole run */
  NitiScore train;             /* of this epoch so far; BATCH: refreshed about twice a second */
  NitiScore test, best;        /* EPOCH only */
  int64_t images, steps_here, nanoseconds; /* trained in this process so far, and the time the steps took */
} NitiProgress;

/* Return false to finish the step, save and stop (the call then returns NITI_INTERRUPTED). */
typedef bool (*NitiProgressCallback)(void *context, const NitiProgress *progress);

typedef struct NitiTrainOptions {
  NitiDevice device;
  const char *data;   /* the data set's folder; NULL: the default set (resume: the one used before) */
  const char *init;   /* weights to start from where layer names and shapes match: whatever niti_model_open takes, or any safetensors
                         file with LAYER.weight and LAYER.weight.exponent; NULL: none */
  int32_t save_every; /* keep every Nth epoch's checkpoint; 0: none */
  NitiProgressCallback progress; /* may be NULL */
  void *context;
} NitiTrainOptions;

typedef struct NitiTrainResult {
  char hash[65];               /* of the final weights */
  int32_t epochs;              /* completed */
  int64_t steps;
  NitiScore train, test, best; /* of the last epoch; best: by test accuracy */
  int32_t best_epoch;          /* from 1 */
  int64_t images, nanoseconds; /* trained by this call, and the time its steps took */
  /* Requantising operations of this call, and those that ran twice because their shift was predicted wrongly. */
  uint64_t predictions, wrong_predictions;
} NitiTrainResult;

/* Trains into the new folder `run` (recipe, environment, metrics, events, checkpoints); refuses one that holds anything.
 * On NITI_INTERRUPTED *out is valid too, and niti_resume continues with the same bits. */
NITI_API NitiStatus niti_train(NitiTrainResult *out, const NitiRecipe *recipe, const char *run, const NitiTrainOptions *options);
/* Continues a run from its last checkpoint, in the middle of an epoch if need be; a finished run just reports. */
NITI_API NitiStatus niti_resume(NitiTrainResult *out, const char *run, const NitiTrainOptions *options);

/* ---- Inference ---------------------------------------------------------------------------------------------------- */

/* A network for inference. */
typedef struct NitiModel NitiModel;
/* network: a checkpoint; a run's folder, for its best checkpoint, or RUN:last, RUN:best or RUN:N, the one kept after epoch N; or a
 * recipe or model, a file or a built-in's name, which is not trained and has the weights that its seed gives. */
NITI_API NitiStatus niti_model_open(NitiModel **out, const char *network, const NitiDevice *device);
NITI_API void niti_model_close(NitiModel *model);
/* The input's height, width, channels; pixels are uint8 in that layout. */
NITI_API void niti_model_input(const NitiModel *model, int32_t hwc[3]);
NITI_API int32_t niti_model_classes(const NitiModel *model);
/* The class's name in the data set it was trained on, or its number as text; owned by the model. */
NITI_API const char *niti_model_class_name(const NitiModel *model, int32_t label);
/* logits[classes] int8 at *exponent for one image of pixels [H][W][C]. */
NITI_API NitiStatus niti_model_predict(NitiModel *model, int8_t *logits, int32_t *exponent, const uint8_t *pixels);
/* The same for an image file (JPEG or PNG) of any size, fitted as in training. */
NITI_API NitiStatus niti_model_predict_file(NitiModel *model, int8_t *logits, int32_t *exponent, const char *path);
/* Shares of probability by integer softmax, in millionths; they sum to at most 10^6. */
NITI_API void niti_probabilities(int32_t *millionths, const int8_t *logits, int32_t exponent, int32_t classes);
/* Scores the test split of the data set in the folder `data` (NULL: the default set), with the recipe's batch. */
NITI_API NitiStatus niti_model_evaluate(NitiModel *model, NitiScore *out, const char *data);
/* The hash of the weights of whatever niti_model_open takes: 64 hexadecimal digits and a zero byte. */
NITI_API NitiStatus niti_checkpoint_file_hash(const char *network, char text[65]);

#ifdef __cplusplus
}
#endif
#endif
