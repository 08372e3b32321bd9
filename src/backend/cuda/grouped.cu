/* Convolutions in groups, depthwise ones above all, in all three directions: sums over terms, elementwise over lanes. Forward the
 * lanes are the output channels, and a term is a tap and one of the input channels of a group; backward the lanes are the input
 * channels, and a term is a tap and one of a group's output channels.
 *
 * A thread has V neighbouring lanes, four where they are a word that it loads at once; where lanes share their operands, the four
 * are of one group. Neighbouring threads have neighbouring lanes, so that loads and stores cover whole lines. */
#include "backend/cuda/depthwise.h"
#include "backend/cuda/tile.cuh"
#include "base/window.h"

enum {
  IMAGES = NITI_BLOCK_IMAGES,
  GROUP = 4, /* images whose sums are under way together */
  TERMS = 9, /* of a thread's gradients */
  ROWS = 8,  /* threads of a block that share lanes and terms */
  THREADS = 32 * ROWS,
  SHARE = 256, /* positions of a block at least: fewer do not pay for its atomics */
};

/* What a kernel knows of a convolution. */
struct Shape {
  int32_t n, h, w, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w;
  int32_t channels, lanes; /* of the operand that is read, of the one that is written */
  int32_t depth, each;     /* operands of a lane at each tap; lanes that share them */
};

static Shape shape_of(const NitiConv *c, bool backward) {
  const int32_t inputs = niti_conv_group_inputs(c), outputs = niti_conv_group_outputs(c);
  return Shape{c->n,
               c->h,
               c->w,
               c->oh,
               c->ow,
               c->kh,
               c->kw,
               c->stride_h,
               c->stride_w,
               c->pad_h,
               c->pad_w,
               backward ? c->k : c->c,
               backward ? c->c : c->k,
               backward ? outputs : inputs,
               backward ? inputs : outputs};
}

static bool is_plain(const Shape &s) { return s.depth == 1 && s.each == 1; }
static bool is_wide(const Shape &s) { return s.lanes % 4 == 0 && (is_plain(s) || s.each % 4 == 0); }

/* ---- weights: [tap][operand][lane] ---- */

static __global__ void __launch_bounds__(THREADS)
    pack_kernel(int8_t *packed, const int8_t *w, Shape s, bool backward, size_t count) {
  niti_kernel_begin();
  const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x, taps = (size_t)s.kh * (size_t)s.kw;
  if (i >= count) return;
  const size_t term = i / (size_t)s.lanes, lane = i - term * (size_t)s.lanes;
  const size_t tap = term / (size_t)s.depth, operand = term - tap * (size_t)s.depth;
  const size_t k = lane / (size_t)s.each * (size_t)s.depth + operand; /* backward */
  packed[i] = backward ? w[(k * taps + tap) * (size_t)s.each + lane % (size_t)s.each] : w[lane * taps * (size_t)s.depth + term];
}

/* ---- forward and backward ---- */

struct Pass {
  int8_t *out, *blocked;       /* blocked may be NULL */
  const int8_t *in, *mask, *w; /* mask may be NULL; w: packed */
  Shape s;
  NitiTiles tiles; /* of out */
};

/* acc[i] += the products of a word of V lanes. x: V operands (PLAIN), or the one operand of all lanes. */
template <int V, bool PLAIN>
static __device__ inline void multiply(int acc[V], uint32_t x, const uint32_t weights[V]) {
#pragma unroll
  for (int k = 0; k < V; ++k) acc[k] = __dp4a((int)x, (int)weights[k], acc[k]);
}

/* Each lane's weight where multiply() takes it from: at its operand's byte, or in byte 0. */
template <int V, bool PLAIN>
static __device__ inline void spread(uint32_t weights[V], uint32_t word) {
#pragma unroll
  for (int k = 0; k < V; ++k) weights[k] = PLAIN ? word & (0xffu << (8 * k)) : word >> (8 * k) & 0xffu;
}

/* Adds one tap for GROUP images, `image` elements apart. cell: the first image's pixel. */
template <int V, bool PLAIN>
static __device__ inline void add_tap(int acc[GROUP][V], const Shape &s, const int8_t *__restrict__ cell, size_t image,
                                      int images, const int8_t *__restrict__ w, uint32_t lane) {
  const int8_t *x = cell + (PLAIN ? lane : lane / (uint32_t)s.each * (uint32_t)s.depth);
  for (int d = 0; d < (PLAIN ? 1 : s.depth); ++d) {
    uint32_t weights[V], operands[GROUP];
#pragma unroll
    for (int i = 0; i < GROUP; ++i) operands[i] = i < images ? niti_word_load < PLAIN ? V : 1 > (x + (size_t)i * image + d) : 0;
    spread<V, PLAIN>(weights, niti_word_load<V>(w + (size_t)d * (size_t)s.lanes + lane));
#pragma unroll
    for (int i = 0; i < GROUP; ++i) multiply<V, PLAIN>(acc[i], operands[i], weights);
  }
}

/* The sums of GROUP images at one pixel of the output; in: the first of them. */
template <int V, bool PLAIN, bool BACKWARD>
static __device__ inline void sum_pixel(int acc[GROUP][V], const Pass &p, const int8_t *__restrict__ in, int images, int y, int x,
                                        uint32_t lane) {
  const Shape &s = p.s;
  const int width = BACKWARD ? s.ow : s.w, height = BACKWARD ? s.oh : s.h;
  const size_t C = (size_t)s.channels, image = (size_t)height * (size_t)width * C, tap = (size_t)s.depth * (size_t)s.lanes;
  if (BACKWARD) {
    const NitiWindows in_y = niti_windows(y + s.pad_h, s.kh, s.stride_h, s.oh);
    const NitiWindows in_x = niti_windows(x + s.pad_w, s.kw, s.stride_w, s.ow);
    for (int oy = in_y.first; oy <= in_y.last; ++oy) {
      for (int ox = in_x.first; ox <= in_x.last; ++ox) {
        const int at = (y + s.pad_h - oy * s.stride_h) * s.kw + x + s.pad_w - ox * s.stride_w;
        add_tap<V, PLAIN>(acc, s, in + ((size_t)oy * (size_t)width + (size_t)ox) * C, image, images, p.w + (size_t)at * tap,
                          lane);
      }
    }
  } else {
    for (int a = 0; a < s.kh; ++a) {
      const int iy = y * s.stride_h - s.pad_h + a;
      if ((uint32_t)iy >= (uint32_t)height) continue;
      for (int b = 0; b < s.kw; ++b) {
        const int ix = x * s.stride_w - s.pad_w + b;
        if ((uint32_t)ix >= (uint32_t)width) continue;
        add_tap<V, PLAIN>(acc, s, in + ((size_t)iy * (size_t)width + (size_t)ix) * C, image, images,
                          p.w + (size_t)(a * s.kw + b) * tap, lane);
      }
    }
  }
}

template <int V, bool PLAIN, bool BACKWARD>
static __global__ void __launch_bounds__(NITI_TILE_THREADS)
    pass_kernel(const __grid_constant__ Pass p, NitiRequantiseArgs a, bool second) {
  niti_kernel_begin();
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_BLOCKED_UNITS];
  const NitiTiles &t = p.tiles;
  const uint32_t lanes = (uint32_t)p.s.lanes, across = (uint32_t)(BACKWARD ? p.s.w : p.s.ow);
  const size_t image = (size_t)(BACKWARD ? p.s.oh : p.s.h) * (size_t)(BACKWARD ? p.s.ow : p.s.w) * (size_t)p.s.channels;
  const uint32_t lowered = niti_lowered(a.limit, a.e_limit);
  uint32_t max = 0;
  int shift;
  if (niti_range_begin(a, second, &shift)) {
    for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
      const NitiTile tile = niti_tile_at<V, IMAGES>(t, item);
      const uint32_t pixel = tile.p / lanes, lane = tile.p - pixel * lanes, y = pixel / across, x = pixel - y * across;
      uint32_t words[IMAGES];
#pragma unroll
      for (int g = 0; g < IMAGES; g += GROUP) {
        int acc[GROUP][V] = {};
        if (g < tile.images)
          sum_pixel<V, PLAIN, BACKWARD>(acc, p, p.in + (tile.n + (size_t)g) * image, tile.images - g, (int)y, (int)x, lane);
#pragma unroll
        for (int i = 0; i < GROUP; ++i) {
          const size_t at = tile.at + (size_t)(g + i) * t.image;
          words[g + i] = 0;
          if (g + i >= tile.images) continue;
#pragma unroll
          for (int k = 0; k < V; ++k) acc[i][k] += a.bias ? a.bias[lane + (uint32_t)k] : 0;
#pragma unroll
          for (int k = 0; k < V; ++k) max = niti_magnitude(acc[i][k]) > max ? niti_magnitude(acc[i][k]) : max;
          words[g + i] = niti_word_requantise<V>(a, acc[i], shift, at);
          if (a.relu) words[g + i] &= niti_word_positive(words[g + i]);
          if (p.mask) words[g + i] &= niti_passing_bytes(niti_word_load<V>(p.mask + at), lowered);
          niti_word_store<V>(p.out + at, words[g + i]);
        }
      }
      if (V == 4 && p.blocked) {
        niti_tile_blocked(niti_blocked_block(p.blocked, tile.block, t.image), scratch[threadIdx.x / 32], words, tile.p, t.image);
      }
    }
  }
  niti_pass_end(a, second, max);
}

typedef void (*PassKernel)(Pass, NitiRequantiseArgs, bool);

template <bool BACKWARD>
static PassKernel choose_pass(const Shape &s, int V) {
  if (is_plain(s)) return V == 4 ? pass_kernel<4, true, BACKWARD> : pass_kernel<1, true, BACKWARD>;
  return V == 4 ? pass_kernel<4, false, BACKWARD> : pass_kernel<1, false, BACKWARD>;
}

static void run(NitiCuda *cuda, NitiTensor *out, const NitiTensor *in, const NitiTensor *w, const NitiTensor *mask,
                const int32_t *bias, const NitiConv *c, bool backward, bool relu, const NitiRequantise *rq) {
  if (niti_depthwise_pass(cuda, out, in, w, mask, bias, c, backward, relu, rq)) return;
  const Shape s = shape_of(c, backward);
  const size_t weights = (size_t)s.kh * (size_t)s.kw * (size_t)s.depth * (size_t)s.lanes;
  int8_t *packed = (int8_t *)cuda->scratch;
  const bool words = niti_words_fit((size_t)s.channels * (is_plain(s) ? 1 : 4), out->data, in->data, mask ? mask->data : NULL);
  const int V = is_wide(s) && words ? 4 : 1;
  const NitiShape shape = {c->n, backward ? c->h : c->oh, backward ? c->w : c->ow, s.lanes};
  const Pass args = {out->data, niti_blocked_of(out, V),        in->data, mask ? mask->data : NULL, packed,
                     s,         niti_tiles_of(shape, V, IMAGES)};
  NitiRequantiseArgs requantise = niti_requantise_args(cuda, rq, out->exponent, in->exponent, w->exponent, 0, relu);
  requantise.bias = bias;
  niti_requantise_limit(&requantise, mask);
  const PassKernel grouped_pass = backward ? choose_pass<true>(s, V) : choose_pass<false>(s, V);
  const unsigned grid = niti_tiles_grid_requantise(cuda, args.tiles);
  NITI_LAUNCH(cuda, pack_kernel, (unsigned)((weights + THREADS - 1) / THREADS), THREADS, 0, packed, w->data, s, backward,
              weights);
  NITI_LAUNCH(cuda, grouped_pass, grid, NITI_TILE_THREADS, 0, args, requantise, false);
  niti_cuda_share_range(cuda);
  NITI_LAUNCH(cuda, grouped_pass, grid, NITI_TILE_THREADS, 0, args, requantise, true);
  niti_cuda_blocked_set(cuda, out, args.blocked != NULL);
}

static void forward(NitiCuda *cuda, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiCudaBias *bias,
                    const int8_t *packed, const NitiConv *c, bool relu, const NitiRequantise *rq, int way) {
  (void)packed, (void)way;
  run(cuda, y, x, w, NULL, niti_cuda_bias_prepare(cuda, bias, x, w), c, false, relu, rq);
}

static void backward(NitiCuda *cuda, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w, const NitiTensor *mask,
                     const int8_t *packed, const NitiConv *c, const NitiRequantise *rq, int way) {
  (void)packed, (void)way;
  run(cuda, dx, dy, w, mask, NULL, c, true, false, rq);
}

static size_t workspace(const NitiCuda *cuda, const NitiConv *c, NitiDirection direction) {
  (void)direction;
  (void)cuda;
  return (size_t)c->k * (size_t)c->kh * (size_t)c->kw * (size_t)niti_conv_group_inputs(c);
}

/* ---- weight gradient: a block has 32 * V lanes, TERMS terms and a share of the positions (image, output pixel) ---- */

struct Gradient {
  void *gradient; /* int32_t or int64_t [lanes][terms] */
  int bits;
  const int8_t *dy, *x;
  Shape s;
  int32_t terms, term_blocks, lane_blocks;
  int64_t positions;
  int32_t share; /* at most NITI_ACCUMULATION_MAX */
};

/* A term of a thread's lanes: where its operand is, from the window's first cell on, and its tap. */
struct Term {
  int32_t offset, a, b;
};

/* A position and how to go on from it. */
struct Walk {
  int64_t n;
  int32_t y, x;
};

static __device__ inline void step(Walk *w, const Shape &s) {
  w->x += ROWS;
  while (w->x >= s.ow) {
    w->x -= s.ow;
    if (++w->y < s.oh) continue;
    w->y = 0;
    ++w->n;
  }
}

static __device__ inline Term term_of(const Gradient &g, int term, uint32_t lane) {
  const Shape &s = g.s;
  if (term >= g.terms) return Term{0, -(1 << 30), 0};
  const int tap = term / s.depth, a = tap / s.kw, b = tap - a * s.kw;
  const int channel = (int)lane / s.each * s.depth + (term - tap * s.depth);
  return Term{(a * s.w + b) * s.channels + channel, a - s.pad_h, b - s.pad_w};
}

template <int V, bool PLAIN>
static __device__ inline void add_position(int acc[TERMS][V], const Gradient &g, const Walk &at, const int8_t *__restrict__ dy,
                                           const Term term[TERMS]) {
  const Shape &s = g.s;
  const int y = at.y * s.stride_h, x = at.x * s.stride_w;
  const int8_t *window = g.x + ((at.n * s.h + y - s.pad_h) * s.w + x - s.pad_w) * s.channels;
  uint32_t deltas[V], operands[TERMS];
#pragma unroll
  for (int t = 0; t < TERMS; ++t) {
    const bool there = (uint32_t)(y + term[t].a) < (uint32_t)s.h && (uint32_t)(x + term[t].b) < (uint32_t)s.w;
    operands[t] = there ? niti_word_load < PLAIN ? V : 1 > (window + term[t].offset) : 0;
  }
  spread<V, PLAIN>(deltas, niti_word_load<V>(dy));
#pragma unroll
  for (int t = 0; t < TERMS; ++t) multiply<V, PLAIN>(acc[t], operands[t], deltas);
}

/* The block's sum of one lane and term. */
static __device__ inline void add_sum(const Gradient &g, uint32_t lane, int term, int sum) {
  const size_t at = (size_t)lane * (size_t)g.terms + (size_t)term;
  if (lane >= (uint32_t)g.s.lanes || term >= g.terms || sum == 0) return;
  if (g.bits == 32)
    atomicAdd((int *)g.gradient + at, sum);
  else
    atomicAdd((unsigned long long *)g.gradient + at, (unsigned long long)(long long)sum);
}

template <int V, bool PLAIN>
static __global__ void __launch_bounds__(THREADS) gradient_kernel(const __grid_constant__ Gradient g) {
  niti_kernel_begin();
  __shared__ int sums[ROWS][32 * V];
  const Shape &s = g.s;
  const uint32_t block = blockIdx.x / (uint32_t)g.lane_blocks, lane_block = blockIdx.x - block * (uint32_t)g.lane_blocks;
  const uint32_t split = block / (uint32_t)g.term_blocks, first_term = (block - split * (uint32_t)g.term_blocks) * TERMS;
  const int row = threadIdx.x / 32, column = threadIdx.x % 32;
  const uint32_t lane = (lane_block * 32 + (uint32_t)column) * V;
  const int64_t begin = (int64_t)split * g.share, end = begin + g.share < g.positions ? begin + g.share : g.positions;
  const int64_t image = (int64_t)s.oh * s.ow;
  int acc[TERMS][V] = {};
  if (lane < (uint32_t)s.lanes) {
    Term term[TERMS];
#pragma unroll
    for (int t = 0; t < TERMS; ++t) term[t] = term_of(g, (int)first_term + t, lane);
    const int64_t first = begin + row;
    Walk at = {first / image, (int32_t)(first % image / s.ow), (int32_t)(first % image % s.ow)};
    for (int64_t position = first; position < end; position += ROWS, step(&at, s))
      add_position<V, PLAIN>(acc, g, at, g.dy + position * s.lanes + lane, term);
  }
#pragma unroll
  for (int t = 0; t < TERMS; ++t) {
    __syncthreads(); /* the term before has been added */
#pragma unroll
    for (int k = 0; k < V; ++k) sums[row][column * V + k] = acc[t][k];
    __syncthreads();
    if (threadIdx.x >= 32 * V) continue;
    int sum = 0;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) sum += sums[r][threadIdx.x];
    add_sum(g, lane_block * 32 * V + threadIdx.x, (int)first_term + t, sum);
  }
}

/* Ways of the gradient. */
enum { MORE = 1, FEWER };

static int ways(NitiWay *ways, int count, const NitiConv *, NitiDirection direction) {
  if (direction != NITI_GRADIENT) return count;
  count = niti_cuda_add_way(ways, count, MORE, "grouped, more splits");
  return niti_cuda_add_way(ways, count, FEWER, "grouped, fewer splits");
}

/* No other family takes groups. */
static int choose(const NitiCuda *, const NitiConv *, NitiDirection, int64_t *picoseconds) {
  *picoseconds = INT64_MAX;
  return 0;
}

/* So many positions that there is work for every multiprocessor, but not too few for a block. */
static int32_t share_of(const NitiCuda *cuda, int64_t positions, int64_t blocks, int way) {
  const int64_t each = way == MORE ? 32 : way == FEWER ? 2 : 8;
  const int64_t wanted = (each * cuda->multiprocessors + blocks - 1) / blocks;
  const int64_t share = (positions + wanted - 1) / wanted;
  if (share < SHARE) return SHARE;
  return share > NITI_ACCUMULATION_MAX ? (int32_t)NITI_ACCUMULATION_MAX : (int32_t)share;
}

static void gradient(NitiCuda *cuda, NitiGradient *out, const NitiTensor *dy, const NitiTensor *x, const NitiConv *c, int way) {
  niti_cuda_note(cuda, niti_cuda_runtime.cudaMemsetAsync(out->data, 0, out->count * (size_t)(out->bits / 8), cuda->stream),
                 "cudaMemsetAsync");
  if (niti_depthwise_gradient(cuda, out, dy, x, c)) return;
  const Shape s = shape_of(c, false);
  const bool plain = is_plain(s),
             wide = is_wide(s) && niti_words_fit((size_t)s.channels * (plain ? 1 : 4), dy->data, x->data, NULL);
  const int V = wide ? 4 : 1;
  Gradient g = {out->data, out->bits, dy->data, x->data, s, s.kh * s.kw * s.depth, 0, 0, (int64_t)s.n * s.oh * s.ow, 0};
  g.term_blocks = (g.terms + TERMS - 1) / TERMS;
  g.lane_blocks = (s.lanes + 32 * V - 1) / (32 * V);
  g.share = share_of(cuda, g.positions, (int64_t)g.term_blocks * g.lane_blocks, way);
  const int64_t splits = (g.positions + g.share - 1) / g.share;
  void (*grouped_gradient)(Gradient) = plain ? (wide ? gradient_kernel<4, true> : gradient_kernel<1, true>)
                                             : (wide ? gradient_kernel<4, false> : gradient_kernel<1, false>);
  NITI_LAUNCH(cuda, grouped_gradient, (unsigned)(splits * g.term_blocks * g.lane_blocks), THREADS, 0, g);
}

static bool serves(const NitiConv *c) { return niti_conv_grouped(c); }

extern "C" const NitiCudaConv niti_cuda_conv_grouped = {"grouped", serves, serves,  serves,   workspace, NULL,
                                                        ways,      choose, forward, backward, gradient};
