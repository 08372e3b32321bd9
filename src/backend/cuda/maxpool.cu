/* Max-pool: the first maximum of a window wins and receives the window's delta. */
#include <assert.h>

#include "backend/cuda/maxpool.cuh"
#include "base/window.h"

enum { IMAGES = NITI_BLOCK_IMAGES, GROUP = 4 }; /* images of a tile, and those whose loads are under way together */

static bool is_2x2(const NitiPool *p) {
  return p->kh == 2 && p->kw == 2 && p->stride_h == 2 && p->stride_w == 2 && p->pad_h == 0 && p->pad_w == 0;
}

/* Whether maxpool_wide.cu serves. */
static bool is_wide(const NitiPool *p, const void *a, const void *b, const void *c) {
  return ((uintptr_t)p->c | (uintptr_t)a | (uintptr_t)b | (uintptr_t)c) % 16 == 0;
}

/* ---- forward ---- */

/* Bytes of `yes` where mask is 0xff, of `no` where it is 0. */
static __device__ inline uint32_t choose(uint32_t mask, uint32_t yes, uint32_t no) { return (yes & mask) | (no & ~mask); }

/* Every window of a 2x2 pool for GROUP images; x: the first image's first cell. */
template <int V>
static __device__ inline void windows_2x2(uint32_t best[GROUP], uint32_t won[GROUP], const int8_t *__restrict__ x,
                                          const NitiPool &p, int images) {
  const size_t row = (size_t)p.w * (size_t)p.c, image = (size_t)p.h * row;
  uint32_t cells[GROUP][4];
#pragma unroll
  for (int i = 0; i < GROUP; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const size_t at = (size_t)i * image + (k >= 2 ? row : 0) + ((k & 1) ? (size_t)p.c : 0);
      cells[i][k] = i < images ? niti_word_load<V>(x + at) : 0;
    }
  }
#pragma unroll
  for (int i = 0; i < GROUP; ++i) {
    const uint32_t right = __vcmpgts4(cells[i][1], cells[i][0]), right_below = __vcmpgts4(cells[i][3], cells[i][2]);
    const uint32_t upper = choose(right, cells[i][1], cells[i][0]), lower = choose(right_below, cells[i][3], cells[i][2]);
    const uint32_t below = __vcmpgts4(lower, upper);
    best[i] = choose(below, lower, upper);
    won[i] = choose(below, 0x02020202u | (right_below & 0x01010101u), right & 0x01010101u);
  }
}

/* Windows of any pool; x: the first image. A later cell wins only where it is larger; cells of the padding never do. */
template <int V>
static __device__ inline void windows_any(uint32_t best[GROUP], uint32_t won[GROUP], const int8_t *__restrict__ x,
                                          const NitiPool &p, int images, int oh, int ow, int c) {
  const size_t C = (size_t)p.c, image = (size_t)p.h * (size_t)p.w * C;
  const int h0 = oh * p.stride_h - p.pad_h, w0 = ow * p.stride_w - p.pad_w;
  bool any = false;
#pragma unroll
  for (int i = 0; i < GROUP; ++i) best[i] = won[i] = 0;
  for (int kh = 0; kh < p.kh; ++kh) {
    for (int kw = 0; kw < p.kw; ++kw) {
      const int h = h0 + kh, w = w0 + kw;
      if (h < 0 || h >= p.h || w < 0 || w >= p.w) continue;
      const int8_t *cell = x + ((size_t)h * (size_t)p.w + (size_t)w) * C + (size_t)c;
      const uint32_t position = (uint32_t)(kh * p.kw + kw) * 0x01010101u;
      uint32_t cells[GROUP];
#pragma unroll
      for (int i = 0; i < GROUP; ++i) cells[i] = i < images ? niti_word_load<V>(cell + (size_t)i * image) : 0;
#pragma unroll
      for (int i = 0; i < GROUP; ++i) {
        const uint32_t larger = any ? __vcmpgts4(cells[i], best[i]) : 0xffffffffu;
        best[i] = choose(larger, cells[i], best[i]);
        won[i] = choose(larger, position, won[i]);
      }
      any = true;
    }
  }
}

template <int V, bool IS_2X2>
static __global__ void __launch_bounds__(NITI_TILE_THREADS) forward_kernel(NitiMaxpoolForward f) {
  niti_kernel_begin();
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_BLOCKED_UNITS];
  const NitiTiles &t = f.tiles;
  const NitiPool &p = f.p;
  const size_t image = (size_t)p.h * (size_t)p.w * (size_t)p.c;
  for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
    const NitiTile tile = niti_tile_at<V, IMAGES>(t, item);
    const uint32_t pixel = tile.p / (uint32_t)p.c, c = tile.p - pixel * (uint32_t)p.c;
    const uint32_t oh = pixel / (uint32_t)p.ow, ow = pixel - oh * (uint32_t)p.ow;
    const int8_t *x = f.x + tile.n * image;
    if (IS_2X2) x += ((size_t)oh * 2 * (size_t)p.w + (size_t)ow * 2) * (size_t)p.c + c;
    uint32_t words[IMAGES];
#pragma unroll
    for (int g = 0; g < IMAGES; g += GROUP) {
      uint32_t won[GROUP];
      if (IS_2X2) {
        windows_2x2<V>(words + g, won, x + (size_t)g * image, p, tile.images - g);
      } else {
        windows_any<V>(words + g, won, x + (size_t)g * image, p, tile.images - g, (int)oh, (int)ow, (int)c);
      }
#pragma unroll
      for (int i = 0; i < GROUP; ++i) {
        const size_t at = tile.at + (size_t)(g + i) * t.image;
        if (g + i >= tile.images) continue;
        niti_word_store<V>(f.y + at, words[g + i]);
        niti_word_store<V>(f.winner + at, won[i]);
      }
    }
    if (V == 4 && f.blocked) {
      niti_tile_blocked(niti_blocked_block(f.blocked, tile.block, t.image), scratch[threadIdx.x / 32], words, tile.p, t.image);
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *f.e_y = *f.e_x;
}

extern "C" void niti_cuda_maxpool_forward(NitiBackend *backend, NitiTensor *y, uint8_t *winner, const NitiTensor *x,
                                          const NitiPool *p) {
  NitiCuda *cuda = niti_cuda(backend);
  const int V = niti_words_fit((size_t)p->c, y->data, x->data, winner) ? 4 : 1;
  const NitiShape shape = {p->n, p->oh, p->ow, p->c};
  const NitiMaxpoolForward args = {y->data,     niti_blocked_of(y, V), winner, x->data,
                                   y->exponent, x->exponent,           *p,     niti_tiles_of(shape, V, IMAGES)};
  if (is_wide(p, y->data, x->data, winner)) {
    niti_maxpool_wide(cuda, args);
    niti_cuda_blocked_set(cuda, y, args.blocked != NULL);
    return;
  }
  void (*maxpool_forward)(NitiMaxpoolForward) = is_2x2(p) ? (V == 4 ? forward_kernel<4, true> : forward_kernel<1, true>)
                                                          : (V == 4 ? forward_kernel<4, false> : forward_kernel<1, false>);
  NITI_LAUNCH(cuda, maxpool_forward, niti_tiles_grid(args.tiles), NITI_TILE_THREADS, 0, args);
  niti_cuda_blocked_set(cuda, y, args.blocked != NULL);
}

/* ---- backward, windows apart: every cell has at most one delta, so nothing is summed and no shift is needed ---- */

/* 2x2 windows that cover the whole image: a lane has V channels of a window and writes its four cells. */
template <int V>
static __global__ void __launch_bounds__(NITI_TILE_THREADS) backward_2x2_kernel(NitiMaxpoolBackward b) {
  niti_kernel_begin();
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_BLOCKED_UNITS];
  const NitiTiles &t = b.tiles;
  const NitiPool &p = b.p;
  const uint32_t C = (uint32_t)p.c, row = (uint32_t)p.w * C, image = (uint32_t)p.h * row;
  for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
    const NitiTile tile = niti_tile_at<V, IMAGES>(t, item);
    const uint32_t pixel = tile.p / C, c = tile.p - pixel * C, oh = pixel / (uint32_t)p.ow, ow = pixel - oh * (uint32_t)p.ow;
    const uint32_t first = 2 * oh * row + 2 * ow * C + c; /* position of the first cell */
    uint32_t deltas[IMAGES], won[IMAGES];
    size_t at = tile.at;
#pragma unroll
    for (int i = 0; i < IMAGES; ++i, at += t.image) {
      deltas[i] = i < tile.images ? niti_word_load<V>(b.dy + at) : 0;
      won[i] = i < tile.images ? niti_word_load<V>(b.winner + at) : 0;
    }
    if (b.mask) {
      at = tile.at;
#pragma unroll
      for (int i = 0; i < IMAGES; ++i, at += t.image) {
        deltas[i] &= niti_word_positive(i < tile.images ? niti_word_load<V>(b.mask + at) : 0);
      }
    }
#pragma unroll 1
    for (uint32_t k = 0; k < 4; ++k) {
      const uint32_t cell = first + (k >> 1) * row + (k & 1) * C;
      int8_t *dx = b.dx + tile.n * image + cell;
      uint32_t words[IMAGES];
#pragma unroll
      for (int i = 0; i < IMAGES; ++i) {
        words[i] = deltas[i] & __vcmpeq4(won[i], k * 0x01010101u);
        if (i < tile.images) niti_word_store<V>(dx, words[i]);
        dx += image;
      }
      if (V == 4 && b.blocked) {
        const uint32_t to = tile.p < t.image ? cell : image; /* lanes past the end have no effect */
        niti_tile_blocked(niti_blocked_block(b.blocked, tile.block, image), scratch[threadIdx.x / 32], words, to, image);
      }
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *b.e_dx = *b.e_dy;
}

/* The last window that may cover a padded position, and the row or column of it that the position is; false: in no window. */
static __device__ inline bool window_of(int at, int kernel, int stride, int windows, int *window, int *within) {
  *window = at / stride;
  *within = at - *window * stride;
  return *window < windows && *within < kernel;
}

template <int V>
static __global__ void __launch_bounds__(NITI_TILE_THREADS) backward_apart_kernel(NitiMaxpoolBackward b) {
  niti_kernel_begin();
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_BLOCKED_UNITS];
  const NitiTiles &t = b.tiles;
  const NitiPool &p = b.p;
  const size_t windows = (size_t)p.oh * (size_t)p.ow * (size_t)p.c; /* of one image */
  for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
    const NitiTile tile = niti_tile_at<V, IMAGES>(t, item);
    const uint32_t pixel = tile.p / (uint32_t)p.c, c = tile.p - pixel * (uint32_t)p.c;
    const uint32_t h = pixel / (uint32_t)p.w, w = pixel - h * (uint32_t)p.w;
    int oh, ow, kh, kw;
    const bool in_h = window_of((int)h + p.pad_h, p.kh, p.stride_h, p.oh, &oh, &kh);
    const bool in_w = window_of((int)w + p.pad_w, p.kw, p.stride_w, p.ow, &ow, &kw);
    const int readable = in_h && in_w ? tile.images : 0;
    const size_t from = tile.n * windows + ((size_t)oh * (size_t)p.ow + (size_t)ow) * (size_t)p.c + c;
    const uint32_t position = (uint32_t)(kh * p.kw + kw) * 0x01010101u;
    uint32_t words[IMAGES];
#pragma unroll
    for (int i = 0; i < IMAGES; ++i) {
      const size_t at = from + (size_t)i * windows;
      const uint32_t delta = i < readable ? niti_word_load<V>(b.dy + at) : 0;
      const uint32_t won = i < readable ? niti_word_load<V>(b.winner + at) : 0;
      words[i] = delta & __vcmpeq4(won, position);
    }
    if (b.mask) {
#pragma unroll
      for (int i = 0; i < IMAGES; ++i) {
        words[i] &= niti_word_positive(i < readable ? niti_word_load<V>(b.mask + from + (size_t)i * windows) : 0);
      }
    }
#pragma unroll
    for (int i = 0; i < IMAGES; ++i) {
      if (i < tile.images) niti_word_store<V>(b.dx + tile.at + (size_t)i * t.image, words[i]);
    }
    if (V == 4 && b.blocked) {
      niti_tile_blocked(niti_blocked_block(b.blocked, tile.block, t.image), scratch[threadIdx.x / 32], words, tile.p, t.image);
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *b.e_dx = *b.e_dy;
}

/* ---- backward, windows that overlap ---- */

template <int V>
static __global__ void __launch_bounds__(NITI_TILE_THREADS)
    backward_overlap_kernel(NitiMaxpoolBackward b, NitiRequantiseArgs a, bool second) {
  niti_kernel_begin();
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_BLOCKED_UNITS];
  const NitiTiles &t = b.tiles;
  const NitiPool &p = b.p;
  const size_t windows = (size_t)p.oh * (size_t)p.ow * (size_t)p.c; /* of one image */
  uint32_t max = 0;
  int shift;
  if (niti_range_begin(a, second, &shift)) {
    for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
      const NitiTile tile = niti_tile_at<V, IMAGES>(t, item);
      const uint32_t pixel = tile.p / (uint32_t)p.c, c = tile.p - pixel * (uint32_t)p.c;
      const uint32_t h = pixel / (uint32_t)p.w, w = pixel - h * (uint32_t)p.w;
      const int at_h = (int)h + p.pad_h, at_w = (int)w + p.pad_w;
      const NitiWindows in_h = niti_windows(at_h, p.kh, p.stride_h, p.oh), in_w = niti_windows(at_w, p.kw, p.stride_w, p.ow);
      uint32_t words[IMAGES];
#pragma unroll
      for (int g = 0; g < IMAGES; g += GROUP) {
        int acc[GROUP][V] = {};
        for (int oh = in_h.first; oh <= in_h.last; ++oh) {
          for (int ow = in_w.first; ow <= in_w.last; ++ow) {
            const size_t from = (tile.n + (size_t)g) * windows + ((size_t)oh * (size_t)p.ow + (size_t)ow) * (size_t)p.c + c;
            const uint32_t position = (uint32_t)((at_h - oh * p.stride_h) * p.kw + at_w - ow * p.stride_w) * 0x01010101u;
#pragma unroll
            for (int i = 0; i < GROUP; ++i) {
              if (g + i >= tile.images) continue;
              const uint32_t won = niti_word_load<V>(b.winner + from + (size_t)i * windows);
              niti_word_add<V>(acc[i], niti_word_load<V>(b.dy + from + (size_t)i * windows) & __vcmpeq4(won, position));
            }
          }
        }
#pragma unroll
        for (int i = 0; i < GROUP; ++i) {
          const size_t at = tile.at + (size_t)(g + i) * t.image;
          words[g + i] = 0;
          if (g + i >= tile.images) continue;
#pragma unroll
          for (int k = 0; k < V; ++k) max = niti_magnitude(acc[i][k]) > max ? niti_magnitude(acc[i][k]) : max;
          words[g + i] = niti_word_requantise<V>(a, acc[i], shift, at);
          niti_word_store<V>(b.dx + at, words[g + i]);
        }
      }
      if (V == 4 && b.blocked) {
        niti_tile_blocked(niti_blocked_block(b.blocked, tile.block, t.image), scratch[threadIdx.x / 32], words, tile.p, t.image);
      }
    }
  }
  niti_pass_end(a, second, max);
}

extern "C" void niti_cuda_maxpool_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const uint8_t *winner,
                                           const NitiTensor *mask, const NitiPool *p, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const bool apart = niti_pool_apart(p), cells_2x2 = is_2x2(p) && p->h == 2 * p->oh && p->w == 2 * p->ow;
  const bool wide =
      niti_words_fit((size_t)p->c, dx->data, dy->data, winner) && niti_words_fit(0, mask ? mask->data : NULL, NULL, NULL);
  const int V = wide ? 4 : 1;
  const NitiShape cells = {p->n, p->h, p->w, p->c}, deltas = {p->n, p->oh, p->ow, p->c};
  const NitiMaxpoolBackward args = {dx->data,
                                    niti_blocked_of(dx, V),
                                    dy->data,
                                    mask ? mask->data : NULL,
                                    winner,
                                    dx->exponent,
                                    dy->exponent,
                                    *p,
                                    niti_tiles_of(cells_2x2 ? deltas : cells, V, IMAGES)};
  assert(!mask || apart);
  if (apart) {
    void (*maxpool_backward)(NitiMaxpoolBackward) = cells_2x2 ? (V == 4 ? backward_2x2_kernel<4> : backward_2x2_kernel<1>)
                                                              : (V == 4 ? backward_apart_kernel<4> : backward_apart_kernel<1>);
    NITI_LAUNCH(cuda, maxpool_backward, niti_tiles_grid(args.tiles), NITI_TILE_THREADS, 0, args);
  } else {
    const NitiRequantiseArgs requantise = niti_requantise_args(cuda, rq, dx->exponent, dy->exponent, NULL, 0, false);
    if (!is_wide(p, dx->data, dy->data, winner) || !niti_maxpool_wide(cuda, args, requantise)) {
      void (*maxpool_backward)(NitiMaxpoolBackward, NitiRequantiseArgs, bool) =
          V == 4 ? backward_overlap_kernel<4> : backward_overlap_kernel<1>;
      const unsigned grid = niti_tiles_grid_requantise(cuda, args.tiles);
      NITI_LAUNCH(cuda, maxpool_backward, grid, NITI_TILE_THREADS, 0, args, requantise, false);
      niti_cuda_share_range(cuda);
      NITI_LAUNCH(cuda, maxpool_backward, grid, NITI_TILE_THREADS, 0, args, requantise, true);
    }
  }
  niti_cuda_blocked_set(cuda, dx, args.blocked != NULL);
}
