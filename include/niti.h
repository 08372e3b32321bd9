/* niti: training convolutional neural networks with integers only, giving the same bits on every machine. This header is the
 * whole public interface.
 *
 * Introduction
 * ------------
 * A recipe decides everything about the bits of a training run: model, preparation of images, schedule, rounding and seed
 * (docs/recipe-reference.md). Training follows a recipe on a data set and leaves a folder of checkpoints; a model is opened from
 * a checkpoint to classify images:
 *
 *     #include <niti.h>
 *     #include <stdio.h>
 *
 *     int main(void) {
 *       NitiRecipe *recipe = NULL;
 *       NitiModel *model = NULL;
 *       NitiTrainOptions options = {0};
 *       NitiTrainResult result;
 *       NitiScore score;
 *       options.device.backend = "cpu";
 *       NitiStatus status = niti_recipe_load(&recipe, "conv3-bn-fashion-mnist", NULL, 0);
 *       if (status == NITI_OK) status = niti_train(&result, recipe, "runs/first", &options);
 *       if (status == NITI_OK) status = niti_model_open(&model, "runs/first/best.safetensors", NULL);
 *       if (status == NITI_OK) status = niti_model_evaluate(model, &score, NULL);
 *       if (status == NITI_OK) printf("%lld of %lld correct\n", (long long)score.correct, (long long)score.images);
 *       if (status != NITI_OK) fprintf(stderr, "%s\n", niti_error());
 *       niti_model_close(model);
 *       niti_recipe_close(recipe);
 *       return status == NITI_OK ? 0 : 1;
 *     }
 *
 * The functions under "Arithmetic" need none of that: they define the arithmetic of docs/arithmetic.md in code, so that other
 * implementations can be checked against them.
 *
 * Errors
 * ------
 * Every function that can fail returns a NitiStatus; niti_error() then has one line that names the file, place or argument, and
 * what was expected. Each function below lists the statuses that it can return besides NITI_OK, without the prefix NITI_ERROR_.
 * NULL for a pointer that is not said to accept it, a negative count, or an unknown value of an enumeration is ARGUMENT;
 * functions without a status say what they do instead. A call with such an argument does nothing else. The library never prints,
 * exits or aborts.
 *
 * Ownership
 * ---------
 * A handle (NitiRecipe, NitiModel) belongs to the caller that opened it, who releases it with the matching _close; _close accepts
 * NULL. An open function that fails sets its handle to NULL. Everything else that is passed in is borrowed for the call, and
 * outputs are in the caller's memory. Strings are UTF-8 and end in a zero byte.
 *
 * Threads
 * -------
 * Two threads must not use one handle at the same time; different handles are independent, and a recipe that is only read by
 * niti_train may be shared. A call may compute on threads of its own, which write only to its outputs. Callbacks run on the
 * thread that made the call. niti_error() covers the calls of its own thread.
 *
 * Room to grow
 * ------------
 * Later versions add members to structs in place of `reserved` ones, so sizes stay. Initialise a struct that you pass in with {0}
 * (C++: {}): that leaves every option at its default. Reserved members that are not zero are refused with ARGUMENT, since they
 * would be options that this version does not have. In structs that the library fills they are zero. Later versions may also add
 * values to NitiStatus and NitiProgressKind.
 *
 * What is stable
 * --------------
 * Until version 1.0 a new minor version may change the interface, and a new patch version may not: programs run with every
 * libniti of the minor version that they were compiled with. The arithmetic, and with it every hash, changes with
 * NITI_ARITHMETIC alone, which is for faults that could not stay. What is marked "experimental" may change or go with any
 * version. */
#ifndef NITI_H
#define NITI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define NITI_API __attribute__((visibility("default")))
#else
#define NITI_API
#endif

/* ---- Version and errors ------------------------------------------------------------------------------------------- */

#define NITI_VERSION_MAJOR 0
#define NITI_VERSION_MINOR 1
#define NITI_VERSION_PATCH 0
#define NITI_VERSION_NUMBER (NITI_VERSION_MAJOR * 10000 + NITI_VERSION_MINOR * 100 + NITI_VERSION_PATCH)
#define NITI_TEXT_OF(number) #number
#define NITI_VERSION_TEXT(major, minor, patch) NITI_TEXT_OF(major) "." NITI_TEXT_OF(minor) "." NITI_TEXT_OF(patch)
#define NITI_VERSION NITI_VERSION_TEXT(NITI_VERSION_MAJOR, NITI_VERSION_MINOR, NITI_VERSION_PATCH) /* "0.1.0" */

/* The version of docs/arithmetic.md: results of the same version are the same bits. Checkpoints and exports hold it. */
#define NITI_ARITHMETIC "1.2"

/* The version of the library at run time: NITI_VERSION and NITI_VERSION_NUMBER as they were when it was compiled. */
NITI_API const char *niti_version(void);
NITI_API int niti_version_number(void);

typedef enum NitiStatus {
  NITI_OK = 0,
  NITI_ERROR_ARGUMENT,    /* an argument or setting is NULL, out of range or unknown */
  NITI_ERROR_FILE,        /* a file cannot be opened, read or written */
  NITI_ERROR_FORMAT,      /* a file's content is not what its format demands */
  NITI_ERROR_MODEL,       /* a model or recipe that cannot be built: impossible shapes, possible overflow */
  NITI_ERROR_UNSUPPORTED, /* a backend, CPU feature, operation or file version that this library does not have */
  NITI_ERROR_MEMORY,      /* memory ran out */
  NITI_ERROR_DEVICE,      /* the device failed at its work; a run ends, its last checkpoint is intact */
  NITI_INTERRUPTED,       /* the progress callback asked to stop; the state has been saved */
} NitiStatus;

/* The message of the last failure in this thread: one line, never NULL, valid until the next failing call; "" before the first.
 */
NITI_API const char *niti_error(void);

/* ---- Arithmetic (docs/arithmetic.md) ------------------------------------------------------------------------------ */

/* These functions compute only: they keep nothing, and any thread may call them at any time. They have no status
 * (niti_input_table excepted): where an argument is NULL or outside the range stated, a function returns 0 or leaves its output
 * as it was. Arrays of logits and weights hold mantissas in [-127, 127]. */

typedef enum NitiRounding {
  NITI_NEAREST = 0,
  NITI_PSEUDO_STOCHASTIC,
  NITI_STOCHASTIC,
  NITI_TRUNCATE,
  NITI_STOCHASTIC_BYTE, /* with 8 random bits: a quarter of NITI_STOCHASTIC's random words */
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
  NITI_DRAW_VALIDATION,
  NITI_DRAW_UPDATE,
  NITI_DRAW_CUTOUT,
  NITI_DRAW_COLOUR,
  NITI_DRAW_RESIZED_CROP,
  NITI_DRAW_MIXUP,
} NitiPurpose;

/* B(v): the smallest b with v <= 2^b; 0 for v <= 1. */
NITI_API int niti_bits(uint64_t v);
/* x / 2^shift rounded in the given mode, not clipped. 0 <= shift <= 62, |x| < 2^62; shift 0 returns x. `word` is the random word
 * of NITI_STOCHASTIC (then shift <= 32); its lowest byte is that of NITI_STOCHASTIC_BYTE; the other modes ignore it. */
NITI_API int64_t niti_round(int64_t x, int shift, NitiRounding mode, uint32_t word);
/* niti_round, then clipped to [-127, 127]. */
NITI_API int8_t niti_round_int8(int64_t x, int shift, NitiRounding mode, uint32_t word);
/* The shift that brings accumulators of this largest magnitude into int8: max(0, B(max) - 7). */
NITI_API int niti_requantise_shift(uint32_t max);
/* The same with a recipe's `clip`, 0 to 7: values beyond the largest / 2^clip are clipped. Experimental. */
NITI_API int niti_requantise_shift_clipped(uint32_t max, int clip);
/* The random word for (seed, purpose, time, layer, index); index < 2^34. Any 32 bits are a valid purpose. */
NITI_API uint32_t niti_random(uint64_t seed, NitiPurpose purpose, uint32_t time, uint32_t layer, uint64_t index);
/* The `word` with which niti_round rounds the element at that index of a tensor: a random word, for NITI_STOCHASTIC_BYTE a byte
 * of one that four elements share, for modes that draw nothing 0. Experimental. */
NITI_API uint32_t niti_random_rounding(NitiRounding mode, uint64_t seed, NitiPurpose purpose, uint32_t time, uint32_t layer,
                                       uint64_t index);
/* 2^(f / 2^16) with 30 fraction bits, f < 2^16. */
NITI_API uint32_t niti_exp2_frac(uint32_t f);
/* log2(v) with 16 fraction bits, 1 <= v < 2^47. */
NITI_API int64_t niti_log2(uint64_t v);
/* The delta of one image under loss `niti`: delta[classes] int8 at exponent 0, from logits[classes] int8 at `exponent`; delta
 * must not alias logits. index0 is the flat index of the image's first logit in the batch (random words: purpose NITI_DRAW_LOSS).
 * 1 <= classes <= 65536, 0 <= target < classes, index0 + classes <= 2^34. */
NITI_API void niti_loss_niti(int8_t *delta, const int8_t *logits, int32_t exponent, int classes, int target, uint64_t seed,
                             uint32_t step, uint64_t index0);
/* The same under loss `softmax`: acc[classes] int32 at exponent -24, still to be requantised. */
NITI_API void niti_loss_softmax(int32_t *acc, const int8_t *logits, int32_t exponent, int classes, int target);
/* Cross-entropy of one image in bits, 16 fraction bits; the same ranges. */
NITI_API int64_t niti_loss_value(const int8_t *logits, int32_t exponent, int classes, int target);
/* The exponent of freshly initialised weights: (least k with 4^k (fan_in + fan_out) >= 6) - 7. Both from 0, their sum from 1
 * and below 2^63. */
NITI_API int niti_init_exponent(int64_t fan_in, int64_t fan_out);
/* The initial weight at a flat index < 2^34: uniform in [-127, 127]. */
NITI_API int8_t niti_init_weight(uint64_t seed, uint32_t layer, uint64_t index);
/* weight[count] -= the update `niti` of gradient[count] (exact sums, |g| < 2^62), learning rate mu in 0..30. */
NITI_API void niti_update_niti(int8_t *weight, const int64_t *gradient, size_t count, int mu);
/* The same with a learning rate in millionths, which need not be whole: 0 to 30000000. Experimental. */
NITI_API void niti_update_niti_fraction(int8_t *weight, const int64_t *gradient, size_t count, int32_t millionths);
/* niti_loss_softmax with smoothed labels, `smoothing` billionths of each: 0 to 10^9 - 1. */
NITI_API void niti_loss_softmax_smoothed(int32_t *acc, const int8_t *logits, int32_t exponent, int classes, int target,
                                         int64_t smoothing);
/* niti_loss_softmax_smoothed of an image of which `share` 256ths, 0 to 128, are another of class `other`: mixup. */
NITI_API void niti_loss_softmax_mixed(int32_t *acc, const int8_t *logits, int32_t exponent, int classes, int target, int other,
                                      int32_t share, int64_t smoothing);
/* Test-time flip, experimental: the logits of images and of their mirrors, added at aligned exponents and exactly but where
 * those are more than 15 apart. sums[count], below 2^23 in magnitude, of logits[count] and mirrored[count]; *exponent is that of
 * the means. niti_flip_loss: cross-entropy of one image in bits, 16 fraction bits, of such sums; ranges as niti_loss_value. */
NITI_API void niti_flip_sums(int32_t *sums, int32_t *exponent, const int8_t *logits, int32_t logits_exponent,
                             const int8_t *mirrored, int32_t mirrored_exponent, size_t count);
NITI_API int64_t niti_flip_loss(const int32_t *sums, int32_t exponent, int classes, int target);

/* One step of update `sgd`, experimental like all that follows up to niti_input_table. */
typedef struct NitiSgdStep {
  int64_t rate, momentum, decay; /* billionths: at most 10^12, 10^9 - 1 and 10^9; decay 0 for biases and weights of norms */
  int64_t images;                /* of the batch that the gradient sums: 1 to 2^20 */
  bool nesterov;
  uint64_t seed; /* the random words: purpose NITI_DRAW_UPDATE */
  uint32_t step;
  uint32_t layer;  /* the node's number + 65536 * k, k = 0 for a weight, 1 for a bias */
  int64_t clip[2]; /* of niti_clip_factor; 0, 0: gradients are not clipped */
  uint64_t reserved[2];
} NitiSgdStep;

/* A weight tensor after the step: weight[count] in [-32512, 32512] (for an int8 operand its master) and velocity[count] in
 * [-32767, 32767], with their exponents, by the exact gradient[count], |g| < 2^62. Exponents from -1024 to 1024: a tensor whose
 * velocity has decayed to the least one, with neither gradient nor decay, stays as it is. The int8 operand of a master is
 * niti_round_int8(weight, 8, NITI_NEAREST, 0) at its exponent + 8. */
NITI_API void niti_update_sgd(int16_t *weight, int32_t *weight_exponent, int16_t *velocity, int32_t *velocity_exponent,
                              const int64_t *gradient, int32_t gradient_exponent, size_t count, const NitiSgdStep *step);
/* The same of update `niti16`, which normalises the gradient and leaves the weights' exponent as it is; step->images must be in
 * range but does not count, and step->clip is 0, 0. */
NITI_API void niti_update_niti16(int16_t *weight, int32_t weight_exponent, int16_t *velocity, int32_t *velocity_exponent,
                                 const int64_t *gradient, size_t count, const NitiSgdStep *step);
/* The int8 operand, at the exponent + 8, of a weight in [-32512, 32512]. */
NITI_API int8_t niti_weight_operand(int16_t weight);
/* What the next step of update `sgd` adds to the exponent of such weights: 1, 0 or -1. A step that moves neither weights nor
 * velocities, since all of gradient, velocity and decay are 0, adds nothing. */
NITI_API int niti_weight_exponent_step(const int16_t *weight, size_t count);
/* Clipping by norm. Adds the squares of gradient[count] (exact sums, |g| < 2^62, count at most 2^34, exponent from -1024 to 1024)
 * to the scalar total[0] * 2^total[1], at first 0 and 0: once for every tensor that is trained, in the order of nodes, of a node
 * first the weight. */
NITI_API void niti_gradient_squares(int64_t *total, const int64_t *gradient, int32_t gradient_exponent, size_t count);
/* The factor, at most 1, that brings gradients of those squares, sums over 1 to 2^20 images, to a norm of at most `norm`
 * billionths, 1 to 10^15: factor[0] * 2^factor[1]. */
NITI_API void niti_clip_factor(int64_t *factor, const int64_t *total, int64_t norm, int64_t images);
/* The learning rate along half a cosine, after `done` of `all` steps: `from` at first, `to` at the end; rates from 0 to 10^12
 * billionths, 0 <= done <= all, 1 <= all < 2^32. */
NITI_API int64_t niti_rate_along_cosine(int64_t from, int64_t to, int64_t done, int64_t all);
/* The same along a straight line. */
NITI_API int64_t niti_rate_along_line(int64_t from, int64_t to, int64_t done, int64_t all);
/* The learning rate in a step of a warm-up of so many steps, 0 <= step < warmup < 2^32, that rises to `rate`, 0 to 10^12. */
NITI_API int64_t niti_rate_in_warmup(int64_t rate, int64_t step, int64_t warmup);
/* The step, from 0, at which a share of a run of `steps` steps is done: millionths from 0 to 10^6, steps from 0, below 2^32. */
NITI_API int64_t niti_step_at_share(int32_t millionths, int64_t steps);

/* Averaged weights: adds values[count], in [-32512, 32512] at values_exponent, to the sum[count] of `samples` such tensors at
 * *exponent (of none: the sum and its exponent are set). samples from 0 to 2^20 - 1, exponents within +-2^20, sums at most
 * samples * 32512 * 2^24 in magnitude. */
NITI_API void niti_average_add(int64_t *sum, int32_t *exponent, int64_t samples, const int16_t *values, int32_t values_exponent,
                               size_t count);
/* The mean of a sum of so many samples, from 1, as values[count] in [-32512, 32512] at *exponent. */
NITI_API void niti_average_take(int16_t *values, int32_t *exponent, const int64_t *sum, int32_t sum_exponent, int64_t samples,
                                size_t count);

/* A layer of batch norm and how it rounds. */
typedef struct NitiNormLayer {
  const int16_t *weight, *bias; /* [channels] */
  int32_t weight_exponent, bias_exponent;
  int64_t count;    /* values per channel, N * H * W: 1 to 2^24 */
  int32_t channels; /* at least 1 */
  bool centred;     /* x is measured from the running means, which niti_norm_centring subtracted from its accumulators */
  NitiRounding rounding;
  uint64_t seed; /* the random words: purpose NITI_DRAW_ROUND_ACT forward, NITI_DRAW_ROUND_DELTA backward */
  uint32_t step, layer;
  uint64_t reserved[2];
} NitiNormLayer;

/* y[count][channels] of x[count][channels], which may be the same memory. running[2][channels]: means and variances at exponent
 * -32; training moves them by the batch's statistics, evaluation (training false) uses them instead. Exponents from -1024 to
 * 1024.
 */
NITI_API void niti_norm_forward(int8_t *y, int32_t *y_exponent, int64_t *running, const NitiNormLayer *layer, bool training,
                                const int8_t *x, int32_t x_exponent);
/* dx[count][channels] of dy and of the x that training's forward had; dx may be dy's memory or x's. weight_gradient[channels], at
 * dy_exponent - 8, and bias_gradient[channels], at dy_exponent, are exact. layer->bias is not read. */
NITI_API void niti_norm_backward(int8_t *dx, int32_t *dx_exponent, int64_t *weight_gradient, int64_t *bias_gradient,
                                 const NitiNormLayer *layer, const int8_t *dy, int32_t dy_exponent, const int8_t *x,
                                 int32_t x_exponent);
/* Statistics of the channels, each [channels][2] scalars (below): mean and variance in mantissas of x and their squares, and the
 * square root of variance and epsilon. running NULL: of x's batch; else the running ones at x's exponent, and x is not read. Of
 * the layer only count and channels count, but all of it must be in range. */
NITI_API void niti_norm_statistics(int64_t *mean, int64_t *variance, int64_t *deviation, const int64_t *running,
                                   const NitiNormLayer *layer, const int8_t *x, int32_t x_exponent);
/* A running statistic, within +-2^60 at exponent -32, after a training step whose own is the scalar now[2] in real units:
 * x_exponent is added to the exponent of a mean, and 2 * x_exponent to that of a variance, where they are not 0. */
NITI_API int64_t niti_norm_move(int64_t running, const int64_t *now);
/* The same of a centred layer's running mean: now[2] is measured from it. */
NITI_API int64_t niti_norm_move_centred(int64_t running, const int64_t *now);
/* What is added to every accumulator of a channel, in front of a centred norm: bias[channels], at the accumulators' exponent
 * (-1024 to 1024), within +-2^29, from running[channels], means at exponent -32, within +-2^60. */
NITI_API void niti_norm_centring(int32_t *bias, const int64_t *running, int32_t channels, int32_t exponent);
/* What niti_norm_forward multiplies with: y = round(factor[c] * x + offset[c], 16). `running` and x as in niti_norm_statistics.
 */
NITI_API void niti_norm_factors(int32_t *factor, int32_t *offset, int32_t *y_exponent, const int64_t *running,
                                const NitiNormLayer *layer, const int8_t *x, int32_t x_exponent);
/* The same of niti_norm_backward: dx = round(factor[c] * dy + slope[c] * x + offset[c], 16). */
NITI_API void niti_norm_delta_factors(int32_t *factor, int32_t *slope, int32_t *offset, int32_t *dx_exponent,
                                      const NitiNormLayer *layer, const int8_t *dy, int32_t dy_exponent, const int8_t *x,
                                      int32_t x_exponent);
/* A convolution or linear layer and the batch norm after it. */
typedef struct NitiFoldLayer {
  const int16_t *weight;                  /* [channels][size], in [-32512, 32512]: masters, or 256 times int8 weights */
  const int16_t *bias;                    /* [channels]; NULL: none */
  const int16_t *norm_weight, *norm_bias; /* [channels] */
  const int64_t *running;                 /* [2][channels], at exponent -32: within +-2^60, variances from 0 */
  int32_t weight_exponent, bias_exponent, norm_weight_exponent, norm_bias_exponent; /* from -1024 to 1024 */
  int32_t channels;                                                                 /* at least 1 */
  int64_t size;                                                                     /* of one channel's weights: at least 1 */
  uint64_t reserved[2];
} NitiFoldLayer;

/* The layer that does the work of both: weight[channels][size] and bias[channels]. */
NITI_API void niti_fold_norm(int8_t *weight, int32_t *weight_exponent, int16_t *bias, int32_t *bias_exponent,
                             const NitiFoldLayer *layer);

/* Scalars: s[0] * 2^s[1] with 2^30 <= |s[0]| < 2^31, or 0 and 0. Exponents that go in are within +-2^20, and an output may be an
 * input. An argument that is no such scalar, like any out of range, changes nothing. */

/* x * 2^exponent; x above -2^63. */
NITI_API void niti_scalar_of(int64_t *s, int64_t x, int32_t exponent);
NITI_API void niti_scalar_product(int64_t *s, const int64_t *a, const int64_t *b);
/* a / b; b is not 0. */
NITI_API void niti_scalar_quotient(int64_t *s, const int64_t *a, const int64_t *b);
NITI_API void niti_scalar_sum(int64_t *s, const int64_t *a, const int64_t *b);
/* The square root of a >= 0. */
NITI_API void niti_scalar_root(int64_t *s, const int64_t *a);
/* The integer nearest to a / 2^exponent, ties away from zero, clipped to [-limit, limit], 0 < limit < 2^62: "fixed". */
NITI_API int64_t niti_scalar_nearest(const int64_t *a, int32_t exponent, int64_t limit);
/* x * a / 2^exponent, |x| < 2^31, ties towards plus infinity: "times". */
NITI_API int64_t niti_scalar_multiple(int64_t x, const int64_t *a, int32_t exponent);

/* What the layers add to sums of products and largest values, which need no function. */

/* A bias at its accumulators' exponent, clipped to +-2^29; exponents from -1024 to 1024. */
NITI_API int32_t niti_bias_align(int16_t bias, int32_t bias_exponent, int32_t exponent);
/* Its gradient, at the deltas' exponent: gradient[channels] = sums over delta[count][channels]; count from 1 to 2^31. */
NITI_API void niti_bias_gradient(int64_t *gradient, const int8_t *delta, int64_t count, int32_t channels);
/* The mantissa L of a ReLU's maximum of 0 to 2^31 - 1 millionths: y = min(max(x, 0), L), and a delta passes where 0 < y < L. 128
 * where nothing is limited, also for maximum 0, which is none. Any exponent. */
NITI_API int32_t niti_relu_top(int32_t millionths, int32_t exponent);
/* What an average pool of 1 to 2^15 cells, those of the padding included, multiplies its sums or deltas with, and what it adds to
 * their exponent. */
NITI_API void niti_avgpool_factor(int32_t *factor, int32_t *exponent, int32_t cells);
/* Of a dropout rate in millionths, 0 to 999999: an element stays where its random word (purpose NITI_DRAW_DROPOUT) is at least
 * the threshold, multiplied by factor / 2^15; and what is added to the exponent. */
NITI_API void niti_dropout_factor(uint32_t *threshold, int32_t *factor, int32_t *exponent, int32_t rate);
/* A mantissa or delta after dropout with that word. */
NITI_API int8_t niti_dropout_value(int8_t mantissa, int32_t rate, uint32_t word);
/* acc[count] at *exponent: a residual addition, or that of deltas where a tensor is read twice, still to be requantised. Any
 * exponents. */
NITI_API void niti_add_aligned(int32_t *acc, int32_t *exponent, const int8_t *a, int32_t a_exponent, const int8_t *b,
                               int32_t b_exponent, size_t count);

/* What happens to a training image, by its number in the data set, in an epoch from 0. */

/* order[count]: the epoch's order of the images; count from 0, below 2^32. */
NITI_API void niti_order_shuffle(uint32_t *order, int64_t count, uint64_t seed, uint32_t epoch);
/* Random crop: where the window starts in the padded image; spans, padded size - window, from 0 to 2^31 - 2. */
NITI_API void niti_crop_draw(int32_t *y, int32_t *x, int32_t span_y, int32_t span_x, uint64_t seed, uint32_t epoch,
                             uint32_t image);
/* Whether the window is mirrored. */
NITI_API bool niti_flip_draw(uint64_t seed, uint32_t epoch, uint32_t image);
/* Resized crop: rectangle[4] = first row, first column, rows, columns of a source image of h * w <= 2^28 pixels, each from 1.
 * Least and most, in millionths: scale from 1 to 10^6, aspect from 62500 to 16 * 10^6. */
NITI_API void niti_rectangle_draw(int32_t rectangle[4], const int32_t scale[2], const int32_t aspect[2], int32_t h, int32_t w,
                                  uint64_t seed, uint32_t epoch, uint32_t image);
/* Pixel (y, x), channel c, of a rectangle of pixels[h][w][channels] that is scaled to size[2], rows by columns. All sides from 1
 * to 65536, channels from 1 to 4096, the rectangle inside the image. */
NITI_API uint8_t niti_pixel_scale(const uint8_t *pixels, const int32_t hwc[3], const int32_t rectangle[4], const int32_t size[2],
                                  int32_t y, int32_t x, int32_t c);
/* Colour jitter. The grey of a pixel; and the mean grey of pixels[count][channels], with 8 fraction bits: count from 1 to 2^28,
 * channels 1 or 3. */
NITI_API uint8_t niti_pixel_grey(uint8_t red, uint8_t green, uint8_t blue);
NITI_API uint16_t niti_image_grey(const uint8_t *pixels, int64_t count, int32_t channels);
/* map[3] = P, Q, O of an image of that mean grey, at most 65280; strengths[3]: brightness, contrast and saturation in millionths,
 * 0 to 10^6. */
NITI_API void niti_jitter_draw(int32_t map[3], const int32_t strengths[3], uint16_t grey, uint64_t seed, uint32_t epoch,
                               uint32_t image);
/* A value of a pixel of that grey; 0 <= P <= 2^14, |Q| <= 2^13, |O| <= 2^20. */
NITI_API uint8_t niti_jitter_value(const int32_t map[3], uint8_t value, uint8_t grey);
/* Cutout: the first row and column, which may be negative, of the square of size x size elements in an input of h x w, each from
 * 1 to 16384. */
NITI_API void niti_square_draw(int32_t *y, int32_t *x, int32_t size, int32_t h, int32_t w, uint64_t seed, uint32_t epoch,
                               uint32_t image);
/* Mixup: how many 256ths of the next image are mixed in; `mixup` in millionths: 200000 or 1000000. */
NITI_API int32_t niti_mixup_draw(int32_t mixup, uint64_t seed, uint32_t epoch, uint32_t image);
/* A mantissa with `share` 256ths, 0 to 128, of the other image's. */
NITI_API int8_t niti_mixup_value(int8_t own, int8_t other, int32_t share);

/* The mantissa, at exponent -5, of a value of int8 (`full` 128) or int16 (32768): |v| <= full; mean and std in millionths of
 * full, |mean| <= 10^6, 1 <= std <= 8 * 10^6. */
NITI_API int8_t niti_input_value(int32_t v, int32_t full, int32_t mean, int32_t std);
/* table[channels][256] of input mantissas and their common exponent; channels >= 1; mean[channels] and std[channels] in
 * millionths of full scale, std > 0. Statuses: ARGUMENT, also where no exponent in [-20, 20] fits; then the outputs stay as they
 * were. */
NITI_API NitiStatus niti_input_table(int8_t *table, int32_t *exponent, int channels, const int32_t *mean, const int32_t *std);

/* ---- Training ----------------------------------------------------------------------------------------------------- */

/* Where the work runs. All zero: the best available. Results never depend on it. */
typedef struct NitiDevice {
  const char *backend; /* NULL or "auto", "cpu", "cuda", "cuda:1" (the second GPU; from 0) */
  const char *isa;     /* its kernels: NULL or "auto"; cpu: "ref", "avx2", "avx512vnni", "amx", "neon-dotprod", "neon-i8mm"; cuda:
                          "mma", "wgmma" */
  int threads;         /* of the CPU, at most 1024; 0: one per core that affinity and the control groups' CPU quota allow */
  const char *tuning;  /* a file of `niti tune`, which says how this device runs which convolution fastest; NULL or "": none, a
                          cost model chooses. One that cannot be used is left out, with a NITI_PROGRESS_NOTE, or with a
                          NITI_PROGRESS_WARNING where it cannot be read or is damaged */
  uint64_t reserved[3];
} NitiDevice;

/* A recipe, read and resolved: immutable. */
typedef struct NitiRecipe NitiRecipe;
/* recipe: a built-in's name or a file. sets[set_count]: `key.path=value` strings applied in order over its values; NULL if
 * set_count is 0. *out: the caller's, for niti_recipe_close.
 * Statuses: ARGUMENT (also an unknown built-in, key or value in sets), FILE, FORMAT, MODEL, MEMORY. */
NITI_API NitiStatus niti_recipe_load(NitiRecipe **out, const char *recipe, const char *const *sets, int set_count);
/* NULL is accepted. */
NITI_API void niti_recipe_close(NitiRecipe *recipe);

/* Sums over images; accuracy = correct / images; mean loss in bits = loss / 65536 / images (times ln 2: nats). */
typedef struct NitiScore {
  int64_t loss, correct, images;
  uint64_t reserved[2];
} NitiScore;

/* The parts of a data set. */
typedef enum NitiSplit { NITI_TRAIN = 0, NITI_TEST, NITI_VALIDATION } NitiSplit;

/* A data set that was read. */
typedef struct NitiDataFacts {
  const char *kind; /* "idx", "cifar10", "cifar100", "folder", "npy", "csv" */
  const char *path; /* absolute */
  int32_t classes;
  int64_t train_images, test_images, validation_images; /* 0: the split is not there, or was not asked for */
  /* Of the split's files; "": as above. That of validation images held out of the training images is theirs. */
  char train_sha256[65], test_sha256[65], validation_sha256[65];
  const char *run_path; /* evaluation: of the data set that the network was trained on; NULL: not known */
  bool of_run;          /* evaluation: the images scored are that data set's */
  NitiSplit scored;     /* evaluation: which split; a run: the split scored after epochs, on which best is chosen */
  uint64_t reserved[4];
} NitiDataFacts;

/* A run that is about to begin or go on. */
typedef struct NitiRunFacts {
  const char *recipe, *model; /* their names */
  const char *folder;
  const char *device, *hardware; /* backend, kernels and threads; the processor */
  NitiDataFacts data;
  int32_t input[3];                  /* the model's: height, width, channels */
  int64_t parameters, multiply_adds; /* the latter per image, forward */
  int32_t batch, epochs;
  int64_t steps_per_epoch;
  uint64_t seed;
  int32_t test_every;    /* epochs from one test to the next; the last epoch is always tested */
  int64_t scored_images; /* how many images of data.scored each test scores: all, or test_limit */
  bool flip;             /* scores are of images and their mirrors: the recipe's evaluation.flip */
  const char *tuning;    /* how much of the work the device's tuning file chooses, and its name; NULL: none is used */
  uint64_t reserved[2];
} NitiRunFacts;

typedef enum NitiProgressKind {
  NITI_PROGRESS_NOTE,    /* human-readable text: what was initialised or extended */
  NITI_PROGRESS_BATCH,   /* after every step */
  NITI_PROGRESS_TEST,    /* while testing, after every batch */
  NITI_PROGRESS_EPOCH,   /* an epoch was trained and tested, and is being saved in the background */
  NITI_PROGRESS_WARNING, /* human-readable text about what changes the result, or a damaged file that is passed over */
  NITI_PROGRESS_START,   /* everything is opened and checked; what follows is training */
  NITI_PROGRESS_DATA,    /* ten times per second while data is read or waited for: what is being done, to `batch` of `batches`
                            (0: not known) */
} NitiProgressKind;

typedef struct NitiProgress {
  NitiProgressKind kind;  /* pass over kinds that you do not know */
  const char *text;       /* NOTE, WARNING, DATA */
  int32_t epoch, epochs;  /* epoch counts from 1 */
  int64_t batch, batches; /* of this epoch */
  int64_t step, steps;    /* done, of the whole run */
  NitiScore train;        /* of this epoch so far; BATCH: refreshed about twice per second */
  /* EPOCH only. No images: not scored in this epoch. best: the best score so far of the split that chooses it: validation where
   * the run has validation images, else test. Where it has, test and best_test are of the last epoch, whose weights and the best
   * ones are then scored on the test split. */
  NitiScore validation, test, best, best_test;
  int64_t images, steps_here, nanoseconds; /* trained in this process so far, and the time the steps took */
  int64_t epoch_left, run_left;            /* expected nanoseconds, testing included; -1: not known yet */
  const NitiRunFacts *run;                 /* START only */
  uint64_t reserved[3];
} NitiProgress;

/* Called on the thread that called niti_train or niti_resume, which waits for it. progress and what it points to are valid until
 * it returns. Return false to finish the step, save and stop: the call then returns NITI_INTERRUPTED. It may use other handles,
 * but must return: no longjmp, no C++ exception. */
typedef bool (*NitiProgressCallback)(void *context, const NitiProgress *progress);

/* Asked after every step, on the same thread: return true to have the state saved now; training goes on. */
typedef bool (*NitiSaveCallback)(void *context);

/* The processes that train one network together, each a rank, numbered from 0: docs/scaling.md. */
typedef struct NitiRanks NitiRanks;
/* Called on a thread of its own, at most once for each rank, when a rank no longer answers, so that the others would wait for
 * ever; perhaps while niti_ranks_open still waits, which sets its handle first. End the process, best with niti_ranks_abort. */
typedef void (*NitiRankLost)(void *context, const char *text);
/* Joins the other processes where a launcher (mpirun, srun) started this one as one of several; else, and where the environment
 * has NITI_RANKS=off, *out is NULL, which stands for a process by itself. Waits for the others, for NITI_RANKS_WAIT seconds (an
 * environment variable; unset: 7). Once per process; it takes MPI from libniti_mpi.so beside this library. lost may be NULL.
 * Statuses: ARGUMENT, UNSUPPORTED (no plugin, or no MPI), MEMORY, DEVICE. */
NITI_API NitiStatus niti_ranks_open(NitiRanks **out, NitiRankLost lost, void *context);
/* Waits for the others. */
NITI_API void niti_ranks_close(NitiRanks *ranks);
/* Ends all processes, this one included, with this exit code, without waiting; NULL: returns. It also returns while MPI has not
 * started in niti_ranks_open: then end this process; the launcher ends the others. */
NITI_API void niti_ranks_abort(NitiRanks *ranks, int code);
NITI_API int niti_ranks_rank(const NitiRanks *ranks); /* NULL: 0 */
/* Whether the failure that niti_train or niti_resume returned is the same on all ranks. Otherwise the others are at work, and
 * niti_ranks_abort is wanted. NULL: true. */
NITI_API bool niti_ranks_agreed(const NitiRanks *ranks);

typedef struct NitiTrainOptions {
  NitiDevice device;
  const char *data; /* the data set's folder; NULL: the one that the recipe names (`data.default`; resume: the one used before) */
  const char *init; /* weights to start from where layer names and shapes match: anything that niti_model_open takes, or any
                       safetensors file with LAYER.weight and LAYER.weight.exponent; NULL: none */
  int32_t save_every;    /* keep every Nth epoch's checkpoint; 0: none. niti_resume ignores this and init: it has the run's own */
  int32_t measure_every; /* steps from one measurement for TensorBoard to the next (docs/run-folder.md); 0: 100; -1: none */
  NitiProgressCallback progress; /* NULL: none */
  void *context;                 /* passed to both */
  NitiSaveCallback save_now;     /* NULL: none */
  bool dry_run; /* niti_train: check everything, each image too, report START and return; no folder is made, nothing trained */
  int32_t
      test_every; /* test after every Nth epoch and the last; 0: every one. niti_resume has the run's own, of test_limit too */
  int32_t test_limit; /* score only so many images of the split scored after epochs, evenly spread; 0: all */
  int32_t epochs;     /* niti_resume: extend the run to so many epochs; 0: the run's own. Refused where the recipe's schedule or
                         max_steps depends on the length, so that what was trained would have been trained otherwise */
  NitiRanks *ranks;   /* NULL: this process by itself. Else all ranks make the same call, with the same options save device, data
                         and the callbacks (refused otherwise, on all of them; `init` may be another path, since rank 0 alone reads
                         and writes `folder` and `init`, and reports) */
  uint64_t reserved[4];
} NitiTrainOptions;

typedef struct NitiTrainResult {
  char hash[65];  /* of the final weights */
  int32_t epochs; /* completed */
  int64_t steps;
  NitiScore train, validation, test; /* of the last epoch, on each split; no images: not scored */
  NitiScore best, best_test;         /* the best epoch's, on the split chosen_on and on the test split */
  int32_t best_epoch;                /* from 1 */
  NitiSplit chosen_on;               /* whose accuracy chose the best epoch: validation, or where there is none test */
  int64_t images, nanoseconds;       /* trained by this call, and the time its steps took */
  /* Experimental: requantising operations of this call, whose shifts are predicted, and those that ran twice because the
   * prediction was wrong. */
  uint64_t shift_predictions, shift_retries;
  /* Experimental: of averaged weights (`average` in the recipe), tested like the final ones; their right answers on the
   * validation split, of validation.images. averaged_images 0: not tested. */
  int64_t averaged_correct, averaged_images, averaged_validation_correct;
  /* Experimental: 1 where the run has ended and best.safetensors is missing, damaged or another run's, as a warning said; else 0.
   */
  int32_t best_lost;
  uint32_t reserved[1];
} NitiTrainResult;

/* Trains into the new folder `folder` (recipe, environment, metrics, events, checkpoints: docs/run-folder.md); refuses one that
 * holds anything. options NULL: the defaults. Returns when the run has ended and everything is written; options->progress is
 * called on this thread. *out is zero after a failure, and valid after NITI_INTERRUPTED, from where niti_resume continues with
 * the same bits (zero, with hash "", where the run had not begun yet). Statuses: ARGUMENT, FILE, FORMAT, MODEL, UNSUPPORTED,
 * MEMORY, DEVICE, NITI_INTERRUPTED. */
NITI_API NitiStatus niti_train(NitiTrainResult *out, const NitiRecipe *recipe, const char *folder,
                               const NitiTrainOptions *options);
/* Continues the run in `folder` from its last checkpoint, in the middle of an epoch if need be, on any device; a finished run
 * just reports. Otherwise as niti_train. Statuses: ARGUMENT, FILE (also no run there, or one at work), FORMAT (also data other
 * than the run began with), MODEL, UNSUPPORTED (also a checkpoint of a later version), MEMORY, DEVICE, NITI_INTERRUPTED. */
NITI_API NitiStatus niti_resume(NitiTrainResult *out, const char *folder, const NitiTrainOptions *options);

/* ---- Inference ---------------------------------------------------------------------------------------------------- */

/* A network for inference. */
typedef struct NitiModel NitiModel;
/* network: a checkpoint; a run's folder, for its best checkpoint, or RUN:last, RUN:best, RUN:averaged or RUN:N, the one kept
 * after epoch N; or a recipe or model, a file or a built-in's name, which is not trained: its weights are initialised from its
 * seed. device NULL: the best available. *out: the caller's, for niti_model_close. Statuses: ARGUMENT, FILE, FORMAT, MODEL,
 * UNSUPPORTED, MEMORY, DEVICE. */
NITI_API NitiStatus niti_model_open(NitiModel **out, const char *network, const NitiDevice *device);
/* NULL is accepted. */
NITI_API void niti_model_close(NitiModel *model);
/* The input's height, width, channels; pixels are uint8 in that layout. model NULL: zeros; hwc NULL: nothing. */
NITI_API void niti_model_input(const NitiModel *model, int32_t hwc[3]);
/* The number of classes, at least 1; model NULL: 0. */
NITI_API int32_t niti_model_classes(const NitiModel *model);
/* The display name of a class: its name in the data set it was trained on (classes.txt there may give another), or its
 * number as text; owned by the model. "" where model is NULL or there is no such class; never NULL. */
NITI_API const char *niti_model_class_name(const NitiModel *model, int32_t label);
/* Scores the test split of the data set in the folder `data`, with the recipe's batch. data NULL: the set that the network was
 * trained on, where it still is; else the one that the recipe names. Class names, where both have them, decide which label is
 * which. *out is zero after a failure. Statuses: ARGUMENT, FILE, FORMAT, MODEL (also other classes), MEMORY, DEVICE,
 * NITI_INTERRUPTED (niti_model_watch). */
NITI_API NitiStatus niti_model_evaluate(NitiModel *model, NitiScore *out, const char *data);
/* The same of another split, centred and not augmented. NITI_VALIDATION: the data set's own or, where it has none, the images
 * that the recipe's data.validation holds out of training; NITI_TRAIN: those that are left. No other split need be there. */
NITI_API NitiStatus niti_model_evaluate_split(NitiModel *model, NitiScore *out, const char *data, NitiSplit split);
/* Experimental: whether evaluation and prediction see each image mirrored too and add both logits (docs/arithmetic.md, "Test-time
 * flip"). At first as the recipe says. model NULL: nothing happens. */
NITI_API void niti_model_flip(NitiModel *model, bool flip);
/* Sets what niti_model_evaluate and niti_model_evaluate_split call while they work: with NOTE (what the data set has to say) and
 * WARNING, DATA, and TEST after every batch; of the rest of NitiProgress only text, batch and batches are set. Where it returns
 * false, evaluate ends with NITI_INTERRUPTED. progress NULL: nothing is called. model NULL: nothing happens. */
NITI_API void niti_model_watch(NitiModel *model, NitiProgressCallback progress, void *context);
/* What niti_model_evaluate read last; valid until it is called again or the model is closed. NULL: nothing yet, or model is NULL.
 */
NITI_API const NitiDataFacts *niti_model_data(const NitiModel *model);
/* How often niti_model_evaluate, when it was last called, found each class for images of each class: counts[true][found], classes
 * by classes, the class found being that of the largest logit, the first of equals. Valid as niti_model_data. NULL: nothing
 * yet, a failure, more than 2048 classes, or model is NULL. */
NITI_API const int64_t *niti_model_confusion(const NitiModel *model);
/* The hash of the model's weights: 64 hexadecimal digits and a zero byte; "" after a failure. Statuses: ARGUMENT, MEMORY. */
NITI_API NitiStatus niti_model_hash(const NitiModel *model, char text[65]);
/* The hash of the weights of anything that niti_model_open takes: 64 hexadecimal digits and a zero byte; "" after a failure.
 * Statuses: ARGUMENT, FILE, FORMAT, MODEL, UNSUPPORTED, MEMORY. */
NITI_API NitiStatus niti_checkpoint_file_hash(const char *network, char text[65]);

/* ---- Experimental: one image at a time ---------------------------------------------------------------------------- */

/* logits[niti_model_classes] int8 at *exponent for one image of pixels [H][W][C] (niti_model_input).
 * Statuses: ARGUMENT, FORMAT (a bare model or a recipe with mean and std `auto`: the input's scale is not known), MEMORY, DEVICE.
 */
NITI_API NitiStatus niti_model_predict(NitiModel *model, int8_t *logits, int32_t *exponent, const uint8_t *pixels);
/* The same for an image file (JPEG or PNG) of any size, fitted as in training.
 * Statuses: ARGUMENT, FILE, FORMAT, MEMORY, DEVICE. */
NITI_API NitiStatus niti_model_predict_file(NitiModel *model, int8_t *logits, int32_t *exponent, const char *path);
/* The same for the content of such a file, bytes[size]; messages call it `name`.
 * Statuses: ARGUMENT, FORMAT, MEMORY, DEVICE. */
NITI_API NitiStatus niti_model_predict_bytes(NitiModel *model, int8_t *logits, int32_t *exponent, const uint8_t *bytes,
                                             size_t size, const char *name);
/* Shares of probability by integer softmax, in millionths; they sum to at most 10^6. Arguments as under "Arithmetic":
 * 1 <= classes <= 65536. */
NITI_API void niti_probabilities(int32_t *millionths, const int8_t *logits, int32_t exponent, int32_t classes);

#ifdef __cplusplus
}
#endif
#endif
