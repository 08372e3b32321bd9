/* Average pool, forward and backward: sums over windows, requantised; in one launch where these are few (meet.cuh). */
#include "backend/cuda/meet.cuh"
#include "backend/cuda/tile.cuh"
#include "base/pool.h"
#include "base/window.h"

enum {
  IMAGES = 4,
  SHARED_CELLS = 16,      /* of a window, from which a block's threads may share it, as a global pool has few outputs */
  HELD = 4,               /* output positions that a block holds until it knows the range, and then shares its threads */
  MEETING_THREADS = 1024, /* of a block that holds a tile per warp instead */
};

typedef struct Avgpool {
  int8_t *out;
  const int8_t *in;
  int32_t factor; /* 1 where the cells are a power of two */
  NitiPool p;
  NitiTiles tiles; /* of the output */
} Avgpool;

/* Times the factor; returns the largest |acc|, at least max. */
template <int V>
static __device__ inline uint32_t scale(const Avgpool &d, int acc[V], uint32_t max) {
#pragma unroll
  for (int k = 0; k < V; ++k) {
    acc[k] *= d.factor;
    max = niti_magnitude(acc[k]) > max ? niti_magnitude(acc[k]) : max;
  }
  return max;
}

/* Of a lane's images; 0 past the last. */
template <int V>
static __device__ inline uint32_t scale_all(const Avgpool &d, int acc[IMAGES][V], uint32_t max) {
#pragma unroll
  for (int i = 0; i < IMAGES; ++i) max = scale<V>(d, acc[i], max);
  return max;
}

template <int V>
static __device__ inline void store(const Avgpool &d, const NitiTile &tile, const NitiRequantiseArgs &a, const int acc[IMAGES][V],
                                    int shift) {
#pragma unroll
  for (int i = 0; i < IMAGES; ++i) {
    const size_t at = tile.at + (size_t)i * d.tiles.image;
    if (i < tile.images) niti_word_store<V>(d.out + at, niti_word_requantise<V>(a, acc[i], shift, at));
  }
}

/* acc += one cell of up to IMAGES images, `image` elements apart. */
template <int V>
static __device__ inline void add_cell(int acc[IMAGES][V], const int8_t *__restrict__ cell, size_t image, int images) {
#pragma unroll
  for (int i = 0; i < IMAGES; ++i) {
    if (i < images) niti_word_add<V>(acc[i], niti_word_load<V>(cell + (size_t)i * image));
  }
}

/* A lane's sums. */
template <int V>
static __device__ inline void sum_forward(int acc[IMAGES][V], const Avgpool &d, const NitiTile &tile) {
  const NitiPool &p = d.p;
  const size_t C = (size_t)p.c, W = (size_t)p.w, image = (size_t)p.h * W * C;
  const uint32_t pixel = tile.p / (uint32_t)p.c, c = tile.p - pixel * (uint32_t)p.c;
  const uint32_t oh = pixel / (uint32_t)p.ow, ow = pixel - oh * (uint32_t)p.ow;
  const int top = (int)oh * p.stride_h - p.pad_h, left = (int)ow * p.stride_w - p.pad_w;
  const int first_h = max(top, 0), end_h = min(top + p.kh, p.h), first_w = max(left, 0), end_w = min(left + p.kw, p.w);
  const int8_t *x = d.in + tile.n * image + c;
  for (int h = first_h; h < end_h; ++h) {
    const int8_t *row = x + (size_t)h * W * C;
#pragma unroll 4
    for (int w = first_w; w < end_w; ++w) add_cell<V>(acc, row + (size_t)w * C, image, tile.images);
  }
}

template <int V>
static __device__ inline void sum_backward(int acc[IMAGES][V], const Avgpool &d, const NitiTile &tile) {
  const NitiPool &p = d.p;
  const size_t C = (size_t)p.c, image = (size_t)p.oh * (size_t)p.ow * C;
  const uint32_t pixel = tile.p / (uint32_t)p.c, c = tile.p - pixel * (uint32_t)p.c;
  const int h = (int)(pixel / (uint32_t)p.w), w = (int)pixel - h * p.w;
  const NitiWindows in_h = niti_windows(h + p.pad_h, p.kh, p.stride_h, p.oh),
                    in_w = niti_windows(w + p.pad_w, p.kw, p.stride_w, p.ow);
  const int8_t *dy = d.in + tile.n * image + c;
  for (int oh = in_h.first; oh <= in_h.last; ++oh) {
    for (int ow = in_w.first; ow <= in_w.last; ++ow) {
      add_cell<V>(acc, dy + ((size_t)oh * (size_t)p.ow + (size_t)ow) * C, image, tile.images);
    }
  }
}

template <int V, bool BACKWARD>
static __device__ inline void sum(int acc[IMAGES][V], const Avgpool &d, const NitiTile &tile) {
  if (BACKWARD)
    sum_backward<V>(acc, d, tile);
  else
    sum_forward<V>(acc, d, tile);
}

template <int V, bool BACKWARD>
static __global__ void __launch_bounds__(NITI_TILE_THREADS) tiles_kernel(Avgpool d, NitiRequantiseArgs a, bool second) {
  niti_kernel_begin();
  uint32_t most = 0;
  int shift;
  if (niti_range_begin(a, second, &shift)) {
    for (uint32_t item = niti_tile_first(); item < d.tiles.items; item += niti_tile_step()) {
      const NitiTile tile = niti_tile_at<V, IMAGES>(d.tiles, item);
      int acc[IMAGES][V] = {};
      sum<V, BACKWARD>(acc, d, tile);
      most = scale_all<V>(d, acc, most);
      store<V>(d, tile, a, acc, shift);
    }
  }
  niti_pass_end(a, second, most);
}

/* One launch: a tile per warp, whose sums stay in registers. */
template <int V, bool BACKWARD>
static __global__ void __launch_bounds__(MEETING_THREADS, 1) meeting_kernel(Avgpool d, NitiRequantiseArgs a) {
  niti_kernel_begin();
  const uint32_t turn = a.range->turn;
  NitiTile tile = niti_tile_at<V, IMAGES>(d.tiles, blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
  if (tile.images < 0) tile.images = 0; /* past the last block of images */
  int acc[IMAGES][V] = {};
  if (tile.images > 0) sum<V, BACKWARD>(acc, d, tile);
  const uint32_t most = scale_all<V>(d, acc, 0);
  const int shift = niti_meet(a, turn, most);
  store<V>(d, tile, a, acc, shift);
  if (blockIdx.x == 0 && threadIdx.x == 0) niti_meeting_end(a, turn, shift);
}

/* How a block's threads share an output position: each has a word of four channels, and every parts-th cell of the window. Where
 * there are several parts, the block has all words at once. */
typedef struct Share {
  uint32_t words, width, parts, part, column;
} Share;

static __device__ inline Share share_of(int32_t channels) {
  Share s;
  s.words = (uint32_t)channels / 4;
  s.width = min(s.words, (uint32_t)NITI_TILE_THREADS);
  s.parts = NITI_TILE_THREADS / s.width;
  s.part = threadIdx.x / s.width;
  s.column = threadIdx.x - s.part * s.width;
  return s;
}

/* The thread's cells of output position `item`; none where it is one thread too many. */
static __device__ inline void add_cells(int acc[4], const Avgpool &d, const Share &s, uint32_t item, uint32_t word) {
  const NitiPool &p = d.p;
  const uint32_t row = item / (uint32_t)p.ow, n = row / (uint32_t)p.oh;
  const int top = (int)(row - n * (uint32_t)p.oh) * p.stride_h - p.pad_h;
  const int left = (int)(item - row * (uint32_t)p.ow) * p.stride_w - p.pad_w;
  const int first_h = max(top, 0), end_h = min(top + p.kh, p.h), first_w = max(left, 0), end_w = min(left + p.kw, p.w);
  const int across = max(end_w - first_w, 0), cells = max(end_h - first_h, 0) * across;
  const int8_t *from = d.in + ((((int64_t)n * p.h + first_h) * p.w + first_w) * p.c + 4 * word);
#pragma unroll 8
  for (int cell = s.part < s.parts ? (int)s.part : cells; cell < cells; cell += (int)s.parts) {
    const int h = cell / across;
    niti_word_add<4>(acc, niti_word_load<4>(from + ((int64_t)h * p.w + (cell - h * across)) * p.c));
  }
}

/* Adds what the other parts have; part 0 gets the sum. */
static __device__ inline void add_parts(int acc[4], int4 *sums, const Share &s) {
  __syncthreads(); /* those of the position before have been read */
  sums[threadIdx.x] = make_int4(acc[0], acc[1], acc[2], acc[3]);
  __syncthreads();
  for (uint32_t k = 1; k < s.parts && s.part == 0; ++k) {
    const int4 other = sums[k * s.width + s.column];
    acc[0] += other.x, acc[1] += other.y, acc[2] += other.z, acc[3] += other.w;
  }
}

/* An output position of an image per block and turn. */
static __global__ void __launch_bounds__(NITI_TILE_THREADS) shared_kernel(Avgpool d, NitiRequantiseArgs a, bool second) {
  niti_kernel_begin();
  __shared__ int4 sums[NITI_TILE_THREADS];
  const Share s = share_of(d.p.c);
  const uint32_t items = (uint32_t)d.p.n * (uint32_t)d.p.oh * (uint32_t)d.p.ow;
  uint32_t most = 0;
  int shift;
  if (niti_range_begin(a, second, &shift)) {
    for (uint32_t item = blockIdx.x; item < items; item += gridDim.x) {
      for (uint32_t word = s.column; word < s.words; word += s.width) {
        const size_t at = (size_t)item * (size_t)d.p.c + 4 * word;
        int acc[4] = {0, 0, 0, 0};
        add_cells(acc, d, s, item, word);
        if (s.parts > 1) add_parts(acc, sums, s);
        if (s.part > 0) continue;
        most = scale<4>(d, acc, most);
        niti_word_store<4>(d.out + at, niti_word_requantise<4>(a, acc, shift, at));
      }
    }
  }
  niti_pass_end(a, second, most);
}

/* The same in one launch, of up to HELD positions a block and no more words than threads. */
static __global__ void __launch_bounds__(NITI_TILE_THREADS) shared_meeting_kernel(Avgpool d, NitiRequantiseArgs a) {
  niti_kernel_begin();
  __shared__ int4 sums[NITI_TILE_THREADS], held[HELD][NITI_TILE_THREADS]; /* held: each thread's own */
  const Share s = share_of(d.p.c);
  const uint32_t items = (uint32_t)d.p.n * (uint32_t)d.p.oh * (uint32_t)d.p.ow, turn = a.range->turn;
  uint32_t most = 0;
#pragma unroll 1
  for (uint32_t u = 0, item = blockIdx.x; item < items; ++u, item += gridDim.x) {
    int acc[4] = {0, 0, 0, 0};
    add_cells(acc, d, s, item, s.column);
    if (s.parts > 1) add_parts(acc, sums, s);
    if (s.part > 0) continue;
    most = scale<4>(d, acc, most);
    held[u][threadIdx.x] = make_int4(acc[0], acc[1], acc[2], acc[3]);
  }
  const int shift = niti_meet(a, turn, most);
#pragma unroll 1
  for (uint32_t u = 0, item = blockIdx.x; item < items && s.part == 0; ++u, item += gridDim.x) {
    const size_t at = (size_t)item * (size_t)d.p.c + 4 * s.column;
    const int4 four = held[u][threadIdx.x];
    const int acc[4] = {four.x, four.y, four.z, four.w};
    niti_word_store<4>(d.out + at, niti_word_requantise<4>(a, acc, shift, at));
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) niti_meeting_end(a, turn, shift);
}

/* Whether there are fewer tiles than warps for them, and windows that give them all work. */
static bool is_shared(const NitiCuda *cuda, const NitiPool *p, const NitiTiles &tiles) {
  return p->kh * p->kw >= SHARED_CELLS && tiles.items < (uint32_t)cuda->multiprocessors * NITI_TILE_WARPS;
}

/* In one launch; false: these are too many, and nothing is done. */
template <bool BACKWARD>
static bool run_meeting(NitiCuda *cuda, const Avgpool &d, const NitiRequantiseArgs &a, int V, bool shared) {
  const unsigned most = niti_meeting_most(cuda);
  if (shared) {
    const unsigned all = (unsigned)d.p.n * (unsigned)d.p.oh * (unsigned)d.p.ow, blocks = (all + HELD - 1) / HELD;
    if (blocks > most || d.p.c > 4 * NITI_TILE_THREADS) return false;
    NITI_LAUNCH(cuda, shared_meeting_kernel, all < most ? all : most, NITI_TILE_THREADS, 0, d, a);
    return true;
  }
  unsigned threads = 128; /* the fewest with which all tiles meet */
  while (threads <= MEETING_THREADS && (d.tiles.items + threads / 32 - 1) / (threads / 32) > most) threads *= 2;
  if (threads > MEETING_THREADS) return false;
  void (*avgpool)(Avgpool, NitiRequantiseArgs) = V == 4 ? meeting_kernel<4, BACKWARD> : meeting_kernel<1, BACKWARD>;
  NITI_LAUNCH(cuda, avgpool, (d.tiles.items + threads / 32 - 1) / (threads / 32), threads, 0, d, a);
  return true;
}

template <bool BACKWARD>
static void run_twice(NitiCuda *cuda, const Avgpool &d, const NitiRequantiseArgs &a, int V, bool shared) {
  const unsigned all = (unsigned)d.p.n * (unsigned)d.p.oh * (unsigned)d.p.ow,
                 most = (unsigned)cuda->multiprocessors * NITI_TILE_BLOCKS;
  void (*avgpool)(Avgpool, NitiRequantiseArgs, bool) = shared   ? shared_kernel
                                                       : V == 4 ? tiles_kernel<4, BACKWARD>
                                                                : tiles_kernel<1, BACKWARD>;
  const unsigned grid = !shared ? niti_tiles_grid_requantise(cuda, d.tiles) : all < most ? all : most;
  NITI_LAUNCH(cuda, avgpool, grid, NITI_TILE_THREADS, 0, d, a, false);
  niti_cuda_share_range(cuda);
  NITI_LAUNCH(cuda, avgpool, grid, NITI_TILE_THREADS, 0, d, a, true);
}

template <bool BACKWARD>
static void run(NitiBackend *backend, NitiTensor *out, const NitiTensor *in, NitiShape shape, const NitiPool *p,
                const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const int V = niti_words_fit((size_t)p->c, out->data, in->data, NULL) ? 4 : 1;
  const NitiReciprocal reciprocal = niti_reciprocal(p->kh * p->kw);
  const Avgpool args = {out->data, in->data, reciprocal.factor, *p, niti_tiles_of(shape, V, IMAGES)};
  const NitiRequantiseArgs requantise =
      niti_requantise_args(cuda, rq, out->exponent, in->exponent, NULL, reciprocal.exponent, false);
  const bool shared = !BACKWARD && V == 4 && is_shared(cuda, p, args.tiles);
  if (!run_meeting<BACKWARD>(cuda, args, requantise, V, shared)) run_twice<BACKWARD>(cuda, args, requantise, V, shared);
  niti_cuda_blocked_set(cuda, out, false);
}

extern "C" void niti_cuda_avgpool_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiPool *p,
                                          const NitiRequantise *rq) {
  run<false>(backend, y, x, NitiShape{p->n, p->oh, p->ow, p->c}, p, rq);
}

extern "C" void niti_cuda_avgpool_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiPool *p,
                                           const NitiRequantise *rq) {
  run<true>(backend, dx, dy, NitiShape{p->n, p->h, p->w, p->c}, p, rq);
}
