/* The runtime of exported networks: C99 without a C library, allocation, recursion, floating point or global state. This file has
 * what every kernel uses: rounding, random words, and the sink that turns accumulators into int8. docs/arithmetic.md defines each
 * result.
 *
 * The generated file NAME.c includes these files after it has defined RT_CONST, RT_TRAINING (0 or 1), RT_MODES (the rounding
 * modes that its layers use, as bits), RT_CLIPS (whether some clip), RT_WRITES where some output takes a second pass, RT_REST
 * where a pool leaves outputs out and, of the other parts, the names of those that it wants. All functions are static, so that
 * several networks can share a program. */
#ifndef NITI_RT_H
#define NITI_RT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(__OPTIMIZE__) && !defined(RT_PORTABLE)
#define RT_PORTABLE /* the assembly needs registers that -O0 keeps for itself */
#endif
#if !defined(RT_PORTABLE) && defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1) && defined(__GNUC__)
#define RT_MVE 1
#include <arm_mve.h>
#elif !defined(RT_PORTABLE) && defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && defined(__GNUC__)
#define RT_DSP 1
#elif !defined(RT_PORTABLE) && defined(__riscv_vector) && defined(__riscv_v_min_vlen) && __riscv_xlen == 32 && defined(__GNUC__)
#define RT_RVV 1 /* version 1.0 of the extension: earlier ones define no __riscv_v_min_vlen */
#endif

void *memcpy(void *to, const void *from, size_t size); /* all that a C library must provide; <string.h> may be missing */

/* Loops that clear memory must not become calls of memset, which a program without a C library lacks. */
#if defined(__GNUC__) && !defined(__clang__)
#define RT_NO_LIBRARY __attribute__((optimize("no-tree-loop-distribute-patterns")))
#else
#define RT_NO_LIBRARY
#endif
#if defined(__GNUC__) && !defined(__OPTIMIZE_SIZE__)
#define RT_INLINE __attribute__((always_inline)) static inline
#else
#define RT_INLINE static inline
#endif
#if defined(__clang__)
#define RT_UNUSED __attribute__((unused))
#define RT_HOT __attribute__((noinline, unused))
#define RT_COLD __attribute__((noinline, unused))
#elif defined(__GNUC__)
#define RT_UNUSED __attribute__((unused))
#define RT_HOT __attribute__((noinline, unused, optimize("O2", "no-schedule-insns"))) /* also where all else is made small */
#define RT_COLD __attribute__((noinline, unused))
#else
#define RT_UNUSED
#define RT_HOT
#define RT_COLD
#endif

#ifdef RT_RVV
#include "niti_rt_rvv.h"
#endif

enum { RT_NEAREST, RT_PSEUDO_STOCHASTIC, RT_STOCHASTIC, RT_TRUNCATE };
enum { RT_DRAW_DROPOUT = 5, RT_DRAW_LOSS = 8 };

#define RT_NONE UINT32_MAX /* no place in the arena */
#ifndef RT_CONST
#define RT_CONST /* the attributes of every constant: the generated file's NAME_CONST */
#endif

/* How an operation rounds, the stream of its random words, and by how many bits less than the largest value needs it shifts. */
typedef struct rt_rounding {
  uint32_t layer;
  uint8_t mode, purpose;
  uint16_t clip;
} rt_rounding;

/* A network at work. Tensors lie at offsets in the arena; n is the number of images of this step. */
typedef struct rt {
  int8_t *arena, *weights;
  int32_t *exponents; /* of tensors, by number */
  uint8_t *hints;     /* an operation's last shift: a prediction, which changes no result */
  uint64_t seed;
  uint32_t step;
  int32_t n, mu;
} rt;

static inline int8_t *rt_at(const rt *r, uint32_t offset) { return r->arena + offset; }
static inline uint8_t *rt_bytes(const rt *r, uint32_t offset) { return (uint8_t *)(r->arena + offset); }
static inline int32_t *rt_words(const rt *r, uint32_t offset) { return (int32_t *)(void *)(r->arena + offset); }

RT_NO_LIBRARY static inline void rt_zero_words(int32_t *p, int32_t count) {
#ifdef RT_RVV
  if (count > 0) rt_v_zero(p, 4 * count);
  count = 0;
#endif
  for (; count >= 4; count -= 4, p += 4) p[0] = p[1] = p[2] = p[3] = 0;
  for (; count > 0; --count) *p++ = 0;
}

RT_NO_LIBRARY static inline void rt_zero_bytes(uint8_t *p, int32_t count) {
#ifdef RT_RVV
  if (count > 0) rt_v_zero(p, count);
  count = 0;
#endif
  for (int32_t i = 0; i < count; ++i) p[i] = 0;
}

/* A few bytes: words where the processor reads them at any address. */
#ifdef RT_MVE
static inline void rt_copy(int8_t *to, const int8_t *from, int32_t count) {
  if (count <= 0) return;
  __asm__ volatile(
      "dlstp.8 lr, %[n]\n"
      "1:\n\t"
      "vldrb.8 q0, [%[from]], #16\n\t"
      "vstrb.8 q0, [%[to]], #16\n\t"
      "letp lr, 1b"
      : [from] "+r"(from), [to] "+r"(to)
      : [n] "r"(count)
      : "lr", "q0", "memory");
}
#elif defined(RT_RVV)
static inline void rt_copy(int8_t *to, const int8_t *from, int32_t count) {
  if (count > 0) rt_v_copy(to, from, count);
}
#else
RT_NO_LIBRARY RT_INLINE void rt_copy(int8_t *to, const int8_t *from, int32_t count) {
#if defined(__GNUC__) && defined(__ARM_FEATURE_UNALIGNED)
  if (count >= 4) { /* the last word covers what is left, and a part of the one before */
    const int8_t *const last = from + count - 4;
    int8_t *const end = to + count - 4;
    do {
      __builtin_memcpy(to, from, 4);
      to += 4;
      from += 4;
    } while (from < last);
    __builtin_memcpy(end, last, 4);
    return;
  }
#endif
  for (; count > 0; --count) *to++ = *from++;
}
#endif

/* ---- rounding ---- */

/* B(v): the smallest b with v <= 2^b. */
static inline int32_t rt_bits(uint32_t v) {
#if defined(__GNUC__) && !defined(__ARM_ARCH_6M__) && !defined(__riscv)
  return v <= 1 ? 0 : 32 - __builtin_clz(v - 1);
#else
  int32_t b = 0;
  if (v <= 1) return 0;
  for (--v; v > 0; v >>= 1) ++b;
  return b;
#endif
}

/* The shift that brings accumulators of this largest magnitude into int8, but for those that are clipped. */
static inline int32_t rt_shift(uint32_t max, const rt_rounding *rounding) {
  const int32_t b = rt_bits(max) - 7 - (RT_CLIPS ? rounding->clip : 0);
  return b > 0 ? b : 0;
}

static inline uint32_t rt_magnitude(int32_t v) { return v < 0 ? 0u - (uint32_t)v : (uint32_t)v; }

static inline int8_t rt_clip(int32_t v) {
  const int32_t m = v > 127 ? 127 : v;
  return (int8_t)(m < -127 ? -127 : m);
}

/* The magnitude x / 2^s, s >= 0. */
static inline uint32_t rt_round_magnitude(uint32_t x, int32_t s, uint32_t mode, uint32_t word) {
  uint32_t q, rest;
  if (s == 0) return x;
  q = x >> s;
  if (mode == RT_NEAREST) return q + ((x >> (s - 1)) & 1u);
  if (mode == RT_TRUNCATE) return q;
  rest = x & ((1u << s) - 1u);
  if (mode == RT_STOCHASTIC) return q + ((word >> (32 - s)) < rest ? 1u : 0u);
  {
    const int32_t half = s / 2;
    const uint32_t high = rest >> half, low = (rest & ((1u << half) - 1u)) << (s & 1);
    return q + (high > low ? 1u : 0u);
  }
}

/* Rounded, then clipped. */
static inline int8_t rt_round(int32_t x, int32_t s, uint32_t mode, uint32_t word) {
  const uint32_t m = rt_round_magnitude(rt_magnitude(x), s, mode, word);
  const int32_t n = (int32_t)m, v = n > 127 ? 127 : n < 0 ? 0 : n; /* never below 0, but with an instruction for it */
  return (int8_t)(x < 0 ? -v : v);
}

/* ---- random words: Philox4x32-10 ---- */

typedef struct rt_stream {
  uint64_t seed;
  uint32_t purpose, time, layer;
} rt_stream;

RT_COLD static uint32_t rt_word(const rt_stream *stream, uint32_t index) {
  uint32_t c0 = index >> 2, c1 = stream->time, c2 = stream->layer, c3 = stream->purpose;
  uint32_t k0 = (uint32_t)stream->seed, k1 = (uint32_t)(stream->seed >> 32);
  int32_t i;
  for (i = 0; i < 10; ++i) {
    const uint64_t a = (uint64_t)0xd2511f53u * c0, b = (uint64_t)0xcd9e8d57u * c2;
    c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)b;
    c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)a;
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  return (index & 3u) == 0 ? c0 : (index & 3u) == 1 ? c1 : (index & 3u) == 2 ? c2 : c3;
}

static inline rt_stream rt_stream_of(const rt *r, const rt_rounding *rounding) {
  rt_stream s;
  s.seed = r->seed;
  s.purpose = rounding->purpose;
  s.time = r->step;
  s.layer = rounding->layer;
  return s;
}

/* ---- sinks: from accumulators to int8 ----
 *
 * The shift of a tensor is known once all its accumulators are. A pass hands every accumulator to a sink, which measures the
 * largest and, according to its kind, does no more (MEASURE), rounds by a shift that is known (WRITE), or keeps the upper bits in
 * two planes of bytes until it is known (LATE): to round to nearest by s, or to truncate, takes no bit below s - 1. */

enum { RT_MEASURE, RT_LATE, RT_WRITE };
enum { RT_LATE_BITS = 4 }; /* LATE keeps this many bits below the predicted shift: good for eight shifts */

typedef struct rt_sink {
  int8_t *out, *high; /* LATE: low and high bytes */
  uint8_t *winner;    /* convolution with pool: the winning cells; NULL: none wanted */
  uint32_t max;
  int32_t kind, shift, guess; /* LATE: the bits dropped, and the predicted shift; WRITE: the shift */
  uint32_t mode;
  rt_stream stream;
  int32_t relu;
#ifdef RT_BIAS
  int32_t lift; /* convolution: from a bias's exponent to the accumulators' */
#endif
} rt_sink;

/* A sink into this place in the arena. */
static inline rt_sink rt_plain_sink(const rt *r, uint32_t to) {
  rt_sink k;
  k.out = rt_at(r, to);
  k.high = NULL;
  k.winner = NULL;
  k.relu = 0;
  return k;
}

/* A constant, where all layers round alike. */
static inline uint32_t rt_mode(const rt_sink *k) { return RT_MODES == 1 << RT_NEAREST ? (uint32_t)RT_NEAREST : k->mode; }

/* Whether upper bits are kept: a constant, where nothing is measured first. */
static inline int32_t rt_is_late(const rt_sink *k) {
#ifdef RT_WRITES
  return k->kind == RT_LATE;
#else
  (void)k;
  return 1;
#endif
}

static inline uint32_t rt_sink_word(const rt_sink *k, uint32_t index) {
  return rt_mode(k) == RT_STOCHASTIC ? rt_word(&k->stream, index) : 0u;
}

RT_UNUSED static inline int8_t rt_sink_round(const rt_sink *k, int32_t acc, uint32_t index) {
  const int8_t m = rt_round(acc, k->shift, rt_mode(k), rt_sink_word(k, index));
  return k->relu && m < 0 ? (int8_t)0 : m;
}

/* What LATE keeps of a shifted magnitude: 15 bits are all that there are, or all that matter where the rest is clipped. */
static inline uint32_t rt_kept(int32_t m) { return (uint32_t)(RT_CLIPS && m > 32767 ? 32767 : m); }

/* The magnitude of an accumulator, of which only 16 bits matter, in two bytes. */
static inline void rt_sink_keep(const rt_sink *k, uint32_t index, int32_t acc, uint32_t magnitude) {
  const uint32_t m = rt_kept((int32_t)(magnitude >> k->shift)), v = acc >= 0 ? m : k->relu ? 0u : 0u - m;
  k->out[index] = (int8_t)(v & 255u);
  k->high[index] = (int8_t)((v >> 8) & 255u);
}

/* Hands over one accumulator. index: flat, in the tensor. */
static inline void rt_put(rt_sink *k, uint32_t index, int32_t acc) {
  const uint32_t m = rt_magnitude(acc);
  if (m > k->max) k->max = m;
  if (rt_is_late(k)) rt_sink_keep(k, index, acc, m);
#ifdef RT_WRITES
  if (k->kind == RT_WRITE) k->out[index] = rt_sink_round(k, acc, index);
#endif
}

#ifdef RT_DSP
static inline uint32_t rt_word_at(const int8_t *p) {
  uint32_t v;
  __builtin_memcpy(&v, p, 4);
  return v;
}

/* Bytes 0 and 2 of a word, widened to pairs of int16, or 1 and 3. */
static inline uint32_t rt_even(uint32_t word) {
  uint32_t v;
  __asm__("sxtb16 %0, %1" : "=r"(v) : "r"(word));
  return v;
}
static inline uint32_t rt_odd(uint32_t word) {
  uint32_t v;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(v) : "r"(word));
  return v;
}

static inline int32_t rt_smlad(uint32_t a, uint32_t b, int32_t sum) {
  __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
  return sum;
}

#ifndef __OPTIMIZE_SIZE__
/* Two magnitudes with signs: (|v| + half) >> down, at most 127, with the sign again. */
static inline uint32_t rt_finish_two(uint32_t v, uint32_t halves, int32_t down, uint32_t mask) {
  const uint32_t zero = 0;
  uint32_t sign, m;
  __asm__(
      "ssub16 %[m], %[v], %[zero]\n\t"
      "sel %[sign], %[zero], %[ones]\n\t"
      "eor %[m], %[v], %[sign]\n\t"
      "ssub16 %[m], %[m], %[sign]\n\t"
      "uadd16 %[m], %[m], %[halves]\n\t"
      "lsr %[m], %[m], %[down]\n\t"
      "and %[m], %[m], %[mask]\n\t"
      "usat16 %[m], #7, %[m]\n\t"
      "eor %[m], %[m], %[sign]\n\t"
      "ssub16 %[m], %[m], %[sign]"
      : [m] "=&r"(m), [sign] "=&r"(sign)
      : [v] "r"(v), [zero] "r"(zero), [ones] "r"(~zero), [halves] "r"(halves), [down] "r"(down), [mask] "r"(mask)
      : "cc");
  return m;
}
#endif
#endif

/* Hands over a few, `stride` apart. The sink's members are read once: a store of bytes might change them. */
static inline void rt_put_some(rt_sink *k, uint32_t index, uint32_t stride, const int32_t *acc, int32_t count) {
  if (rt_is_late(k)) {
    int8_t *out = k->out + index, *high = k->high + index;
    const int32_t shift = k->shift, relu = k->relu;
    uint32_t max = k->max;
    for (; count > 0; --count, out += stride, high += stride) {
      const int32_t a = *acc++;
      uint32_t m = rt_magnitude(a), v;
      max = m > max ? m : max;
      m = rt_kept((int32_t)(m >> shift));
      v = a >= 0 ? m : relu ? 0u : 0u - m;
      *out = (int8_t)(v & 255u);
      *high = (int8_t)((v >> 8) & 255u);
    }
    k->max = max;
  }
#ifdef RT_WRITES
  else {
    for (; count > 0; --count, index += stride) rt_put(k, index, *acc++);
  }
#endif
}

/* Hands over a row of accumulators, and clears it. */
RT_UNUSED static void rt_put_row(rt_sink *k, uint32_t index, int32_t *row, int32_t count) {
#ifdef RT_WRITES
  for (; count > 0 && !rt_is_late(k); --count, ++index) {
    rt_put(k, index, *row);
    *row++ = 0;
  }
#endif
#ifdef RT_RVV
  if (count > 0) k->max = rt_v_keep(k->out + index, k->high + index, row, count, k->shift, 0, k->max);
#else
  if (count > 0) {
    const int32_t shift = k->shift;
    int8_t *out = k->out + index, *high = k->high + index;
    uint32_t max = k->max;
    for (; count > 0; --count) {
      const int32_t acc = *row;
      const uint32_t sign = acc < 0 ? UINT32_MAX : 0u, m = ((uint32_t)acc ^ sign) - sign,
                     v = (rt_kept((int32_t)(m >> shift)) ^ sign) - sign;
      *row++ = 0;
      max = m > max ? m : max;
      *out++ = (int8_t)(v & 255u);
      *high++ = (int8_t)((v >> 8) & 255u);
    }
    k->max = max;
  }
#endif
}

/* LATE, at the end: rounds the kept bits. */
static inline void rt_sink_finish(const rt_sink *k, uint32_t count, int32_t shift) {
  const int32_t down = shift - k->shift, half = down > 0 && rt_mode(k) == RT_NEAREST ? 1 << (down - 1) : 0;
  uint32_t i = 0;
#ifdef RT_MVE
  for (; i < count; i += 8) {
    const mve_pred16_t some = vctp16q(count - i);
    const int16x8_t low = vreinterpretq_s16_u16(vldrbq_z_u16((const uint8_t *)k->out + i, some));
    const int16x8_t v = vorrq_s16(vshlq_n_s16(vldrbq_z_s16(k->high + i, some), 8), low);
    uint16x8_t m = vaddq_n_u16(vreinterpretq_u16_s16(vabsq_s16(v)), (uint16_t)half);
    m = vminq_u16(vshlq_r_u16(m, -down), vdupq_n_u16(127));
    vstrbq_p_s16(k->out + i, vnegq_m_s16(vreinterpretq_s16_u16(m), vreinterpretq_s16_u16(m), vcmpltq_n_s16(v, 0)), some);
  }
#elif defined(RT_DSP) && !defined(__OPTIMIZE_SIZE__)
  const uint32_t pair = 0x10001u, bytes = 0xff00ffu, halves = pair * (uint32_t)half, mask = pair * (0xffffu >> down);
  for (; i + 4 <= count; i += 4) {
    const uint32_t low = rt_word_at(k->out + i), high = rt_word_at(k->high + i);
    const uint32_t even = rt_finish_two((low & bytes) | (high & bytes) << 8, halves, down, mask) & bytes;
    const uint32_t odd = rt_finish_two((low >> 8 & bytes) | (high & ~bytes), halves, down, mask) & bytes;
    const uint32_t word = even | odd << 8;
    __builtin_memcpy(k->out + i, &word, 4);
  }
#elif defined(RT_RVV)
  if (count > 0) rt_v_finish(k->out, k->high, (int32_t)count, half, down);
  i = count;
#endif
  for (; i < count; ++i) {
    const int32_t v = (uint8_t)k->out[i] | ((int32_t)k->high[i] * 256);
    const int32_t m = ((v < 0 ? -v : v) + half) >> down, clipped = m > 127 ? 127 : m < 0 ? 0 : m;
    k->out[i] = (int8_t)(v < 0 ? -clipped : clipped);
  }
}

typedef void (*rt_pass)(const rt *r, const void *operation, rt_sink *sink);

/* Whether LATE kept what rounding by `shift` needs; winners are kept for three shifts. */
static inline int32_t rt_sink_kept(const rt_sink *k, int32_t shift) {
  const int32_t bits = k->shift == 0 || shift > k->shift;
  const int32_t winners = !k->winner || (shift >= k->guess - 1 && shift <= k->guess + 1);
  return bits && winners && (RT_CLIPS ? shift - k->shift <= 8 : (k->max >> k->shift) <= 32767u);
}

static inline void rt_sink_predict(rt_sink *k, int32_t shift) {
  k->guess = shift;
  k->shift = shift > RT_LATE_BITS ? shift - RT_LATE_BITS : 0;
  k->kind = RT_LATE;
}

/* Runs passes over an operation until its output of `count` values is rounded. Returns the shift. high NULL: measure, then write.
 */
RT_COLD static int32_t rt_requantise(const rt *r, rt_sink *k, rt_pass pass, const void *operation, const rt_rounding *rounding,
                                     uint32_t count, uint8_t *hint) {
  int32_t shift;
  k->mode = rounding->mode;
  if ((RT_MODES >> RT_STOCHASTIC & 1) != 0) k->stream = rt_stream_of(r, rounding);
  k->max = 0;
#ifdef RT_WRITES
  if (!k->high || (rt_mode(k) != RT_NEAREST && rt_mode(k) != RT_TRUNCATE)) {
    k->kind = RT_MEASURE;
    pass(r, operation, k);
    shift = rt_shift(k->max, rounding);
    k->kind = RT_WRITE;
    k->shift = shift;
    pass(r, operation, k);
    return shift;
  }
#endif
  rt_sink_predict(k, *hint);
  pass(r, operation, k);
  shift = rt_shift(k->max, rounding);
  if (!rt_sink_kept(k, shift)) {
    rt_sink_predict(k, shift);
    k->max = 0;
    pass(r, operation, k);
  }
  *hint = (uint8_t)shift;
  rt_sink_finish(k, count, shift);
  return shift;
}

/* ---- bits ---- */

/* Element i of an array of `width` bits each: 1, 2, 4 or 8. */
static inline uint32_t rt_get_bits(const uint8_t *p, uint32_t i, uint32_t width) {
  const uint32_t bit = i * width;
  return ((uint32_t)p[bit >> 3] >> (bit & 7u)) & ((1u << width) - 1u);
}

/* Sets element i, where the byte's later elements are not set yet. */
static inline void rt_append_bits(uint8_t *p, uint32_t i, uint32_t width, uint32_t value) {
  const uint32_t bit = i * width, low = bit & 7u;
  p[bit >> 3] = (uint8_t)(low == 0 ? value : (uint32_t)p[bit >> 3] | (value << low));
}

#endif
