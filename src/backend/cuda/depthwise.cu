/* Depthwise convolutions with windows of 3 by 3, stride 1 or 2, where channels are a multiple of 16.
 *
 * __dp4a multiplies four neighbours of a row in one channel. A thread has four channels, a word of each pixel: it transposes the
 * words of up to four pixels, and walks down the rows, so that what it loaded and transposed serves all rows of outputs that
 * read it. Neighbouring threads have neighbouring channels; four of them share a block of random words. */
#include "backend/cuda/depthwise.h"
#include "backend/cuda/wide.cuh"

enum { THREADS = NITI_WIDE_THREADS, TAPS = 3, AHEAD = 3 /* rows that are loaded before they are needed */ };

/* From inputs to outputs, along rows and columns alike. */
enum Mode {
  SAME,   /* stride 1 */
  TURNED, /* stride 1, backward: the taps from the last to the first */
  DOWN,   /* stride 2 */
  UP,     /* stride 2 and padding 1, backward */
};

template <int MODE>
struct Plan {
  enum {
    OUT = MODE == DOWN ? 1 : 2, /* outputs of a thread along a row */
    PIXELS = MODE == DOWN ? 3
             : MODE == UP ? 2
                          : 4,   /* inputs that they read */
    ROWS = MODE == DOWN ? 4 : 8, /* outputs along a column */
    IN_ROWS = MODE == DOWN ? 2 * ROWS + 1
              : MODE == UP ? ROWS / 2 + 1
                           : ROWS + 2,
    UP_BY = MODE == UP ? 2 : 1,                  /* the stride of outputs over inputs, */
    DOWN_BY = MODE == DOWN ? 2 : 1,              /* and of inputs over outputs */
    BLOCKS = MODE == DOWN || MODE == UP ? 3 : 2, /* of a multiprocessor: registers allow no more */
  };
};

/* The tap by which output `out` of a thread takes its input `in`; no tap: outside 0 .. 2. */
template <int MODE>
static __host__ __device__ constexpr int tap_of(int in, int out) {
  return MODE == UP ? out + 1 - 2 * in : MODE == DOWN ? in - 2 * out : in - out;
}

/* By value to a kernel. A thread's inputs begin at (y, x) of its outputs times DOWN_BY / UP_BY, plus the origin. */
struct Depthwise {
  int8_t *out;
  const int8_t *in, *mask, *w; /* mask may be NULL */
  int32_t in_h, in_w, out_h, out_w, channels, origin_y, origin_x;
  NitiDivisor words, strips, segments; /* of the channels; of a row; of a column */
  uint32_t items;
};

/* Where a thread is: its image, its first output and its first channel. */
struct Spot {
  int64_t n;
  int32_t y, x, channel;
};

template <int MODE>
static __device__ inline Spot spot_of(const Depthwise &d, uint32_t item) {
  const uint32_t strip = niti_divide(d.words, item), segment = niti_divide(d.strips, strip), n = niti_divide(d.segments, segment);
  return Spot{n, (int32_t)(segment - n * d.segments.divisor) * Plan<MODE>::ROWS,
              (int32_t)(strip - segment * d.strips.divisor) * Plan<MODE>::OUT, (int32_t)(item - strip * d.words.divisor) * 4};
}

/* The weights of a channel's row of taps, each in the byte of the pixel that it multiplies, for each output. */
template <int MODE>
static __device__ inline void load_weights(uint32_t weights[TAPS][Plan<MODE>::OUT][4], const int8_t *w) {
  uint32_t words[9]; /* of four channels */
#pragma unroll
  for (int i = 0; i < 9; ++i) words[i] = __ldg((const uint32_t *)w + i);
#pragma unroll
  for (int i = 0; i < TAPS * Plan<MODE>::OUT * 4; ++i) {
    const int a = i / 4 / Plan<MODE>::OUT, j = i / 4 % Plan<MODE>::OUT, k = i % 4;
    const int at = 9 * k + TAPS * (MODE == TURNED ? 2 - a : a);
    const uint32_t taps = __byte_perm(words[at / 4], words[at / 4 + 1 < 9 ? at / 4 + 1 : 8], 0x3210u + 0x1111u * (at % 4));
    uint32_t selector = 0;
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const int tap = tap_of<MODE>(p, j);
      const bool there = p < Plan<MODE>::PIXELS && tap >= 0 && tap < TAPS;
      selector |= (uint32_t)(!there ? 4 : MODE == TURNED ? 2 - tap : tap) << (4 * p);
    }
    weights[a][j][k] = __byte_perm(taps, 0, selector);
  }
}

/* Words of neighbouring pixels, 0 where they or the row are outside. */
template <int PIXELS>
static __device__ inline void load_row(uint32_t *words, const int8_t *row, bool there, const bool inside[PIXELS],
                                       int32_t channels) {
#pragma unroll
  for (int p = 0; p < PIXELS; ++p) words[p] = there && inside[p] ? __ldg((const uint32_t *)(row + p * channels)) : 0;
}

/* What four neighbouring lanes drew: lane q gets word q of each. */
static __device__ inline void exchange(uint32_t words[4]) {
  const uint32_t lane = threadIdx.x & 31, members = 0xfu << (lane & 28);
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
    const bool high = (lane & (uint32_t)step) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & step) continue;
      const uint32_t got = __shfl_xor_sync(members, high ? words[i] : words[i + step], step);
      if (high)
        words[i] = got;
      else
        words[i + step] = got;
    }
  }
}

/* Words of the mask at four of a thread's outputs, from the first-th on, row by row; 0 where there is no output. */
template <int MODE>
static __device__ inline void load_masks(uint32_t masks[4], const Depthwise &d, const Spot &s, int first) {
  enum { BACKWARD = MODE == TURNED || MODE == UP };
  if (!d.mask) return;
#pragma unroll
  for (int i = 0; i < 4 && BACKWARD; ++i) {
    const int y = s.y + (first + i) / Plan<MODE>::OUT, x = s.x + (first + i) % Plan<MODE>::OUT;
    const bool there = y < d.out_h && x < d.out_w;
    masks[i] = there ? __ldg((const uint32_t *)(d.mask + (((s.n * d.out_h + y) * d.out_w + x) * d.channels + s.channel))) : 0;
  }
}

/* The random bytes of four of a thread's outputs, from the first-th on, row by row. */
template <int MODE, int ROUNDING>
static __device__ inline void draw(uint32_t random[4], const Depthwise &d, const NitiRequantiseArgs &a, const Spot &s,
                                   int first) {
  if (ROUNDING != NITI_WIDE_BYTE) return;
  const int own = first + (int)(threadIdx.x & 3), y = s.y + own / Plan<MODE>::OUT, x = s.x + own % Plan<MODE>::OUT;
  const NitiWords words = niti_wide_draw<ROUNDING>(a, (size_t)(((s.n * d.out_h + y) * d.out_w + x) * d.channels + s.channel));
#pragma unroll
  for (int i = 0; i < 4; ++i) random[i] = words.word[i];
  exchange(random);
}

/* by: bits to the left, or with DOWNWARDS to the right, from an accumulator to 16 fraction bits. */
template <int ROUNDING, bool DOWNWARDS>
static __device__ inline void finish(const Depthwise &d, const NitiRequantiseArgs &a, int acc[4], uint32_t by, uint32_t random,
                                     uint32_t mask, uint32_t lowered, int64_t at) {
  uint32_t word = DOWNWARDS ? niti_wide_requantise_down<ROUNDING>(acc, by, random, niti_wide_least(a))
                            : niti_wide_requantise<ROUNDING>(acc, by, random, niti_wide_least(a));
  if (d.mask) word &= niti_passing_bytes(mask, lowered);
  *(uint32_t *)(d.out + at) = word;
}

/* What a thread's sums begin with. */
template <bool BIAS>
static __device__ inline int4 start_of(const NitiRequantiseArgs &a, const Spot &s) {
  return BIAS ? __ldg((const int4 *)(a.bias + s.channel)) : make_int4(0, 0, 0, 0);
}

/* All outputs of a thread. */
template <int MODE, int ROUNDING, bool BIAS, bool DOWNWARDS>
static __device__ inline void walk(const Depthwise &d, const NitiRequantiseArgs &a, const Spot &s, uint32_t by, uint32_t lowered,
                                   NitiExtremes *e) {
  enum { OUT = Plan<MODE>::OUT, PIXELS = Plan<MODE>::PIXELS, ROWS = Plan<MODE>::ROWS, IN_ROWS = Plan<MODE>::IN_ROWS };
  const int y0 = s.y * Plan<MODE>::DOWN_BY / Plan<MODE>::UP_BY + d.origin_y;
  const int x0 = s.x * Plan<MODE>::DOWN_BY / Plan<MODE>::UP_BY + d.origin_x;
  const int8_t *in = d.in + (((s.n * d.in_h + y0) * d.in_w + x0) * d.channels + s.channel);
  const int64_t pitch = (int64_t)d.in_w * d.channels;
  uint32_t weights[TAPS][OUT][4], rows[AHEAD + 1][PIXELS], random[4] = {0, 0, 0, 0}, masks[4] = {0, 0, 0, 0};
  int acc[ROWS][OUT][4];
  bool inside[PIXELS];
  const int4 four = start_of<BIAS>(a, s);
  const int start[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
  for (int p = 0; p < PIXELS; ++p) inside[p] = (uint32_t)(x0 + p) < (uint32_t)d.in_w;
  load_weights<MODE>(weights, d.w + (int64_t)s.channel * (TAPS * TAPS));
#pragma unroll
  for (int i = 0; i < AHEAD; ++i)
    load_row<PIXELS>(rows[i], in + i * pitch, (uint32_t)(y0 + i) < (uint32_t)d.in_h, inside, d.channels);
#pragma unroll
  for (int i = 0; i < IN_ROWS; ++i) {
    if (i + AHEAD < IN_ROWS)
      load_row<PIXELS>(rows[(i + AHEAD) % (AHEAD + 1)], in + (i + AHEAD) * pitch, (uint32_t)(y0 + i + AHEAD) < (uint32_t)d.in_h,
                       inside, d.channels);
    const uint32_t *row = rows[i % (AHEAD + 1)];
    uint32_t x[4];
    niti_transpose4(x, row[0], row[1], PIXELS > 2 ? row[2 % PIXELS] : 0, PIXELS > 3 ? row[3 % PIXELS] : 0);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const int tap = tap_of<MODE>(i, r);
      if (tap < 0 || tap >= TAPS) continue;
      const bool first = i == 0 || tap_of<MODE>(i - 1, r) < 0 || tap_of<MODE>(i - 1, r) >= TAPS;
      const bool last = tap_of<MODE>(i + 1, r) < 0 || tap_of<MODE>(i + 1, r) >= TAPS;
#pragma unroll
      for (int j = 0; j < OUT; ++j) {
#pragma unroll
        for (int k = 0; k < 4; ++k) acc[r][j][k] = __dp4a((int)x[k], (int)weights[tap][j][k], first ? start[k] : acc[r][j][k]);
        if (!last) continue;
        if ((r * OUT + j) % 4 == 0) {
          load_masks<MODE>(masks, d, s, r * OUT + j); /* on their way while random bytes are drawn */
          draw<MODE, ROUNDING>(random, d, a, s, r * OUT + j);
        }
        if (s.y + r >= d.out_h || s.x + j >= d.out_w) continue;
        niti_extremes_add(e, acc[r][j]);
        finish<ROUNDING, DOWNWARDS>(d, a, acc[r][j], by, random[(r * OUT + j) % 4], masks[(r * OUT + j) % 4], lowered,
                                    ((s.n * d.out_h + s.y + r) * d.out_w + s.x + j) * d.channels + s.channel);
      }
    }
  }
}

/* All items of a block's threads. */
template <int MODE, int ROUNDING, bool BIAS, bool DOWNWARDS>
static __device__ inline void walk_all(const Depthwise &d, const NitiRequantiseArgs &a, uint32_t by, NitiExtremes *e) {
  const uint32_t lowered = MODE == SAME || MODE == DOWN ? 0 : niti_lowered(a.limit, a.e_limit); /* forward has no mask */
  for (uint32_t item = blockIdx.x * THREADS + threadIdx.x; item < d.items; item += gridDim.x * THREADS)
    walk<MODE, ROUNDING, BIAS, DOWNWARDS>(d, a, spot_of<MODE>(d, item), by, lowered, e);
}

/* The products of nine taps are below 2^18, so that no true shift is above 16; with a bias it can be. */
template <int MODE, int ROUNDING, bool BIAS>
static __global__ void __launch_bounds__(THREADS, Plan<MODE>::BLOCKS)
    depthwise_kernel(const __grid_constant__ Depthwise d, NitiRequantiseArgs a, bool second) {
  niti_kernel_begin();
  NitiExtremes e = {0, 0};
  int shift;
  if (niti_range_begin(a, second, &shift)) {
    if (BIAS && shift > 16)
      walk_all<MODE, ROUNDING, BIAS, BIAS>(d, a, (uint32_t)shift - 16, &e);
    else
      walk_all<MODE, ROUNDING, BIAS, false>(d, a, niti_wide_up(shift), &e);
  }
  if (!second)
    niti_wide_raise(a, e);
  else
    niti_pass_end(a, second, 0);
}

/* Few blocks for the second launch, which is there in case: each costs it an atomic. */
template <int MODE, int ROUNDING, bool BIAS>
static void launch(NitiCuda *cuda, const Depthwise &d, const NitiRequantiseArgs &a) {
  const unsigned all = (d.items + THREADS - 1) / THREADS, most = (unsigned)cuda->multiprocessors * 2;
  NITI_LAUNCH(cuda, (depthwise_kernel<MODE, ROUNDING, BIAS>), all, THREADS, 0, d, a, false);
  niti_cuda_share_range(cuda);
  NITI_LAUNCH(cuda, (depthwise_kernel<MODE, ROUNDING, BIAS>), all < most ? all : most, THREADS, 0, d, a, true);
}

/* A bias is there forward alone. */
template <int MODE, int ROUNDING>
static void choose(NitiCuda *cuda, const Depthwise &d, const NitiRequantiseArgs &a) {
  enum { FORWARD = MODE == SAME || MODE == DOWN };
  if (FORWARD && a.bias)
    launch<MODE, ROUNDING, FORWARD>(cuda, d, a);
  else
    launch<MODE, ROUNDING, false>(cuda, d, a);
}

/* Cuts the outputs into items; false: too many. */
template <int MODE>
static bool run(NitiCuda *cuda, Depthwise d, int32_t n, const NitiRequantiseArgs &a) {
  const int64_t strips = (d.out_w + Plan<MODE>::OUT - 1) / Plan<MODE>::OUT;
  const int64_t segments = (d.out_h + Plan<MODE>::ROWS - 1) / Plan<MODE>::ROWS;
  const int64_t items = n * segments * strips * (d.channels / 4);
  if (items >= INT32_MAX) return false;
  d.words = niti_divisor((uint32_t)d.channels / 4);
  d.strips = niti_divisor((uint32_t)strips);
  d.segments = niti_divisor((uint32_t)segments);
  d.items = (uint32_t)items;
  if (a.mode == NITI_NEAREST)
    choose<MODE, NITI_WIDE_NEAREST>(cuda, d, a);
  else
    choose<MODE, NITI_WIDE_BYTE>(cuda, d, a);
  return true;
}

static bool serves(const NitiConv *c, const void *a, const void *b, const void *d, const void *e) {
  const bool memory = (((uintptr_t)a | (uintptr_t)b | (uintptr_t)d | (uintptr_t)e) & 3) == 0;
  return memory && c->groups == c->c && c->c == c->k && c->c % 16 == 0 && c->kh == TAPS && c->kw == TAPS &&
         c->stride_h == c->stride_w && (c->stride_h == 1 || c->stride_h == 2);
}

bool niti_depthwise_pass(NitiCuda *cuda, NitiTensor *out, const NitiTensor *in, const NitiTensor *w, const NitiTensor *mask,
                         const int32_t *bias, const NitiConv *c, bool backward, bool relu, const NitiRequantise *rq) {
  NitiRequantiseArgs a = niti_requantise_args(cuda, rq, out->exponent, in->exponent, w->exponent, 0, relu);
  a.bias = bias;
  niti_requantise_limit(&a, mask);
  const bool up = backward && c->stride_h == 2;
  if (!serves(c, out->data, in->data, w->data, mask ? mask->data : NULL) || !niti_wide_serves(a)) return false;
  if (up && (c->pad_h != 1 || c->pad_w != 1)) return false;
  Depthwise d = {
      out->data, in->data, mask ? mask->data : NULL, w->data, c->h, c->w, c->oh, c->ow, c->c, -c->pad_h, -c->pad_w, {}, {},
      {},        0};
  if (backward) {
    d.in_h = c->oh, d.in_w = c->ow, d.out_h = c->h, d.out_w = c->w;
    d.origin_y = up ? 0 : c->pad_h - 2;
    d.origin_x = up ? 0 : c->pad_w - 2;
  }
  const bool ran = up                 ? run<UP>(cuda, d, c->n, a)
                   : backward         ? run<TURNED>(cuda, d, c->n, a)
                   : c->stride_h == 2 ? run<DOWN>(cuda, d, c->n, a)
                                      : run<SAME>(cuda, d, c->n, a);
  if (ran) niti_cuda_blocked_set(cuda, out, false);
  return ran;
}

/* ---- weight gradient: a block has a slice of the channels; its threads share the strips of four deltas and ROWS rows ---- */

enum {
  DELTAS = 4,
  SLICE = 64,               /* words of channels at most */
  VALUES = 4 * TAPS * TAPS, /* of a word's gradients */
  BLOCKS = 2,               /* a multiprocessor's */
};

template <int STRIDE>
struct GradientPlan {
  enum { ROWS = STRIDE == 1 ? 8 : 4, IN_ROWS = STRIDE * (ROWS - 1) + TAPS, PIXELS = STRIDE * (DELTAS - 1) + TAPS };
};

/* By value to a kernel. */
struct DepthwiseGradient {
  void *gradient; /* int32_t or int64_t [channels][TAPS][TAPS] */
  int bits;
  const int8_t *dy, *x;
  int32_t h, w, oh, ow, channels, pad_y, pad_x;
  NitiDivisor strips, segments;
  uint32_t items, width, rows; /* width: words of a slice; rows: threads that share them */
};

/* x[b][k]: the inputs of channel k that tap b multiplies with four neighbouring deltas. */
template <int STRIDE>
static __device__ inline void transpose_inputs(uint32_t x[TAPS][4], const uint32_t *row) {
  enum { PIXELS = GradientPlan<STRIDE>::PIXELS };
  niti_transpose4(x[0], row[0], row[STRIDE], row[2 * STRIDE], row[3 * STRIDE]);
  if (STRIDE == 2) niti_transpose4(x[1], row[1], row[3], row[5], row[7 % PIXELS]);
#pragma unroll
  for (uint32_t k = 0; k < 4; ++k) {
    if (STRIDE == 1) x[1][k] = __byte_perm(x[0][k], row[4], 0x321 + ((4 + k) << 12));
    x[2][k] = __byte_perm(x[STRIDE == 1 ? 1 : 0][k], row[PIXELS - 1], 0x321 + ((4 + k) << 12));
  }
}

/* Adds a strip's share. */
template <int STRIDE>
static __device__ inline void add_strip(int acc[TAPS * TAPS][4], const DepthwiseGradient &g, uint32_t item, int32_t channel) {
  enum { ROWS = GradientPlan<STRIDE>::ROWS, IN_ROWS = GradientPlan<STRIDE>::IN_ROWS, PIXELS = GradientPlan<STRIDE>::PIXELS };
  const uint32_t segment = niti_divide(g.strips, item), n = niti_divide(g.segments, segment);
  const int oy = (int)(segment - n * g.segments.divisor) * ROWS, ox = (int)(item - segment * g.strips.divisor) * DELTAS;
  const int y = oy * STRIDE - g.pad_y, x = ox * STRIDE - g.pad_x;
  const int8_t *deltas = g.dy + ((((int64_t)n * g.oh + oy) * g.ow + ox) * g.channels + channel);
  const int8_t *inputs = g.x + ((((int64_t)n * g.h + y) * g.w + x) * g.channels + channel);
  const int64_t delta_pitch = (int64_t)g.ow * g.channels, pitch = (int64_t)g.w * g.channels;
  bool delta_inside[DELTAS], inside[PIXELS];
  uint32_t d[TAPS][4], rows[2][PIXELS], delta_rows[2][DELTAS];
#pragma unroll
  for (int p = 0; p < DELTAS; ++p) delta_inside[p] = ox + p < g.ow;
#pragma unroll
  for (int p = 0; p < PIXELS; ++p) inside[p] = (uint32_t)(x + p) < (uint32_t)g.w;
#pragma unroll
  for (int i = -1; i < IN_ROWS; ++i) {
    const int next = i + 1, r = i / STRIDE, next_r = next / STRIDE;
    if (next < IN_ROWS)
      load_row<PIXELS>(rows[next & 1], inputs + next * pitch, (uint32_t)(y + next) < (uint32_t)g.h, inside, g.channels);
    if (next % STRIDE == 0 && next_r < ROWS)
      load_row<DELTAS>(delta_rows[next_r & 1], deltas + next_r * delta_pitch, oy + next_r < g.oh, delta_inside, g.channels);
    if (i < 0) continue;
    const uint32_t *delta = delta_rows[r & 1];
    if (i % STRIDE == 0 && r < ROWS) niti_transpose4(d[r % TAPS], delta[0], delta[1], delta[2], delta[3]);
    uint32_t taps[TAPS][4];
    transpose_inputs<STRIDE>(taps, rows[i & 1]);
#pragma unroll
    for (int a = 0; a < TAPS; ++a) {
      if (i < a || (i - a) % STRIDE != 0 || (i - a) / STRIDE >= ROWS) continue;
#pragma unroll
      for (int k = 0; k < 4 * TAPS; ++k) {
        int *sum = &acc[TAPS * a + k / 4][k % 4];
        *sum = __dp4a((int)taps[k / 4][k % 4], (int)d[(i - a) / STRIDE % TAPS][k % 4], *sum);
      }
    }
  }
}

static __device__ inline void add_sum(const DepthwiseGradient &g, uint32_t at, int sum) {
  if (at >= (uint32_t)g.channels * (TAPS * TAPS) || sum == 0) return;
  if (g.bits == 32)
    atomicAdd((int *)g.gradient + at, sum);
  else
    atomicAdd((unsigned long long *)g.gradient + at, (unsigned long long)(long long)sum);
}

template <int STRIDE>
static __global__ void __launch_bounds__(THREADS, BLOCKS) depthwise_gradient_kernel(const __grid_constant__ DepthwiseGradient g) {
  niti_kernel_begin();
  __shared__ int sums[SLICE * VALUES];
  const uint32_t row = threadIdx.x / g.width, word = threadIdx.x - row * g.width, first = blockIdx.y * g.width;
  int acc[TAPS * TAPS][4] = {};
  for (uint32_t i = threadIdx.x; i < g.width * VALUES; i += THREADS) sums[i] = 0;
  if (row < g.rows && (first + word) * 4 < (uint32_t)g.channels) {
    for (uint32_t item = blockIdx.x * g.rows + row; item < g.items; item += gridDim.x * g.rows)
      add_strip<STRIDE>(acc, g, item, (int32_t)(first + word) * 4);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < VALUES && row < g.rows; ++i) atomicAdd(&sums[word * VALUES + i], acc[i % (TAPS * TAPS)][i / (TAPS * TAPS)]);
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < g.width * VALUES; i += THREADS) add_sum(g, first * VALUES + i, sums[i]);
}

template <int STRIDE>
static bool run_gradient(NitiCuda *cuda, DepthwiseGradient g, int32_t n) {
  const uint32_t words = (uint32_t)g.channels / 4, slices = (words + SLICE - 1) / SLICE;
  const uint32_t all = (uint32_t)cuda->multiprocessors * BLOCKS, most = all > slices ? all / slices : 1;
  const int64_t strips = (g.ow + DELTAS - 1) / DELTAS, rows = GradientPlan<STRIDE>::ROWS;
  const int64_t segments = (g.oh + rows - 1) / rows, items = n * segments * strips;
  if (items >= INT32_MAX) return false;
  g.width = (words + slices - 1) / slices;
  g.rows = THREADS / g.width;
  g.strips = niti_divisor((uint32_t)strips);
  g.segments = niti_divisor((uint32_t)segments);
  g.items = (uint32_t)items;
  /* A block's sums are of so many items each that int32 holds them. */
  const uint32_t bound = (uint32_t)(NITI_ACCUMULATION_MAX / (g.rows * DELTAS * rows)),
                 even = (g.items + most * g.rows - 1) / (most * g.rows);
  const uint32_t turns = even < bound ? even : bound;
  const dim3 grid((g.items + turns * g.rows - 1) / (turns * g.rows), slices);
  NITI_LAUNCH(cuda, depthwise_gradient_kernel<STRIDE>, grid, THREADS, 0, g);
  return true;
}

bool niti_depthwise_gradient(NitiCuda *cuda, NitiGradient *out, const NitiTensor *dy, const NitiTensor *x, const NitiConv *c) {
  if (!serves(c, dy->data, x->data, NULL, NULL)) return false;
  const DepthwiseGradient g = {out->data, out->bits, dy->data, x->data, c->h, c->w, c->oh, c->ow,
                               c->c,      c->pad_h,  c->pad_w, {},      {},   0,    0,     0};
  return c->stride_h == 1 ? run_gradient<1>(cuda, g, c->n) : run_gradient<2>(cuda, g, c->n);
}
