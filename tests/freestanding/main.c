/* src/base without an operating system's library: prints a digest of what the arithmetic gives, which must be the same on every
 * processor. scripts/check_freestanding.sh builds and runs it. */
#include "base/bounds.h"
#include "base/input.h"
#include "base/loss.h"
#include "base/random.h"
#include "base/shift_prediction.h"
#include "base/update.h"

enum { CLASSES = 10, CHANNELS = 3 };

/* ---- two calls to the kernel, and what the compiler may ask for by name ---- */

#if defined(__x86_64__)
enum { WRITE = 1, EXIT = 60 };
static long call(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
enum { WRITE = 64, EXIT = 93 };
static long call(long number, long a, long b, long c) {
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
}
#elif defined(__arm__)
enum { WRITE = 4, EXIT = 1 };
static long call(long number, long a, long b, long c) {
  register long r7 __asm__("r7") = number, r0 __asm__("r0") = a, r1 __asm__("r1") = b, r2 __asm__("r2") = c;
  __asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2) : "memory");
  return r0;
}
#elif defined(__riscv)
enum { WRITE = 64, EXIT = 93 };
static long call(long number, long a, long b, long c) {
  register long a7 __asm__("a7") = number, a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c;
  __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2) : "memory");
  return a0;
}
#endif

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memset(void *to, int value, size_t size);

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
  for (size_t i = 0; i < size; ++i) ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
  return to;
}

void *memset(void *to, int value, size_t size) {
  for (size_t i = 0; i < size; ++i) ((volatile uint8_t *)to)[i] = (uint8_t)value;
  return to;
}

/* ---- the digest ---- */

static void add(uint64_t *digest, int64_t value) { *digest = (*digest ^ (uint64_t)value) * 1099511628211u + 1; }

static void add_rounding(uint64_t *digest) {
  for (uint32_t i = 0; i < 400; ++i) {
    const int64_t x = (int64_t)((uint64_t)niti_random(1, NITI_DRAW_FORK, 2, 3, i) << (i % 29)) - (1 << 30);
    add(digest, niti_round(x, (int)(i % 33), (NitiRounding)(i % 4), niti_random(4, NITI_DRAW_INIT, 0, 0, i)));
    add(digest, niti_requantise_shift((uint32_t)x));
    add(digest, niti_init_weight(i, 1, i));
    add(digest, niti_init_exponent(i, 1000 - i));
    add(digest, niti_exp2_frac(i * 163));
    add(digest, niti_log2((uint64_t)i * i * i + 1));
  }
}

static void add_loss(uint64_t *digest) {
  int8_t logits[CLASSES], delta[CLASSES];
  int32_t acc[CLASSES];
  for (int32_t e = -9; e < 9; ++e) {
    for (int j = 0; j < CLASSES; ++j) logits[j] = niti_init_weight((uint64_t)(e + 9), 0, (uint64_t)j);
    niti_loss_niti(delta, logits, e, CLASSES, 3, 5, 6, 7);
    niti_loss_softmax(acc, logits, e, CLASSES, 3);
    add(digest, niti_loss_value(logits, e, CLASSES, 3));
    for (int j = 0; j < CLASSES; ++j) add(digest, delta[j] * 65536 + acc[j]);
  }
}

static void add_training(uint64_t *digest) {
  const int32_t mean[CHANNELS] = {286041, 500000, 1}, std[CHANNELS] = {353024, 250000, 1000000};
  int8_t weight[4] = {127, -127, 5, 0};
  int64_t gradient[4] = {-100000000000, 70000, 3, 0};
  int32_t exponent = 0;
  for (int mu = 0; mu < 6; ++mu) niti_update_niti(weight, gradient, 4, mu);
  for (int mu = 500000; mu < 9000000; mu += 1234567) niti_update_niti_fraction(weight, gradient, 4, mu);
  for (int i = 0; i < 4; ++i) add(digest, weight[i]);
  add(digest, niti_input_exponent(&exponent, CHANNELS, mean, std));
  for (int v = 0; v < 256; ++v) add(digest, niti_input_mantissa(v, mean[v % CHANNELS], std[v % CHANNELS], exponent));
}

static void add_sgd(uint64_t *digest) {
  const NitiSgdStep step = {.rate = 30000000, .momentum = 900000000, .decay = 500000, .images = 48, .nesterov = true, .layer = 3};
  const int64_t gradient[4] = {-100000000000, 70000, 3, 0};
  int16_t weight[4] = {32512, -32512, 5, 0}, velocity[4] = {0, 0, 0, 0};
  int32_t e = -21, f = 0;
  for (int i = 0; i < 6; ++i) niti_update_sgd(weight, &e, velocity, &f, gradient, -50, 4, &step);
  for (int i = 0; i < 4; ++i) add(digest, weight[i] * 65536 + velocity[i]);
  for (int i = 0; i < 6; ++i) niti_update_niti16(weight, e, velocity, &f, gradient, 4, &step);
  for (int i = 0; i < 4; ++i) add(digest, weight[i] * 65536 + velocity[i]);
  add(digest, e * 65536 + f);
}

static void add_clipping(uint64_t *digest) {
  const int64_t gradient[4] = {-100000000000, 70000, 3, 0};
  int64_t total[2] = {0, 0}, factor[2] = {0, 0};
  for (int e = -70; e < -40; ++e) {
    niti_gradient_squares(total, gradient, e, 4);
    niti_clip_factor(factor, total, 10000000, 48);
    for (int i = 0; i < 2; ++i) add(digest, total[i] + 3 * factor[i]);
  }
}

static void add_norm(uint64_t *digest) {
  const int16_t weight[CHANNELS] = {16384, -30000, 77}, bias[CHANNELS] = {0, 5000, -32512};
  const NitiNormLayer layer = {.weight = weight,
                               .bias = bias,
                               .weight_exponent = -14,
                               .bias_exponent = -15,
                               .count = 4,
                               .channels = CHANNELS,
                               .rounding = NITI_STOCHASTIC_BYTE};
  int8_t x[4 * CHANNELS], y[4 * CHANNELS];
  int64_t running[2 * CHANNELS] = {0}, gradients[2 * CHANNELS];
  int32_t e = 0;
  for (int i = 0; i < 4 * CHANNELS; ++i) x[i] = niti_init_weight(9, 1, (uint64_t)i);
  niti_norm_forward(y, &e, running, &layer, true, x, -7);
  for (int i = 0; i < 4 * CHANNELS; ++i) add(digest, y[i] + e);
  niti_norm_backward(y, &e, gradients, gradients + CHANNELS, &layer, y, -20, x, -7);
  for (int i = 0; i < 4 * CHANNELS; ++i) add(digest, y[i] + e);
  for (int i = 0; i < 2 * CHANNELS; ++i) add(digest, running[i] + gradients[i]);
}

static void add_formulas(uint64_t *digest) {
  static const int32_t hwc[3] = {2, 3, CHANNELS}, rectangle[4] = {0, 1, 2, 2}, size[2] = {3, 1};
  uint8_t pixels[2 * 3 * CHANNELS];
  int64_t s[2] = {0, 0};
  int32_t factor = 0, exponent = 0;
  uint32_t threshold = 0;
  for (int i = 0; i < 2 * 3 * CHANNELS; ++i) pixels[i] = (uint8_t)niti_random(3, NITI_DRAW_FORK, 0, 0, (uint64_t)i);
  for (int32_t i = 1; i < 60; ++i) {
    int64_t a[2] = {0, 0};
    niti_scalar_of(a, niti_init_weight(8, 2, (uint64_t)i) * (INT64_C(1) << (i % 50)) + 1, i - 30);
    niti_scalar_sum(s, s, a);
    niti_scalar_quotient(a, s, a);
    niti_scalar_product(a, a, a);
    niti_scalar_root(a, a);
    add(digest,
        s[0] + a[0] + a[1] + niti_scalar_nearest(s, i - 30, 1 << 30) + niti_scalar_multiple(i, a, a[1] ? (int32_t)a[1] : 0));
    niti_dropout_factor(&threshold, &factor, &exponent, 16000 * i);
    add(digest, factor + exponent + niti_dropout_value((int8_t)i, 16000 * i, 0x80000000u) + (int64_t)threshold);
    niti_avgpool_factor(&factor, &exponent, i);
    add(digest, factor + exponent + niti_bias_align((int16_t)(500 * i), i - 30, -5) + niti_relu_top(123456 * i, i - 40));
    add(digest, niti_pixel_scale(pixels, hwc, rectangle, size, i % 3, 0, i % CHANNELS));
    add(digest, niti_mixup_value((int8_t)i, (int8_t)-i, 2 * i) + niti_weight_operand((int16_t)(500 * i)));
  }
}

/* What becomes of trained weights: averaged, folded, and scored by images and their mirrors. */
static void add_trained(uint64_t *digest) {
  int16_t weight[2 * CHANNELS], bias[CHANNELS];
  int64_t sum[2 * CHANNELS], running[2 * CHANNELS] = {-(INT64_C(1) << 33), 7, 1 << 20, INT64_C(1) << 35, 0, 12345};
  int8_t folded[2 * CHANNELS], logits[2 * CHANNELS];
  int32_t e = 0, f = 0, sums[CHANNELS];
  for (int k = 0; k < 5; ++k) {
    for (int i = 0; i < 2 * CHANNELS; ++i) weight[i] = (int16_t)(256 * niti_init_weight(3, (uint32_t)k, (uint64_t)i) - k);
    niti_average_add(sum, &e, k, weight, -20 + 7 * k, 2 * CHANNELS);
  }
  for (int i = 0; i < 2 * CHANNELS; ++i) add(digest, sum[i] + e);
  niti_average_take(weight, &e, sum, e, 5, 2 * CHANNELS);
  const NitiFoldLayer layer = {.weight = weight,
                               .norm_weight = weight,
                               .norm_bias = weight + CHANNELS,
                               .running = running,
                               .weight_exponent = e,
                               .norm_weight_exponent = -14,
                               .norm_bias_exponent = -15,
                               .channels = CHANNELS,
                               .size = 2};
  niti_fold_norm(folded, &e, bias, &f, &layer);
  for (int i = 0; i < 2 * CHANNELS; ++i) add(digest, weight[i] * 65536 + folded[i] * 256 + bias[i % CHANNELS] + e + f);
  for (int i = 0; i < 2 * CHANNELS; ++i) logits[i] = folded[i];
  for (int d = 0; d < 40; d += 3) {
    niti_flip_sums(sums, &e, logits, -6, logits + CHANNELS, d - 20, CHANNELS);
    add(digest, sums[0] + e + niti_flip_loss(sums, e, CHANNELS, 1));
  }
}

static void add_shapes(uint64_t *digest) {
  int32_t word = niti_shift_prediction_of(3);
  for (int32_t i = 0; i < 60; ++i) {
    const NitiAlignment a = niti_align(i - 30, 7 - i);
    const NitiStridePhase p = niti_stride_phase(i % 3, i, 5, 3, 2);
    const NitiWindows w = niti_windows(i, 5, 3, 9);
    add(digest, niti_align_sum(i, 127 - i, a.left, a.right) + a.exponent);
    add(digest, p.positions + 100 * p.taps + 10000 * p.last + 1000000 * p.offset + w.first + w.last);
    add(digest, niti_reciprocal(i + 1).factor + niti_bound_avgpool_backward(i + 1, 3, 2, 1) + niti_bound_add());
    word = niti_shift_prediction_update(word, i % 7);
    add(digest, niti_shift_prediction_next(word, NITI_PREDICTION_EVEN));
  }
}

#if defined(__x86_64__)
__attribute__((force_align_arg_pointer)) /* the kernel leaves the stack aligned as no caller would */
#endif
void _start(void);

void _start(void) {
  uint64_t digest = 14695981039346656037u;
  char text[17];
  add_rounding(&digest);
  add_loss(&digest);
  add_training(&digest);
  add_sgd(&digest);
  add_clipping(&digest);
  add_norm(&digest);
  add_formulas(&digest);
  add_trained(&digest);
  add_shapes(&digest);
  for (int i = 0; i < 16; ++i) text[i] = "0123456789abcdef"[digest >> (60 - 4 * i) & 15];
  text[16] = '\n';
  (void)call(WRITE, 1, (long)text, sizeof text);
  (void)call(EXIT, 0, 0, 0);
  for (;;) {
  }
}
