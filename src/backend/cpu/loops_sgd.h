/* Updates `sgd` and `niti16` of a range of weights, by vectors of 32-bit lanes: a term's product and sum have 64 bits, of which
 * the upper half is wanted, and every term fits in 31 bits (base/sgd.h). Shifts to the left are left to the definition, unless
 * what they would shift is 0, as the velocities are in the first step. */
#ifndef NITI_BACKEND_CPU_LOOPS_SGD_H
#define NITI_BACKEND_CPU_LOOPS_SGD_H

#include <string.h>

#include "backend/cpu/loops_largest.h"
#include "backend/cpu/random_vector.h"

enum { PIECE = 4 * NITI_RANDOM_BLOCKS }; /* weights whose words are made at once */
_Static_assert(NITI_SGD_FIRST % PIECE == 0, "pieces begin at a random block");

/* niti_scalar_times(x, a, e) = (x * m + half) >> shift. */
typedef struct Times {
  int64_t m, half;
  int shift;
} Times;

/* False where the shift is to the left: the results are then 0. */
static bool times_of(Times *t, NitiScalar a, int32_t e) {
  const int32_t s = e - a.e;
  const bool none = a.m == 0 || s > 62 || s < 0;
  *t = (Times){.m = none ? 0 : a.m, .half = none || s == 0 ? 0 : (int64_t)1 << (s - 1), .shift = none ? 0 : s};
  return a.m == 0 || s >= 0;
}

/* ---- lanes ---- */

#if defined(__AVX512F__)
enum { INTS = 16 };
#elif defined(__AVX2__)
enum { INTS = 8 };
#else
enum { INTS = 4 };
#endif
typedef int32_t Ints __attribute__((vector_size(4 * INTS)));
typedef uint32_t Words32 __attribute__((vector_size(4 * INTS)));

NITI_RANDOM_INLINE Ints ints_all(int32_t x) { return x - (Ints){0}; }
NITI_RANDOM_INLINE Ints ints_load(const void *from) {
  Ints x;
  memcpy(&x, from, sizeof x);
  return x;
}

/* Long: lanes of 64 bits. Each set provides long_load, which widens; long_store, which narrows and clips numbers that 32 bits do
 * not hold; products of the lanes' lower halves; arithmetic shifts to the right, by counts in lanes, which x86 does faster than
 * by one count; and of vectors of 32-bit lanes loads and stores of narrower numbers, the clipping to -most .. most and the upper
 * halves of x m + half. */
#if defined(__AVX512F__)
typedef __m512i Long;
NITI_RANDOM_INLINE Long long_load(const int32_t *from) {
  return _mm512_cvtepi32_epi64(_mm256_loadu_si256((const __m256i *)(const void *)from));
}
NITI_RANDOM_INLINE void long_store(int32_t *to, Long x) { _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtsepi64_epi32(x)); }
NITI_RANDOM_INLINE Long long_all(int64_t x) { return _mm512_set1_epi64(x); }
NITI_RANDOM_INLINE Long long_multiply(Long a, Long b) { return _mm512_mul_epi32(a, b); }
NITI_RANDOM_INLINE Long long_shift(Long x, Long count) { return _mm512_srav_epi64(x, count); }
NITI_RANDOM_INLINE Ints ints_load16(const int16_t *from) {
  return (Ints)_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)from));
}
NITI_RANDOM_INLINE void ints_store16(int16_t *to, Ints x) {
  _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtepi32_epi16((__m512i)x));
}
NITI_RANDOM_INLINE void ints_store8(int8_t *to, Ints x) {
  _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8((__m512i)x));
}
NITI_RANDOM_INLINE Ints ints_clip(Ints x, Ints most) {
  return (Ints)_mm512_max_epi32(_mm512_min_epi32((__m512i)x, (__m512i)most), (__m512i)-most);
}
NITI_RANDOM_INLINE Ints ints_high(Ints x, Ints m, Long half) {
  const __m512i even = _mm512_add_epi64(_mm512_mul_epi32((__m512i)x, (__m512i)m), half);
  const __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64((__m512i)x, 32), (__m512i)m), half);
  return (Ints)_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
}
#elif defined(__AVX2__)
typedef __m256i Long;
NITI_RANDOM_INLINE Long long_load(const int32_t *from) {
  return _mm256_cvtepi32_epi64(_mm_loadu_si128((const __m128i *)(const void *)from));
}
NITI_RANDOM_INLINE void long_store(int32_t *to, Long x) {
  const Long most = _mm256_set1_epi64x(INT32_MAX), least = _mm256_set1_epi64x(-INT32_MAX);
  x = _mm256_blendv_epi8(x, most, _mm256_cmpgt_epi64(x, most));
  x = _mm256_blendv_epi8(x, least, _mm256_cmpgt_epi64(least, x));
  const __m256i low = _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
  _mm_storeu_si128((__m128i *)(void *)to, _mm256_castsi256_si128(low));
}
NITI_RANDOM_INLINE Long long_all(int64_t x) { return _mm256_set1_epi64x(x); }
NITI_RANDOM_INLINE Long long_multiply(Long a, Long b) { return _mm256_mul_epi32(a, b); }
NITI_RANDOM_INLINE Long long_shift(Long x, Long count) { /* of a nonnegative number, 2^63 larger */
  const Long sign = _mm256_set1_epi64x(INT64_MIN);
  return _mm256_sub_epi64(_mm256_srlv_epi64(_mm256_xor_si256(x, sign), count), _mm256_srlv_epi64(sign, count));
}
NITI_RANDOM_INLINE Ints ints_load16(const int16_t *from) {
  return (Ints)_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)from));
}
NITI_RANDOM_INLINE __m128i ints_narrow(Ints x) {
  const __m256i low = (__m256i)x;
  return _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
}
NITI_RANDOM_INLINE void ints_store16(int16_t *to, Ints x) { _mm_storeu_si128((__m128i *)(void *)to, ints_narrow(x)); }
NITI_RANDOM_INLINE void ints_store8(int8_t *to, Ints x) {
  _mm_storel_epi64((__m128i *)(void *)to, _mm_packs_epi16(ints_narrow(x), ints_narrow(x)));
}
NITI_RANDOM_INLINE Ints ints_clip(Ints x, Ints most) {
  return (Ints)_mm256_max_epi32(_mm256_min_epi32((__m256i)x, (__m256i)most), (__m256i)-most);
}
NITI_RANDOM_INLINE Ints ints_high(Ints x, Ints m, Long half) {
  const __m256i even = _mm256_add_epi64(_mm256_mul_epi32((__m256i)x, (__m256i)m), half);
  const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64((__m256i)x, 32), (__m256i)m), half);
  return (Ints)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
}
#else
typedef int64x2_t Long;
NITI_RANDOM_INLINE Long long_load(const int32_t *from) { return vmovl_s32(vld1_s32(from)); }
NITI_RANDOM_INLINE void long_store(int32_t *to, Long x) { vst1_s32(to, vqmovn_s64(x)); }
NITI_RANDOM_INLINE Long long_all(int64_t x) { return vdupq_n_s64(x); }
NITI_RANDOM_INLINE Long long_multiply(Long a, Long b) { return vmull_s32(vmovn_s64(a), vmovn_s64(b)); }
NITI_RANDOM_INLINE Long long_shift(Long x, Long count) { return vshlq_s64(x, -count); }
NITI_RANDOM_INLINE Ints ints_load16(const int16_t *from) { return (Ints)vmovl_s16(vld1_s16(from)); }
NITI_RANDOM_INLINE void ints_store16(int16_t *to, Ints x) { vst1_s16(to, vmovn_s32((int32x4_t)x)); }
NITI_RANDOM_INLINE void ints_store8(int8_t *to, Ints x) {
  const int16x4_t narrow = vmovn_s32((int32x4_t)x);
  vst1_lane_s32((int32_t *)(void *)to, vreinterpret_s32_s8(vmovn_s16(vcombine_s16(narrow, narrow))), 0);
}
NITI_RANDOM_INLINE Ints ints_clip(Ints x, Ints most) {
  return (Ints)vmaxq_s32(vminq_s32((int32x4_t)x, (int32x4_t)most), (int32x4_t)-most);
}
NITI_RANDOM_INLINE Ints ints_high(Ints x, Ints m, Long half) {
  const int64x2_t low = vmlal_s32(half, vget_low_s32((int32x4_t)x), vget_low_s32((int32x4_t)m));
  const int64x2_t high = vmlal_high_s32(half, (int32x4_t)x, (int32x4_t)m);
  return (Ints)vuzp2q_s32(vreinterpretq_s32_s64(low), vreinterpretq_s32_s64(high));
}
#endif
enum { LONGS = sizeof(Long) / sizeof(int64_t) };

NITI_RANDOM_INLINE Long times(Long x, const Times *t) {
  return long_shift(long_multiply(x, long_all(t->m)) + long_all(t->half), long_all(t->shift));
}

/* A term's factors in lanes: (x * m + half) >> shift is the upper half of (x << before) * m + half << before, >> after. */
typedef struct Factor {
  Ints m, before, after;
  Long half;
} Factor;

/* Of a term below 2^31 with |m| >= 2^30, so that |x| << before has 31 bits. */
NITI_RANDOM_INLINE Factor factor_of(const Times *t) {
  const int shift = t->m == 0 ? 32 : t->shift, before = shift < 32 ? 32 - shift : 0;
  return (Factor){.m = ints_all((int32_t)t->m),
                  .before = ints_all(before),
                  .after = ints_all(shift + before - 32),
                  .half = long_all(t->half << before)};
}

NITI_RANDOM_INLINE Ints term(Ints x, const Factor *f) { return ints_high(x << f->before, f->m, f->half) >> f->after; }

/* ---- the update ---- */

/* What a range's weights share, and in which form: nesterov, decay (there is one) and wide (the rate's term has more than 31
 * bits). */
typedef struct Step {
  Times gradient, decay, velocity, momentum, rate;
  int gradient_shift, weight_shift;
} Step;

static bool no_gradients(const NitiSgdRange *r) {
  return (r->bits == 32 ? largest32((const int32_t *)r->gradient, r->count)
                        : largest64((const int64_t *)r->gradient, r->count)) == 0;
}

/* False where the definition has to do this range. */
static bool step_of(Step *s, const NitiSgd *u, const NitiSgdRange *r) {
  s->gradient_shift = u->gradient_shift;
  s->weight_shift = u->weight_shift;
  return (times_of(&s->gradient, u->gradient, u->unit) || no_gradients(r)) &&
         (times_of(&s->decay, u->decay, u->unit) || largest16(r->weight, r->count) == 0) &&
         (times_of(&s->velocity, u->velocity, u->unit) || largest16(r->velocity, r->count) == 0) &&
         times_of(&s->momentum, u->momentum, 0) && times_of(&s->rate, u->rate, u->weight_exponent - NITI_SGD_FRACTION - u->unit);
}

/* niti_sgd_scaled, which fits in 31 bits. */
NITI_RANDOM_INLINE Ints scaled32(Ints g, int shift) {
  if (shift <= 0) return g << ints_all(-shift);
  const Ints negative = g >> 31;
  const Words32 magnitude = ((Words32)(g ^ negative) - (Words32)negative + (1u << (shift - 1))) >> (Words32)ints_all(shift);
  return ((Ints)magnitude ^ negative) - negative;
}

/* niti_sgd_round without its clipping, of |x| <= 2^30: bits is a random number in its lower 14 bits. Above 0 what rounds up is
 * that number the other way round, below 0 the number itself. */
NITI_RANDOM_INLINE Ints rounded(Ints x, Words32 bits) {
  const Ints up = ((Ints)bits ^ ~(x >> 31)) & ((1 << NITI_SGD_FRACTION) - 1);
  return (x + up) >> NITI_SGD_FRACTION;
}

/* Weights before rounding, at most 2^30: whatever is beyond 2^29 is at the limit. */
NITI_RANDOM_INLINE Ints moved_wide(Ints old, Ints d, const Step *s) {
  int32_t weights[INTS], moves[INTS];
  memcpy(weights, &old, sizeof old);
  memcpy(moves, &d, sizeof d);
  for (size_t i = 0; i < INTS; i += LONGS) {
    const Long all = long_multiply(long_load(weights + i), long_all((int64_t)1 << s->weight_shift));
    long_store(weights + i, all - times(long_load(moves + i), &s->rate));
  }
  return ints_clip(ints_load(weights), ints_all(1 << 30));
}

/* PIECE weights. g: NULL, or the scaled gradients. */
NITI_RANDOM_INLINE void sgd_piece(int16_t *weight, int16_t *velocity, int8_t *operand, const int32_t *gradient, bool scaled,
                                  const uint32_t *word, const Step *s, bool nesterov, bool decay, bool wide) {
  const Factor slope = factor_of(&s->gradient), shrink = factor_of(&s->decay), keep = factor_of(&s->velocity);
  const Factor ahead = factor_of(&s->momentum), rate = factor_of(&s->rate);
  for (size_t i = 0; i < PIECE; i += INTS) {
    const Ints old = ints_load16(weight + i);
    const Ints g = ints_load(gradient + i);
    Ints d = ints_high(scaled ? g : scaled32(g, s->gradient_shift), slope.m, slope.half) >> slope.after;
    if (decay) d += term(old, &shrink);
    const Ints v = d + term(ints_load16(velocity + i), &keep);
    d = nesterov ? d + term(v, &ahead) : v;
    const Ints w =
        wide ? moved_wide(old, d, s) : (old << ints_all(s->weight_shift)) - (ints_high(d, rate.m, rate.half) >> rate.after);
    const Words32 bits = (Words32)ints_load(word + i);
    ints_store16(velocity + i, ints_clip(rounded(v, bits >> 2), ints_all(NITI_SGD_VELOCITY_MAX)));
    const Ints after = ints_clip(rounded(w, bits >> 18), ints_all(NITI_SGD_WEIGHT_MAX));
    ints_store16(weight + i, after);
    if (operand) ints_store8(operand + i, (after + 128 + (after >> 31)) >> 8); /* niti_sgd_operand */
  }
}

/* Weights at .. at + count - 1 of a range, count <= PIECE. */
NITI_RANDOM_INLINE void sgd_some(const NitiSgdRange *r, size_t at, size_t count, const Step *s, const NitiDraw *draw,
                                 bool nesterov, bool decay, bool wide) {
  uint32_t block[NITI_RANDOM_BLOCKS], word[PIECE];
  int32_t gradient[PIECE];
  int16_t *weight = r->weight + at, *velocity = r->velocity + at;
  int8_t *operand = r->operand ? r->operand + at : NULL;
  const int32_t *narrow = (const int32_t *)r->gradient + at;
  for (uint32_t i = 0; i < NITI_RANDOM_BLOCKS; ++i) block[i] = (uint32_t)((r->first + at) / 4) + i;
  random_blocks((uint8_t *)word, block, NITI_RANDOM_BLOCKS, draw);
  if (r->bits == 32 && count == PIECE) {
    sgd_piece(weight, velocity, operand, narrow, false, word, s, nesterov, decay, wide);
    return;
  }
  int16_t w[PIECE] = {0}, v[PIECE] = {0};
  int8_t out[PIECE];
  memset(gradient, 0, sizeof gradient);
  memcpy(w, weight, count * sizeof *w);
  memcpy(v, velocity, count * sizeof *v);
  for (size_t i = 0; i < count; ++i)
    gradient[i] = (int32_t)niti_sgd_scaled(r->bits == 32 ? narrow[i] : ((const int64_t *)r->gradient)[at + i], s->gradient_shift);
  sgd_piece(w, v, out, gradient, true, word, s, nesterov, decay, wide);
  memcpy(weight, w, count * sizeof *w);
  memcpy(velocity, v, count * sizeof *v);
  if (operand) memcpy(operand, out, count);
}

NITI_RANDOM_INLINE void sgd_range(const NitiSgdRange *r, const Step *s, const NitiDraw *draw, bool nesterov, bool decay,
                                  bool wide) {
  for (size_t at = 0; at < r->count; at += PIECE) {
    const size_t rest = r->count - at;
    sgd_some(r, at, rest < PIECE ? rest : PIECE, s, draw, nesterov, decay, wide);
  }
}

static void sgd(const NitiSgdRange *r, const NitiSgd *u, const NitiDraw *draw) {
  Step s;
  if (!step_of(&s, u, r)) {
    niti_loops_ref.sgd(r, u, draw);
    return;
  }
  const bool decay = s.decay.m != 0;
  if (s.rate.m != 0 && s.rate.shift < 32)
    sgd_range(r, &s, draw, u->nesterov, decay, true);
  else if (u->nesterov && decay)
    sgd_range(r, &s, draw, true, true, false);
  else if (u->nesterov)
    sgd_range(r, &s, draw, true, false, false);
  else if (decay)
    sgd_range(r, &s, draw, false, true, false);
  else
    sgd_range(r, &s, draw, false, false, false);
}

#endif
