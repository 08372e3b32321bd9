/* The loops as an instruction set's compiler vectorises them; a file that includes this defines NITI_LOOPS, its table's name.
 *
 * Update `sgd` multiplies by five numbers that all weights of a tensor share, so that niti_scalar_times is a product, a sum and
 * a shift by a constant. Shifts to the left are left to the definition, unless what they would shift is 0, as the velocities are
 * in the first step. */
#include "backend/cpu/loops_largest.h"
#include "backend/cpu/loops_norm.h"
#include "backend/cpu/random_vector.h"

/* ---- update sgd ---- */

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

/* Lanes of 64 bits. Each set provides long_load, which widens; long_store, which narrows and clips numbers that 32 bits do not
 * hold; products of the lanes' lower halves; and
 * arithmetic shifts to the right, by counts in lanes, which x86 does faster than by one count. */
#if defined(__AVX512F__)
typedef __m512i Long;
NITI_RANDOM_INLINE Long long_load(const int32_t *from) {
  return _mm512_cvtepi32_epi64(_mm256_loadu_si256((const __m256i *)(const void *)from));
}
NITI_RANDOM_INLINE void long_store(int32_t *to, Long x) { _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtsepi64_epi32(x)); }
NITI_RANDOM_INLINE Long long_all(int64_t x) { return _mm512_set1_epi64(x); }
NITI_RANDOM_INLINE Long long_multiply(Long a, Long b) { return _mm512_mul_epi32(a, b); }
NITI_RANDOM_INLINE Long long_shift(Long x, Long count) { return _mm512_srav_epi64(x, count); }
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
#else
typedef int64x2_t Long;
NITI_RANDOM_INLINE Long long_load(const int32_t *from) { return vmovl_s32(vld1_s32(from)); }
NITI_RANDOM_INLINE void long_store(int32_t *to, Long x) { vst1_s32(to, vqmovn_s64(x)); }
NITI_RANDOM_INLINE Long long_all(int64_t x) { return vdupq_n_s64(x); }
NITI_RANDOM_INLINE Long long_multiply(Long a, Long b) { return vmull_s32(vmovn_s64(a), vmovn_s64(b)); }
NITI_RANDOM_INLINE Long long_shift(Long x, Long count) { return vshlq_s64(x, -count); }
#endif
enum { LONGS = sizeof(Long) / sizeof(int64_t) };

NITI_RANDOM_INLINE Long times(Long x, const Times *t) {
  return long_shift(long_multiply(x, long_all(t->m)) + long_all(t->half), long_all(t->shift));
}

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
NITI_RANDOM_INLINE void scale32(int32_t *restrict out, const int32_t *restrict g, size_t count, int shift) {
  const uint32_t half = shift > 0 ? 1u << (shift - 1) : 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t negative = (uint32_t)(g[i] >> 31), magnitude = ((uint32_t)g[i] ^ negative) - negative;
    const uint32_t scaled = shift > 0 ? (magnitude + half) >> shift : magnitude << -shift;
    out[i] = (int32_t)((scaled ^ negative) - negative);
  }
}

NITI_RANDOM_INLINE void scale64(int32_t *restrict out, const int64_t *restrict g, size_t count, int shift) {
  for (size_t i = 0; i < count; ++i) out[i] = (int32_t)niti_sgd_scaled(g[i], shift);
}

/* Weights and velocities before rounding, clipped to 32 bits. */
NITI_RANDOM_INLINE void move(int32_t *restrict weight, int32_t *restrict velocity, const int32_t *restrict g, const Step *step,
                             bool nesterov) {
  const Step s = *step;
  for (size_t i = 0; i < PIECE; i += LONGS) {
    const Long old = long_load(weight + i);
    const Long slope = times(long_load(g + i), &s.gradient) + times(old, &s.decay);
    const Long v = slope + times(long_load(velocity + i), &s.velocity);
    Long d = v;
    if (nesterov) d = slope + times(v, &s.momentum);
    const Long w = long_multiply(old, long_all((int64_t)1 << s.weight_shift)) - times(d, &s.rate);
    long_store(velocity + i, v);
    long_store(weight + i, w);
  }
}

/* niti_sgd_round of what 32 bits hold. */
NITI_RANDOM_INLINE int16_t rounded(int32_t x, uint32_t bits, int32_t most) {
  const uint32_t negative = (uint32_t)(x >> 31), magnitude = ((uint32_t)x ^ negative) - negative;
  const int32_t rest = (int32_t)(magnitude & ((1 << NITI_SGD_FRACTION) - 1));
  const int32_t q = (int32_t)(magnitude >> NITI_SGD_FRACTION) + ((int32_t)bits < rest ? 1 : 0), clipped = q > most ? most : q;
  return (int16_t)(x < 0 ? -clipped : clipped);
}

/* Weights at .. at + count - 1 of a range, count <= PIECE. */
NITI_RANDOM_INLINE void sgd_piece(const NitiSgdRange *r, size_t at, size_t count, const Step *s, bool nesterov,
                                  const NitiDraw *draw) {
  int32_t g[PIECE] = {0}, w[PIECE] = {0}, v[PIECE] = {0};
  uint32_t block[NITI_RANDOM_BLOCKS], word[PIECE];
  int16_t *restrict weight = r->weight + at, *restrict velocity = r->velocity + at;
  for (uint32_t i = 0; i < NITI_RANDOM_BLOCKS; ++i) block[i] = (uint32_t)((r->first + at) / 4) + i;
  random_blocks((uint8_t *)word, block, NITI_RANDOM_BLOCKS, draw);
  if (r->bits == 32)
    scale32(g, (const int32_t *)r->gradient + at, count, s->gradient_shift);
  else
    scale64(g, (const int64_t *)r->gradient + at, count, s->gradient_shift);
  for (size_t i = 0; i < count; ++i) w[i] = weight[i];
  for (size_t i = 0; i < count; ++i) v[i] = velocity[i];
  move(w, v, g, s, nesterov);
  for (size_t i = 0; i < count; ++i) velocity[i] = rounded(v[i], (word[i] & 0xffff) >> 2, NITI_SGD_VELOCITY_MAX);
  for (size_t i = 0; i < count; ++i) weight[i] = rounded(w[i], word[i] >> 18, NITI_SGD_WEIGHT_MAX);
}

NITI_RANDOM_INLINE void sgd_range(const NitiSgdRange *r, const Step *s, bool nesterov, const NitiDraw *draw) {
  size_t at = 0;
  for (; at + PIECE <= r->count; at += PIECE) sgd_piece(r, at, PIECE, s, nesterov, draw);
  if (at < r->count) sgd_piece(r, at, r->count - at, s, nesterov, draw);
}

static void operands(int8_t *restrict out, const int16_t *restrict weight, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = niti_sgd_operand(weight[i]);
}

static void sgd(const NitiSgdRange *r, const NitiSgd *u, const NitiDraw *draw) {
  Step s;
  if (!step_of(&s, u, r)) {
    niti_loops_ref.sgd(r, u, draw);
    return;
  }
  if (u->nesterov)
    sgd_range(r, &s, true, draw);
  else
    sgd_range(r, &s, false, draw);
  if (r->operand) operands(r->operand, r->weight, r->count);
}

const NitiLoops NITI_LOOPS = {.largest16 = largest16,
                              .largest32 = largest32,
                              .largest64 = largest64,
                              .count_above16 = count_above16,
                              .squares32 = squares32,
                              .squares64 = squares64,
                              .update = update_fraction,
                              .sums = sums,
                              .delta_sums = delta_sums,
                              .affine = affine,
                              .affine_delta = affine_delta,
                              .sgd = sgd};
