/* Pixels as mantissas: the window of every sample, scaled, coloured, cut out and mixed as it says, through the input table. */
#include "backend/cuda/tile.cuh"
#include "base/scale.h"

enum { IMAGES = NITI_BLOCK_IMAGES, THREADS = 32 * IMAGES, TABLE = 256 };

typedef struct Input {
  int8_t *out, *blocked; /* blocked may be NULL */
  int32_t *exponent;
  const int32_t *e; /* of the table */
  NitiShape shape, source;
  const uint8_t *images;
  const NitiSample *samples;
  const int8_t *table;
  NitiTiles tiles;
  size_t after; /* the number of the sample that is mixed into the last one */
} Input;

/* Where an image lies, and what becomes of it. */
typedef struct Source {
  const uint8_t *pixels; /* [h][w][c] */
  int32_t h, w, c, out_h, out_w;
} Source;

/* Channel c of row h and column w of the window; pixels outside the source are raw 0. */
static __device__ inline int32_t window_pixel(const Source &s, const NitiSample &sample, int32_t h, int32_t w, int32_t c) {
  const int32_t y = h + sample.dy, x = w + sample.dx;
  return y >= 0 && y < s.h && x >= 0 && x < s.w ? s.pixels[((size_t)y * (size_t)s.w + (size_t)x) * (size_t)s.c + (size_t)c] : 0;
}

/* The same of a rectangle that is scaled to the window. */
static __device__ int32_t scaled_pixel(const Source &s, const NitiSample &sample, const NitiTaps &rows, const NitiTaps &columns,
                                       int32_t c) {
  const uint64_t total = niti_taps_total(sample.h, s.out_h) * niti_taps_total(sample.w, s.out_w);
  uint64_t sum = 0;
  for (int32_t j = rows.first; j <= rows.last; ++j) {
    const size_t first = (size_t)(sample.dy + j) * (size_t)s.w + (size_t)sample.dx;
    sum += (uint64_t)niti_taps_weight(&rows, j) * niti_taps_sum(&columns, s.pixels + first * (size_t)s.c + c, s.c);
  }
  return (int32_t)((2 * sum + total) / (2 * total));
}

/* The same of any sample. */
static __device__ int32_t changed_pixel(const Source &s, const NitiSample &sample, int32_t h, int32_t w, int32_t c) {
  const bool scaled = sample.h > 0, mixes = sample.coloured && s.c == 3;
  const NitiTaps rows = niti_taps(h, scaled ? sample.h : 1, s.out_h), columns = niti_taps(w, scaled ? sample.w : 1, s.out_w);
  int32_t v = 0, rgb[3] = {0, 0, 0};
  for (int32_t k = mixes ? 0 : c; k < (mixes ? 3 : c + 1); ++k) {
    const int32_t pixel = scaled ? scaled_pixel(s, sample, rows, columns, k) : window_pixel(s, sample, h, w, k);
    if (k == c) v = pixel;
    rgb[0] = k == 0 ? pixel : rgb[0];
    rgb[1] = k == 1 ? pixel : rgb[1];
    rgb[2] = k == 2 ? pixel : rgb[2];
  }
  return sample.coloured ? niti_coloured(sample.colours, v, mixes ? niti_grey(rgb[0], rgb[1], rgb[2]) : v) : v;
}

/* A row, column and channel of the output. */
typedef struct Place {
  uint32_t h, w, c;
} Place;

static __device__ inline Place place_of(const NitiShape &s, uint32_t p) {
  const uint32_t pixel = p / (uint32_t)s.c, h = pixel / (uint32_t)s.w;
  return Place{h, pixel - h * (uint32_t)s.w, p - pixel * (uint32_t)s.c};
}

/* Goes on to the next position; without a division, as most of what an unchanged pixel costs would be those. */
static __device__ inline void step(Place *at, const NitiShape &s) {
  if (++at->c < (uint32_t)s.c) return;
  at->c = 0;
  if (++at->w < (uint32_t)s.w) return;
  at->w = 0;
  ++at->h;
}

/* The mantissa of a sample there. */
template <bool CHANGES>
static __device__ inline uint32_t look_up(const Input &in, const NitiSample &sample, const Place &at) {
  const int32_t h = (int32_t)at.h, w = (int32_t)at.w, c = (int32_t)at.c, column = sample.flip ? in.shape.w - 1 - w : w;
  if ((uint32_t)(h - sample.cut_y) < sample.cut && (uint32_t)(w - sample.cut_x) < sample.cut) return 0;
  const size_t image = (size_t)in.source.h * (size_t)in.source.w * (size_t)in.shape.c;
  const Source s = {in.images + sample.image * image, in.source.h, in.source.w, in.source.c, in.shape.h, in.shape.w};
  const int32_t v = CHANGES ? changed_pixel(s, sample, h, column, c) : window_pixel(s, sample, h, column, c);
  return (uint8_t)in.table[c * TABLE + v];
}

/* The mantissas of `count` positions from there on, a byte each. */
template <bool CHANGES>
static __device__ inline uint32_t look_up_all(const Input &in, const NitiSample &sample, Place at, uint32_t count) {
  uint32_t word = 0;
#pragma unroll(CHANGES ? 1 : 4)
  for (uint32_t k = 0; k < 4; ++k, step(&at, in.shape)) {
    if (k < count) word |= look_up<CHANGES>(in, sample, at) << (8 * k);
  }
  return word;
}

/* One block per tile, one warp per image of it. Recipes that change no image have a kernel with a third of the registers. */
template <bool CHANGES>
static __global__ void __launch_bounds__(THREADS, CHANGES ? 2 : 4) input_kernel(Input in) {
  niti_kernel_begin();
  __shared__ uint32_t words[IMAGES][32];
  __shared__ uint4 scratch[NITI_BLOCKED_UNITS];
  const NitiTiles &t = in.tiles;
  const uint32_t block = blockIdx.x / t.tiles, tile = blockIdx.x - block * t.tiles;
  const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x / 32, p = (tile * 32 + lane) * 4;
  const size_t n = (size_t)block * IMAGES + warp;
  uint32_t word = 0;
  if (n < (size_t)t.n && p < t.image) {
    const NitiSample sample = in.samples[n];
    int8_t *out = in.out + n * t.image + p;
    const uint32_t count = t.image - p < 4 ? t.image - p : 4;
    const Place at = place_of(in.shape, p);
    word = look_up_all<CHANGES>(in, sample, at, count);
    if (CHANGES && sample.share > 0) {
      const NitiSample next = in.samples[n + 1 < (size_t)t.n ? n + 1 : in.after];
      const uint32_t others = look_up_all<CHANGES>(in, next, at, count);
      uint32_t mixed = 0;
      for (uint32_t k = 0; k < count; ++k) {
        const int8_t own = (int8_t)(word >> (8 * k)), other = (int8_t)(others >> (8 * k));
        mixed |= (uint32_t)(uint8_t)niti_mixed(own, other, sample.share) << (8 * k);
      }
      word = mixed;
    }
    if (t.image % 4 == 0) {
      *(uint32_t *)out = word;
    } else {
      for (uint32_t k = 0; k < count; ++k) out[k] = (int8_t)(word >> (8 * k));
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *in.exponent = *in.e;
  if (!in.blocked) return;
  words[warp][lane] = word;
  __syncthreads();
  if (warp > 0) return;
  uint32_t mine[IMAGES];
#pragma unroll
  for (int i = 0; i < IMAGES; ++i) mine[i] = words[i][lane];
  niti_tile_blocked(niti_blocked_block(in.blocked, block, t.image), scratch, mine, p, t.image);
}

extern "C" void niti_cuda_input(NitiBackend *backend, NitiTensor *out, const uint8_t *images, NitiShape source,
                                const NitiSample *samples, const NitiTensor *table, bool changes) {
  NitiCuda *cuda = niti_cuda(backend);
  const Input in = {out->data,
                    niti_blocked_of(out, 4),
                    out->exponent,
                    table->exponent,
                    out->shape,
                    source,
                    images,
                    samples,
                    table->data,
                    niti_tiles_of(out->shape, 4, IMAGES),
                    niti_mixed_in(backend, (size_t)out->shape.n - 1, (size_t)out->shape.n)};
  if (changes)
    NITI_LAUNCH(cuda, input_kernel<true>, in.tiles.items, THREADS, 0, in);
  else
    NITI_LAUNCH(cuda, input_kernel<false>, in.tiles.items, THREADS, 0, in);
  niti_cuda_blocked_set(cuda, out, in.blocked != NULL);
}
