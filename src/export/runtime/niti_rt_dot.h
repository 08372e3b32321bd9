/* The innermost loops: sums of products, in portable C and for processors with instructions for them, chosen by the preprocessor.
 * Every variant gives the same sums.
 *
 *   RT_DSP   ARMv7E-M and ARMv8-M with the DSP extension: two products per SMLAD, of int8 widened to pairs of int16
 *   RT_MVE   ARMv8.1-M with Helium: 16 products per VMLADAVA
 *   RT_RVV   RV32 with the vector extension (niti_rt_rvv.h): as many products at a time as its registers hold
 *   none     two products per multiplication
 *
 * Define RT_PORTABLE to have portable C everywhere. */
#ifndef NITI_RT_DOT_H
#define NITI_RT_DOT_H

#include "niti_rt.h"

/* acc[r] = the sum of a[i] * b[r * stride + i] over i < count, for four rows of b. */
#if defined(RT_MVE)
#define RT_ROW(s, b) "vldrb.8 q1, [%[" #b "]], #16\n\tvmladava.s8 %[" #s "], q0, q1\n\t"
static inline void rt_dot4(int32_t acc[4], const int8_t *a, const int8_t *b, int32_t stride, int32_t count) {
  const int8_t *b0 = b, *b1 = b0 + stride, *b2 = b1 + stride, *b3 = b2 + stride;
  int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  __asm__ volatile(
      "dlstp.8 lr, %[n]\n"
      "1:\n\t"
      "vldrb.8 q0, [%[a]], #16\n\t" RT_ROW(s0, b0) RT_ROW(s1, b1) RT_ROW(s2, b2) RT_ROW(s3, b3) "letp lr, 1b"
      : [s0] "+Te"(s0), [s1] "+Te"(s1), [s2] "+Te"(s2), [s3] "+Te"(s3), [a] "+r"(a), [b0] "+r"(b0), [b1] "+r"(b1), [b2] "+r"(b2),
        [b3] "+r"(b3)
      : [n] "r"(count)
      : "lr", "q0", "q1", "memory");
  acc[0] = s0;
  acc[1] = s1;
  acc[2] = s2;
  acc[3] = s3;
}
#undef RT_ROW
#elif defined(RT_RVV)
static inline void rt_dot4(int32_t acc[4], const int8_t *a, const int8_t *b, int32_t stride, int32_t count) {
  rt_v_dot4(acc, a, b, stride, count);
}
#else
RT_HOT static void rt_dot4(int32_t acc[4], const int8_t *a, const int8_t *b, int32_t stride, int32_t count) {
  const int8_t *b0 = b, *b1 = b0 + stride, *b2 = b1 + stride, *b3 = b2 + stride;
  int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, i;
#define RT_STEP(i)          \
  {                         \
    const int32_t v = a[i]; \
    s0 += v * b0[i];        \
    s1 += v * b1[i];        \
    s2 += v * b2[i];        \
    s3 += v * b3[i];        \
  }
#ifdef RT_DSP
#define RT_WORDS(s, b)                                                 \
  {                                                                    \
    const uint32_t word = rt_word_at(b);                               \
    b += 4;                                                            \
    s = rt_smlad(odd, rt_odd(word), rt_smlad(even, rt_even(word), s)); \
  }
  for (i = count >> 2; i > 0; --i, a += 4) {
    const uint32_t x = rt_word_at(a), even = rt_even(x), odd = rt_odd(x);
    RT_WORDS(s0, b0)
    RT_WORDS(s1, b1)
    RT_WORDS(s2, b2)
    RT_WORDS(s3, b3)
  }
#undef RT_WORDS
#else
  for (i = count >> 2; i > 0; --i) {
    RT_STEP(0)
    RT_STEP(1)
    RT_STEP(2)
    RT_STEP(3)
    a += 4;
    b0 += 4;
    b1 += 4;
    b2 += 4;
    b3 += 4;
  }
#endif
  count &= 3;
  for (i = 0; i < count; ++i) RT_STEP(i)
#undef RT_STEP
  acc[0] = s0;
  acc[1] = s1;
  acc[2] = s2;
  acc[3] = s3;
}
#endif

static inline int32_t rt_dot1(const int8_t *a, const int8_t *b, int32_t count) {
  int32_t s = 0, i;
#ifdef RT_DSP
  for (; count >= 4; count -= 4, a += 4, b += 4) {
    const uint32_t x = rt_word_at(a), y = rt_word_at(b);
    s = rt_smlad(rt_odd(x), rt_odd(y), rt_smlad(rt_even(x), rt_even(y), s));
  }
#endif
#ifdef RT_RVV
  if (count >= 8) return rt_v_dot1(a, b, count); /* fewer take longer to begin than to multiply */
#endif
  for (i = 0; i < count; ++i) s += a[i] * b[i];
  return s;
}

/* ---- four columns: the windows of four outputs, for which every row of weights is used at once ----
 *
 * rt_dot_columns gives the four sums of a row of weights, and returns the next row. */

#ifdef RT_DSP
/* Groups of four values: of each column (x0, x2), (x1, x3) as int16, as SXTB16 gives them for the weights too. The last group is
 * filled with zeros, which meet the weights that follow: up to three bytes behind the last ones are read. A column whose groups
 * are not those of the image is gathered behind them. */
static inline int32_t rt_groups(int32_t size) { return (size + 3) >> 2; }

static inline int8_t *rt_column(int8_t *columns, int32_t i, int32_t size) {
  (void)i;
  return columns + 32 * rt_groups(size);
}

#define RT_WIDEN             \
  "ldr %[w], [%[p]], #4\n\t" \
  "sxtb16 %[e], %[w]\n\t"    \
  "sxtb16 %[w], %[w], ror #8\n\t"
#define RT_WIDEN_STORE RT_WIDEN "strd %[e], %[w], [%[to]], #32\n\t"

/* Writes groups of a column. Returns the place of the next. */
RT_HOT static uint32_t *rt_widen(uint32_t *to, const int8_t *from, int32_t groups) {
  uint32_t word, even;
  if ((groups & 1) != 0)
    __asm__ volatile(RT_WIDEN_STORE : [to] "+r"(to), [p] "+r"(from), [w] "=&r"(word), [e] "=&r"(even) : : "memory");
  groups >>= 1;
  if (groups > 0)
    __asm__ volatile("1:\n\t" RT_WIDEN_STORE RT_WIDEN_STORE
                     "subs %[n], %[n], #1\n\t"
                     "bne 1b"
                     : [to] "+r"(to), [p] "+r"(from), [w] "=&r"(word), [e] "=&r"(even), [n] "+r"(groups)
                     :
                     : "cc", "memory");
  return to;
}

static inline void rt_column_ready(int8_t *columns, int32_t i, int32_t size) {
  (void)rt_widen((uint32_t *)(void *)(columns + 8 * i), columns + 32 * rt_groups(size), rt_groups(size));
}

/* Once, before columns are gathered. */
static inline void rt_columns_start(int8_t *columns, int32_t size) {
  rt_zero_bytes((uint8_t *)columns + 32 * rt_groups(size) + size, -size & 3);
}

/* Of the operands of rt_dot_columns: 13 instructions of 52 bytes for 16 products. In few characters, because a string has 4,095.
 */
#define RT_TWO_COLUMNS(s, t)  \
  "ldm.w %6!,{r4,r5,r6,r8}\n" \
  "smlad " s ",%8,r4," s      \
  "\n"                        \
  "smlad " t ",%8,r6," t      \
  "\n"                        \
  "smlad " s ",%7,r5," s      \
  "\n"                        \
  "smlad " t ",%7,r8," t "\n"
#define RT_GROUP     \
  "ldr %7,[%5],#4\n" \
  "sxtb16 %8,%7\n"   \
  "sxtb16 %7,%7,ror #8\n" RT_TWO_COLUMNS("%0", "%1") RT_TWO_COLUMNS("%2", "%3")

#ifdef __OPTIMIZE_SIZE__
enum { RT_TURN = 1 };
#define RT_SKIP(groups) 0u
#define RT_TURN_GROUPS "1:\n" RT_GROUP
#else /* 16 groups in a turn, the first of which begins in the middle: as many bytes later as groups are left out */
enum { RT_TURN = 16 };
#define RT_SKIP(groups) ((uint32_t)(52 * (groups)-2)) /* the program counter is read as four bytes behind the addition */
#define RT_FOUR_GROUPS RT_GROUP RT_GROUP RT_GROUP RT_GROUP
#define RT_TURN_GROUPS "add pc,%8\n1:\n" RT_FOUR_GROUPS RT_FOUR_GROUPS RT_FOUR_GROUPS RT_FOUR_GROUPS
#endif

static inline const int8_t *rt_dot_columns(int32_t acc[4], const int8_t *w, const int8_t *columns, int32_t size) {
  int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, turns = (int32_t)((uint32_t)(rt_groups(size) + RT_TURN - 1) / RT_TURN);
  uint32_t word, even = RT_SKIP(turns * RT_TURN - rt_groups(size));
  __asm__ volatile(RT_TURN_GROUPS
                   "subs %4,%4,#1\n"
                   "bne 1b"
                   : "+r"(s0), "+r"(s1), "+r"(s2), "+r"(s3), "+r"(turns), "+r"(w), "+r"(columns), "=&r"(word), "+r"(even)
                   :
                   : "r4", "r5", "r6", "r8", "cc", "memory");
  acc[0] = s0;
  acc[1] = s1;
  acc[2] = s2;
  acc[3] = s3;
  return w - (-size & 3);
}
#elif !defined(RT_MVE) && !defined(RT_RVV)
/* Of each tap two words: columns 0 and 1, and 2 and 3, as x0 + 65536 * x1. One product with a weight is then two. Their halves
 * are taken apart after two taps, because the lower one must fit 16 bits. A column is gathered behind them. */
static inline int8_t *rt_column(int8_t *columns, int32_t i, int32_t size) {
  (void)i;
  return columns + 8 * size;
}

RT_HOT static void rt_column_ready(int8_t *columns, int32_t i, int32_t size) {
  const int8_t *from = columns + 8 * size, *end = from + size;
  uint32_t *to = (uint32_t *)(void *)columns + (i >> 1);
  if ((i & 1) == 0) {
    for (; from < end; to += 2) *to = (uint32_t)(int32_t)*from++;
  } else {
    for (; from < end; to += 2) *to += (uint32_t)(int32_t)*from++ << 16;
  }
}

#define RT_THUMB_TAPS                 \
  "ldrsb %[w], [%[p]], #1\n\t"        \
  "ldm %[x]!, {r4, r5, r6, r8}\n\t"   \
  "mla r4, %[w], r4, %[half]\n\t"     \
  "mla r5, %[w], r5, %[half]\n\t"     \
  "ldrsb %[w], [%[p]], #1\n\t"        \
  "mla r4, %[w], r6, r4\n\t"          \
  "mla r5, %[w], r8, r5\n\t"          \
  "add %[t01], %[t01], r4\n\t"        \
  "add %[s1], %[s1], r4, asr #16\n\t" \
  "add %[t23], %[t23], r5\n\t"        \
  "add %[s3], %[s3], r5, asr #16\n\t"

RT_HOT static const int8_t *rt_dot_columns(int32_t acc[4], const int8_t *w, const int8_t *columns, int32_t size) {
  const uint32_t half = 0x8000u; /* makes the lower half of a sum positive */
  const uint32_t *x = (const uint32_t *)(const void *)columns;
  const uint32_t added = (uint32_t)((size + 1) >> 1) * half;
  uint32_t all01 = 0, all23 = 0, p, q;
  int32_t s1 = 0, s3 = 0, n;
#define RT_TAKE_APART                                            \
  all01 += p;                                                    \
  all23 += q;                                                    \
  s1 += (int32_t)p >> 16; /* rounds down, as gcc and clang do */ \
  s3 += (int32_t)q >> 16;
#define RT_TWO_TAPS(i)                                                                       \
  {                                                                                          \
    const uint32_t a = (uint32_t)(int32_t)w[2 * (i)], b = (uint32_t)(int32_t)w[2 * (i) + 1]; \
    p = half + a * x[4 * (i)] + b * x[4 * (i) + 2];                                          \
    q = half + a * x[4 * (i) + 1] + b * x[4 * (i) + 3];                                      \
    RT_TAKE_APART                                                                            \
  }
  n = size >> 2;
#if defined(__thumb2__) && defined(__GNUC__) && !defined(RT_PORTABLE)
  if (n > 0) {
    uint32_t tap;
    __asm__ volatile("1:\n\t" RT_THUMB_TAPS RT_THUMB_TAPS
                     "subs %[n], %[n], #1\n\t"
                     "bne 1b"
                     : [t01] "+r"(all01), [t23] "+r"(all23), [s1] "+r"(s1), [s3] "+r"(s3), [n] "+r"(n), [p] "+r"(w), [x] "+r"(x),
                       [w] "=&r"(tap)
                     : [half] "r"(half)
                     : "r4", "r5", "r6", "r8", "cc", "memory");
  }
#else
  for (; n > 0; --n, w += 4, x += 8) {
    RT_TWO_TAPS(0)
    RT_TWO_TAPS(1)
  }
#endif
  if ((size & 2) != 0) {
    RT_TWO_TAPS(0)
    w += 2;
    x += 4;
  }
  if ((size & 1) != 0) {
    const uint32_t a = (uint32_t)(int32_t)w[0];
    p = half + a * x[0];
    q = half + a * x[1];
    RT_TAKE_APART
  }
#undef RT_TWO_TAPS
#undef RT_TAKE_APART
  acc[0] = (int32_t)(all01 - added - ((uint32_t)s1 << 16));
  acc[1] = s1;
  acc[2] = (int32_t)(all23 - added - ((uint32_t)s3 << 16));
  acc[3] = s3;
  return w + (size & 1);
}
#else
static inline int8_t *rt_column(int8_t *columns, int32_t i, int32_t size) { return columns + i * size; }

static inline void rt_column_ready(int8_t *columns, int32_t i, int32_t size) {
  (void)columns;
  (void)i;
  (void)size;
}

static inline const int8_t *rt_dot_columns(int32_t acc[4], const int8_t *w, const int8_t *columns, int32_t size) {
  rt_dot4(acc, w, columns, size, size);
  return w + size;
}
#endif

/* ---- rows that are added to a row of accumulators, four at a time ---- */

#if RT_TRAINING
typedef struct rt_rows {
  const int8_t *row[4];
  int8_t factor[4];
  int32_t count;
} rt_rows;

#ifdef RT_DSP
#define RT_SUMS_LOAD "ldm.w %[s], {r4, r5, r6, r8}\n\t"
#define RT_SUMS_STORE "stm.w %[s]!, {r4, r5, r6, r8}\n\t"
#define RT_PAIR                         \
  RT_SUMS_LOAD                          \
  "ldr %[t], [%[a]], #4\n\t"            \
  "ldr %[u], [%[b]], #4\n\t"            \
  "pkhbt %[v], %[t], %[u], lsl #16\n\t" \
  "pkhtb %[u], %[u], %[t], asr #16\n\t" \
  "sxtb16 %[t], %[v]\n\t"               \
  "smlad r4, %[t], %[f], r4\n\t"        \
  "sxtb16 %[v], %[v], ror #8\n\t"       \
  "smlad r5, %[v], %[f], r5\n\t"        \
  "sxtb16 %[t], %[u]\n\t"               \
  "smlad r6, %[t], %[f], r6\n\t"        \
  "sxtb16 %[u], %[u], ror #8\n\t"       \
  "smlad r8, %[u], %[f], r8\n\t" RT_SUMS_STORE
#define RT_SINGLE                 \
  RT_SUMS_LOAD                    \
  "ldr %[t], [%[a]], #4\n\t"      \
  "sxtb16 %[u], %[t]\n\t"         \
  "smlabb r4, %[u], %[f], r4\n\t" \
  "smlatb r6, %[u], %[f], r6\n\t" \
  "sxtb16 %[u], %[t], ror #8\n\t" \
  "smlabb r5, %[u], %[f], r5\n\t" \
  "smlatb r8, %[u], %[f], r8\n\t" RT_SUMS_STORE
#define RT_SUMS_LOOP(times, body)                                                                                       \
  if (times > 0)                                                                                                        \
  __asm__ volatile("1:\n\t" body                                                                                        \
                   "subs %[n], %[n], #1\n\t"                                                                            \
                   "bne 1b"                                                                                             \
                   : [s] "+r"(sum), [a] "+r"(a), [b] "+r"(b), [t] "=&r"(t), [u] "=&r"(u), [v] "=&r"(v), [n] "+r"(times) \
                   : [f] "r"(f)                                                                                         \
                   : "r4", "r5", "r6", "r8", "cc", "memory")

/* sum[i] += factor[0] * row[0][i] + factor[1] * row[1][i]: 14 instructions for eight products. */
RT_HOT static void rt_add2(int32_t *sum, const int8_t *const row[2], const int8_t factor[2], int32_t offset, int32_t count) {
  const int8_t *a = row[0] + offset, *b = row[1] + offset;
  const uint32_t f = ((uint32_t)factor[0] & 0xffffu) | (uint32_t)factor[1] << 16;
  uint32_t t, u, v;
  int32_t n = count >> 2, i;
#ifndef __OPTIMIZE_SIZE__
  int32_t two = n >> 1;
  n &= 1;
  RT_SUMS_LOOP(two, RT_PAIR RT_PAIR);
#endif
  RT_SUMS_LOOP(n, RT_PAIR);
  for (i = 0; i < (count & 3); ++i) sum[i] += factor[0] * a[i] + factor[1] * b[i];
}

/* sum[i] += factor * row[i]: 9 instructions for four products. */
RT_HOT static void rt_add1(int32_t *sum, const int8_t *a, int32_t f, int32_t count) {
  const int8_t *b = a;
  uint32_t t, u, v;
  int32_t n = count >> 2, i;
#ifndef __OPTIMIZE_SIZE__
  int32_t two = n >> 1;
  n &= 1;
  RT_SUMS_LOOP(two, RT_SINGLE RT_SINGLE);
#endif
  RT_SUMS_LOOP(n, RT_SINGLE);
  for (i = 0; i < (count & 3); ++i) sum[i] += f * a[i];
}

/* The sums of 1 to 4 rows. */
static inline void rt_add_rows(int32_t *sum, const rt_rows *rows, int32_t offset, int32_t count) {
  int32_t i;
  for (i = 0; i + 2 <= rows->count; i += 2) rt_add2(sum, rows->row + i, rows->factor + i, offset, count);
  if (i < rows->count) rt_add1(sum, rows->row[i] + offset, rows->factor[i], count);
}
#else
#ifdef RT_RVV
static inline void rt_add4(int32_t *sum, const rt_rows *rows, int32_t offset, int32_t count) {
  if (count > 0) rt_v_add4(sum, rows->row, rows->factor, offset, count);
}

static inline void rt_add1(int32_t *sum, const int8_t *row, int32_t factor, int32_t count) {
  if (count > 0) rt_v_add1(sum, row, factor, count);
}
#else
/* sum[i] += factor[0] * row[0][i] + ... of four rows. */
RT_HOT static void rt_add4(int32_t *sum, const rt_rows *rows, int32_t offset, int32_t count) {
  const int8_t *a = rows->row[0] + offset, *b = rows->row[1] + offset, *c = rows->row[2] + offset, *d = rows->row[3] + offset;
  const int32_t fa = rows->factor[0], fb = rows->factor[1], fc = rows->factor[2], fd = rows->factor[3];
  int32_t i;
#if defined(RT_MVE)
#define RT_ROW(p, f) "vldrb.s32 q1, [%[" #p "]], #4\n\tvmla.s32 q0, q1, %[" #f "]\n\t"
  if (count <= 0) return;
  __asm__ volatile("dlstp.32 lr, %[n]\n"
                   "1:\n\t"
                   "vldrw.32 q0, [%[s]]\n\t" RT_ROW(a, fa) RT_ROW(b, fb) RT_ROW(c, fc) RT_ROW(d, fd) "vstrw.32 q0, [%[s]], #16\n\t"
                   "letp lr, 1b"
                   : [s] "+r"(sum), [a] "+l"(a), [b] "+l"(b), [c] "+l"(c), [d] "+l"(d)
                   : [n] "r"(count), [fa] "r"(fa), [fb] "r"(fb), [fc] "r"(fc), [fd] "r"(fd)
                   : "lr", "q0", "q1", "memory");
  count = 0;
#else
  for (; count >= 4; count -= 4, sum += 4, a += 4, b += 4, c += 4, d += 4) {
    sum[0] += fa * a[0] + fb * b[0] + fc * c[0] + fd * d[0];
    sum[1] += fa * a[1] + fb * b[1] + fc * c[1] + fd * d[1];
    sum[2] += fa * a[2] + fb * b[2] + fc * c[2] + fd * d[2];
    sum[3] += fa * a[3] + fb * b[3] + fc * c[3] + fd * d[3];
  }
#endif
  for (i = 0; i < count; ++i) sum[i] += fa * a[i] + fb * b[i] + fc * c[i] + fd * d[i];
}

RT_HOT static void rt_add1(int32_t *sum, const int8_t *row, int32_t factor, int32_t count) {
  int32_t i;
#ifdef RT_MVE
  if (count <= 0) return;
  __asm__ volatile("dlstp.32 lr, %[n]\n"
                   "1:\n\t"
                   "vldrw.32 q0, [%[s]]\n\t" RT_ROW(a, f) "vstrw.32 q0, [%[s]], #16\n\t"
                   "letp lr, 1b"
                   : [s] "+r"(sum), [a] "+l"(row)
                   : [n] "r"(count), [f] "r"(factor)
                   : "lr", "q0", "q1", "memory");
  count = 0;
#undef RT_ROW
#else
  for (; count >= 4; count -= 4, sum += 4, row += 4) {
    sum[0] += factor * row[0];
    sum[1] += factor * row[1];
    sum[2] += factor * row[2];
    sum[3] += factor * row[3];
  }
#endif
  for (i = 0; i < count; ++i) sum[i] += factor * row[i];
}
#endif

/* The same of 1 to 4 rows. */
RT_UNUSED static void rt_add_rows(int32_t *sum, rt_rows *rows, int32_t offset, int32_t count) {
  int32_t i;
  if (rows->count == 3) { /* a fourth of nothing is faster than three alone */
    rows->row[3] = rows->row[0];
    rows->factor[3] = 0;
  }
  if (rows->count >= 3) {
    rt_add4(sum, rows, offset, count);
    return;
  }
  for (i = 0; i < rows->count; ++i) rt_add1(sum, rows->row[i] + offset, rows->factor[i], count);
}
#endif
#endif

#endif
